package mobilesync

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
)

// fingerprint is what Open saw of a file at the top of the folder.
type fingerprint struct {
	stat
	hash   [sha256.Size]byte // of the content of property lists
	hashed bool
}

func fingerprintOf(st stat, content []byte) fingerprint {
	f := fingerprint{stat: st}
	if content != nil {
		f.hash, f.hashed = sha256.Sum256(content), true
	}
	return f
}

// ChangedError names the file by which a change was noticed. It is ErrChanged.
type ChangedError struct {
	Path string // inside the backup folder
	What string
}

func (e *ChangedError) Error() string { return fmt.Sprintf("%v: %s: %s", ErrChanged, e.Path, e.What) }

// Is makes errors.Is(err, ErrChanged) true.
func (e *ChangedError) Is(target error) bool { return target == ErrChanged }

// CheckStable returns a *ChangedError if the backup is not what Open saw: one of
// the property lists or the manifest changed, appeared or vanished, or a
// Snapshot folder is there, which means that the device began to write. Property
// lists are compared by content; the manifest by size, times and inode, so that
// also a run that came and went in between is noticed.
func (b *Backup) CheckStable(ctx context.Context) error {
	if err := b.checkStable(ctx); err != nil {
		return fmt.Errorf("check that %s has not changed: %w", b.dir, err)
	}
	return nil
}

func (b *Backup) checkStable(ctx context.Context) error {
	there, err := exists(b.folder, snapshotDir)
	if err != nil {
		return err
	}
	if there {
		return &ChangedError{snapshotDir, "a backup run began, or was cut off before"}
	}
	for _, name := range []string{StatusPlist, ManifestPlist, ManifestDB, ManifestMBDB, InfoPlist} {
		if err := ctx.Err(); err != nil {
			return err
		}
		before, was := b.seen[name]
		now, err := b.fingerprint(name, before.hashed)
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, errNotRegular), errors.Is(err, errLink):
			if was {
				return &ChangedError{name, "it is gone"}
			}
			continue
		case err != nil && !was:
			// It could not be read then, and cannot be now.
			continue
		case err != nil:
			return err
		case !was && b.faults[name] == nil, !was && errors.Is(b.faults[name], fs.ErrNotExist):
			return &ChangedError{name, "it appeared"}
		case !was:
			continue
		}
		if what := before.differs(now); what != "" {
			return &ChangedError{name, what}
		}
	}
	return nil
}

func (b *Backup) fingerprint(name string, withHash bool) (fingerprint, error) {
	if withHash {
		data, st, err := readSmall(b.folder, name, MaxPlist)
		if data == nil {
			data = []byte{}
		}
		return fingerprintOf(st, data), err
	}
	file, st, err := b.folder.open(name)
	if err != nil {
		return fingerprint{}, err
	}
	file.Close()
	return fingerprintOf(st, nil), nil
}

func (f fingerprint) differs(now fingerprint) string {
	switch {
	case f.size != now.size:
		return fmt.Sprintf("it had %d bytes and has %d", f.size, now.size)
	case f.hashed:
		if f.hash != now.hash {
			return "its content differs"
		}
	case f.inode != now.inode:
		return "it was replaced"
	case f.modTime != now.modTime:
		return "it was written to"
	case f.change != now.change:
		return "it was written to or its attributes were changed"
	}
	return ""
}
