// Package restore provides the folder that a device sees while it is restored:
// one snapshot, read-only.
//
// Names are looked up in memory, and files can be read in any order. Files that
// were encrypted in the backup are encrypted again while they are read. The
// package writes nothing, neither to the repository nor elsewhere.
package restore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/snap-backup/snap/device/blob"
	"github.com/snap-backup/snap/device/catalog"
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/protocol/backup2"
	"github.com/snap-backup/snap/repo"
)

// Options say how to show a snapshot to a device.
type Options struct {
	// UDID is the name of the folder for which the device asks: the UDID of the
	// device that was backed up. If empty, the snapshot's UDID is used.
	UDID string
	// Target is the UDID of the device to restore to, if that is another device.
	Target string
	// Info, if not nil, is shown as Info.plist instead of the snapshot's.
	Info []byte
}

// View is the backup folder of a device while it is restored. It may be used by
// several goroutines.
type View struct {
	repo  *repo.Repo
	opts  Options
	set   *catalog.Set
	names *catalog.Catalog
	begun atomic.Bool

	mu       sync.Mutex
	failures []Failure
}

// Failure is a file of which the repository could not return all bytes.
type Failure struct {
	Path string // in the backup folder
	Err  error
}

// maxFailures bounds the failures that a View keeps.
const maxFailures = 1 << 16

// Failures returns the files that could not be read since the View was made or Restart
// was called.
func (v *View) Failures() []Failure {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.failures)
}

// failed keeps an error and returns it.
func (v *View) failed(path string, err error) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.failures) < maxFailures {
		v.failures = append(v.failures, Failure{path, err})
	}
	return err
}

// reader is a file that a device reads.
type reader struct {
	io.ReadCloser
	view *View
	path string
}

func (r *reader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = r.view.failed(r.path, err)
	}
	return n, err
}

var _ backup2.Folder = (*View)(nil)

// New returns a view of a snapshot. The repository's index must have been loaded.
func New(ctx context.Context, r *repo.Repo, s *repo.Snapshot, opts Options) (*View, error) {
	if opts.UDID == "" {
		opts.UDID = s.Device.UDID
	}
	if !blob.IsFolderName(opts.UDID) {
		return nil, fmt.Errorf("show snapshot %s: %q cannot be a UDID", s.ID.Short(), opts.UDID)
	}
	x, err := catalog.NewSet(ctx, r, s)
	if err != nil {
		return nil, fmt.Errorf("show snapshot %s: %w", s.ID.Short(), err)
	}
	return &View{repo: r, opts: opts, set: x, names: catalog.New(x)}, nil
}

// Lost returns the number of files whose content the repository has lost. A
// restore that asks for one of them fails.
func (v *View) Lost() int { return v.set.Lost() }

// Begun reports whether the device has asked for a file that is not metadata.
// Until then, the device has changed nothing.
func (v *View) Begun() bool { return v.begun.Load() }

// Restart prepares the view for another restore: Begun returns false again, and
// Failures nothing.
func (v *View) Restart() {
	v.begun.Store(false)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.failures = nil
}

// isMetadata reports whether a file describes the backup.
func isMetadata(path string) bool {
	switch path {
	case mobilesync.StatusPlist, mobilesync.ManifestPlist, mobilesync.InfoPlist, mobilesync.ManifestDB, mobilesync.ManifestMBDB:
		return true
	}
	return false
}

// Open implements backup2.Folder.
func (v *View) Open(ctx context.Context, path string) (io.ReadCloser, error) {
	p, ok := blob.Below(v.opts.UDID, path)
	if !ok {
		return nil, fmt.Errorf("open %s: %w", path, fs.ErrNotExist)
	}
	if !isMetadata(p) {
		v.begun.Store(true)
	}
	if p == mobilesync.InfoPlist && v.opts.Info != nil {
		return io.NopCloser(bytes.NewReader(v.opts.Info)), nil
	}
	e, err := v.set.Find(ctx, p)
	if err != nil {
		return nil, v.failed(p, err)
	}
	if e == nil {
		return nil, fmt.Errorf("open %s: %w", p, fs.ErrNotExist)
	}
	f, err := blob.Open(ctx, v.repo, e)
	if err != nil {
		return nil, v.failed(p, err)
	}
	return &reader{f, v, p}, nil
}

// List implements backup2.Folder. Only the folder of the device that was backed up
// exists, even if another device is restored.
func (v *View) List(_ context.Context, path string) ([]backup2.Item, error) {
	p, ok := blob.Below(v.opts.UDID, path)
	if !ok {
		return nil, fmt.Errorf("list %s: %w", path, fs.ErrNotExist)
	}
	items, err := v.names.List(p)
	if err != nil {
		return nil, err
	}
	out := make([]backup2.Item, 0, len(items))
	for _, it := range items {
		out = append(out, backup2.Item{Name: it.Name, Dir: it.Dir != nil, Size: it.Size})
	}
	return out, nil
}

// copyShape matches the names that devices give to copies of a backup.
var copyShape = regexp.MustCompile(`^(.+)-\d{8}-\d{6}$`)

// isCopy reports whether a path is in the copy that a device makes of its last
// backup before a restore. Snapshots make that copy unnecessary, so the view
// only pretends that it exists.
func (v *View) isCopy(path string) bool {
	top, _, _ := strings.Cut(path, "/")
	m := copyShape.FindStringSubmatch(top)
	return m != nil && (m[1] == v.opts.UDID || m[1] == v.opts.Target)
}

// pretend returns nil for a change of a copy, and an error for any other change.
func (v *View) pretend(what, path string) error {
	if v.isCopy(path) {
		return nil
	}
	return fmt.Errorf("%s %s: a restore does not change backups: %w", what, path, fs.ErrPermission)
}

// Create implements backup2.Folder. It always fails.
func (v *View) Create(_ context.Context, path string) (backup2.Upload, error) {
	return nil, fmt.Errorf("receive %s: a restore does not change backups: %w", path, fs.ErrPermission)
}

// Mkdir implements backup2.Folder, for copies.
func (v *View) Mkdir(_ context.Context, path string) error { return v.pretend("make", path) }

// Copy implements backup2.Folder, for copies.
func (v *View) Copy(_ context.Context, _, to string) error { return v.pretend("copy to", to) }

// Move implements backup2.Folder, for copies.
func (v *View) Move(_ context.Context, from, to string) error {
	if !v.isCopy(from) {
		return v.pretend("move", from)
	}
	return v.pretend("move to", to)
}

// Remove implements backup2.Folder, for copies.
func (v *View) Remove(_ context.Context, path string) error { return v.pretend("remove", path) }

// space is more than a device asks for. Copies take none.
const space = 1 << 50

// Space implements backup2.Folder.
func (v *View) Space(context.Context) (int64, error) { return space, nil }

// Purge implements backup2.Folder. It frees nothing.
func (v *View) Purge(context.Context, int64) (int64, error) { return 0, nil }
