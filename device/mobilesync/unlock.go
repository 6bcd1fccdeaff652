package mobilesync

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/snap-backup/snap/device/mobilesync/keybag"
)

// ErrNotUnlockable says that no password makes the content of a backup
// readable here, and why.
var ErrNotUnlockable = errors.New("cannot be unlocked")

// Unlock opens an encrypted backup of iOS 10.2 or later with its password, so
// that Records and FileKey work. Deriving the key takes seconds on real
// backups; progress, which may be nil, is told the rounds done and in all.
//
// keybag.ErrWrongPassword when the password is wrong; ErrNotUnlockable when
// the backup is not encrypted, has an older layout, or a keybag that makes no
// sense. Nothing is asked of a device.
func (b *Backup) Unlock(ctx context.Context, password []byte, progress func(done, total uint64)) (*keybag.Keys, error) {
	if err := b.unlockable(); err != nil {
		return nil, fmt.Errorf("%s: %w", b.dir, err)
	}
	bag, err := keybag.Parse(b.KeyBag())
	if err != nil {
		return nil, fmt.Errorf("%s: its keybag: %w: %w", b.dir, ErrNotUnlockable, err)
	}
	keys, err := bag.Unlock(ctx, password, progress)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", b.dir, err)
	}
	if err := b.UnlockWith(keys); err != nil {
		keys.Destroy()
		return nil, err
	}
	return keys, nil
}

// UnlockWith opens a backup with the keys of its keybag that another backup
// with the same bag has opened. The keys stay the caller's.
func (b *Backup) UnlockWith(keys *keybag.Keys) error {
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
	case b.layout != Hashed:
		return fmt.Errorf("%w: the layout of iOS 9 and earlier is stored as it is", ErrNotUnlockable)
	case len(b.ManifestKey()) == 0:
		return fmt.Errorf("%w: the layout of iOS 10.0 and 10.1 is stored as it is", ErrNotUnlockable)
	}
	return nil
}

// tryManifestKey looks whether Manifest.db opens to an SQLite database.
func (b *Backup) tryManifestKey(key keybag.FileKey) error {
	file, size, err := b.OpenManifest()
	if err != nil {
		return err
	}
	defer file.Close()
	plain, _, err := openManifest(file, size, key)
	if err != nil {
		return fmt.Errorf("%w: Manifest.db: %w", ErrCorrupt, err)
	}
	head := make([]byte, len(sqliteMagic))
	if n, err := plain.ReadAt(head, 0); n < len(head) && !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: Manifest.db: %w", ErrCorrupt, err)
	}
	if !isSQLite(head) {
		return fmt.Errorf("%w: Manifest.db does not open with the key that the backup gives for it", ErrCorrupt)
	}
	return nil
}

// openManifest gives access to the plain form of a sealed Manifest.db without
// ever having all of it in memory or on disk. Some tools leave the padding
// out; then all bytes are the database's. The last of them may look like
// padding, so the size that the database gives itself comes first.
func openManifest(r io.ReaderAt, size int64, key keybag.FileKey) (io.ReaderAt, int64, error) {
	all, err := keybag.UnpaddedOpenerAt(r, size, key)
	if err != nil {
		return nil, 0, err
	}
	head := make([]byte, 100) // SQLite's file header
	if n, err := all.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, 0, err
	} else if n == len(head) && isSQLite(head) && databaseSize(head) == size {
		return all, size, nil
	}
	plain, n, err := keybag.OpenerAt(r, size, key)
	if errors.Is(err, keybag.ErrPadding) {
		return all, size, nil
	}
	return plain, n, err
}

// ParseKeyBag returns the keybag in the bytes of a Manifest.plist.
func ParseKeyBag(manifest []byte) ([]byte, error) {
	v, err := readPlist(manifest, "BackupKeyBag")
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ManifestPlist, err)
	}
	bag := v.data("BackupKeyBag")
	if len(bag) == 0 {
		return nil, fmt.Errorf("%s has no keybag", ManifestPlist)
	}
	return bag, nil
}

// Unlocked reports whether Unlock or UnlockWith has succeeded.
func (b *Backup) Unlocked() bool { return b.keys != nil }

// FileKey returns the key that a row's blob is sealed with. keybag.ErrNoClass,
// ErrUnsupportedKey and ErrUnwrap say why there is none; ErrNoKey that the row
// names none, so that the blob is in the clear.
func (b *Backup) FileKey(rec *Record) (keybag.FileKey, error) {
	switch {
	case b.keys == nil:
		return keybag.FileKey{}, ErrEncrypted
	case len(rec.EncryptionKey) == 0:
		return keybag.FileKey{}, ErrNoKey
	}
	return b.keys.Unwrap(rec.EncryptionKey)
}

// Format keeps what Unlock has opened out of whatever is printed, with any verb.
func (b *Backup) Format(f fmt.State, _ rune) { _, _ = fmt.Fprintf(f, "Backup(%s)", b.dir) }

// ErrNoKey says that the manifest gives no key for a file.
var ErrNoKey = errors.New("the manifest has no key for this file")

// ManifestDBKey returns the key that Manifest.db of an unlocked backup is
// sealed with. sealed is false where it is not: some tool has opened it in
// place.
func (b *Backup) ManifestDBKey() (key keybag.FileKey, sealed bool) {
	if b.manifestKey == nil {
		return key, false
	}
	return *b.manifestKey, true
}
