package keybag

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
)

// Errors of Unlock, Unwrap and Wrap; all come wrapped with what was being done.
var (
	// ErrWrongPassword says that the password opens no class of the bag at all.
	ErrWrongPassword = errors.New("wrong backup password")
	// ErrNoClass says that no open key exists for the class.
	ErrNoClass = errors.New("no key for this protection class")
	// ErrDeviceBound says that the key of the class is also wrapped by the device and so useless elsewhere. It is an ErrNoClass.
	ErrDeviceBound = fmt.Errorf("%w: it never leaves the device", ErrNoClass)
	// ErrDamagedClass says that the password is right but the key of this class does not open: the bag is damaged. It is an
	// ErrNoClass.
	ErrDamagedClass = fmt.Errorf("%w: the keybag is damaged there", ErrNoClass)
	// ErrUnsupportedKey says that a wrapped file key is not of the known form (4 + 40 bytes). A form of 172 bytes is known to
	// exist on devices and to be undocumented.
	ErrUnsupportedKey = errors.New("unsupported form of a wrapped file key")
	// ErrUnwrap says that a wrapped file key fails its integrity check under the key of its class.
	ErrUnwrap = errors.New("wrapped file key fails its integrity check")
)

// WrappedFileKeyLen is the length of a wrapped file key: u32 little-endian class, then 40 bytes of RFC 3394.
const WrappedFileKeyLen = 4 + wrappedLen

// FileKey is the AES-256 key of one file, or of Manifest.db. It is a secret.
type FileKey [keyLen]byte

// Format keeps the key out of whatever is printed, with any verb.
func (FileKey) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "FileKey(hidden)") }

// LogValue keeps the key out of structured logs.
func (FileKey) LogValue() slog.Value { return slog.StringValue("FileKey(hidden)") }

// Keys holds the open class keys of one bag. Unwrap and Wrap may be called from several goroutines; Destroy may not run
// beside them.
type Keys struct {
	open    map[uint32]*[keyLen]byte
	bound   map[uint32]bool
	damaged []uint32
}

// Format keeps the keys out of whatever is printed, with any verb.
func (k Keys) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprintf(f, "Keys(%d classes, hidden)", len(k.open))
}

// LogValue keeps the keys out of structured logs.
func (k Keys) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(k)) }

// Unlock derives the password key and opens every class key that the password protects.
//
// It reports the rounds done and the rounds in all (about ten million, a few seconds) to progress, which may be nil, and ends
// with the error of ctx when that is cancelled. A bag none of whose classes opens gives ErrWrongPassword. When some classes
// open and others do not, the password is right and the bag is damaged: Unlock succeeds, and Damaged names those classes. An
// unencrypted backup has a bag as well; it opens with the empty password.
func (b *Bag) Unlock(ctx context.Context, password []byte, progress func(done, total uint64)) (*Keys, error) {
	keys, err := b.unlock(ctx, password, progress)
	if err != nil {
		return nil, fmt.Errorf("keybag: unlock: %w", err)
	}
	return keys, nil
}

func (b *Bag) unlock(ctx context.Context, password []byte, progress func(done, total uint64)) (*Keys, error) {
	protected := 0
	for i := range b.Classes {
		if b.Classes[i].Wrap&WrapPassword != 0 {
			protected++
		}
	}
	if protected == 0 {
		return nil, fmt.Errorf("no class is under a password: %w", ErrMalformed)
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

// Classes returns the classes whose keys are open, ascending.
func (k *Keys) Classes() []uint32 {
	list := make([]uint32, 0, len(k.open))
	for number := range k.open {
		list = append(list, number)
	}
	slices.Sort(list)
	return list
}

// Damaged returns the classes whose keys did not open although the password is right, ascending; none in a sound bag.
func (k *Keys) Damaged() []uint32 { return slices.Clone(k.damaged) }

// Unwrap opens a wrapped file key, as it stands in the EncryptionKey of a file or the ManifestKey of a backup: ErrUnsupportedKey
// for another form, ErrNoClass when the bag has no usable key of its class, ErrUnwrap when the integrity check fails.
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

// Wrap is the inverse of Unwrap and deterministic: a key that came out of Unwrap gives the same bytes again.
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

// Destroy overwrites the class keys; every later Unwrap and Wrap gives ErrNoClass.
func (k *Keys) Destroy() {
	for _, key := range k.open {
		clear(key[:])
	}
	clear(k.open)
}
