package materialize

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/snap-backup/snap/device/blob"
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/tree"
)

// Lacking is a file that is not in the written folder, because the repository has lost
// a part of its content.
type Lacking struct {
	Path   string `json:"path"`           // below the folder written
	Name   string `json:"name,omitempty"` // on the device, with its domain
	Bytes  int64  `json:"bytes"`
	Reason string `json:"reason"`
}

// losses collects what a repository cannot give back.
type losses struct {
	mu    sync.Mutex
	files map[string]Lacking // by path
	parts map[string]error   // parts of the tree, by the texts of the errors
}

func (l *losses) any() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.files)+len(l.parts) > 0
}

func (l *losses) has(path string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, ok := l.files[path]
	return ok
}

// add notes a file.
func (l *losses) add(e *tree.Entry, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.files == nil {
		l.files = map[string]Lacking{}
	}
	f := Lacking{Path: e.Path, Bytes: blob.Size(e), Reason: err.Error()}
	if e.Domain != "" {
		f.Name = e.Domain + "/" + e.Name
	}
	l.files[e.Path] = f
}

// addPart notes a part of the tree.
func (l *losses) addPart(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.parts == nil {
		l.parts = map[string]error{}
	}
	l.parts[err.Error()] = err
}

// walkEntries calls fn for the entries of a snapshot that can be read.
func (m *job) walkEntries(ctx context.Context, s *repo.Snapshot, fn func(*tree.Entry) error) error {
	if !m.opts.Incomplete {
		return m.r.Walk(ctx, s, "", fn)
	}
	return m.r.WalkAll(ctx, s, fn, func(err error) error { m.lost.addPart(err); return nil })
}

// writeWhole writes a file. If the repository cannot give it back completely, nothing is
// left of it, and the job goes on.
func (m *job) writeWhole(ctx context.Context, e *tree.Entry) error {
	err := m.writeFile(ctx, e)
	if err == nil || !m.opts.Incomplete || ctx.Err() != nil || !errors.Is(err, repo.ErrDamaged) {
		return err
	}
	if rerr := m.root.Remove(filepath.FromSlash(e.Path)); rerr != nil {
		return errors.Join(err, rerr)
	}
	m.lost.add(e, err)
	return nil
}

// verifyWhole verifies a file that was written.
func (m *job) verifyWhole(ctx context.Context, e *tree.Entry) error {
	if m.lost.has(e.Path) {
		return nil
	}
	return m.verify(ctx, e)
}

// concede reports what is lacking, if anything is, and chooses a name for the folder that
// is not mistaken for that of a complete one.
func (m *job) concede() error {
	if !m.lost.any() {
		return nil
	}
	r := m.res
	r.LostParts = len(m.lost.parts)
	r.Lacking = make([]Lacking, 0, len(m.lost.files))
	for _, f := range m.lost.files {
		r.Lacking = append(r.Lacking, f)
		r.Files--
		r.Bytes -= f.Bytes
	}
	if r.Files == 0 {
		for _, err := range m.lost.parts {
			return fmt.Errorf("nothing of the snapshot can be read: %w", err)
		}
		return fmt.Errorf("no file of the snapshot can be read: %w", repo.ErrDamaged)
	}
	slices.SortFunc(r.Lacking, func(a, b Lacking) int { return strings.Compare(a.Path, b.Path) })
	return m.nameIncomplete()
}

// incompleteName returns the name of the number-th incomplete folder beside dir. All of
// them end alike, so that no program takes one for a backup.
func incompleteName(dir string, number int) string {
	if number > 1 {
		dir += fmt.Sprintf("-%d", number)
	}
	return dir + mobilesync.IncompleteSuffix
}

// maxIncomplete bounds how many incomplete folders can be beside another.
const maxIncomplete = 100

// IncompleteFolders returns the incomplete folders beside dir, the folder of a
// snapshot, which earlier runs have written.
func IncompleteFolders(dir string) (list []string) {
	for number := range maxIncomplete {
		name := incompleteName(dir, number+1)
		if info, err := os.Lstat(name); err == nil && info.IsDir() {
			list = append(list, name)
		}
	}
	return list
}

// nameIncomplete chooses the name of an incomplete folder. After hours of reading from
// a dying disk, a name that is taken must not be a reason to fail. Nor is the folder of
// an earlier run replaced unasked: it may have what cannot be read any more.
func (m *job) nameIncomplete() error {
	dir := m.res.Dir
	for number := range maxIncomplete {
		m.res.Dir = incompleteName(dir, number+1)
		info, err := os.Lstat(m.res.Dir)
		if errors.Is(err, fs.ErrNotExist) || err == nil && m.opts.Replace && info.IsDir() {
			return nil
		}
		if err != nil {
			return err
		}
		m.res.Beside = append(m.res.Beside, m.res.Dir)
	}
	return fmt.Errorf("%s: %w", m.res.Dir, ErrTargetExists)
}
