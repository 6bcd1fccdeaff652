package rest

import (
	"errors"
	"strings"
	"testing"

	"github.com/snap-backup/snap/repo/backend"
)

func TestParseListing(t *testing.T) {
	t.Parallel()
	asked := func(name string) bool { return strings.HasPrefix(name, "keys/") }
	for text, want := range map[string]int{
		`[]`: 0,
		`[{"name":"keys/a","size":1,"modified":"2026-01-02T03:04:05.123Z"},{"name":"keys/b","size":0,"other":[1]}]`: 2,
		`[{"name":"Other","size":1},{"name":"keys/b","size":0}]`:                                                    1,
		``:                                      -1,
		`{}`:                                    -1,
		`<html>`:                                -1,
		`[{"name":"keys/a","size":1}`:           -1,
		`[{"name":"keys/a","size":1},`:          -1,
		`[{"name":"keys/a","size":"x"}]`:        -1,
		`[{"name":"keys/a","size":-1}]`:         -1,
		`[{"name":"packs/a","size":1}]`:         -1,
		`[{"name":"keys/b"},{"name":"keys/a"}]`: -1,
		`[{"name":"` + strings.Repeat("a", 100_000) + `"}]`: -1,
	} {
		files, err := parseListing(strings.NewReader(text), asked)
		if want < 0 && err == nil || want >= 0 && (err != nil || len(files) != want) {
			t.Errorf("%.60q: %d files, %v", text, len(files), err)
		}
	}
	if _, err := parseListing(strings.NewReader(`[{"name":"keys/a","size":1}`), asked); !errors.Is(err, backend.ErrOutOfReach) || !backend.Temporary(err) {
		t.Errorf("a listing without its end: %v", err)
	}
}

func FuzzParseListing(f *testing.F) {
	f.Add(`[{"name":"keys/a","size":1,"modified":"2026-01-02T03:04:05.123Z"},{"name":"keys/b","size":0}]`)
	f.Add(`[{"name":"keys/a"`)
	f.Fuzz(func(t *testing.T, text string) {
		files, err := parseListing(strings.NewReader(text), func(string) bool { return true })
		if err != nil && files != nil {
			t.Error("files and an error")
		}
		last := ""
		for _, f := range files {
			if backend.ValidName(f.Name) != nil || f.Name <= last || f.Size < 0 {
				t.Errorf("%+v after %q", f, last)
			}
			last = f.Name
		}
	})
}
