package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"

	"github.com/snap-backup/snap/device/host"
	"github.com/snap-backup/snap/device/ingest"
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/keybag"
	"github.com/snap-backup/snap/device/mobilesync/manifest"
	"github.com/snap-backup/snap/repo"
	"github.com/spf13/cobra"
)

// backupPassword says where the backup password of a device comes from. The backup
// password is not the repository's password.
type backupPassword struct {
	file, command string
	opaque        bool // use no password
	keep          bool // store a password in the repository once it has opened a backup
}

func (p *backupPassword) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&p.file, "backup-password-file", "", "read the device's backup password from the first line of this `file` (or $SNAP_BACKUP_PASSWORD)")
	cmd.Flags().StringVar(&p.command, "backup-password-command", "", "read the device's backup password from the output of this shell `command`")
	cmd.MarkFlagsMutuallyExclusive("backup-password-file", "backup-password-command")
}

// given returns the password from the flags or the environment, or nil if there is
// none.
func (p *backupPassword) given(ctx context.Context, a *app) (*typed, error) {
	switch {
	case p.file != "":
		return a.readPasswordFile(p.file)
	case p.command != "":
		return a.runCommand(ctx, p.command)
	}
	return fromVariable("SNAP_BACKUP_PASSWORD")
}

// toTry returns the passwords to try, from the flags or the environment, or nil if
// there is none.
func (p *backupPassword) toTry(ctx context.Context, a *app) ([][]byte, error) {
	t, err := p.given(ctx, a)
	if err != nil || t == nil {
		return nil, err
	}
	if list := t.tries(); len(list) > 0 {
		return list, nil
	}
	return nil, t.bad
}

// wrongBackupPassword says that no known password opens a backup.
type wrongBackupPassword struct{ device string }

func (e wrongBackupPassword) Error() string {
	return fmt.Sprintf("wrong backup password for %s", clean(e.device))
}

func (wrongBackupPassword) Is(target error) bool { return target == keybag.ErrWrongPassword }

// unlocker opens encrypted backups. Deriving a key takes seconds, so it is done only
// once for all backups with the same keybag.
type unlocker struct {
	a      *app
	r      *repo.Repo
	source backupPassword
	given  [][]byte
	// allowDamaged allows damaged backups. Those that cannot be decrypted are stored
	// locked.
	allowDamaged bool
	// failIfLocked makes an import that stores a backup locked end with an error.
	failIfLocked bool
	keys         map[[32]byte]*keybag.Keys // by hash of the keybag
	typed        [][]byte                  // passwords from prompts that opened a backup
}

func (a *app) newUnlocker(ctx context.Context, r *repo.Repo, source backupPassword) (*unlocker, error) {
	u := &unlocker{a: a, r: r, source: source, keys: map[[32]byte]*keybag.Keys{}}
	var err error
	if !source.opaque {
		u.given, err = source.toTry(ctx, a)
	}
	return u, err
}

// close destroys all keys and the given password.
func (u *unlocker) close() {
	for _, k := range u.keys {
		k.Destroy()
	}
	clearAll(u.given)
	clearAll(u.typed)
}

// unlock opens an encrypted backup with the given password, one that the repository
// keeps, or one from a prompt. If there is no password, it returns nil and the backup
// stays locked. A backup without a manifest has nothing to open.
func (u *unlocker) unlock(ctx context.Context, b *mobilesync.Backup) error {
	if !b.Encrypted() || u.source.opaque || b.Layout() == mobilesync.LayoutUnknown {
		return nil
	}
	bag := sha256.Sum256(b.KeyBag())
	if keys := u.keys[bag]; keys != nil {
		return u.explain(b, b.UnlockWith(keys))
	}
	device := b.Device()
	try := func(password []byte) error {
		keys, err := u.derive(ctx, b, password)
		if err == nil {
			u.keys[bag] = keys
		}
		return err
	}
	for _, pw := range u.given {
		if err := try(pw); !errors.Is(err, keybag.ErrWrongPassword) {
			return u.finish(ctx, b, pw, err)
		}
	}
	wrong := u.given != nil
	kept, err := u.r.DevicePasswords(ctx, device.UDID)
	if err != nil {
		return err
	}
	defer clearPasswords(kept)
	for _, p := range kept {
		err := try(p.Password)
		if !errors.Is(err, keybag.ErrWrongPassword) {
			if wrong && err == nil {
				u.a.warn("%s: %s", clean(device.Name), host.KeptPasswordUsed)
			}
			return u.explain(b, err)
		}
	}
	if wrong {
		return wrongBackupPassword{device.Name}
	}
	for _, pw := range u.typed { // a family often has one for all devices
		if err := try(pw); !errors.Is(err, keybag.ErrWrongPassword) {
			return u.finish(ctx, b, pw, err)
		}
	}
	if len(kept) > 0 {
		u.a.warn("%s: the backup password that the repository keeps does not unlock this backup", clean(device.Name))
	}
	return u.ask(ctx, b, len(kept) > 0, try)
}

