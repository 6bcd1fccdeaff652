package passwordchange

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/protocol/plist"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/tree"
)

// KeyBag returns the keybag of a snapshot of an encrypted backup.
func KeyBag(ctx context.Context, r *repo.Repo, s *repo.Snapshot) ([]byte, error) {
	e, err := r.Find(ctx, s, tree.Key{Path: mobilesync.ManifestPlist})
	if err != nil {
		return nil, err
	}
	if e == nil {
		return nil, fmt.Errorf("snapshot %s has no %s", s.ID.Short(), mobilesync.ManifestPlist)
	}
	if e.Content.Size > mobilesync.MaxPlist {
		return nil, fmt.Errorf("snapshot %s: %s has %d bytes", s.ID.Short(), mobilesync.ManifestPlist, e.Content.Size)
	}
	var b bytes.Buffer
	if err := r.WriteContent(ctx, &b, &e.Content); err != nil {
		return nil, err
	}
	bag, err := mobilesync.ParseKeyBag(b.Bytes())
	if err != nil {
		return nil, fmt.Errorf("snapshot %s: %w", s.ID.Short(), err)
	}
	return bag, nil
}

// LastKeyBag returns the keybag that a device's next backup continues from:
// that of its last complete snapshot, or a newer one that a password change
// wrote. It returns nil if there is none.
func LastKeyBag(ctx context.Context, r *repo.Repo, udid string) ([]byte, error) {
	k, err := New(ctx, r, udid)
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
		return nil, nil // unencrypted backups have a keybag that no password unlocks
	}
	bag, _ := d["BackupKeyBag"].([]byte)
	return bag, nil
}
