package mobilesync

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/snap-backup/snap/device/mobilesync/keybag"
	"github.com/snap-backup/snap/device/mobilesync/manifest"
	"github.com/snap-backup/snap/device/protocol/plist"
)

var (
	// ErrNotUnlockable says that snap cannot decrypt a backup with any
	// password. The error says why.
	ErrNotUnlockable = errors.New("cannot be unlocked")
	// ErrNoKey says that the manifest has no key for a file.
	ErrNoKey = errors.New("the manifest has no key for this file")
)

// Unlock unlocks an encrypted backup of iOS 10.2 or later with its password, so
// that Records and FileKey work. It tries the forms of the password, see package
// password. Deriving the key takes seconds. Meanwhile
// Unlock calls progress, which may be nil, with the rounds done and the total.
//
// The error is keybag.ErrWrongPassword if the password is wrong, and
// ErrNotUnlockable if the backup is not encrypted, has an older layout, or has a
// malformed keybag.
func (b *Backup) Unlock(ctx context.Context, password []byte, progress func(done, total uint64)) (*keybag.Keys, error) {
	if err := b.unlockable(); err != nil {
		return nil, fmt.Errorf("%s: %w", b.dir, err)
	}
	bag, err := keybag.Parse(b.KeyBag())
	if err == nil {
		err = bag.Check()
	}
	if err != nil {
		return nil, fmt.Errorf("%s: its keybag: %w: %w", b.dir, ErrNotUnlockable, err)
	}
	keys, form, err := bag.UnlockText(ctx, password, progress)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", b.dir, err)
	}
	clear(form)
	if err := b.UnlockWith(keys); err != nil {
		keys.Destroy()
		return nil, err
	}
	return keys, nil
}

// UnlockWith unlocks a backup with keys that Unlock returned for another backup
// with the same keybag. The caller keeps and destroys the keys.
func (b *Backup) UnlockWith(keys *keybag.Keys) error {
	b.unlockErr = b.unlockWith(keys)
	return b.unlockErr
}

// UnlockErr returns why the last call of UnlockWith, or of Unlock with the right password,
// failed; nil if it did not.
func (b *Backup) UnlockErr() error { return b.unlockErr }

func (b *Backup) unlockWith(keys *keybag.Keys) error {
	if err := b.unlockable(); err != nil {
		return fmt.Errorf("%s: %w", b.dir, err)
	}
	if b.plainDB {
		b.keys = keys
		return nil
	}
	key, err := keys.Unwrap(b.ManifestKey())
	if err != nil {
		return fmt.Errorf("%s: the key of Manifest.db: %w: %w", b.dir, ErrNotUnlockable, err)
	}
	if err := b.tryManifestKey(key); err != nil {
		return fmt.Errorf("%s: %w", b.dir, err)
	}
	b.keys, b.manifestKey = keys, &key
	return nil
}

func (b *Backup) unlockable() error {
	switch {
	case !b.encrypted:
		return fmt.Errorf("%w: it is not encrypted", ErrNotUnlockable)
	case b.layout == LayoutUnknown:
		return fmt.Errorf("%w: it has no Manifest.db", ErrNotUnlockable)
	case b.layout == Flat:
		return fmt.Errorf("%w: snap does not decrypt the layout of iOS 9 and earlier", ErrNotUnlockable)
	case b.plainByDevice():
		return fmt.Errorf("%w: snap does not decrypt the layout of iOS 10.0 and 10.1", ErrNotUnlockable)
	case len(b.ManifestKey()) == 0:
		return fmt.Errorf("%w: Manifest.plist has no ManifestKey", ErrNotUnlockable)
	}
	return nil
}

// tryManifestKey checks that key decrypts Manifest.db to an SQLite database.
func (b *Backup) tryManifestKey(key keybag.FileKey) error {
	file, size, err := b.OpenManifest()
	if err != nil {
		return err
	}
	defer file.Close()
	plain, _, err := decryptManifest(file, size, key)
	if err != nil {
		return fmt.Errorf("%w: Manifest.db: %w", manifest.ErrCorrupt, err)
	}
	head := make([]byte, manifest.HeaderLen)
	if n, err := plain.ReadAt(head, 0); n < len(head) && !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: Manifest.db: %w", manifest.ErrCorrupt, err)
	}
	if !manifest.IsSQLite(head) {
		return fmt.Errorf("%w: the backup's key does not decrypt Manifest.db", manifest.ErrCorrupt)
	}
	return nil
}

// decryptManifest returns a reader that decrypts an encrypted Manifest.db. Some
// programs omit the padding. The end of such a database may look like padding.
// So the size in the database's header decides first.
func decryptManifest(r io.ReaderAt, size int64, key keybag.FileKey) (io.ReaderAt, int64, error) {
	all, err := keybag.UnpaddedDecrypterAt(r, size, key)
	if err != nil {
		return nil, 0, err
	}
	head := make([]byte, manifest.HeaderLen)
	if n, err := all.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, 0, err
	} else if n == len(head) && manifest.IsSQLite(head) && manifest.DatabaseSize(head) == size {
		return all, size, nil
	}
	plain, n, err := keybag.DecrypterAt(r, size, key)
	if errors.Is(err, keybag.ErrPadding) {
		return all, size, nil
	}
	return plain, n, err
}

// ParseKeyBag returns the keybag in a Manifest.plist.
func ParseKeyBag(manifestPlist []byte) ([]byte, error) {
	v, err := plist.Select(manifestPlist, "BackupKeyBag")
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ManifestPlist, err)
	}
	bag := v.Data("BackupKeyBag")
	if len(bag) == 0 {
		return nil, fmt.Errorf("%s has no keybag", ManifestPlist)
	}
	return bag, nil
}

// Unlocked reports whether Unlock or UnlockWith has succeeded.
func (b *Backup) Unlocked() bool { return b.keys != nil }

// FileKey returns the key that a row's blob is encrypted with. The error is
// ErrEncrypted if the backup is not unlocked, and ErrNoKey if the row has no key,
// which means that the blob is not encrypted. Other errors are keybag.ErrNoClass,
// ErrUnsupportedKey and ErrUnwrap.
func (b *Backup) FileKey(rec *manifest.Record) (keybag.FileKey, error) {
	switch {
	case b.keys == nil:
		return keybag.FileKey{}, ErrEncrypted
	case len(rec.EncryptionKey) == 0:
		return keybag.FileKey{}, ErrNoKey
	}
	return b.keys.Unwrap(rec.EncryptionKey)
}

// Format keeps keys out of printed text, with any verb.
func (b *Backup) Format(f fmt.State, _ rune) { _, _ = fmt.Fprintf(f, "Backup(%s)", b.dir) }

// ManifestDBKey returns the key that Manifest.db of an unlocked backup is
// encrypted with. encrypted is false if a program has decrypted Manifest.db in
// place.
func (b *Backup) ManifestDBKey() (key keybag.FileKey, encrypted bool) {
	if b.manifestKey == nil {
		return key, false
	}
	return *b.manifestKey, true
}
