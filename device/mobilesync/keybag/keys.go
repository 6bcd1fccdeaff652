package keybag

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"

	"github.com/snap-backup/snap/internal/password"
)

// Errors of Unlock, Unwrap and Wrap.
var (
	// ErrWrongPassword says that the password unwraps no class key.
	ErrWrongPassword = errors.New("wrong backup password")
	// ErrNoClass says that there is no usable key for the class.
	ErrNoClass = errors.New("no key for this protection class")
	// ErrDeviceBound says that the class key is also wrapped with a key of the device
	// and cannot be used elsewhere. It is an ErrNoClass.
	ErrDeviceBound = fmt.Errorf("%w: the key never leaves the device", ErrNoClass)
	// ErrDamagedClass says that the password is correct but does not unwrap this class
	// key, because the keybag is damaged. It is an ErrNoClass.
	ErrDamagedClass = fmt.Errorf("%w: its key is damaged in the keybag", ErrNoClass)
	// ErrUnsupportedKey says that a wrapped file key does not have the known form of
	// 4 + 40 bytes. Devices also have an undocumented form of 172 bytes.
	ErrUnsupportedKey = errors.New("unsupported form of a wrapped file key")
	// ErrUnwrap says that a wrapped file key fails its integrity check.
	ErrUnwrap = errors.New("wrapped file key fails its integrity check")
)

// WrappedFileKeyLen is the length of a wrapped file key: u32 little-endian class,
// then 40 bytes of RFC 3394.
const WrappedFileKeyLen = 4 + wrappedLen

// FileKey is the AES-256 key of a file or of Manifest.db. It is secret.
type FileKey [keyLen]byte

// Format keeps the key out of printed text, with any verb.
func (FileKey) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "FileKey(hidden)") }

// LogValue keeps the key out of structured logs.
func (FileKey) LogValue() slog.Value { return slog.StringValue("FileKey(hidden)") }

// Keys holds the class keys of an unlocked keybag. Several goroutines may call Unwrap
// and Wrap, but not while one calls Destroy.
type Keys struct {
	open    map[uint32]*[keyLen]byte
	bound   map[uint32]bool
	damaged []uint32
}

// Format keeps the keys out of printed text, with any verb.
func (k Keys) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprintf(f, "Keys(%d classes, hidden)", len(k.open))
}

// LogValue keeps the keys out of structured logs.
func (k Keys) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(k)) }

// Unlock derives a key from the password and unwraps every class key that the
// password protects.
//
// It calls progress, which may be nil, with the rounds done and the total (about ten
// million, a few seconds). The error is ctx.Err() if ctx ends, and ErrWrongPassword if
// no class key can be unwrapped. If only some can be unwrapped, the password is
// correct and the keybag is damaged: Unlock succeeds, and Damaged returns the classes
// that are missing. The keybag of an unencrypted backup has the empty password.
//
// Unlock uses the bytes of the password as they are, as devices do. UnlockText is for
// passwords that people give.
func (b *Bag) Unlock(ctx context.Context, password []byte, progress func(done, total uint64)) (*Keys, error) {
	keys, err := b.unlock(ctx, password, progress)
	if err != nil {
		return nil, fmt.Errorf("keybag: unlock: %w", err)
	}
	return keys, nil
}

// UnlockText is like Unlock, but tries the forms of a password, see package password.
// It also returns a copy of the form that unlocked the keybag. A device accepts only
// this form. The caller clears the copy.
func (b *Bag) UnlockText(ctx context.Context, typed []byte, progress func(done, total uint64)) (keys *Keys, form []byte, err error) {
	forms := password.Forms(typed)
	defer password.Clear(forms)
	for _, form := range forms {
		keys, err = b.Unlock(ctx, form, progress)
		if err == nil {
			return keys, bytes.Clone(form), nil
		}
		if !errors.Is(err, ErrWrongPassword) {
			break
		}
	}
	return nil, nil, err
}

// Check returns an error if no password can unlock the keybag: ErrMalformed or
// ErrTooManyRounds.
func (b *Bag) Check() error {
	for i := range b.Classes {
		if b.Classes[i].Wrap&WrapPassword != 0 {
			return b.checkRounds()
		}
	}
	return fmt.Errorf("no class is protected by a password: %w", ErrMalformed)
}

