package materialize

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/snap-backup/snap/device/blob"
	"github.com/snap-backup/snap/device/mobilesync/folder"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/tree"
)

// layout holds hashes of the folder's paths, since there are hundreds of
// thousands. The seed is random, so nobody can construct two paths with the
// same hash. If two paths had the same hash, the second would be refused as a
// duplicate.
type layout struct {
	seed      maphash.Seed
	kinds     map[uint64]tree.Kind
	dirs      []tree.Entry
	mixedCase []string // paths that could collide on a file system that ignores case
	files     int64
	bytes     int64
}

func newLayout() *layout {
	return &layout{seed: maphash.MakeSeed(), kinds: map[uint64]tree.Kind{}}
}

// add adds an entry. It returns an error if the entry conflicts with another
// one.
func (l *layout) add(e *tree.Entry) error {
	if err := folder.CheckPath(e.Path); err != nil {
		return fmt.Errorf("refused: %w", err)
	}
	for i := range len(e.Path) {
		if e.Path[i] == '/' && !l.put(e.Path[:i], tree.Dir) {
			return fmt.Errorf("refused: %q is both a file and a folder", e.Path[:i])
		}
	}
	if !l.put(e.Path, e.Kind) {
		return fmt.Errorf("refused: the snapshot has %q twice", e.Path)
	}
	if strings.ToLower(e.Path) != e.Path {
		l.mixedCase = append(l.mixedCase, e.Path)
	}
	if e.Kind == tree.Dir {
		l.dirs = append(l.dirs, *e)
		return nil
	}
	l.files++
	l.bytes += blob.Size(e)
	return nil
}

func (l *layout) put(path string, kind tree.Kind) bool {
	h := maphash.String(l.seed, path)
	if old, ok := l.kinds[h]; ok && (old == tree.File || kind == tree.File) {
		return false
	}
	l.kinds[h] = kind
	return true
}

// has reports whether path belongs to the folder and has the type that mode
// says.
func (l *layout) has(path string, mode fs.FileMode) bool {
	kind, ok := l.kinds[maphash.String(l.seed, path)]
	return ok && (kind == tree.Dir && mode.IsDir() || kind == tree.File && mode.IsRegular())
}

// prepare makes the folders, and refuses names that cannot be written here.
func (m *job) prepare(ctx context.Context, s *repo.Snapshot) error {
	m.layout = newLayout()
	if err := m.walk(ctx, s, m.layout.add); err != nil {
		return err
	}
	m.res.Files, m.res.Bytes = m.layout.files, m.layout.bytes
	if err := m.sweep(ctx); err != nil {
		return fmt.Errorf("clean up after an interrupted run: %w", err)
	}
	for i := range m.layout.dirs {
		if err := m.root.MkdirAll(filepath.FromSlash(m.layout.dirs[i].Path), 0o700); err != nil {
			return err
		}
	}
	if len(m.layout.mixedCase) == 0 {
		return nil
	}
	folds, err := m.ignoresCase()
	if err != nil || !folds {
		return err
	}
	return m.refuseTwins(ctx, s)
}

// sweep removes everything from the hidden folder that is not in the snapshot,
// such as links.
func (m *job) sweep(ctx context.Context) error {
	return fs.WalkDir(m.root.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == "." {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if m.layout.has(path, d.Type()) {
			return nil
		}
		if err := m.root.RemoveAll(filepath.FromSlash(path)); err != nil {
			return err
		}
		if d.IsDir() {
			return fs.SkipDir
		}
		return nil
	})
}

// checkComplete counts the files in the hidden folder. Some file systems treat
// two different names as one, so that the second file replaces the first.
func (m *job) checkComplete(ctx context.Context) error {
	found := 0
	err := fs.WalkDir(m.root.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && path != "." && (d.IsDir() || d.Type().IsRegular()) {
			found++
		}
		return errors.Join(err, ctx.Err())
	})
	if err != nil {
		return err
	}
	if want := len(m.layout.kinds); found < want {
		return fmt.Errorf("only %d of %d files and folders exist: this file system treats different names as one; choose another target", found, want)
	}
	return nil
}

// refuseTwins fails if two paths differ only by case.
func (m *job) refuseTwins(ctx context.Context, s *repo.Snapshot) error {
	wanted := map[string]bool{}
	for _, p := range m.layout.mixedCase {
		wanted[strings.ToLower(p)] = true
	}
	var paths []string
	err := m.walk(ctx, s, func(e *tree.Entry) error {
		if wanted[strings.ToLower(e.Path)] {
			paths = append(paths, e.Path)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if a, b, ok := foldedTwins(paths); ok {
		return fmt.Errorf("%q and %q would be one file, since this file system ignores case; choose another target", a, b)
	}
	return nil
}

// foldedTwins returns two paths that differ only by case, if there are any.
func foldedTwins(paths []string) (string, string, bool) {
	slices.SortFunc(paths, func(a, b string) int {
		return cmp.Or(strings.Compare(strings.ToLower(a), strings.ToLower(b)), strings.Compare(a, b))
	})
	for i := 1; i < len(paths); i++ {
		if strings.EqualFold(paths[i-1], paths[i]) {
			return paths[i-1], paths[i], true
		}
	}
	return "", "", false
}

// ignoresCase reports whether the target's file system ignores case.
func (m *job) ignoresCase() (bool, error) {
	const probe, other = ".snap-case-probe", ".SNAP-CASE-PROBE"
	f, err := m.root.Create(probe)
	if err != nil {
		return false, err
	}
	f.Close()
	_, err = m.root.Lstat(other)
	return err == nil, m.root.Remove(probe)
}
