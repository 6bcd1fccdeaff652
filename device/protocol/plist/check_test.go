package plist

import (
	"bytes"
	"errors"
	"testing"

	howett "howett.net/plist"
)

func TestCheck(t *testing.T) {
	t.Parallel()
	archive, err := howett.Marshal(map[string]any{"$top": map[string]any{"root": howett.UID(1)}, "$objects": []any{"$null", "x"}}, howett.BinaryFormat)
	if err != nil {
		t.Fatal(err)
	}
	noise := bytes.Clone(archive)
	copy(noise[8:], "zzzzzzzzzzzz")
	xml := func(value string) []byte {
		return []byte("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n<plist version=\"1.0\">" + value + "</plist>\n")
	}
	tests := []struct {
		name         string
		b            []byte
		looks, valid bool
	}{
		{"keyed archive", archive, true, true},
		{"cut off", archive[:len(archive)-3], true, false},
		{"objects of noise", noise, true, false},
		{"XML", xml("<dict><key>a</key><integer>5</integer></dict>"), true, true},
		{"XML, bare", []byte("<plist><true/></plist>"), true, true},
		{"XML, cut off", xml("<dict><key>a</key>")[:180], true, false},
		{"XML, odd integer", xml("<integer>5x</integer>"), true, false},
		{"XML, odd key", xml("<dict><key>&bad;</key><true/></dict>"), true, false},
		{"XML of another kind", []byte("<?xml version=\"1.0\"?><svg/>"), false, false},
		{"text", []byte("{ a = b; }"), false, false},
		{"nothing", nil, false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := Looks(tt.b); got != tt.looks {
				t.Errorf("looks like a property list: %v", got)
			}
			if err := Check(tt.b); (err == nil) != tt.valid || err != nil && !errors.Is(err, ErrFormat) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// FuzzCheck checks that Check accepts whatever Decode reads.
func FuzzCheck(f *testing.F) {
	f.Add([]byte("<plist><dict><key>a</key><date>2024-01-01T00:00:00Z</date></dict></plist>"))
	f.Add([]byte(expanding(9)))
	f.Fuzz(func(t *testing.T, b []byte) {
		checked := Check(b)
		if _, err := Decode(b); err == nil && checked != nil {
			t.Errorf("%q is refused: %v", b, checked)
		}
	})
}

func TestCheckOtherForms(t *testing.T) {
	t.Parallel()
	const end = "<plist><string>M\xfcller</string></plist>"
	for _, tt := range []struct {
		text string
		form bool
	}{
		{`<?xml version="1.0" encoding="ISO-8859-1"?>` + end, true},
		{"\xef\xbb\xbf <?xml version='1.0' encoding = 'macintosh'?>" + end, true},
		{`<!DOCTYPE plist [ <!ENTITY a "b"> ]>` + end, true},
		{`<?xml version="1.0" encoding="utf-8"?>` + end, false},
		{`<?xml version="1.0" encoding="?>` + end, false},
		{end, false},
	} {
		if err := Check([]byte(tt.text)); err == nil || errors.Is(err, ErrForm) != tt.form {
			t.Errorf("%q: %v", tt.text, err)
		}
	}
}
