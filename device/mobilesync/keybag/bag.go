package keybag

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Protection classes of files and of the keychain. A keybag may have other
// classes: newer systems use class 17.
const (
	ClassComplete             = 1 // readable while the device is unlocked
	ClassCompleteUnlessOpen   = 2
	ClassUntilFirstUnlock     = 3
	ClassNone                 = 4
	ClassRecovery             = 5
	ClassKeychainUnlocked     = 6
	ClassKeychainFirstUnlock  = 7
	ClassKeychainAlways       = 8
	ClassKeychainUnlockedThis = 9 // 9 to 11: like 6 to 8, on this device only
	ClassKeychainFirstThis    = 10
	ClassKeychainAlwaysThis   = 11
)

// Bits of Class.Wrap.
const (
	WrapDevice   = 1 // wrapped with a key that never leaves the device
	WrapPassword = 2 // wrapped with the key derived from the password
)

// TypeBackup is the Type of a backup's keybag; 0 is system, 2 escrow, 3 iCloud.
const TypeBackup = 1

const (
	maxBagLen  = 1 << 20
	maxClasses = 1 << 10
	typeMask   = 0x3fffffff
)

// ErrMalformed says that bytes are not a keybag, or that a keybag cannot be
// unlocked because values are missing.
var ErrMalformed = errors.New("malformed keybag")

// Record is a tagged value of a keybag.
type Record struct {
	Tag   string
	Value []byte
}

// Class is a protection class of a keybag.
type Class struct {
	UUID       [16]byte
	Number     uint32 // CLAS, all 32 bits
	Wrap       uint32 // WRAP: WrapDevice, WrapPassword or both
	KeyType    uint32 // KTYP: 0 AES, 1 Curve25519
	WrappedKey []byte // WPKY, 40 bytes in a valid keybag
	PublicKey  []byte // PBKY, only with KeyType 1
	Unknown    []Record
}

// Bag is a parsed keybag. It contains no unwrapped keys.
type Bag struct {
	UUID    [16]byte
	Version uint32
	Type    uint32 // TypeBackup for a backup; the two highest bits of the record are removed
	Wrap    uint32
	Iter    uint32 // rounds of the HMAC-SHA1 stage
	Salt    []byte
	DPIC    uint32 // rounds of the HMAC-SHA256 stage
	DPSL    []byte // salt of the HMAC-SHA256 stage
	Classes []Class
	Unknown []Record // other records of the header

	hasDPIC bool
}

// TwoStage reports whether there is an HMAC-SHA256 stage before the HMAC-SHA1 stage.
func (b *Bag) TwoStage() bool { return b.hasDPIC && b.DPSL != nil }

// Parse parses a keybag. It accepts unknown tags and class numbers. The error is
// ErrMalformed if a length exceeds the input, a number does not have 4 bytes or a
// UUID does not have 16. The Bag shares no memory with raw.
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

// outerData returns the content of the DATA record around system and escrow keybags.
func outerData(raw []byte) ([]byte, bool) {
	rec, _, err := nextRecord(raw)
	return rec.Value, err == nil && rec.Tag == "DATA"
}

func nextRecord(b []byte) (Record, []byte, error) {
	if len(b) < 8 {
		return Record{}, nil, fmt.Errorf("%d bytes instead of a record: %w", len(b), ErrMalformed)
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
