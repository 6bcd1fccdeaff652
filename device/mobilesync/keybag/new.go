package keybag

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
)

// Round counts of keybags of devices.
const (
	DefaultIter = 10_000
	DefaultDPIC = 10_000_000
)

// NewOptions are options of New. The zero value makes a keybag as current devices do.
type NewOptions struct {
	Iter     uint32 // rounds of the HMAC-SHA1 stage; 0 means DefaultIter
	DPIC     uint32 // rounds of the HMAC-SHA256 stage, if there is one; 0 means DefaultDPIC
	OneStage bool   // the form of iOS 10.1 and earlier: no HMAC-SHA256 stage, classes in the order 11 to 1
}

const (
	newestClass    = 11
	currentVersion = 5
	oneStageVers   = 3
)

// New makes a keybag as a device does for a full backup: random keys for the classes
// 1 to 11, wrapped with the password. The same random stream makes the same keybag.
// The empty password makes the keybag of an unencrypted backup (1,336 bytes). Any
// other password makes that of an encrypted backup (1,388 bytes, or 1,336 with
// OneStage). The returned Keys have no keys for the classes that real keybags bind to
// the device (WRAP 3).
func New(random io.Reader, password []byte, opt NewOptions) (raw []byte, keys *Keys, err error) {
	raw, keys, err = newBag(random, password, opt)
	if err != nil {
		return nil, nil, fmt.Errorf("keybag: new: %w", err)
	}
	return raw, keys, nil
}

func newBag(random io.Reader, password []byte, opt NewOptions) ([]byte, *Keys, error) {
	encrypted := len(password) > 0
	bag := &Bag{Version: currentVersion, Type: TypeBackup, Iter: opt.Iter, Salt: make([]byte, 20)}
	if opt.OneStage {
		bag.Version = oneStageVers
	}
	if bag.Iter == 0 {
		bag.Iter = DefaultIter
	}
	if err := fill(random, bag.UUID[:], bag.Salt); err != nil {
		return nil, nil, err
	}
	if encrypted && !opt.OneStage {
		bag.hasDPIC, bag.DPIC, bag.DPSL = true, opt.DPIC, make([]byte, 20)
		if bag.DPIC == 0 {
			bag.DPIC = DefaultDPIC
		}
		if err := fill(random, bag.DPSL); err != nil {
			return nil, nil, err
		}
	}
	kek, err := bag.passwordKey(context.Background(), password, nil)
	if err != nil {
		return nil, nil, err
	}
	defer clear(kek[:])
	keys := &Keys{open: map[uint32]*[keyLen]byte{}, bound: map[uint32]bool{}}
	for number := uint32(1); number <= newestClass; number++ {
		class := Class{Number: number, Wrap: wrapOf(number, encrypted)}
		var key [keyLen]byte
		if err := fill(random, class.UUID[:], key[:]); err != nil {
			return nil, nil, err
		}
		wrapped, err := wrapKey(&kek, &key)
		if err != nil {
			return nil, nil, err
		}
		class.WrappedKey = wrapped[:]
		bag.Classes = append(bag.Classes, class)
		if class.Wrap&WrapDevice != 0 {
			keys.bound[number] = true
		} else {
			keys.open[number] = &key
		}
	}
	if opt.OneStage {
		slices.Reverse(bag.Classes)
	}
	return bag.marshal(), keys, nil
}

// wrapOf returns how devices wrap a class. The recovery class and the classes "on this
// device only" are bound to the device. In unencrypted backups all other keychain
// classes are bound to it, too.
func wrapOf(class uint32, encrypted bool) uint32 {
	bound := class == ClassRecovery || class >= ClassKeychainUnlockedThis
	if !encrypted {
		bound = class >= ClassRecovery
	}
	if bound {
		return WrapDevice | WrapPassword
	}
	return WrapPassword
}

func fill(random io.Reader, parts ...[]byte) error {
	for _, part := range parts {
		if _, err := io.ReadFull(random, part); err != nil {
			return fmt.Errorf("randomness: %w", err)
		}
	}
	return nil
}

// marshal encodes the records in the order of real keybags, without unknown ones.
func (b *Bag) marshal() []byte {
	var w recordWriter
	w.number("VERS", b.Version)
	w.number("TYPE", b.Type)
	w.bytes("UUID", b.UUID[:])
	w.bytes("HMCK", make([]byte, wrappedLen))
	w.number("WRAP", b.Wrap)
	w.bytes("SALT", b.Salt)
	w.number("ITER", b.Iter)
	if b.TwoStage() {
		w.number("DPWT", 1)
		w.number("DPIC", b.DPIC)
		w.bytes("DPSL", b.DPSL)
	}
	for i := range b.Classes {
		class := &b.Classes[i]
		w.bytes("UUID", class.UUID[:])
		w.number("CLAS", class.Number)
		w.number("WRAP", class.Wrap)
		w.number("KTYP", class.KeyType)
		w.bytes("WPKY", class.WrappedKey)
	}
	return w.buf
}

type recordWriter struct{ buf []byte }

func (w *recordWriter) bytes(tag string, value []byte) {
	w.buf = append(w.buf, tag...)
	w.buf = binary.BigEndian.AppendUint32(w.buf, uint32(len(value)))
	w.buf = append(w.buf, value...)
}

func (w *recordWriter) number(tag string, v uint32) {
	w.bytes(tag, binary.BigEndian.AppendUint32(nil, v))
}
