package folder

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
)

func TestVanishing(t *testing.T) {
	w := walker{}
	var changed *ChangedError
	if _, err := w.file("aa", &Entry{Name: "x", Gone: true}); !errors.As(err, &changed) || changed.Path != "aa/x" {
		t.Error(err)
	}
}

func TestCheckPath(t *testing.T) {
	good := []string{
		"Info.plist", "aa/aa00", ".DS_Store", "._x", "_BackupExplorer/a b.txt", "Snapshot/00", "Grüße", "e\u0301", "COM", "COM10", "CONSOLE", "nul-1", "x.con",
		strings.Repeat("a", 255), strings.Repeat("a", 255) + "/b",
	}
	bad := []string{
		"", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "a/./b", "a\x00", "Icon\r", "a\nb", "a\x7f", "a\u0085", `a\b`, "C:", "a:b", "a<", "a>", `a"`, "a|", "a?", "a*",
		"a.", "a ", "a./b", "a /b", "CON", "con", "Nul.txt", "aux.tar.gz", "COM1", "lpt9.x", "COM¹", "CONIN$", "PRN ", "AUX .x", "a/NUL/b",
		"\xff", "a\xc3", strings.Repeat("a", 256), strings.Repeat("a/", 512) + "a",
	}
	for _, path := range good {
		if err := CheckPath(path); err != nil {
			t.Error(err)
		}
	}
	for _, path := range bad {
		var name *NameError
		if err := CheckPath(path); !errors.As(err, &name) || name.Path != path || name.Reason == "" {
			t.Errorf("%q: %v", path, err)
		}
	}
}

func FuzzCheckPath(f *testing.F) {
	for _, s := range []string{"Info.plist", "a/../b", "a:b", "con.txt", "\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, path string) {
		if CheckPath(path) != nil {
			return
		}
		// A path that passes stays inside any folder, and filepath.Clean does
		// not change it.
		if !filepath.IsLocal(path) || filepath.ToSlash(filepath.Clean(filepath.FromSlash(path))) != path || strings.ContainsAny(path, "\\:\x00") {
			t.Errorf("%q passed", path)
		}
	})
}
