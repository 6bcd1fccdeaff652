package virtual

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/protocol/backup2"
	"github.com/snap-backup/snap/device/protocol/plist"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/tree"
)

// Rekey is the folder in which a device changes its backup password. It reads
// the last backup's Manifest.plist there and writes it back with the keys
// sealed anew. That is kept in a record of its own, for the next backup to
// continue with; snapshots stay under the password that they had.
type Rekey struct {
	r     *repo.Repo
	udid  string
	names *names
	rec   *repo.Unfinished
	saved bool
}

var _ backup2.Folder = (*Rekey)(nil)

// NewRekey shows a device its last backup for a change of the password. The
// repository's index must have been loaded.
func NewRekey(ctx context.Context, r *repo.Repo, udid string) (*Rekey, error) {
	k := &Rekey{r: r, udid: udid, names: newNames(nil)}
	parents, err := candidates(ctx, r, udid)
	if err != nil {
		return nil, fmt.Errorf("change the password of %s: %w", udid, err)
	}
	var parent *repo.Snapshot
	for _, s := range parents {
		e, err := r.Find(ctx, s, tree.Key{Path: mobilesync.ManifestPlist})
		if err != nil && !errors.Is(err, repo.ErrDamaged) {
			return nil, fmt.Errorf("change the password of %s: %w", udid, err)
		}
		if e != nil {
			parent = s
			k.names.others[e.Path] = other{old: e}
			break
		}
	}
	if parent == nil {
		return k, nil // the device goes on without, and backs up in full next time
	}
	if err := applyRekeys(ctx, r, udid, parent, k.names); err != nil {
		return nil, fmt.Errorf("change the password of %s: %w", udid, err)
	}
	if k.rec, err = r.NewUnfinished(repo.UnfinishedRekey, udid); err != nil {
		return nil, err
	}
	k.rec.Device, k.rec.Parent = parent.Device.Name, &parent.ID
	return k, nil
}

// LastKeyBag returns the keybag that a device's next backup continues from: that
// of its last complete snapshot, or what a change of the password has made of it.
// nil if there is none.
func LastKeyBag(ctx context.Context, r *repo.Repo, udid string) ([]byte, error) {
	k, err := NewRekey(ctx, r, udid)
	if err != nil {
		return nil, err
	}
	f, err := k.Open(ctx, udid+"/"+mobilesync.ManifestPlist)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, mobilesync.MaxPlist))
	if err != nil {
		return nil, fmt.Errorf("read the keys of the last backup of %s: %w", udid, err)
	}
	d, err := plist.Dict(b)
	if encrypted, _ := d["IsEncrypted"].(bool); err != nil || !encrypted {
		return nil, nil // plain ones have a keybag, too, that no password opens
	}
	bag, _ := d["BackupKeyBag"].([]byte)
	return bag, nil
}

// Changed reports whether the device has written its keys back, so that the
// next backup goes on from the last one.
func (k *Rekey) Changed() bool { return k.saved }

// Open implements backup2.Folder.
func (k *Rekey) Open(ctx context.Context, path string) (io.ReadCloser, error) {
	p, err := below(k.udid, path)
	if err != nil {
		return nil, err
	}
	f, ok := k.names.lookup(p)
	switch {
	case !ok:
		return nil, fmt.Errorf("open %s: %w", path, fs.ErrNotExist)
	case f.entry != nil:
		return openEntry(ctx, k.r, f.entry)
	}
	c := k.names.content(f.file)
	return openEntry(ctx, k.r, &tree.Entry{Content: c})
}

// Create implements backup2.Folder, for Manifest.plist alone.
func (k *Rekey) Create(ctx context.Context, path string) (backup2.Upload, error) {
	p, err := below(k.udid, path)
	if err != nil {
		return nil, err
	}
	if p != mobilesync.ManifestPlist || k.rec == nil {
		return nil, fmt.Errorf("receive %s during a change of the password: %w", path, errForeign)
	}
	return &rekeyUpload{k: k, ctx: ctx, path: p}, nil
}

type rekeyUpload struct {
	k    *Rekey
	ctx  context.Context
	path string
	buf  []byte
	done bool
}

// Write implements io.Writer.
func (u *rekeyUpload) Write(p []byte) (int, error) {
	if len(u.buf)+len(p) > mobilesync.MaxPlist {
		return 0, fmt.Errorf("%s is larger than %d bytes", u.path, mobilesync.MaxPlist)
	}
	u.buf = append(u.buf, p...)
	return len(p), nil
}

// Abort implements backup2.Upload.
func (u *rekeyUpload) Abort() { u.done, u.buf = true, nil }

// Commit implements backup2.Upload. When it returns, the next backup has it.
func (u *rekeyUpload) Commit() error {
	if u.done {
		return fs.ErrClosed
	}
	u.done = true
	if err := u.k.keep(u.ctx, u.path, u.buf); err != nil {
		return fmt.Errorf("store %s: %w", u.path, noSpace(err))
	}
	return nil
}

