package crypto

import (
	"errors"
	"fmt"
	"io"

	"golang.org/x/crypto/argon2"
)

// KDF holds the parameters of Argon2id (RFC 9106) for one key slot.
type KDF struct {
	Time      uint32 // passes over the memory
	MemoryKiB uint32
	Threads   uint8
	Salt      []byte // 32 bytes from this package; 16 to 64 are accepted
}

// Limits of the cost of a slot file: high enough for decades of faster hardware, low
// enough for a small computer.
const (
	MinMemoryKiB = 8       // only tests use less than DefaultCost
	MaxMemoryKiB = 1 << 20 // 1 GiB
	MaxTime      = 1 << 12
	saltSize     = 32
)

// ErrBadKDF says that a slot's parameters are out of bounds.
var ErrBadKDF = errors.New("key derivation parameters are out of bounds")

// Check returns ErrBadKDF if the parameters exceed the limits of this package.
func (p KDF) Check() error {
	switch {
	case p.Time < 1 || p.Time > MaxTime:
		return fmt.Errorf("%w: time %d", ErrBadKDF, p.Time)
	case p.MemoryKiB < MinMemoryKiB || p.MemoryKiB > MaxMemoryKiB:
		return fmt.Errorf("%w: memory %d KiB", ErrBadKDF, p.MemoryKiB)
	case p.Threads < 1:
		return fmt.Errorf("%w: no threads", ErrBadKDF)
	case p.MemoryKiB < 8*uint32(p.Threads):
		// RFC 9106 requires 8 KiB for each thread, and other implementations refuse less.
		return fmt.Errorf("%w: memory %d KiB for %d threads", ErrBadKDF, p.MemoryKiB, p.Threads)
	case len(p.Salt) < 16 || len(p.Salt) > 64:
		return fmt.Errorf("%w: salt of %d bytes", ErrBadKDF, len(p.Salt))
	case uint64(p.Time)*uint64(p.MemoryKiB) > 1<<27:
		return fmt.Errorf("%w: time %d with memory %d KiB would take minutes", ErrBadKDF, p.Time, p.MemoryKiB)
	}
	return nil
}

// key derives the key that seals a slot.
func (p KDF) key(password []byte) (Key, error) {
	if err := p.Check(); err != nil {
		return Key{}, err
	}
	b := argon2.IDKey(password, p.Salt, p.Time, p.MemoryKiB, p.Threads, KeySize)
	k := Key(b)
	clear(b)
	return k, nil
}

// Cost determines how costly it is to guess a password. It has all parameters of a KDF
// except the salt.
type Cost struct {
	Time      uint32
	MemoryKiB uint32
	Threads   uint8
}

// DefaultCost returns the cost of new slots: the second recommended option of RFC 9106,
// three passes over 64 MiB in four lanes. More memory would be too much for a small NAS
// during a backup. The cost is the same on every machine. If machines measured it, a
// slow or busy one would choose too low a cost, and a fast one a cost that delays every
// later command.
func DefaultCost() Cost { return Cost{Time: 3, MemoryKiB: 64 << 10, Threads: 4} }

// withSalt returns a KDF of this cost with a new random salt.
func (c Cost) withSalt(rand io.Reader) (KDF, error) {
	salt := make([]byte, saltSize)
	if _, err := io.ReadFull(rand, salt); err != nil {
		return KDF{}, fmt.Errorf("draw a salt: %w", err)
	}
	return KDF{Time: c.Time, MemoryKiB: c.MemoryKiB, Threads: c.Threads, Salt: salt}, nil
}
