package crypto

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/snap-backup/snap/crypto/blake"
	"github.com/snap-backup/snap/internal/password"
	"golang.org/x/crypto/chacha20poly1305"
)

// ErrWrongPassword says that a password does not open a slot.
var ErrWrongPassword = errors.New("wrong password or damaged key slot")

// SlotKind is the kind of secret that opens a slot.
type SlotKind string

// The kinds of slots. They differ in how people keep the secret. The format treats each
// secret as a password.
const (
	PasswordSlot SlotKind = "password"
	KeyFileSlot  SlotKind = "key file"
	RecoverySlot SlotKind = "recovery key"
)

// SlotInfo describes a slot. It is sealed under the master key, and from version 2 on
// bound to its slot.
type SlotInfo struct {
	Kind    SlotKind  `json:"kind"`
	Label   string    `json:"label,omitempty"`
	Created time.Time `json:"created"`
	// Config is a copy of the repository's config file. A lost config can be restored
	// from it.
	Config []byte `json:"config,omitempty"`
}

// MaxSlotSize is the maximum length of a slot file, in bytes.
const MaxSlotSize = 16 << 10

// slotFile is the JSON form of a slot (docs/format.md). It does not reveal who can open
// the repository.
type slotFile struct {
	Version   int    `json:"version"`
	KDF       string `json:"kdf"`
	Time      uint32 `json:"time"`
	MemoryKiB uint32 `json:"memory_kib"`
	Threads   uint8  `json:"threads"`
	Salt      []byte `json:"salt"`
	Master    []byte `json:"master"`
	Info      []byte `json:"info"`
}

const slotKDF = "argon2id"

// The versions of slots. In version 1, whoever can write slot files can exchange the
// descriptions of two slots.
const (
	unboundSlot = 1
	boundSlot   = 2
)

// ErrExchanged says that the description of a slot was made for another slot, or that it
// is damaged.
var ErrExchanged = errors.New("its description was exchanged with that of another key, or is damaged")

// Slot is one parsed key slot.
type Slot struct {
	KDF     KDF
	version int
	master  []byte
	info    []byte
}

// Bound reports whether the description of the slot can belong to this slot only.
func (s *Slot) Bound() bool { return s.version >= boundSlot }

// SameKey reports whether two slots hold the same sealed master key, so that the same
// secret opens both.
func (s *Slot) SameKey(o *Slot) bool {
	return bytes.Equal(s.KDF.Salt, o.KDF.Salt) && bytes.Equal(s.master, o.master)
}

// masterAD and infoAD separate the two sealed fields of a slot from each other, and slots
// of different versions. infoAD also binds the description to its slot: it includes the
// KDF's parameters, the salt and the sealed master key.
func (s *Slot) masterAD() []byte {
	return fmt.Appendf(nil, "snap v%d key slot master", s.version)
}

func (s *Slot) infoAD() []byte {
	ad := fmt.Appendf(nil, "snap v%d key slot info", s.version)
	if s.Bound() {
		ad = binary.LittleEndian.AppendUint32(ad, s.KDF.Time)
		ad = binary.LittleEndian.AppendUint32(ad, s.KDF.MemoryKiB)
		ad = append(ad, s.KDF.Threads, byte(len(s.KDF.Salt)))
		ad = append(ad, s.KDF.Salt...)
		ad = append(ad, s.master...)
	}
	return ad
}

// NewSlot seals master under secret and returns the bytes of a slot file. It uses the
// normal form of a password, see package password.
func NewSlot(rand io.Reader, master Key, secret []byte, cost Cost, info SlotInfo) ([]byte, error) {
	kdf, err := cost.withSalt(rand)
	if err != nil {
		return nil, fmt.Errorf("new key slot: %w", err)
	}
	if info.Kind == PasswordSlot {
		secret = password.Normal(secret)
		defer clear(secret)
	}
	kek, err := kdf.key(secret)
	if err != nil {
		return nil, fmt.Errorf("new key slot: %w", err)
	}
	defer kek.Destroy()
	return sealSlot(rand, kdf, kek, master, info)
}

// sealSlot returns the bytes of a slot file whose secret gives the key kek.
func sealSlot(rand io.Reader, kdf KDF, kek, master Key, info SlotInfo) (_ []byte, err error) {
	s := Slot{KDF: kdf, version: boundSlot}
	if s.master, err = NewSealer(kek, rand).Seal(nil, master[:], s.masterAD()); err != nil {
		return nil, fmt.Errorf("new key slot: %w", err)
	}
	infoJSON, err := json.Marshal(info)
	if err != nil {
		return nil, fmt.Errorf("new key slot: %w", err)
	}
	if s.info, err = NewSealer(master.Derive(ForSlotInfo), rand).Seal(nil, infoJSON, s.infoAD()); err != nil {
		return nil, fmt.Errorf("new key slot: %w", err)
	}
	return s.bytes()
}

