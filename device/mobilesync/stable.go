package mobilesync

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"

	"github.com/snap-backup/snap/device/mobilesync/folder"
)

// fingerprint identifies the state of a file at the top of the folder.
type fingerprint struct {
	folder.Stat
	hash   [sha256.Size]byte // of the content of property lists
	hashed bool
}

func fingerprintOf(st folder.Stat, content []byte) fingerprint {
	f := fingerprint{Stat: st}
	if content != nil {
		f.hash, f.hashed = sha256.Sum256(content), true
	}
	return f
}

// CheckStable returns a *folder.ChangedError if the backup changed since Open: a
// property list or the manifest changed, appeared or vanished, or a Snapshot
// folder exists, which means that the device began to write. It compares
// property lists by content, and the manifest by size, times and inode. So it
// also detects a backup that began and finished in the meantime.
func (b *Backup) CheckStable(ctx context.Context) error {
	if err := b.checkStable(ctx); err != nil {
		return fmt.Errorf("check that %s has not changed: %w", b.dir, err)
	}
	return nil
}

func (b *Backup) checkStable(ctx context.Context) error {
	exists, err := folder.Exists(b.source, snapshotDir)
	if err != nil {
		return err
	}
	if exists {
		return &folder.ChangedError{Path: snapshotDir, What: "a backup began, or an earlier one was interrupted"}
	}
	for _, name := range []string{StatusPlist, ManifestPlist, ManifestDB, ManifestMBDB, InfoPlist} {
		if err := ctx.Err(); err != nil {
			return err
		}
		before, seen := b.seen[name]
		now, err := b.fingerprint(name, before.hashed)
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, folder.ErrNotRegular), errors.Is(err, folder.ErrLink):
			if seen {
				return &folder.ChangedError{Path: name, What: "it is gone"}
			}
			continue
		case err != nil && !seen:
			// Open could not read this file either.
			continue
		case err != nil:
			return err
		case !seen && b.readErrors[name] == nil, !seen && errors.Is(b.readErrors[name], fs.ErrNotExist):
			return &folder.ChangedError{Path: name, What: "it appeared"}
		case !seen:
			continue
		}
		if what := before.differs(now); what != "" {
			return &folder.ChangedError{Path: name, What: what}
		}
	}
	return nil
}

func (b *Backup) fingerprint(name string, withHash bool) (fingerprint, error) {
	if withHash {
		data, st, err := folder.ReadSmall(b.source, name, MaxPlist)
		if data == nil {
			data = []byte{}
		}
		return fingerprintOf(st, data), err
	}
	file, st, err := b.source.Open(name)
	if err != nil {
		return fingerprint{}, err
	}
	file.Close()
	return fingerprintOf(st, nil), nil
}

func (f fingerprint) differs(now fingerprint) string {
	switch {
	case f.Size != now.Size:
		return fmt.Sprintf("it had %d bytes and has %d", f.Size, now.Size)
	case f.hashed:
		if f.hash != now.hash {
			return "its content differs"
		}
	case f.Inode != now.Inode:
		return "it was replaced"
	case !f.ModTime.Equal(now.ModTime):
		return "it was written to"
	case f.Change != now.Change:
		return "it was written to or its attributes were changed"
	}
	return ""
}
