package plist

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestBothForms(t *testing.T) {
	want := map[string]any{
		"text": "Ünïcode \U0001F4F1", "empty": "", "yes": true, "no": false,
		"small": int64(7), "negative": int64(-13), "big": uint64(1<<63 + 5),
		"real": 2.1, "data": []byte{0, 1, 255}, "when": time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC),
		"list": []any{"a", int64(1), []any{}, map[string]any{}},
	}
	for name, enc := range map[string]func(any) ([]byte, error){"binary": EncodeBinary, "XML": EncodeXML} {
		b, err := enc(want)
		if err != nil {
			t.Fatal(name, err)
		}
		got, err := Decode(b)
		if err != nil {
			t.Fatal(name, err)
		}
		if !reflect.DeepEqual(got, any(want)) {
			t.Errorf("%s: got %#v", name, got)
		}
	}
}

// A peer may end a message with a newline, a NUL or other padding.
func TestTailOfXML(t *testing.T) {
	for _, tail := range []string{"", "\n", "\x00", "\n\x00\x00", "x", "<"} {
		v, err := Decode([]byte("<plist><string>a</string></plist>" + tail))
		if err != nil || v != "a" {
			t.Errorf("with %q after it: %v, error %v", tail, v, err)
		}
	}
}

func TestInvalid(t *testing.T) {
	for name, in := range map[string]string{
		"empty":            "",
		"text":             "hello",
		"OpenStep":         `{ a = b; }`,
		"cut XML":          `<plist version="1.0"><dict><key>a</key>`,
		"deep XML":         "<plist>" + strings.Repeat("<array>", 1<<20),
		"tags in comments": "<plist><!--" + strings.Repeat("</>", 1<<20) + "-->" + strings.Repeat("<array>", 1<<20),
		"tags in text":     "<plist><![CDATA[" + strings.Repeat("</>", 1<<20) + "]]>" + strings.Repeat("<array>", 1<<20),
		"tags in quotes":   "<plist>" + strings.Repeat(`<array x="/>">`, 1<<20),
		"outer in quotes":  strings.Repeat(`<plist x="/>">`, 1<<20),
		"closed twice":     "<plist></plist></plist>",
		"many containers":  objects("\xaf\x11\x10\x00"+strings.Repeat("\x01", 1<<12), "\xd0"),
		"two values":       `<plist><array/><array/></plist>`,
		"no value":         `<plist></plist>`,
		"bad integer":      `<plist><integer>1_000</integer></plist>`,
		"bad date":         `<plist><date>yesterday</date></plist>`,
		"not a number":     `<plist><real>nan</real></plist>`,
		"entities":         `<!DOCTYPE plist [<!ENTITY a "b">]><plist><string>&a;</string></plist>`,
		"deep binary":      nested(maxDepth + 2),
		"expanding":        expanding(30),
		"circle":           "bplist00\xa1\x00\x08" + strings.Repeat("\x00", 6) + "\x01\x01" + "\x00\x00\x00\x00\x00\x00\x00\x01" + "\x00\x00\x00\x00\x00\x00\x00\x00" + "\x00\x00\x00\x00\x00\x00\x00\x0a",
		"only a name":      "bplist00",
	} {
		if v, err := Decode([]byte(in)); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v, error %v", name, v, err)
		}
	}
}

// objects returns a binary property list of these objects; the first one is
// the root.
func objects(objs ...string) string {
	var b bytes.Buffer
	b.WriteString("bplist00")
	var offsets []int
	for _, o := range objs {
		offsets = append(offsets, b.Len())
		b.WriteString(o)
	}
	table := b.Len()
	for _, o := range offsets {
		b.Write([]byte{byte(o >> 8), byte(o)})
	}
	b.Write([]byte{0, 0, 0, 0, 0, 0, 2, 1})
	for _, n := range []int{len(objs), 0, table} {
		b.Write([]byte{0, 0, 0, 0, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
	}
	return b.String()
}

// nested returns a list with n+1 levels of arrays.
func nested(n int) string {
	var objs []string
	for i := range n {
		objs = append(objs, "\xa1"+string([]byte{byte(i + 1)}))
	}
	return objects(append(objs, "\xa0")...)
}

// expanding returns a list with n levels of arrays, each of which refers twice
// to the next one.
func expanding(n int) string {
	var objs []string
	for i := range n {
		objs = append(objs, "\xa2"+strings.Repeat(string([]byte{byte(i + 1)}), 2))
	}
	return objects(append(objs, "\xa0")...)
}

func TestSharedText(t *testing.T) {
	long := strings.Repeat("x", 200)
	in := objects("\xae"+strings.Repeat("\x01", 14), "\x5f\x11\x00\xc8"+long)
	v, err := Decode([]byte(in))
	if err != nil || len(v.([]any)) != 14 || v.([]any)[13] != long {
		t.Fatal(v, err)
	}
}

// TestXMLNumbers reads numbers as other implementations write them.
func TestXMLNumbers(t *testing.T) {
	for in, want := range map[string]any{
		"<integer>010</integer>": int64(10), "<integer>+7</integer>": int64(7), "<integer> -0x1F\n</integer>": int64(-31), "<integer>0xffffffffffffffff</integer>": uint64(1<<64 - 1),
		"<integer>-9223372036854775808</integer>": int64(-1 << 63), "<real>1e3</real>": 1000.0, "<data> AA\n E= </data>": []byte{0, 1},
		"<true></true>": true, "<array><dict/><array/></array>": []any{map[string]any{}, []any{}},
	} {
		got, err := Decode([]byte("<plist version=\"1.0\">" + in + "</plist>"))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %#v, %v", in, got, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, v := range []any{[]any{"DLMessageVersionExchange", 300, 0}, map[string]any{"ErrorCode": -13, "a": []byte("b"), "c": 1.5}} {
		x, _ := EncodeXML(v)
		b, _ := EncodeBinary(v)
		f.Add(x)
		f.Add(b)
	}
	f.Add([]byte(nested(9)))
	f.Add([]byte(expanding(9)))
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := Decode(b)
		if err != nil {
			return
		}
		enc, err := EncodeBinary(v)
		if err != nil {
			t.Fatalf("the decoded value cannot be encoded: %v", err)
		}
		if _, err := Decode(enc); err != nil && len(enc) > 64 {
			t.Fatalf("the encoded value cannot be decoded: %v", err)
		}
	})
}
