package materialize

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/fault"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
)

// filesBelow returns the content of all files below a folder, by path.
func filesBelow(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		rel, _ := filepath.Rel(dir, path)
		out[filepath.ToSlash(rel)] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestIncomplete damages each pack in several ways. Everything that is whole is written,
// under a name that is not that of a complete folder, and the rest is listed.
func TestIncomplete(t *testing.T) {
	t.Parallel()
	be, s, _ := stored(t)
	damages := map[string]func(be *memory.Backend, name string) backend.Backend{
		"missing": func(be *memory.Backend, name string) backend.Backend { repotest.Remove(t, be, name); return be },
		"a byte turned": func(be *memory.Backend, name string) backend.Backend {
			repotest.Flip(t, be, name, len(repotest.Content(t, be)[name])/3)
			return be
		},
		"unreadable": func(be *memory.Backend, name string) backend.Backend {
			return fault.New(be, fault.Unreadable(name, syscall.EIO))
		},
	}
	for _, write := range []struct {
		suffix string
		fn     func(r *repo.Repo, target string, opts Options) (*Result, error)
	}{
		{"", func(r *repo.Repo, target string, opts Options) (*Result, error) {
			return Write(t.Context(), r, s, target, opts)
		}},
		{decryptedSuffix, func(r *repo.Repo, target string, opts Options) (*Result, error) {
			return WriteDecrypted(t.Context(), r, s, target, opts)
		}},
	} {
		whole := t.TempDir()
		res, err := write.fn(mustOpen(t, be, seed(2)), whole, Options{})
		if err != nil {
			t.Fatal(err)
		}
		want, name := filesBelow(t, res.Dir), filepath.Base(res.Dir)
		seen := 0
		for _, pack := range repotest.FilesIn(t, be, repotest.PacksDir) {
			for how, damage := range damages {
				r := mustOpen(t, damage(be.Clone(), pack), 3)
				if _, err := write.fn(r, t.TempDir(), Options{}); err == nil {
					continue // nothing of this snapshot was damaged
				}
				target := t.TempDir()
				res, err := write.fn(r, target, Options{Incomplete: true, Verify: true})
				if errors.Is(err, repo.ErrDamaged) {
					wantNothing(t, target, how)
					continue
				}
				if err != nil {
					t.Fatalf("%s %s: %v", pack, how, err)
				}
				seen++
				if got := filepath.Base(res.Dir); got != name+mobilesync.IncompleteSuffix {
					t.Errorf("%s %s: it is written to %s", pack, how, got)
				}
				got := filesBelow(t, res.Dir)
				wantWhole(t, how, want, got, res)
				if _, err := mobilesync.Find(target); !errors.Is(err, mobilesync.ErrNoBackup) {
					t.Errorf("%s: the folder counts as a backup: %v", how, err)
				}
				wantBeside(t, how, res, func(o Options) (*Result, error) { return write.fn(r, target, o) })
				// The complete folder appears beside it.
				if _, err := write.fn(mustOpen(t, be, seed(4)), target, Options{Incomplete: true}); err != nil {
					t.Errorf("%s: complete: %v", how, err)
				}
			}
		}
		if seen == 0 {
			t.Errorf("no folder%s was incomplete", write.suffix)
		}
	}
}

// wantBeside runs again. The incomplete folder of an earlier run stays, unless it is to
// be replaced, and nothing hidden is left.
func wantBeside(t *testing.T, how string, first *Result, write func(Options) (*Result, error)) {
	t.Helper()
	mine := filepath.Join(first.Dir, "mine")
	if err := os.WriteFile(mine, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := write(Options{Incomplete: true})
	if err != nil || again.Dir != strings.TrimSuffix(first.Dir, mobilesync.IncompleteSuffix)+"-2"+mobilesync.IncompleteSuffix || !slices.Equal(again.Beside, []string{first.Dir}) {
		t.Fatalf("%s: again: %+v, %v", how, again, err)
	}
	if _, err := os.Stat(mine); err != nil {
		t.Errorf("%s: the first folder was changed: %v", how, err)
	}
	replaced, err := write(Options{Incomplete: true, Replace: true})
	if err != nil || replaced.Dir != first.Dir || len(replaced.Lacking)+replaced.LostParts == 0 || replaced.Beside != nil {
		t.Errorf("%s: replaced: %+v, %v", how, replaced, err)
	}
	if _, err := os.Stat(mine); err == nil {
		t.Errorf("%s: the first folder was not replaced", how)
	}
	list, err := os.ReadDir(filepath.Dir(first.Dir))
	if err != nil || len(list) != 2 || len(IncompleteFolders(strings.TrimSuffix(first.Dir, mobilesync.IncompleteSuffix))) != 2 {
		t.Errorf("%s: the target has %v, %v", how, list, err)
	}
}

// wantNothing fails if a run that could read nothing has left something.
func wantNothing(t *testing.T, target, how string) {
	t.Helper()
	left, err := os.ReadDir(target)
	if err != nil || len(left) > 0 {
		t.Errorf("%s: nothing could be read, but %v is left: %v", how, left, err)
	}
}

// wantWhole compares an incomplete folder with the complete one.
func wantWhole(t *testing.T, how string, want, got map[string]string, res *Result) {
	t.Helper()
	if int(res.Files) != len(got) {
		t.Errorf("%s: %d files are written, but %d counted", how, len(got), res.Files)
	}
	for path, content := range want {
		listed := slices.ContainsFunc(res.Lacking, func(f Lacking) bool { return f.Path == path && f.Reason != "" })
		back, ok := got[path]
		switch {
		case ok && back != content:
			t.Errorf("%s: %s has other bytes", how, path)
		case ok && listed:
			t.Errorf("%s: %s is written, but listed as lacking", how, path)
		case !ok && !listed && res.LostParts == 0:
			t.Errorf("%s: %s is lacking, but not listed", how, path)
		}
	}
	for path := range got {
		if _, ok := want[path]; !ok && res.LostParts == 0 {
			t.Errorf("%s: there is no %s in the snapshot", how, path)
		}
		if strings.Contains(path, ".partial") {
			t.Errorf("%s: %s is left", how, path)
		}
	}
}
