package lab

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A state file cannot name a folder outside of the lab's folder.
func FuzzParseState(f *testing.F) {
	f.Add([]byte(`{"devices":1,"scale":"tiny","day":3,"each":[{"udid":"a","restored":"state-a/restored-1/a"}]}`))
	f.Add([]byte(`{"devices":1,"each":[{"restored":"../../etc"}]}`))
	f.Add([]byte(`{"devices":1,"each":[{"udid":"a"},{"udid":"/../../escaped"}]}`))
	f.Add([]byte(`{"devices":-1,"day":99999999}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		st, err := parseState(b)
		if err != nil {
			return
		}
		if st.Devices < 1 || st.Devices > len(st.Each) || st.Day < 0 || st.Day > maxDays {
			t.Errorf("%+v", st)
		}
		for _, d := range st.Each {
			if d.Restored != "" && (d.Restored[0] == '/' || d.Restored == ".." || strings.HasPrefix(d.Restored, "../")) {
				t.Errorf("folder %q", d.Restored)
			}
			if path := filepath.Join("lab", "state-"+d.UDID); filepath.Dir(path) != "lab" {
				t.Errorf("UDID %q: its folder is %s", d.UDID, path)
			}
		}
	})
}

// Generated files are removed, but not files that are reached through a link.
func TestRemoveGeneratedStaysInside(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	precious := filepath.Join(outside, "run-1")
	made := filepath.Join(dir, "state-a", "run-1")
	for _, folder := range []string{precious, made, filepath.Join(dir, "content")} {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(outside, filepath.Join(dir, "state-b")); err != nil {
		t.Skip(err)
	}
	if err := removeGenerated(dir); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(precious); err != nil {
		t.Error(err)
	}
	// The folder behind the link is left.
	if left, err := filepath.Glob(filepath.Join(dir, "*", "*")); err != nil || len(left) != 1 {
		t.Errorf("the folder behind the link has %v, %v", left, err)
	}
}
