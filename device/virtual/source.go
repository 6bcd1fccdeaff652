package virtual

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"strings"

	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/folder"
	"github.com/snap-backup/snap/device/protocol/backup2"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/tree"
)

// SourceOptions say how to show a snapshot to a device.
type SourceOptions struct {
	// UDID is the name of the folder, under which the device asks for it: that
	// of the device that the backup is of. The snapshot's if empty.
	UDID string
	// Target is the device that is restored, where it is another one.
	Target string
	// Info, if not nil, is shown in place of the snapshot's Info.plist, or where
	// it has none.
	Info []byte
}

// Source is the backup folder of a device while it is restored: a snapshot.
// Files are found by name in memory and read in any order; sealed ones are
// sealed again on the way. It may be used by several goroutines.
type Source struct {
	r     *repo.Repo
	udid  string
	opts  SourceOptions
	set   *set
	names *names
}

var _ backup2.Folder = (*Source)(nil)

// NewSource shows a snapshot. The repository's index must have been loaded.
func NewSource(ctx context.Context, r *repo.Repo, s *repo.Snapshot, opts SourceOptions) (*Source, error) {
	if opts.UDID == "" {
		opts.UDID = s.Device.UDID
	}
	if err := folder.CheckPath(opts.UDID); err != nil || strings.Contains(opts.UDID, "/") {
		return nil, fmt.Errorf("show snapshot %s: %q cannot be the name of a device", s.ID.Short(), opts.UDID)
	}
	x, err := newSet(ctx, r, s)
	if err != nil {
		return nil, fmt.Errorf("show snapshot %s: %w", s.ID.Short(), err)
	}
	return &Source{r: r, udid: opts.UDID, opts: opts, set: x, names: newNames(x)}, nil
}

// Lost returns the number of files of which the repository has lost content. A
// restore that asks for one of them fails.
func (s *Source) Lost() int { return s.set.lost }

// Open implements backup2.Folder.
func (s *Source) Open(ctx context.Context, path string) (io.ReadCloser, error) {
	p, err := below(s.udid, path)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, fs.ErrNotExist)
	}
	if p == mobilesync.InfoPlist && s.opts.Info != nil {
		return io.NopCloser(bytes.NewReader(s.opts.Info)), nil
	}
	e, err := s.entry(ctx, p)
	if err != nil {
		return nil, err
	}
	return openEntry(ctx, s.r, e)
}

func (s *Source) entry(ctx context.Context, p string) (*tree.Entry, error) {
	if id, ok := blobID(p, s.set.flat); ok {
		if i := s.set.find(id); i >= 0 {
			return s.set.entry(ctx, i)
		}
	} else if e := s.set.others[p]; e != nil && e.Kind == tree.File {
		return e, nil
	}
	return nil, fmt.Errorf("open %s: %w", p, fs.ErrNotExist)
}

// List implements backup2.Folder. The folder of the target, where that is
// another device, is not there.
func (s *Source) List(_ context.Context, path string) ([]backup2.Item, error) {
	p, err := below(s.udid, path)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", path, fs.ErrNotExist)
	}
	items, err := s.names.list(p)
	if err != nil {
		return nil, err
	}
	out := make([]backup2.Item, 0, len(items))
	for _, it := range items {
		out = append(out, backup2.Item{Name: it.name, Dir: it.dir != nil, Size: it.size})
	}
	if s.set.flat && p == "" {
		for i := range s.set.blobs {
			b := &s.set.blobs[i]
			out = append(out, backup2.Item{Name: blobPath(b.id, true), Size: b.size()})
		}
	}
	return out, nil
}

// asideShape is how devices call the copy of a backup that they put aside.
var asideShape = regexp.MustCompile(`^(.+)-\d{8}-\d{6}$`)

// aside reports whether a path is in a copy that the device makes of its
// backup before it is restored. The snapshots are that already, so such copies
// are taken for made.
func (s *Source) aside(path string) bool {
	top, _, _ := strings.Cut(path, "/")
	m := asideShape.FindStringSubmatch(top)
	return m != nil && (m[1] == s.udid || m[1] == s.opts.Target)
}

func (s *Source) absorb(what, path string) error {
	if s.aside(path) {
		return nil
	}
	return fmt.Errorf("%s %s: a restore changes no backup: %w", what, path, fs.ErrPermission)
}

// Create implements backup2.Folder: nothing is written in a restore.
func (s *Source) Create(_ context.Context, path string) (backup2.Upload, error) {
	return nil, fmt.Errorf("receive %s: a restore changes no backup: %w", path, fs.ErrPermission)
}

// Mkdir implements backup2.Folder, for copies put aside.
func (s *Source) Mkdir(_ context.Context, path string) error { return s.absorb("make", path) }

// Copy implements backup2.Folder, for copies put aside.
func (s *Source) Copy(_ context.Context, _, to string) error { return s.absorb("copy to", to) }

// Move implements backup2.Folder: nothing is moved in a restore.
func (s *Source) Move(_ context.Context, from, to string) error {
	if s.aside(from) && s.aside(to) {
		return nil
	}
	return fmt.Errorf("move %s: a restore changes no backup: %w", from, fs.ErrPermission)
}

// Remove implements backup2.Folder, for copies put aside.
func (s *Source) Remove(_ context.Context, path string) error { return s.absorb("remove", path) }

// Space implements backup2.Folder. Copies put aside take none.
func (s *Source) Space(context.Context) (int64, error) { return spaceUnknown, nil }

// Purge implements backup2.Folder.
func (s *Source) Purge(context.Context, int64) (int64, error) { return 0, nil }
