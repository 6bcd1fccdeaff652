package plist

import (
	"reflect"
	"strings"
	"testing"
	"time"

	howett "howett.net/plist"

	"github.com/snap-backup/snap/device/protocol/bplist"
)

var someValues = map[string]any{
	"Version": "10.0", "Grüße": "ä€😀", "Number": -5, "Big": uint64(1 << 40), "Yes": true, "No": false, "Real": 1.5,
	"Date": time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC), "Data": []byte{0, 1, 2, 255}, "Empty": "",
	"Lockdown": map[string]any{"ProductType": "iPhone <&> 'x\"", "Deeper": map[string]any{"Version": "wrong"}},
	"List":     []any{"a", map[string]any{"Version": "wrong"}},
}

// TestSelect reads a binary and an XML property list that an independent
// encoder wrote.
func TestSelect(t *testing.T) {
	want := Values{
		"Version": "10.0", "Number": int64(-5), "Big": int64(1 << 40), "Yes": true, "No": false, "Real": 1.5,
		"Date": someValues["Date"], "Data": []byte{0, 1, 2, 255}, "Empty": "", "Lockdown/ProductType": "iPhone <&> 'x\"",
	}
	wanted := []string{"Missing", "List", "Lockdown", "Lockdown/None", "Version/x", "List/Version"}
	for key := range want {
		wanted = append(wanted, key)
	}
	for name, format := range map[string]int{"binary": howett.BinaryFormat, "xml": howett.XMLFormat} {
		data, err := howett.MarshalIndent(someValues, format, "\t")
		if err != nil {
			t.Fatal(err)
		}
		got, err := Select(data, wanted...)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
		for cut := range len(data) - 1 {
			if _, err := Select(data[:cut], wanted...); err == nil && name == "binary" {
				t.Errorf("%s: accepted when cut to %d of %d bytes", name, cut, len(data))
			}
		}
	}
}

func TestSelectXML(t *testing.T) {
	good := map[string]string{
		"<plist><dict><key>a</key><string>x</string></dict></plist>":                                                                      "x",
		"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- c --><plist version=\"1.0\">\n<dict><key>a</key>\n<string>x</string></dict>\n</plist>\n": "x",
		"<plist><dict><key>a</key><string>1<!-- 2 -->3<![CDATA[<4>&amp;]]>&#53;&#x36;</string></dict></plist>":                            "13<4>&amp;56",
		"<plist><dict><key>a</key><string/></dict></plist>":                                                                               "",
		"<plist><dict><key>a</key><string>1</string><key>a</key><string>2</string></dict></plist>":                                        "1",
		"<plist><dict><key>b</key><array><dict/><array></array><true/></array><key>a</key><string>x</string></dict></plist>":              "x",
		"<plist><dict><key>&#97;</key><string>x</string></dict></plist>":                                                                  "x",
	}
	for in, want := range good {
		if got, err := Select([]byte(in), "a"); err != nil || got["a"] != want {
			t.Errorf("%s: got %q, %v, want %q", in, got["a"], err, want)
		}
	}
	deep := strings.Repeat("<array>", 1<<20)
	bad := []string{
		"", " ", "x", "<", "<plist>", "<plist/>", "<plist></plist>", "<plist><array></array></plist>", "<dict></dict>",
		"<plist><dict></dict>", "<plist><dict></plist>", "<plist><dict></array></plist>", "<plist><dict></dict><dict></dict></plist>",
		"<plist><dict><key>a</key></dict></plist>", "<plist><dict><string>x</string></dict></plist>", "<plist><dict><key>a</key><key>b</key><true/></dict></plist>",
		"<plist><dict><key>a</key><what/></dict></plist>", "<plist><dict>text</dict></plist>", "<plist><dict/></plist>x",
		"<plist><dict><key>a</key><string>&bomb;</string></dict></plist>", "<plist><dict><key>a</key><string>&#0;</string></dict></plist>",
		"<plist><dict><key>a</key><string>\xff</string></dict></plist>", "<plist><dict><key>a</key><string><true/></string></dict></plist>",
		"<!DOCTYPE plist [<!ENTITY a 'x'>]><plist><dict/></plist>", "<plist><dict/></plist><plist><dict/></plist>", "<plist><plist><dict/></plist></plist>",
		"<plist><dict><key>a</key>" + deep, "<plist><dict><key>a</key><string>" + strings.Repeat("x", 100), "<" + strings.Repeat("a", 1<<20),
	}
	for _, in := range bad {
		if got, err := Select([]byte(in), "a"); err == nil {
			t.Errorf("%.80s: accepted as %v", in, got)
		}
	}
}

func TestSelectHostileBinary(t *testing.T) {
	// A dictionary that contains itself, and arrays that would expand to 2^40
	// values.
	self := objects("\xd1\x01\x00", "\x51a")
	if v, err := Select([]byte(self), "a", "a/a", "a/b"); err != nil || len(v) != 0 {
		t.Errorf("got %v, %v", v, err)
	}
	bomb := []byte("bplist00")
	var offsets []byte
	for i := range 40 {
		offsets = append(offsets, byte(len(bomb)))
		bomb = append(bomb, 0xa2, byte(i+1), byte(i+1))
	}
	offsets = append(offsets, byte(len(bomb)))
	bomb = append(bomb, 0x08)
	table := byte(len(bomb))
	bomb = append(bomb, offsets...)
	bomb = append(bomb, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 41, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, table)
	doc, err := bplist.Parse(bomb)
	if err != nil || doc.Validate() != nil {
		t.Fatal(err)
	}
	if _, err := Select(bomb, "a"); err == nil {
		t.Error("an array was accepted as a dictionary")
	}
}

func FuzzSelect(f *testing.F) {
	for _, format := range []int{howett.BinaryFormat, howett.XMLFormat} {
		data, err := howett.Marshal(someValues, format)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(objects("\xd1\x01\x02", "\x58Lockdown", "\xd1\x03\x04", "\x51a", "\x10\x0a")))
	f.Add([]byte("<plist><dict><key>Date</key><date>2024-01-01T00:00:00Z</date></dict></plist>"))
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := Select(data, "Version", "Date", "Lockdown/a")
		if err != nil && v != nil {
			t.Error("Select returned values and an error")
		}
		for key := range v {
			v.Text(key)
			v.Bool(key)
			v.Data(key)
			v.Time(key)
		}
	})
}

func BenchmarkSelectXML(b *testing.B) {
	icon := strings.Repeat("iVBORw0KGgoAAAANSUhEUgAAADAAAAAwCAYAAABXAvmHAAAAAXNSR0IArs4c6QAA\n", 150)
	data := []byte("<plist><dict>" + strings.Repeat("<key>icon</key><dict><key>PlaceholderIcon</key><data>"+icon+"</data></dict>", 1000) +
		"<key>Product Type</key><string>iPhone</string></dict></plist>")
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if v, err := Select(data, "Device Name", "Product Type"); err != nil || v.Text("Product Type") != "iPhone" {
			b.Fatal(v, err)
		}
	}
}
