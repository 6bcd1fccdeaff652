package backup2

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestScope(t *testing.T) {
	const other = "00008030-0123456789ABCDEF"
	const (
		read = 1 << iota
		write
		target
		all  = read | write | target
		none = 0
	)
	tests := []struct {
		path     string
		want     int // operations allowed in a backup
		restored int // operations allowed in a restore
	}{
		{udid, all, read},
		{udid + "/Status.plist", all, read},
		{udid + "/Snapshot/ab/" + sha1A, all, read},
		{udid + "/Gäste … .txt", all, read},
		{udid + "/..x/x..", all, read},
		{udid + "/" + strings.Repeat("a", 4096-len(udid)-1), all, read},
		{udid + "/" + strings.Repeat("a", 4096-len(udid)), none, none},
		{"", none, none},
		{"/", none, none},
		{"/etc/passwd", none, none},
		{"/" + udid + "/x", none, none},
		{udid + "/", none, none},
		{udid + "//x", none, none},
		{udid + "/./x", none, none},
		{udid + "/../x", none, none},
		{udid + "/..", none, none},
		{udid + "/ab/../../../x", none, none},
		{"..", none, none},
		{"../" + udid, none, none},
		{".", none, none},
		{udid + `\..\..\x`, none, none},
		{udid + "/a\\b", none, none},
		{`C:\x`, none, none},
		{"C:/x", none, none},
		{udid + "/a\x00b", none, none},
		{udid + "/\xff", none, none},
		{udid + "x/y", none, none},
		{udid[:len(udid)-1], none, none},
		{other + "/Status.plist", none, none},
		{strings.ToLower(udid) + "/Status.plist", none, none},
		{udid + "/status.plist", none, none},
		{udid + "/STATUS.PLIST", none, none},
		{udid + "/\u017fnapshot/ab/x", none, none}, // begins with a long s, which case folding turns into s
		{udid + "/manifest.DB", none, none},
		{udid + "/ab/status.plist", all, read},
		{udid + "-20240131-123456", target, target},
		{udid + "-20240131-123456/ab/x", target, target},
		{udid + "-20240131-123456/../x", none, none},
		{udid + "-20240131-12345", none, none},
		{udid + "-20240131-1234567", none, none},
		{udid + "-20240131x123456", none, none},
		{udid + "-2024013a-123456", none, none},
		{other + "-20240131-123456", none, none},
		{"-20240131-123456", none, none},
	}
	for _, test := range tests {
		for _, readOnly := range []bool{false, true} {
			s := newScope(readOnly, udid)
			got := 0
			for bit, check := range map[int]func(string) error{read: s.checkRead, write: s.checkWrite, target: s.checkTarget} {
				if err := check(test.path); err == nil {
					got |= bit
				} else if !errors.Is(err, errPath) {
					t.Errorf("%q: %v", test.path, err)
				}
			}
			want := test.want
			if readOnly {
				want = test.restored
			}
			if got != want {
				t.Errorf("%q, restore %v: %b, want %b", test.path, readOnly, got, want)
			}
		}
	}
}

func TestScopeArchive(t *testing.T) {
	s := newScope(true, udid, "source")
	for i := range maxArchived {
		name := "source-20240131-00000" + string(rune('0'+i))
		if s.checkWrite(name) == nil || s.checkRead(name) == nil || s.checkTarget(name) != nil || !s.addTarget(name+"/x") || s.checkWrite(name+"/y") != nil || s.checkRead(name) != nil {
			t.Error(name)
		}
	}
	if s.checkTarget("source-20240131-999999") == nil {
		t.Error("too many folders were archived")
	}
	if s.checkTarget("source-20240131-000000/again") != nil {
		t.Error("an archive cannot be written")
	}
	if s.addTarget("source/x") {
		t.Error("source is not archived")
	}
}

// FuzzPath checks that accepted paths are clean and below an identifier.
func FuzzPath(f *testing.F) {
	for _, path := range []string{
		udid, udid + "/Status.plist", udid + "/../x", udid + "-20240131-123456/x", "/etc", "", udid + "/a\x00", udid + "//", udid + "/\u017fnapshot",
	} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		s := newScope(false, udid)
		if s.checkTarget(path) != nil {
			if s.checkRead(path) == nil || s.checkWrite(path) == nil {
				t.Errorf("%q can be read or written, but is not a valid target", path)
			}
			return
		}
		if !utf8.ValidString(path) || strings.ContainsAny(path, "\\\x00") || strings.HasPrefix(path, "/") || len(path) > 4096 {
			t.Errorf("%q was accepted", path)
		}
		first, rest, deep := strings.Cut(path, "/")
		if first != udid && (len(first) != len(udid)+16 || !strings.HasPrefix(first, udid+"-")) {
			t.Errorf("%q was accepted", path)
		}
		for e := range strings.SplitSeq(rest, "/") {
			if deep && (e == "" || e == "." || e == "..") {
				t.Errorf("%q was accepted", path)
			}
		}
	})
}
