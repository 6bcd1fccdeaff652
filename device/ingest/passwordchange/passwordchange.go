// Package passwordchange provides the folder that a device sees while its
// backup password changes, and stores the keys that the device writes there.
//
// The device reads Manifest.plist of its last backup and writes it back with
// new keys. The package stores the new file in a separate record, from which
// the next backup continues. Snapshots keep their password. The package writes
// nothing else.
package passwordchange

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/snap-backup/snap/device/blob"
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/protocol/backup2"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/tree"
)

// Folder shows a device its last backup during a change of the password. It
// contains only Manifest.plist. It is empty if the device has no snapshot.
type Folder struct {
	repo     *repo.Repo
	udid     string
	manifest *tree.Entry      // nil if there is none
	record   *repo.Unfinished // nil if there was no manifest
	saved    bool
}

var _ backup2.Folder = (*Folder)(nil)

// New returns the folder of a device. The repository's index must have been
// loaded.
func New(ctx context.Context, r *repo.Repo, udid string) (*Folder, error) {
	k := &Folder{repo: r, udid: udid}
	if err := k.begin(ctx); err != nil {
		return nil, fmt.Errorf("change the password of %s: %w", udid, err)
	}
	return k, nil
}

func (k *Folder) begin(ctx context.Context) error {
	parents, err := Parents(ctx, k.repo, k.udid)
	if err != nil {
		return err
	}
	var parent *repo.Snapshot
	for _, s := range parents {
		e, err := k.repo.Find(ctx, s, tree.Key{Path: mobilesync.ManifestPlist})
		if err != nil && !errors.Is(err, repo.ErrDamaged) {
			return err
		}
		if e != nil {
			parent, k.manifest = s, e
			break
		}
	}
	if parent == nil {
		return nil // the password can change; the next backup sends everything
	}
	err = Apply(ctx, k.repo, k.udid, parent, func(e *tree.Entry) error {
		if e.Path == mobilesync.ManifestPlist {
			k.manifest = e
		}
		return nil
	})
	if err != nil {
		return err
	}
	if k.record, err = k.repo.NewUnfinished(repo.UnfinishedPasswordChange, k.udid); err != nil {
		return err
	}
	k.record.Device, k.record.Parent = parent.Device.Name, &parent.ID
	return nil
}

// Changed reports whether the device has written new keys, so that the next
// backup continues from the last one.
func (k *Folder) Changed() bool { return k.saved }

var errUnsupported = fmt.Errorf("%w here", errors.ErrUnsupported)

// hasManifest reports whether path is Manifest.plist and the folder has one.
func (k *Folder) hasManifest(path string) bool {
	p, _ := blob.Below(k.udid, path)
	return k.manifest != nil && p == mobilesync.ManifestPlist
}

// Open implements backup2.Folder.
func (k *Folder) Open(ctx context.Context, path string) (io.ReadCloser, error) {
	if _, ok := blob.Below(k.udid, path); !ok {
		return nil, fmt.Errorf("%s is not below %s: %w", path, k.udid, errUnsupported)
	}
	if !k.hasManifest(path) {
		return nil, fmt.Errorf("open %s: %w", path, fs.ErrNotExist)
	}
	return blob.Open(ctx, k.repo, k.manifest)
}

// Create implements backup2.Folder, for Manifest.plist.
func (k *Folder) Create(ctx context.Context, path string) (backup2.Upload, error) {
	if !k.hasManifest(path) {
		return nil, fmt.Errorf("receive %s during a change of the password: %w", path, errUnsupported)
	}
	return &upload{k: k, ctx: ctx}, nil
}

type upload struct {
	k    *Folder
	ctx  context.Context
	buf  []byte
	done bool
}

// Write implements io.Writer.
func (u *upload) Write(p []byte) (int, error) {
	if len(u.buf)+len(p) > mobilesync.MaxPlist {
		return 0, fmt.Errorf("%s is larger than %d bytes", mobilesync.ManifestPlist, mobilesync.MaxPlist)
	}
	u.buf = append(u.buf, p...)
	return len(p), nil
}

// Abort implements backup2.Upload.
func (u *upload) Abort() { u.done, u.buf = true, nil }

// Commit implements backup2.Upload. After it returns nil, the next backup will
// use the new keys.
func (u *upload) Commit() error {
	if u.done {
		return fs.ErrClosed
	}
	u.done = true
	err := u.k.save(u.ctx, u.buf)
	if backend.IsNoSpace(err) {
		err = fmt.Errorf("%w: %w", backup2.ErrNoSpace, err)
	}
	if err != nil {
		return fmt.Errorf("store %s: %w", mobilesync.ManifestPlist, err)
	}
	return nil
}

func (k *Folder) save(ctx context.Context, manifest []byte) error {
	w := k.repo.NewWriter(ctx)
	defer w.Close()
	content := w.NewContentWriter()
	c, err := content.Store(ctx, bytes.NewReader(manifest), nil)
	if err != nil {
		return err
	}
	e := &tree.Entry{Path: mobilesync.ManifestPlist, Mode: blob.FileMode, Content: c}
	part := tree.NewBuilder(w.SaveNode, nil)
	if err := part.Add(ctx, e); err != nil {
		return err
	}
	root, err := part.Finish(ctx)
	if err != nil {
		return err
	}
	if err := content.Flush(ctx); err != nil {
		return err
	}
	if err := w.Finish(ctx); err != nil {
		return err
	}
	k.record.Parts = append(k.record.Parts[:0], root)
	k.record.Files, k.record.Bytes = 1, int64(len(manifest))
	k.record.SetStats(w.Stats())
	if err := k.repo.SaveUnfinished(ctx, k.record); err != nil {
		return err
	}
	k.manifest, k.saved = e, true
	return nil
}

// List implements backup2.Folder.
func (k *Folder) List(_ context.Context, path string) ([]backup2.Item, error) {
	p, ok := blob.Below(k.udid, path)
	switch {
	case !ok:
		return nil, fmt.Errorf("%s is not below %s: %w", path, k.udid, errUnsupported)
	case p != "":
		return nil, fmt.Errorf("%s: %w", p, fs.ErrNotExist)
	case k.manifest == nil:
		return nil, nil
	}
	return []backup2.Item{{Name: mobilesync.ManifestPlist, Size: blob.Size(k.manifest)}}, nil
}

// Mkdir implements backup2.Folder. It does nothing.
func (k *Folder) Mkdir(context.Context, string) error { return nil }

// Move implements backup2.Folder. Nothing can be moved.
func (k *Folder) Move(_ context.Context, from, _ string) error {
	return fmt.Errorf("move %s during a change of the password: %w", from, errUnsupported)
}

// Remove implements backup2.Folder. Nothing can be removed.
func (k *Folder) Remove(_ context.Context, path string) error {
	return fmt.Errorf("remove %s during a change of the password: %w", path, errUnsupported)
}

// Copy implements backup2.Folder. Nothing can be copied.
func (k *Folder) Copy(_ context.Context, from, _ string) error {
	return fmt.Errorf("copy %s during a change of the password: %w", from, errUnsupported)
}

// space is more than a device asks for.
const space = 1 << 50

// Space implements backup2.Folder.
func (k *Folder) Space(context.Context) (int64, error) { return space, nil }

// Purge implements backup2.Folder. It frees nothing.
func (k *Folder) Purge(context.Context, int64) (int64, error) { return 0, nil }
