package transfer

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

	"github.com/snap-backup/snap/device/mobilesync/folder"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/tree"
)

// layout is what the folder will hold, by hashes of paths: a backup has
// hundreds of thousands. That two paths have one hash by chance is as good as
// impossible, and by design too, since the seed is new each time; it would be
// refused as a double.
type layout struct {
	seed  maphash.Seed
	kinds map[uint64]tree.Kind
	dirs  []tree.Entry
	odd   []string // in which a file system that ignores case could see twins
	files int64
	bytes int64
}

func newLayout() *layout {
	return &layout{seed: maphash.MakeSeed(), kinds: map[uint64]tree.Kind{}}
}

// add takes an entry in, unless it could not stand beside the others.
func (l *layout) add(e *tree.Entry) error {
	if err := folder.CheckPath(e.Path); err != nil {
		return fmt.Errorf("refused: %w", err)
	}
	for i := range len(e.Path) {
		if e.Path[i] == '/' && !l.put(e.Path[:i], tree.Dir) {
			return fmt.Errorf("refused: %q is a file and a folder at once", e.Path[:i])
		}
	}
	if !l.put(e.Path, e.Kind) {
		return fmt.Errorf("refused: %q is there twice", e.Path)
	}
	if strings.ToLower(e.Path) != e.Path {
		l.odd = append(l.odd, e.Path)
	}
	if e.Kind == tree.Dir {
		l.dirs = append(l.dirs, *e)
		return nil
	}
	l.files++
	l.bytes += blobSize(e)
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

// has reports whether a path with this type on disk belongs to the folder.
func (l *layout) has(path string, mode fs.FileMode) bool {
	kind, ok := l.kinds[maphash.String(l.seed, path)]
	return ok && (kind == tree.Dir && mode.IsDir() || kind == tree.File && mode.IsRegular())
}

// prepare makes the folders and refuses names that cannot be written here.
func (m *materializer) prepare(ctx context.Context, s *repo.Snapshot) error {
	m.layout = newLayout()
	if err := m.walk(ctx, s, m.layout.add); err != nil {
		return err
	}
	m.res.Files, m.res.Bytes = m.layout.files, m.layout.bytes
	if err := m.sweep(ctx); err != nil {
		return fmt.Errorf("look through what an interrupted run left: %w", err)
	}
	for i := range m.layout.dirs {
		if err := m.root.MkdirAll(filepath.FromSlash(m.layout.dirs[i].Path), 0o700); err != nil {
			return err
		}
	}
	if len(m.layout.odd) == 0 {
		return nil
	}
	folds, err := m.ignoresCase()
	if err != nil || !folds {
		return err
	}
	return m.refuseTwins(ctx, s)
}

// sweep removes from the hidden folder what does not belong to the snapshot,
// links above all: nothing but its files may be there at the end.
func (m *materializer) sweep(ctx context.Context) error {
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

// complete counts what is in the hidden folder: on a file system that takes
// two names for one, the second file has replaced the first.
func (m *materializer) complete(ctx context.Context) error {
	there := 0
	err := fs.WalkDir(m.root.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && path != "." && (d.IsDir() || d.Type().IsRegular()) {
			there++
		}
		return errors.Join(err, ctx.Err())
	})
	if err != nil {
		return err
	}
	if want := len(m.layout.kinds); there < want {
		return fmt.Errorf("only %d of %d files and folders are there: this file system takes names for one that are not; choose another target", there, want)
	}
	return nil
}

// refuseTwins fails if two paths would be one where case is ignored.
func (m *materializer) refuseTwins(ctx context.Context, s *repo.Snapshot) error {
	wanted := map[string]bool{}
	for _, p := range m.layout.odd {
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
		return fmt.Errorf("%q and %q would be one file here: this file system ignores case; choose another target", a, b)
	}
	return nil
}

// foldedTwins returns two paths that are one on a file system that ignores
// case, if there are any.
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

// ignoresCase finds out whether the target's file system does.
func (m *materializer) ignoresCase() (bool, error) {
	const probe, other = ".snap-case-probe", ".SNAP-CASE-PROBE"
	f, err := m.root.Create(probe)
	if err != nil {
		return false, err
	}
	f.Close()
	_, err = m.root.Lstat(other)
	return err == nil, m.root.Remove(probe)
}
