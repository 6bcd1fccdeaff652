package plistmsg

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

func sample() map[string]any {
	return map[string]any{
		"text": "größer <&> 📱", "empty": "", "number": uint64(1 << 63), "negative": int64(-13), "real": 2.1,
		"yes": true, "no": false, "data": []byte{0, 1, 255}, "date": time.Date(2025, 1, 2, 3, 4, 5, 0, time.UTC),
		"list": []any{"a", uint64(0), []any{}, map[string]any{}},
	}
}

func TestRoundTrip(t *testing.T) {
	for name, encode := range map[string]func(any) ([]byte, error){"XML": Encode, "binary": EncodeBinary} {
		t.Run(name, func(t *testing.T) {
			b, err := encode(sample())
			if err != nil {
				t.Fatal(err)
			}
			got, err := Decode(b)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, any(sample())) {
				t.Errorf("got %#v", got)
			}
		})
	}
}

func TestFraming(t *testing.T) {
	var wire bytes.Buffer
	for _, v := range []map[string]any{{"a": "1"}, sample()} {
		if err := Write(&wire, v); err != nil {
			t.Fatal(err)
		}
	}
	r := iotest.OneByteReader(bytes.NewReader(wire.Bytes()))
	for range 2 {
		if _, err := ReadDict(r, Limit); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := ReadDict(r, Limit); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
	if _, err := Read(bytes.NewReader(wire.Bytes()), 16); !errors.Is(err, ErrLength) {
		t.Errorf("too long: %v", err)
	}
	if _, err := Read(bytes.NewReader(make([]byte, 8)), 16); !errors.Is(err, ErrLength) {
		t.Errorf("empty: %v", err)
	}
	if _, err := Read(bytes.NewReader(wire.Bytes()[:20]), Limit); err != io.ErrUnexpectedEOF {
		t.Errorf("cut off: %v", err)
	}
}

// A length alone makes nothing be allocated.
func TestLengthAlone(t *testing.T) {
	head := binary.BigEndian.AppendUint32(nil, 16<<20)
	const rounds = 100
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range rounds {
		if _, err := Read(bytes.NewReader(head), Limit); err == nil {
			t.Fatal("no error")
		}
	}
	runtime.ReadMemStats(&after)
	if n := (after.TotalAlloc - before.TotalAlloc) / rounds; n > 2*step {
		t.Errorf("%d bytes were allocated", n)
	}
}

func TestRefused(t *testing.T) {
	shared := []any{"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}
	const top = `<plist version="1.0">`
	for name, in := range map[string]string{
		"nothing":           "",
		"no list":           "hello",
		"another root":      "<a><dict/></a>",
		"empty":             top + "</plist>",
		"cut off":           top + "<dict><key>a</key>",
		"value without key": top + "<dict><true/></dict></plist>",
		"key without value": top + "<dict><key>a</key></dict></plist>",
		"two values":        top + "<true/><true/></plist>",
		"unknown element":   top + "<hello/></plist>",
		"text":              top + "<dict>a</dict></plist>",
		"number":            top + "<integer>x</integer></plist>",
		"data":              top + "<data>!</data></plist>",
		"deep":              top + strings.Repeat("<array>", 1000),
		"declarations":      `<!DOCTYPE plist [<!ENTITY a "b">]>` + top + "<true/></plist>",
		"binary, cut off":   "bplist00",
	} {
		t.Run(name, func(t *testing.T) {
			if v, err := Decode([]byte(in)); !errors.Is(err, ErrFormat) {
				t.Errorf("%v %v", v, err)
			}
		})
	}
	// 2^20 times one text, by reference.
	bomb := nested(20)
	if _, err := Decode(bomb); !errors.Is(err, ErrFormat) {
		t.Errorf("bomb: %v", err)
	}
	if _, err := DecodeDict(must(Encode(shared))); !errors.Is(err, ErrFormat) {
		t.Errorf("array for dictionary: %v", err)
	}
}

// nested is a binary list of n arrays, each of which holds the next one twice.
func nested(n int) []byte {
	b := []byte("bplist00")
	var offsets []byte
	for i := range n {
		offsets = append(offsets, byte(len(b)))
		b = append(b, 0xa2, byte(i+1), byte(i+1))
	}
	offsets = append(offsets, byte(len(b)))
	b = append(b, 0x51, 'x')
	trailer := make([]byte, 32)
	trailer[6], trailer[7] = 1, 1
	trailer[15] = byte(n + 1)
	binary.BigEndian.PutUint64(trailer[24:], uint64(len(b)))
	return append(append(b, offsets...), trailer...)
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

func FuzzDecode(f *testing.F) {
	f.Add(must(Encode(sample())))
	f.Add(must(EncodeBinary(sample())))
	f.Add(nested(5))
	f.Add([]byte(`<plist><dict><key>Request</key><string>QueryType</string></dict></plist>`))
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := Decode(data)
		if err != nil {
			return
		}
		if _, err := EncodeBinary(v); err != nil {
			t.Errorf("%#v came in and cannot be written: %v", v, err)
		}
	})
}