func clearPasswords(list []repo.DevicePassword) {
	for _, p := range list {
		clear(p.Password)
	}
}

// ask prompts for the password. An empty answer leaves the backup locked.
func (u *unlocker) ask(ctx context.Context, b *mobilesync.Backup, kept bool, try func([]byte) error) error {
	name := b.Device().Name
	if !u.a.canAsk() {
		if kept {
			return wrongBackupPassword{name}
		}
		return nil
	}
	for range 3 {
		password, err := u.a.ask(ctx, fmt.Sprintf("backup password of %s (empty: store the backup locked): ", clean(name)), oldBackupPassword)
		if errors.Is(err, errNoPassword) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, pw := range password.tries() {
			if err := try(pw); !errors.Is(err, keybag.ErrWrongPassword) {
				if err == nil {
					u.typed = append(u.typed, bytes.Clone(pw))
				}
				err = u.finish(ctx, b, pw, err)
				password.clear()
				return err
			}
		}
		password.clear()
		u.a.warn("this is not the backup password of %s", clean(name))
	}
	return wrongBackupPassword{name}
}

// finish stores a password in the repository if it opened the backup (err is nil) and
// --keep-backup-password is given.
func (u *unlocker) finish(ctx context.Context, b *mobilesync.Backup, password []byte, err error) error {
	if err == nil && u.source.keep {
		err = u.r.KeepDevicePassword(ctx, b.Device().UDID, password)
	}
	return u.explain(b, err)
}

// explain handles backups that no password opens. It warns if the backup can be
// stored locked. Otherwise a corrupt backup counts as incomplete.
func (u *unlocker) explain(b *mobilesync.Backup, err error) error {
	corrupt := errors.Is(err, manifest.ErrCorrupt)
	switch {
	case errors.Is(err, mobilesync.ErrNotUnlockable), corrupt && u.allowDamaged:
		u.a.warn("%v; it is stored locked", err)
		return nil
	case corrupt:
		return &ingest.IncompleteError{Dir: b.Dir(), Reasons: []string{err.Error()}}
	}
	return err
}

// derive unlocks a backup with a password and shows progress.
func (u *unlocker) derive(ctx context.Context, b *mobilesync.Backup, password []byte) (*keybag.Keys, error) {
	var done, total atomic.Int64
	stop := u.a.showProgress(func() meter {
		return meter{phase: "unlocking " + clean(b.Device().Name), percent: percent(done.Load(), total.Load())}
	})
	defer stop()
	return b.Unlock(ctx, password, func(d, t uint64) { done.Store(int64(d)); total.Store(int64(t)) })
}

func percent(done, total int64) int64 {
	if total == 0 {
		return 0
	}
	return done * 100 / total
}

// rawTexts says why files of an unlocked backup were stored encrypted.
var rawTexts = map[ingest.RawReason]string{
	ingest.RawNoKey:       "without a key in the manifest",
	ingest.RawUnsupported: "with a key in an unknown format",
	ingest.RawNoClass:     "of a protection class without a key in the keybag",
	ingest.RawBadKey:      "with a damaged key",
	ingest.RawLength:      "of a length that encrypted files cannot have",
	ingest.RawPadding:     "with a truncated or damaged end",
	ingest.RawDifferent:   "that differ when re-encrypted",
	ingest.RawDecrypted:   "that a program has decrypted",
}

// describeRaw prints how many files of an unlocked backup were stored encrypted.
func (a *app) describeRaw(res *ingest.Result) {
	for _, reason := range slices.Sorted(maps.Keys(res.Raw)) {
		what := "stored encrypted"
		if reason == ingest.RawDecrypted {
			what = "stored as they are"
		}
		a.remark("          note: %s %s, %s", plural(res.Raw[reason], "file"), rawTexts[reason], what)
	}
}
