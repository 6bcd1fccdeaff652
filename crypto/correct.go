package crypto

import (
	"encoding/binary"
	"math/bits"
	"slices"

	"golang.org/x/crypto/chacha20"
	"golang.org/x/crypto/chacha20poly1305"
)

// MaxCorrected is the number of neighbouring bytes that Correct can correct.
const MaxCorrected = 8

// maxInVain is how often a Sealer looks for a wrong byte of a nonce in vain: a nonce is
// hardly ever what is wrong.
const maxInVain = 3

// Correct returns sealed as it was before some of its bytes were changed, if Open fails
// because of at most MaxCorrected wrong bytes next to each other in the ciphertext or in
// the tag. It returns nil if the damage is greater. If thorough is set, it also corrects one
// wrong byte in the nonce, which takes a second for 256 KiB.
//
// The tag proves less about corrected bytes than about others, since it was used to find
// them. So the caller must compare the plaintext with something that does not depend on
// the tag, such as a keyed hash.
//
// Correct needs no redundancy besides the tag. Poly1305 is a polynomial modulo a prime:
// the ciphertext, in blocks of 16 bytes, gives the coefficients, and the key gives the
// point r. If a coefficient changes by e, the value changes by d = e·rᵐ, where m depends
// on the block's place. The tag tells d. So for each place, e = d·r⁻ᵐ is the only change
// that explains it. A wrong place gives a random e, which changes all 16 bytes; the right
// one gives an e that changes few.
func (s *Sealer) Correct(sealed, ad []byte, thorough bool) []byte {
	if len(sealed) < Overhead {
		return nil
	}
	if fixed := s.correctText(sealed, ad); fixed != nil {
		return fixed
	}
	if !thorough || s.inVain.Load() >= maxInVain {
		return nil
	}
	fixed := s.correctNonce(sealed, ad)
	if fixed == nil {
		s.inVain.Add(1)
	}
	return fixed
}

// correctNonce tries each value of each byte of the nonce, 6,120 in all.
func (s *Sealer) correctNonce(sealed, ad []byte) []byte {
	fixed := slices.Clone(sealed)
	plain := make([]byte, 0, len(sealed))
	for i := range chacha20poly1305.NonceSizeX {
		for range 255 {
			fixed[i]++
			if _, err := s.Open(plain, fixed, ad); err == nil {
				return fixed
			}
		}
		fixed[i]++
	}
	return nil
}

// correctText corrects the ciphertext or the tag.
func (s *Sealer) correctText(sealed, ad []byte) []byte {
	text := sealed[chacha20poly1305.NonceSizeX : len(sealed)-chacha20poly1305.Overhead]
	tag := littleEndian(sealed[len(sealed)-chacha20poly1305.Overhead:])
	stream, err := chacha20.NewUnauthenticatedCipher(s.key[:], sealed[:chacha20poly1305.NonceSizeX])
	if err != nil {
		return nil
	}
	var key [32]byte
	stream.XORKeyStream(key[:], key[:])
	r, added := clamped(key[:16]), littleEndian(key[16:])

	mac := macInput(text, ad)
	value := evaluate(mac, r)
	// The tag is the lowest 128 bits of the value plus added.
	if right := plus128(value, added); right != tag && span(right[0]^tag[0], right[1]^tag[1]) <= MaxCorrected {
		fixed := slices.Clone(sealed)
		end := fixed[len(fixed)-chacha20poly1305.Overhead:]
		binary.LittleEndian.PutUint64(end, right[0])
		binary.LittleEndian.PutUint64(end[8:], right[1])
		return s.checked(fixed, ad)
	}
	c := newCorrector(r, mac[roundUp(len(ad)):len(mac)-16])
	if c == nil {
		return nil
	}
	was, _ := tag.less(added)
	for was[2] = 0; was[2] < 4; was[2]++ {
		if was.reduced() != was {
			break
		}
		at, right := c.search(value.minus(was))
		if right == nil {
			continue
		}
		fixed := slices.Clone(sealed)
		copy(fixed[len(sealed)-chacha20poly1305.Overhead-len(text)+at:len(sealed)-chacha20poly1305.Overhead], right)
		if s.checked(fixed, ad) != nil {
			return fixed
		}
	}
	return nil
}

// checked returns fixed if it can be opened.
func (s *Sealer) checked(fixed, ad []byte) []byte {
	if _, err := s.Open(nil, fixed, ad); err != nil {
		return nil
	}
	return fixed
}

// plus128 returns the sum modulo 2^128.
func plus128(x, y element) (sum element) {
	var c uint64
	sum[0], c = bits.Add64(x[0], y[0], 0)
	sum[1], _ = bits.Add64(x[1], y[1], c)
	return sum
}
