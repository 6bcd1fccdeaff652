package keybag

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Protection classes of files and of the keychain. A bag may hold others: newer systems use 17, old fixtures have 16.
const (
	ClassComplete             = 1 // open while the device is unlocked
	ClassCompleteUnlessOpen   = 2
	ClassUntilFirstUnlock     = 3
	ClassNone                 = 4
	ClassRecovery             = 5
	ClassKeychainUnlocked     = 6
	ClassKeychainFirstUnlock  = 7
	ClassKeychainAlways       = 8
	ClassKeychainUnlockedThis = 9 // 9 to 11: as 6 to 8, on this device only
	ClassKeychainFirstThis    = 10
	ClassKeychainAlwaysThis   = 11
)

// Bits of Class.Wrap.
const (
	WrapDevice   = 1 // wrapped by a key that never leaves the device
	WrapPassword = 2 // wrapped by the key derived from the password
)

// TypeBackup is the Type of the bag of a backup; 0 is system, 2 escrow, 3 iCloud.
const TypeBackup = 1

const (
	maxBagLen  = 1 << 20
	maxClasses = 1 << 10
	typeMask   = 0x3fffffff
)

// ErrMalformed says that bytes are not a keybag, or that a keybag lacks what unlocking it needs.
var ErrMalformed = errors.New("malformed keybag")

// Record is one tagged value as it stands in a bag.
type Record struct {
	Tag   string
	Value []byte
}

// Class is one protection class of a bag.
type Class struct {
	UUID       [16]byte
	Number     uint32 // CLAS, all 32 bits
	Wrap       uint32 // WRAP: WrapDevice, WrapPassword or both
	KeyType    uint32 // KTYP: 0 AES, 1 Curve25519
	WrappedKey []byte // WPKY, 40 bytes in a sound bag
	PublicKey  []byte // PBKY, only with KeyType 1
	Unknown    []Record
}

// Bag is a parsed keybag. It holds no open key.
type Bag struct {
	UUID    [16]byte
	Version uint32
	Type    uint32 // TypeBackup for a backup; the two flag bits on top are masked off
	Wrap    uint32
	Iter    uint32 // rounds of the HMAC-SHA1 stage
	Salt    []byte
	DPIC    uint32 // rounds of the HMAC-SHA256 stage
	DPSL    []byte
	Classes []Class
	Unknown []Record // records of the header that this package does not use

	hasDPIC bool
}

// TwoStage reports whether the bag has the HMAC-SHA256 stage in front of the HMAC-SHA1 one.
func (b *Bag) TwoStage() bool { return b.hasDPIC && b.DPSL != nil }

// Parse reads a keybag. Tags it does not know are kept aside, class numbers may be any; a length that runs past the end, a
// number that is not 4 bytes or a UUID that is not 16 give ErrMalformed. The Bag does not alias raw.
func Parse(raw []byte) (*Bag, error) {
	bag, err := parse(raw)
	if err != nil {
		return nil, fmt.Errorf("keybag: parse: %w", err)
	}
	return bag, nil
}

func parse(raw []byte) (*Bag, error) {
	if len(raw) > maxBagLen {
		return nil, fmt.Errorf("%d bytes: %w", len(raw), ErrMalformed)
	}
	raw = append([]byte(nil), raw...)
	rest := raw
	if inner, ok := outerData(raw); ok {
		rest = inner
	}
	bag := &Bag{}
	var class *Class
	seenHeaderUUID := false
	for len(rest) > 0 {
		rec, tail, err := nextRecord(rest)
		if err != nil {
			return nil, fmt.Errorf("at byte %d: %w", len(raw)-len(rest), err)
		}
		rest = tail
		if rec.Tag == "UUID" && seenHeaderUUID {
			if len(bag.Classes) == maxClasses {
				return nil, fmt.Errorf("more than %d classes: %w", maxClasses, ErrMalformed)
			}
			bag.Classes = append(bag.Classes, Class{})
			class = &bag.Classes[len(bag.Classes)-1]
		}
		if class != nil {
			err = class.set(rec)
		} else {
			seenHeaderUUID = seenHeaderUUID || rec.Tag == "UUID"
			err = bag.set(rec)
		}
		if err != nil {
			return nil, err
		}
	}
	if !seenHeaderUUID {
		return nil, fmt.Errorf("no UUID: %w", ErrMalformed)
	}
	return bag, nil
}

// outerData looks into the DATA record that system and escrow bags are wrapped in.
func outerData(raw []byte) ([]byte, bool) {
	rec, _, err := nextRecord(raw)
	return rec.Value, err == nil && rec.Tag == "DATA"
}

func nextRecord(b []byte) (Record, []byte, error) {
	if len(b) < 8 {
		return Record{}, nil, fmt.Errorf("%d bytes in place of a record: %w", len(b), ErrMalformed)
	}
	n := uint64(binary.BigEndian.Uint32(b[4:8]))
	if n > uint64(len(b)-8) {
		return Record{}, nil, fmt.Errorf("record of %d bytes, %d left: %w", n, len(b)-8, ErrMalformed)
	}
	end := 8 + int(n)
	return Record{Tag: string(b[:4]), Value: b[8:end:end]}, b[end:], nil
}

func (b *Bag) set(rec Record) (err error) {
	switch rec.Tag {
	case "VERS":
		b.Version, err = rec.number()
	case "TYPE":
		b.Type, err = rec.number()
		b.Type &= typeMask
	case "UUID":
		b.UUID, err = rec.uuid()
	case "WRAP":
		b.Wrap, err = rec.number()
	case "SALT":
		b.Salt = rec.Value
	case "ITER":
		b.Iter, err = rec.number()
	case "DPIC":
		b.DPIC, err = rec.number()
		b.hasDPIC = true
	case "DPSL":
		b.DPSL = rec.Value
	default:
		b.Unknown = append(b.Unknown, rec)
	}
	return err
}

func (c *Class) set(rec Record) (err error) {
	switch rec.Tag {
	case "UUID":
		c.UUID, err = rec.uuid()
	case "CLAS":
		c.Number, err = rec.number()
	case "WRAP":
		c.Wrap, err = rec.number()
	case "KTYP":
		c.KeyType, err = rec.number()
	case "WPKY":
		c.WrappedKey = rec.Value
	case "PBKY":
		c.PublicKey = rec.Value
	default:
		c.Unknown = append(c.Unknown, rec)
	}
	return err
}

func (r Record) number() (uint32, error) {
	if len(r.Value) != 4 {
		return 0, fmt.Errorf("%q of %d bytes: %w", r.Tag, len(r.Value), ErrMalformed)
	}
	return binary.BigEndian.Uint32(r.Value), nil
}

func (r Record) uuid() (id [16]byte, err error) {
	if len(r.Value) != len(id) {
		return id, fmt.Errorf("%q of %d bytes: %w", r.Tag, len(r.Value), ErrMalformed)
	}
	copy(id[:], r.Value)
	return id, nil
}
