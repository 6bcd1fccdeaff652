package crypto

import (
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/crypto/argon2"
)

// KDF holds the parameters of Argon2id (RFC 9106) for one key slot.
type KDF struct {
	Time      uint32 // passes over the memory
	MemoryKiB uint32
	Threads   uint8
	Salt      []byte // 32 bytes from this package; 16 to 64 are accepted
}

// Bounds on what a slot file may ask of the machine that opens it: enough for
// decades of faster hardware, too little to exhaust a small computer.
const (
	MinMemoryKiB = 8       // only tests go below DefaultMemoryKiB
	MaxMemoryKiB = 1 << 20 // 1 GiB
	MaxTime      = 1 << 12
	saltSize     = 32
)

// DefaultMemoryKiB is what new slots use: 64 MiB, the second recommended
// option of RFC 9106. More would not fit beside a backup on a small NAS.
const DefaultMemoryKiB = 64 << 10

// defaultThreads is the number of lanes recommended by RFC 9106.
const defaultThreads = 4

// ErrBadKDF says that a slot's parameters are out of bounds.
var ErrBadKDF = errors.New("key derivation parameters are out of bounds")

// Check returns ErrBadKDF unless the parameters are within this package's
// bounds.
func (p KDF) Check() error {
	switch {
	case p.Time < 1 || p.Time > MaxTime:
		return fmt.Errorf("%w: time %d", ErrBadKDF, p.Time)
	case p.MemoryKiB < MinMemoryKiB || p.MemoryKiB > MaxMemoryKiB:
		return fmt.Errorf("%w: memory %d KiB", ErrBadKDF, p.MemoryKiB)
	case p.Threads < 1:
		return fmt.Errorf("%w: no threads", ErrBadKDF)
	case p.MemoryKiB < 8*uint32(p.Threads):
		// RFC 9106 demands it, and other implementations refuse less.
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

// Cost is how hard guessing a password is made: everything of a KDF but the
// salt.
type Cost struct {
	Time      uint32
	MemoryKiB uint32
	Threads   uint8
}

// Calibrate finds the number of passes that brings one derivation to about
// target on this machine, at DefaultMemoryKiB. It never goes below one pass.
// now is the clock to measure with.
func Calibrate(target time.Duration, now func() time.Time) Cost {
	c := Cost{Time: 1, MemoryKiB: DefaultMemoryKiB, Threads: defaultThreads}
	salt := make([]byte, saltSize)
	// The first run also pays for fetching the memory from the system, so the
	// second one is what counts.
	var one time.Duration
	for range 2 {
		start := now()
		argon2.IDKey([]byte("calibration"), salt, 1, c.MemoryKiB, c.Threads, KeySize)
		one = now().Sub(start)
	}
	if one > 0 {
		passes := (target + one/2) / one
		c.Time = uint32(min(max(passes, 1), 64))
	}
	return c
}

// withSalt completes the cost to a KDF with a new random salt.
func (c Cost) withSalt(rand io.Reader) (KDF, error) {
	salt := make([]byte, saltSize)
	if _, err := io.ReadFull(rand, salt); err != nil {
		return KDF{}, fmt.Errorf("draw a salt: %w", err)
	}
	return KDF{Time: c.Time, MemoryKiB: c.MemoryKiB, Threads: c.Threads, Salt: salt}, nil
}