func (k *Rekey) keep(ctx context.Context, path string, data []byte) error {
	w := k.r.NewWriter(ctx)
	defer w.Close()
	lane := w.NewContentWriter()
	c, err := lane.Store(ctx, bytes.NewReader(data), nil)
	if err != nil {
		return err
	}
	part := tree.NewBuilder(w.SaveNode, nil)
	if err := part.Add(ctx, &tree.Entry{Path: path, Mode: fileMode, Content: c}); err != nil {
		return err
	}
	root, err := part.Finish(ctx)
	if err != nil {
		return err
	}
	if err := lane.Flush(ctx); err != nil {
		return err
	}
	if err := w.Finish(ctx); err != nil {
		return err
	}
	k.rec.Parts = append(k.rec.Parts[:0], root)
	k.rec.Files, k.rec.Bytes = 1, int64(len(data))
	k.rec.SetStats(w.Stats())
	if err := k.r.SaveUnfinished(ctx, k.rec); err != nil {
		return err
	}
	number, err := k.names.keep(&c, 0)
	if err != nil {
		return err
	}
	k.names.others[path] = other{file: number}
	k.saved = true
	return nil
}

// List implements backup2.Folder.
func (k *Rekey) List(_ context.Context, path string) ([]backup2.Item, error) {
	p, err := below(k.udid, path)
	if err != nil {
		return nil, err
	}
	items, err := k.names.list(p)
	if err != nil {
		return nil, err
	}
	var out []backup2.Item
	for _, it := range items {
		out = append(out, backup2.Item{Name: it.name, Dir: it.dir != nil, Size: it.size})
	}
	return out, nil
}

// Mkdir implements backup2.Folder; folders come about by themselves.
func (k *Rekey) Mkdir(context.Context, string) error { return nil }

// Move implements backup2.Folder. There is nothing to move.
func (k *Rekey) Move(_ context.Context, from, _ string) error {
	return fmt.Errorf("move %s during a change of the password: %w", from, errForeign)
}

// Remove implements backup2.Folder. There is nothing to remove.
func (k *Rekey) Remove(_ context.Context, path string) error {
	return fmt.Errorf("remove %s during a change of the password: %w", path, errForeign)
}

// Copy implements backup2.Folder. There is nothing to copy.
func (k *Rekey) Copy(_ context.Context, from, _ string) error {
	return fmt.Errorf("copy %s during a change of the password: %w", from, errForeign)
}

// Space implements backup2.Folder.
func (k *Rekey) Space(context.Context) (int64, error) { return spaceUnknown, nil }

// Purge implements backup2.Folder.
func (k *Rekey) Purge(context.Context, int64) (int64, error) { return 0, nil }

// rekeys are the records of changed passwords of a device, the oldest first.
func rekeys(ctx context.Context, r *repo.Repo, udid string) ([]*repo.Unfinished, error) {
	list, _, err := r.Unfinished(ctx)
	if err != nil {
		return nil, err
	}
	var out []*repo.Unfinished
	for _, u := range list {
		if u.Kind == repo.UnfinishedRekey && repo.SameDevice(u.UDID, udid) {
			out = append(out, u)
		}
	}
	return out, nil
}

// applyRekeys puts what changes of the password have left in place of what a
// snapshot has.
func applyRekeys(ctx context.Context, r *repo.Repo, udid string, parent *repo.Snapshot, n *names) error {
	list, err := rekeys(ctx, r, udid)
	if err != nil {
		return err
	}
	for _, u := range list {
		if u.Parent == nil || !parent.Has(*u.Parent) {
			continue
		}
		err := r.WalkUnfinished(ctx, u, func(e *tree.Entry) error {
			number, err := n.keep(&e.Content, 0)
			if err != nil {
				return err
			}
			n.others[e.Path] = other{file: number}
			return nil
		})
		// Without it the device backs up in full, which loses nothing.
		if err != nil && !errors.Is(err, repo.ErrDamaged) {
			return err
		}
	}
	return nil
}

// removeRekeys removes the records that a new snapshot has made needless.
func removeRekeys(ctx context.Context, r *repo.Repo, udid string) error {
	list, err := rekeys(ctx, r, udid)
	if err != nil {
		return err
	}
	for _, u := range list {
		if err := r.RemoveUnfinished(ctx, u); err != nil {
			return err
		}
	}
	return nil
}

// applyRekey continues a backup with the keys that the device has sealed anew.
func (n *Run) applyRekey(ctx context.Context) error {
	if n.shown == nil {
		return nil
	}
	err := applyRekeys(ctx, n.r, n.opts.UDID, n.parent, n.names)
	n.stored = len(n.names.ids)
	return err
}
