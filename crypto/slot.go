package crypto

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
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

// SlotInfo describes a slot. It is sealed under the master key.
type SlotInfo struct {
	Kind    SlotKind  `json:"kind"`
	Label   string    `json:"label,omitempty"`
	Created time.Time `json:"created"`
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

const (
	slotVersion = 1
	slotKDF     = "argon2id"
)

// Domain separation of the two sealed fields of a slot.
var (
	slotMasterAD = []byte("snap v1 key slot master")
	slotInfoAD   = []byte("snap v1 key slot info")
)

// Slot is one parsed key slot.
type Slot struct {
	KDF    KDF
	master []byte
	info   []byte
}

// NewSlot seals master under secret and returns the bytes of a slot file.
func NewSlot(rand io.Reader, master Key, secret []byte, cost Cost, info SlotInfo) ([]byte, error) {
	kdf, err := cost.withSalt(rand)
	if err != nil {
		return nil, fmt.Errorf("new key slot: %w", err)
	}
	kek, err := kdf.key(secret)
	if err != nil {
		return nil, fmt.Errorf("new key slot: %w", err)
	}
	defer kek.Destroy()
	f := slotFile{
		Version: slotVersion, KDF: slotKDF,
		Time: kdf.Time, MemoryKiB: kdf.MemoryKiB, Threads: kdf.Threads, Salt: kdf.Salt,
	}
	if f.Master, err = NewSealer(kek, rand).Seal(nil, master[:], slotMasterAD); err != nil {
		return nil, fmt.Errorf("new key slot: %w", err)
	}
	infoJSON, err := json.Marshal(info)
	if err != nil {
		return nil, fmt.Errorf("new key slot: %w", err)
	}
	if f.Info, err = NewSealer(master.Derive(ForSlotInfo), rand).Seal(nil, infoJSON, slotInfoAD); err != nil {
		return nil, fmt.Errorf("new key slot: %w", err)
	}
	b, err := json.Marshal(f)
	if err != nil {
		return nil, fmt.Errorf("new key slot: %w", err)
	}
	return append(b, '\n'), nil
}

// ParseSlot parses a slot file. Anyone who can write to the repository can write slot
// files, so ParseSlot checks all limits.
func ParseSlot(b []byte) (*Slot, error) {
	if len(b) > MaxSlotSize {
		return nil, fmt.Errorf("key slot: %d bytes are too many", len(b))
	}
	var f slotFile
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, fmt.Errorf("key slot: %w", err)
	}
	if f.Version != slotVersion || f.KDF != slotKDF {
		return nil, fmt.Errorf("key slot: version %d with %q is not supported by this snap", f.Version, f.KDF)
	}
	s := &Slot{
		KDF:    KDF{Time: f.Time, MemoryKiB: f.MemoryKiB, Threads: f.Threads, Salt: f.Salt},
		master: f.Master, info: f.Info,
	}
	if err := s.KDF.Check(); err != nil {
		return nil, fmt.Errorf("key slot: %w", err)
	}
	if len(s.master) != KeySize+Overhead {
		return nil, fmt.Errorf("key slot: sealed master key of %d bytes", len(s.master))
	}
	return s, nil
}

// Open derives the slot's key from secret and returns the master key, or
// ErrWrongPassword.
func (s *Slot) Open(secret []byte) (Key, error) {
	kek, err := s.KDF.key(secret)
	if err != nil {
		return Key{}, err
	}
	defer kek.Destroy()
	b, err := NewSealer(kek, nil).Open(nil, s.master, slotMasterAD)
	if err != nil {
		return Key{}, ErrWrongPassword
	}
	defer clear(b)
	return Key(b), nil
}

// Info opens the description of the slot.
func (s *Slot) Info(master Key) (SlotInfo, error) {
	b, err := NewSealer(master.Derive(ForSlotInfo), nil).Open(nil, s.info, slotInfoAD)
	if err != nil {
		return SlotInfo{}, fmt.Errorf("key slot info: %w", err)
	}
	var info SlotInfo
	if err := json.Unmarshal(b, &info); err != nil {
		return SlotInfo{}, fmt.Errorf("key slot info: %w", err)
	}
	return info, nil
}
