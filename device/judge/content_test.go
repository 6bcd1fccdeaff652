package judge

import (
	"bytes"
	"strings"
	"testing"

	"github.com/snap-backup/snap/device/mobilesync/manifest/manifesttest"
)

func formOf(name string, b []byte, step int) Form {
	var e Ends
	for len(b) > 0 {
		n, _ := e.Write(b[:min(step, len(b))])
		b = b[n:]
	}
	return e.Form(name)
}

func TestForm(t *testing.T) {
	t.Parallel()
	binary := manifesttest.Plist(manifesttest.Dict{{"name", "Anna"}, {"text", strings.Repeat("x", 900)}})
	turned := func(b []byte, at int) []byte { b = bytes.Clone(b); b[at] ^= 0x20; return b }
	const xml = "<?xml version=\"1.0\"?>\n<!DOCTYPE plist PUBLIC \"\" \"\">\n<plist version=\"1.0\"><dict></dict></plist>\n"
	database := append([]byte("SQLite format 3\x00\x10\x00\x01\x01\x00\x40\x20\x20"), make([]byte, 4072)...)
	database[31], database[27], database[95] = 1, 7, 7 // one page
	for _, tt := range []struct {
		name string
		b    []byte
		want Form
	}{
		{"empty.plist", nil, Other},
		{"a.plist", binary, PropertyList},
		{"a", binary, PropertyList},
		{"a", turned(binary, 0), BrokenPropertyList},
		{"a", append([]byte("zzzzzzzz"), binary[8:]...), BrokenPropertyList},
		{"a.plist", append([]byte("bplist15"), make([]byte, 100)...), Misnamed},
		{"a", append([]byte("bplist15"), make([]byte, 100)...), Other},
		{"a.plist", []byte(xml), PropertyList},
		{"a.plist", []byte("\xef\xbb\xbf" + xml), PropertyList},
		{"a.plist", []byte("?" + xml[1:]), BrokenPropertyList},
		{"a.plist", []byte("<!-- no type --><plist></plist>"), PropertyList},
		{"a.plist", []byte("<?xml version=\"1.0\"?><plist><dict>"), PropertyList}, // cut off
		{"a.html", []byte("<html></html>"), Other},
		{"a.plist", []byte("{ a = b; }"), Misnamed},
		{"a.plist", make([]byte, 40), BrokenPropertyList},
		{"a.db", make([]byte, 40), BrokenDatabase},
		{"a", make([]byte, 40), Other},
		{"a", database, Database},
		{"a", turned(database, 15), BrokenDatabase},
		{"a", append([]byte("................"), database[16:]...), BrokenDatabase},
		{"a.db", bytes.Repeat([]byte("0123456789abcdef"), 256), Other},
	} {
		for _, step := range []int{1, 500, 1 << 20} {
			if got := formOf(tt.name, tt.b, step); got != tt.want {
				t.Errorf("%s, %.20q, %d bytes at a time: %d, want %d", tt.name, tt.b, step, got, tt.want)
			}
		}
	}
}

func TestCutDatabase(t *testing.T) {
	t.Parallel()
	database := append([]byte("SQLite format 3\x00\x10\x00\x01\x01\x00\x40\x20\x20"), make([]byte, 4072)...)
	database[31], database[27], database[95] = 1, 7, 7 // one page
	broken := bytes.Clone(database)
	broken[3] = 0
	for _, tt := range []struct {
		name string
		b    []byte
		want bool
	}{
		{"a", database, false}, {"a", database[:4000], true}, {"a", append(bytes.Clone(database), 0), false}, {"a", broken, true},
		{"a.db", make([]byte, 600), true}, {"a", make([]byte, 600), false}, {"a.db", append(make([]byte, 200), "text"...), false}, {"a.db", nil, false},
	} {
		var e Ends
		_, _ = e.Write(tt.b)
		if got := e.CutDatabase(tt.name); got != tt.want {
			t.Errorf("%s, %d bytes that begin with %.20q: %v", tt.name, len(tt.b), tt.b, got)
		}
	}
}

// FuzzForm checks that the form does not depend on how bytes arrive.
func FuzzForm(f *testing.F) {
	f.Add("a.plist", []byte("bplist00"), 3)
	f.Add("a.db", []byte("SQLite format 3\x00"), 200)
	f.Fuzz(func(t *testing.T, name string, b []byte, step int) {
		if one, other := formOf(name, b, len(b)+1), formOf(name, b, 1+max(0, step)%700); one != other {
			t.Errorf("%d, then %d", one, other)
		}
	})
}
