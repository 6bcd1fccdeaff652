package materialize

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/snap-backup/snap/device/blob"
	"github.com/snap-backup/snap/device/mobilesync/folder"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/tree"
)

// pathSet holds hashes of the folder's paths, since there are hundreds of thousands. The
// seed is random, so nobody can construct two paths with the same hash. If two paths had
// the same hash, the second would be refused as a duplicate.
type pathSet struct {
	seed      maphash.Seed
	kinds     map[uint64]tree.Kind
	dirs      []tree.Entry
	mixedCase []string // paths that could collide on a file system that ignores case
	files     int64
	bytes     int64

	largest     int64 // bytes
	largestPath string
}

func newPathSet() *pathSet {
	return &pathSet{seed: maphash.MakeSeed(), kinds: map[uint64]tree.Kind{}}
}

// add adds an entry. It returns an error if the entry conflicts with another
// one.
func (p *pathSet) add(e *tree.Entry) error {
	if err := folder.CheckPath(e.Path); err != nil {
		return fmt.Errorf("refused: %w", err)
	}
	for i := range len(e.Path) {
		if e.Path[i] == '/' && !p.put(e.Path[:i], tree.Dir) {
			return fmt.Errorf("refused: %q is both a file and a folder", e.Path[:i])
		}
	}
	if !p.put(e.Path, e.Kind) {
		return fmt.Errorf("refused: the snapshot has %q twice", e.Path)
	}
	if strings.ToLower(e.Path) != e.Path {
		p.mixedCase = append(p.mixedCase, e.Path)
	}
	if e.Kind == tree.Dir {
		p.dirs = append(p.dirs, *e)
		return nil
	}
	size := blob.Size(e)
	p.files++
	p.bytes += size
	if size > p.largest {
		p.largest, p.largestPath = size, describe(e)
	}
	return nil
}

func (p *pathSet) put(path string, kind tree.Kind) bool {
	h := maphash.String(p.seed, path)
	if old, ok := p.kinds[h]; ok && (old == tree.File || kind == tree.File) {
		return false
	}
	p.kinds[h] = kind
	return true
}

// has reports whether path belongs to the folder and has the type that mode
// says.
func (p *pathSet) has(path string, mode fs.FileMode) bool {
	kind, ok := p.kinds[maphash.String(p.seed, path)]
	return ok && (kind == tree.Dir && mode.IsDir() || kind == tree.File && mode.IsRegular())
}

// prepare makes the folders, and refuses names that cannot be written here.
func (m *job) prepare(ctx context.Context, s *repo.Snapshot) error {
	m.paths = newPathSet()
	var l lists
	if err := m.walkListing(ctx, s, &l, m.paths.add); err != nil {
		return err
	}
	m.res.Renamed, m.res.NotDecrypted = l.renamed, l.undecrypted
	m.res.Files, m.res.Bytes = m.paths.files, m.paths.bytes
	if err := m.sweep(ctx); err != nil {
		return fmt.Errorf("clean up after an interrupted run: %w", err)
	}
	if err := m.checkRoom(ctx); err != nil {
		return err
	}
	if err := m.checkLargest(); err != nil {
		return err
	}
	for i := range m.paths.dirs {
		if err := m.root.MkdirAll(filepath.FromSlash(m.paths.dirs[i].Path), 0o700); err != nil {
			return err
		}
	}
	if len(m.paths.mixedCase) == 0 {
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
		if m.paths.has(path, d.Type()) {
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
	found, err := m.count(ctx, ".")
	if err != nil {
		return err
	}
	if want := len(m.paths.kinds) - len(m.lost.files); found < want && len(m.lost.parts) == 0 {
		return fmt.Errorf("only %d of %d files and folders exist: this file system treats different names as one; choose another target", found, want)
	}
	return nil
}

// namesAtOnce is how many names of a folder are read at a time.
const namesAtOnce = 4096

// count counts the files and folders in a folder and below. It asks the file system only
// for names, since the path set knows which names are files and which are folders: asking
// for the types of 20,000 files would take as many system calls.
func (m *job) count(ctx context.Context, dir string) (n int, err error) {
	f, err := m.root.Open(filepath.FromSlash(dir))
	if err != nil {
		return 0, err
	}
	var folders []string
	for err == nil {
		var names []string
		names, err = f.Readdirnames(namesAtOnce)
		for _, name := range names {
			name = path.Join(dir, name)
			switch kind, ok := m.kindOf(name); {
			case !ok:
				continue
			case kind == tree.Dir:
				folders = append(folders, name)
			}
			n++
		}
		err = cmp.Or(ctx.Err(), err)
	}
	if cerr := f.Close(); errors.Is(err, io.EOF) {
		err = cerr
	}
	for _, name := range folders {
		below := 0
		if err == nil {
			below, err = m.count(ctx, name)
		}
		n += below
	}
	return n, err
}

// kindOf returns whether a name in the hidden folder is a file or a folder; ok is false
// if it is neither. Some file systems change names: they store accented letters in
// another Unicode form. The path set does not have the changed names, so kindOf asks the
// file system for their types.
func (m *job) kindOf(name string) (kind tree.Kind, ok bool) {
	if kind, ok = m.paths.kinds[maphash.String(m.paths.seed, name)]; ok {
		return kind, true
	}
	info, err := m.root.Lstat(filepath.FromSlash(name))
	switch {
	case err != nil:
		return 0, false
	case info.IsDir():
		return tree.Dir, true
	}
	return tree.File, info.Mode().IsRegular()
}

// refuseTwins fails if two paths differ only by case.
func (m *job) refuseTwins(ctx context.Context, s *repo.Snapshot) error {
	wanted := map[string]bool{}
	for _, p := range m.paths.mixedCase {
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
