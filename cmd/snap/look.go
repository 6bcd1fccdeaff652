package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/keybag"
	"github.com/snap-backup/snap/look"
	"github.com/snap-backup/snap/repo"
	"github.com/spf13/cobra"
)

// openLook opens a snapshot to look into it. The caller calls close.
func (a *app) openLook(cmd *cobra.Command, spec string, source backupPassword) (v *look.Reader, closeLook func(), err error) {
	r, found, err := a.openToRead(cmd, spec)
	if err != nil {
		return nil, nil, err
	}
	u, err := a.newLookUnlocker(cmd.Context(), r, source)
	if err != nil {
		return nil, nil, err
	}
	v = look.Open(r, found[0], u.unlock)
	return v, func() { v.Close(); u.close() }, nil
}

// lookUnlocker unlocks snapshots to look into them: with the given password, with those
// that the repository keeps, or with one that a person types.
type lookUnlocker struct {
	bagOpener
	a       *app
	refused map[[32]byte]bool // keybags whose password nobody wanted to type
}

func (a *app) newLookUnlocker(ctx context.Context, r *repo.Repo, source backupPassword) (*lookUnlocker, error) {
	given, err := source.toTry(ctx, a)
	return &lookUnlocker{bagOpener{r: r, given: given, keys: map[[32]byte]*keybag.Keys{}}, a, map[[32]byte]bool{}}, err
}

// unlock unlocks a backup. It leaves the backup locked if no password is known.
func (u *lookUnlocker) unlock(ctx context.Context, b *mobilesync.Backup) error {
	err := u.bagOpener.unlock(ctx, b)
	if errors.Is(err, mobilesync.ErrNotUnlockable) {
		return fmt.Errorf("%w: %w", look.ErrLocked, err)
	}
	bag := sha256.Sum256(b.KeyBag())
	if err != nil || b.Unlocked() || u.refused[bag] {
		return err
	}
	if u.given != nil {
		return wrongBackupPassword{b.Device().Name}
	}
	if err = u.ask(ctx, b); err == nil {
		u.refused[bag] = !b.Unlocked()
	}
	return err
}

// unlockSilently is like unlock, but asks nobody.
func (u *lookUnlocker) unlockSilently(ctx context.Context, b *mobilesync.Backup) error {
	u.refused[sha256.Sum256(b.KeyBag())] = u.given == nil
	return u.unlock(ctx, b)
}

// ask asks a person, who has some tries. An empty answer leaves the backup locked.
func (u *lookUnlocker) ask(ctx context.Context, b *mobilesync.Backup) error {
	name := b.Device().Name
	for try := 1; u.a.canAsk() && !u.a.neverAsk; try++ {
		password, err := u.a.ask(ctx, fmt.Sprintf("backup password of %s: ", clean(name)), oldBackupPassword)
		if errors.Is(err, errNoPassword) {
			return nil
		}
		if err != nil {
			return err
		}
		u.given = password.tries()
		delete(u.keys, sha256.Sum256(b.KeyBag()))
		err = u.bagOpener.unlock(ctx, b)
		u.given = nil
		password.clear()
		if err != nil || b.Unlocked() {
			return err
		}
		if try == maxTries {
			return wrongBackupPassword{name}
		}
		u.a.warn("this is not the backup password of %s", clean(name))
	}
	return nil
}