func (b *Bag) unlock(ctx context.Context, password []byte, progress func(done, total uint64)) (*Keys, error) {
	if err := b.Check(); err != nil {
		return nil, err
	}
	kek, err := b.passwordKey(ctx, password, progress)
	if err != nil {
		return nil, err
	}
	defer clear(kek[:])
	keys := &Keys{open: map[uint32]*[keyLen]byte{}, bound: map[uint32]bool{}}
	opened := 0
	var failed []uint32
	for i := range b.Classes {
		class := &b.Classes[i]
		if class.Wrap&WrapPassword == 0 {
			keys.bound[class.Number] = true
			continue
		}
		key, ok, err := class.unwrap(&kek)
		if err != nil {
			return nil, err
		}
		switch {
		case !ok:
			failed = append(failed, class.Number)
			continue
		case class.Wrap&WrapDevice != 0:
			clear(key[:])
			keys.bound[class.Number] = true
		case keys.open[class.Number] == nil:
			keys.open[class.Number] = &key
		}
		opened++
	}
	if opened == 0 {
		return nil, ErrWrongPassword
	}
	for _, number := range failed {
		if keys.open[number] == nil {
			keys.damaged = append(keys.damaged, number)
		}
	}
	slices.Sort(keys.damaged)
	keys.damaged = slices.Compact(keys.damaged)
	return keys, nil
}

func (c *Class) unwrap(kek *[keyLen]byte) (key [keyLen]byte, ok bool, err error) {
	if len(c.WrappedKey) != wrappedLen {
		return key, false, nil
	}
	return unwrapKey(kek, (*[wrappedLen]byte)(c.WrappedKey))
}

// Classes returns the classes with usable keys, ascending.
func (k *Keys) Classes() []uint32 {
	list := make([]uint32, 0, len(k.open))
	for number := range k.open {
		list = append(list, number)
	}
	slices.Sort(list)
	return list
}

// Damaged returns the classes whose keys could not be unwrapped although the
// password is correct, ascending.
func (k *Keys) Damaged() []uint32 { return slices.Clone(k.damaged) }

// Unwrap unwraps the EncryptionKey of a file or the ManifestKey of a backup. The error
// is ErrUnsupportedKey if the form of blob is unknown, ErrNoClass if there is no usable
// key for the class in blob, and ErrUnwrap if the integrity check fails.
func (k *Keys) Unwrap(blob []byte) (FileKey, error) {
	if len(blob) != WrappedFileKeyLen {
		return FileKey{}, fmt.Errorf("keybag: unwrap: %d bytes: %w", len(blob), ErrUnsupportedKey)
	}
	number := binary.LittleEndian.Uint32(blob)
	kek, err := k.class(number)
	if err != nil {
		return FileKey{}, fmt.Errorf("keybag: unwrap: %w", err)
	}
	key, ok, err := unwrapKey(kek, (*[wrappedLen]byte)(blob[4:]))
	if err != nil {
		return FileKey{}, fmt.Errorf("keybag: unwrap: class %d: %w", number, err)
	}
	if !ok {
		return FileKey{}, fmt.Errorf("keybag: unwrap: class %d: %w", number, ErrUnwrap)
	}
	return FileKey(key), nil
}

// Wrap is the inverse of Unwrap. It is deterministic: wrapping an unwrapped key
// restores the same bytes.
func (k *Keys) Wrap(class uint32, key FileKey) ([]byte, error) {
	kek, err := k.class(class)
	if err != nil {
		return nil, fmt.Errorf("keybag: wrap: %w", err)
	}
	wrapped, err := wrapKey(kek, (*[keyLen]byte)(&key))
	if err != nil {
		return nil, fmt.Errorf("keybag: wrap: class %d: %w", class, err)
	}
	out := binary.LittleEndian.AppendUint32(make([]byte, 0, WrappedFileKeyLen), class)
	return append(out, wrapped[:]...), nil
}

func (k *Keys) class(number uint32) (*[keyLen]byte, error) {
	if key := k.open[number]; key != nil {
		return key, nil
	}
	switch {
	case slices.Contains(k.damaged, number):
		return nil, fmt.Errorf("class %d: %w", number, ErrDamagedClass)
	case k.bound[number]:
		return nil, fmt.Errorf("class %d: %w", number, ErrDeviceBound)
	}
	return nil, fmt.Errorf("class %d: %w", number, ErrNoClass)
}

// Destroy overwrites the class keys. Unwrap and Wrap then return ErrNoClass.
func (k *Keys) Destroy() {
	for _, key := range k.open {
		clear(key[:])
	}
	clear(k.open)
}
