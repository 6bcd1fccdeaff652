package keybag

import (
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
)

// MaxRounds limits the rounds of one PBKDF2 stage. Real keybags have 10,000,000.
const MaxRounds = 100_000_000

// ErrTooManyRounds says that a keybag has more than MaxRounds rounds.
var ErrTooManyRounds = errors.New("the keybag has too many rounds")

// roundsPerStep is the number of rounds after which the context is checked and
// progress is called. They take some milliseconds.
const roundsPerStep = 1 << 14

// derivation counts the rounds of all stages of one password.
type derivation struct {
	ctx         context.Context
	progress    func(done, total uint64)
	done, total uint64
}

func (d *derivation) step(rounds uint64) error {
	d.done += rounds
	if d.progress != nil {
		d.progress(d.done, d.total)
	}
	return d.ctx.Err()
}

// passwordKey derives from a password the key that wraps the class keys.
func (b *Bag) passwordKey(ctx context.Context, password []byte, progress func(done, total uint64)) (kek [keyLen]byte, err error) {
	if err := b.checkRounds(); err != nil {
		return kek, err
	}
	sha1Blocks := uint64((keyLen + sha1.Size - 1) / sha1.Size)
	d := &derivation{ctx: ctx, progress: progress, total: sha1Blocks * uint64(b.Iter)}
	secret := password
	if b.TwoStage() {
		d.total += uint64(b.DPIC)
		var first [keyLen]byte
		defer clear(first[:])
		if err := d.pbkdf2(first[:], sha256.New, password, b.DPSL, b.DPIC); err != nil {
			return kek, err
		}
		secret = first[:]
	}
	if err := d.pbkdf2(kek[:], sha1.New, secret, b.Salt, b.Iter); err != nil {
		clear(kek[:])
		return kek, err
	}
	return kek, nil
}

func (b *Bag) checkRounds() error {
	if b.Salt == nil || b.Iter == 0 {
		return fmt.Errorf("no salt or no rounds: %w", ErrMalformed)
	}
	if b.TwoStage() && b.DPIC == 0 {
		return fmt.Errorf("no rounds in the first stage: %w", ErrMalformed)
	}
	if b.Iter > MaxRounds || (b.TwoStage() && b.DPIC > MaxRounds) {
		return fmt.Errorf("%d and %d rounds, at most %d: %w", b.DPIC, b.Iter, MaxRounds, ErrTooManyRounds)
	}
	return nil
}

// pbkdf2 implements RFC 8018 section 5.2. Ten million rounds take seconds, and
// crypto/pbkdf2 can neither be cancelled nor report progress.
func (d *derivation) pbkdf2(dst []byte, newHash func() hash.Hash, password, salt []byte, rounds uint32) error {
	prf := hmac.New(newHash, password)
	var uBuf, tBuf [sha256.Size]byte
	u, t := uBuf[:prf.Size()], tBuf[:prf.Size()]
	defer clear(u)
	defer clear(t)
	for block := uint32(1); len(dst) > 0; block++ {
		prf.Reset()
		prf.Write(salt)
		prf.Write(binary.BigEndian.AppendUint32(nil, block))
		u = prf.Sum(u[:0])
		copy(t, u)
		left := uint64(rounds) - 1
		if err := d.step(1); err != nil {
			return err
		}
		for left > 0 {
			n := min(left, roundsPerStep)
			for range n {
				prf.Reset()
				prf.Write(u)
				u = prf.Sum(u[:0])
				subtle.XORBytes(t, t, u)
			}
			left -= n
			if err := d.step(n); err != nil {
				return err
			}
		}
		dst = dst[copy(dst, t):]
	}
	return nil
}