// bytes returns the bytes of the slot file.
func (s *Slot) bytes() ([]byte, error) {
	b, err := json.Marshal(slotFile{
		Version: s.version, KDF: slotKDF,
		Time: s.KDF.Time, MemoryKiB: s.KDF.MemoryKiB, Threads: s.KDF.Threads, Salt: s.KDF.Salt,
		Master: s.master, Info: s.info,
	})
	if err != nil {
		return nil, fmt.Errorf("key slot: %w", err)
	}
	return append(b, '\n'), nil
}

// ParseSlot parses a slot file. Anyone who can write to the repository can write slot
// files, so ParseSlot checks all limits. The error is [errors.ErrUnsupported] if the slot
// is of a version that this program does not know.
func ParseSlot(b []byte) (*Slot, error) {
	if len(b) > MaxSlotSize {
		return nil, fmt.Errorf("key slot: %d bytes are too many", len(b))
	}
	// In a newer version, the other JSON fields may have other types.
	var kind struct {
		Version int    `json:"version"`
		KDF     string `json:"kdf"`
	}
	if err := json.Unmarshal(b, &kind); err != nil {
		return nil, fmt.Errorf("key slot: %w", err)
	}
	switch {
	case kind.Version > boundSlot:
		return nil, fmt.Errorf("key slot of version %d: %w", kind.Version, errors.ErrUnsupported)
	case kind.Version < unboundSlot || kind.KDF != slotKDF:
		return nil, fmt.Errorf("key slot: version %d with %q does not exist", kind.Version, kind.KDF)
	}
	var f slotFile
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, fmt.Errorf("key slot: %w", err)
	}
	s := &Slot{
		KDF:     KDF{Time: f.Time, MemoryKiB: f.MemoryKiB, Threads: f.Threads, Salt: f.Salt},
		version: f.Version, master: f.Master, info: f.Info,
	}
	if err := s.KDF.Check(); err != nil {
		return nil, fmt.Errorf("key slot: %w", err)
	}
	if len(s.master) != KeySize+Overhead {
		return nil, fmt.Errorf("key slot: sealed master key of %d bytes", len(s.master))
	}
	// Other JSON text with the same values would be a second file for the same key, so
	// only the form that snap writes is accepted.
	if same, err := s.bytes(); s.Bound() && (err != nil || !bytes.Equal(same, b)) {
		return nil, errors.New("key slot: it is not in the form that snap writes")
	}
	return s, nil
}

// Open derives the slot's key from secret and returns the master key, or
// ErrWrongPassword. It tries the forms of a password, see package password.
func (s *Slot) Open(secret []byte) (Key, error) {
	o, err := s.Unlock(secret)
	if err != nil {
		return Key{}, err
	}
	o.kek.Destroy()
	return o.Master, nil
}

// Opened is a slot that was opened with its secret.
type Opened struct {
	Master Key
	slot   *Slot
	kek    Key
}

// Unlock is like Open, for callers that want to renew the slot.
func (s *Slot) Unlock(secret []byte) (*Opened, error) {
	forms := password.Forms(secret)
	defer password.Clear(forms)
	for _, form := range forms {
		if o, err := s.unlock(form); !errors.Is(err, ErrWrongPassword) {
			return o, err
		}
	}
	return nil, ErrWrongPassword
}

func (s *Slot) unlock(secret []byte) (*Opened, error) {
	kek, err := s.KDF.key(secret)
	if err != nil {
		return nil, err
	}
	b, err := NewSealer(kek, nil).Open(nil, s.master, s.masterAD())
	if err != nil {
		kek.Destroy()
		return nil, ErrWrongPassword
	}
	defer clear(b)
	return &Opened{Key(b), s, kek}, nil
}

// Renew returns a slot file of the newest version, with the description info. The same
// secret opens it, at the same cost. The same slot and the same description always give
// the same bytes, so that several programs can renew a slot at the same time.
func (o *Opened) Renew(info SlotInfo) ([]byte, error) {
	material, err := json.Marshal(info)
	if err != nil {
		return nil, fmt.Errorf("new key slot: %w", err)
	}
	// The nonces depend on everything that is sealed, and on secrets.
	material = slices.Concat(o.Master[:], o.kek[:], o.slot.infoAD(), o.slot.master, material)
	defer clear(material)
	nonces := make([]byte, 2*chacha20poly1305.NonceSizeX)
	blake.DeriveKey(nonces, "snap v2 key slot nonces", material)
	return sealSlot(bytes.NewReader(nonces), o.slot.KDF, o.kek, o.Master, info)
}

// Destroy overwrites the keys, as a best effort.
func (o *Opened) Destroy() {
	o.Master.Destroy()
	o.kek.Destroy()
}

// Info opens the description of the slot. The error is ErrExchanged if it was made for
// another slot.
func (s *Slot) Info(master Key) (SlotInfo, error) {
	b, err := NewSealer(master.Derive(ForSlotInfo), nil).Open(nil, s.info, s.infoAD())
	if err != nil && s.Bound() {
		err = fmt.Errorf("%w: %w", ErrExchanged, err)
	}
	if err != nil {
		return SlotInfo{}, fmt.Errorf("key slot info: %w", err)
	}
	var info SlotInfo
	if err := json.Unmarshal(b, &info); err != nil {
		return SlotInfo{}, fmt.Errorf("key slot info: %w", err)
	}
	return info, nil
}
