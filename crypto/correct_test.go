package crypto_test

import (
	"bytes"
	"crypto/rand"
	"fmt"
	mrand "math/rand/v2"
	"testing"

	"github.com/snap-backup/snap/crypto"
	"pgregory.net/rapid"
)

// seal returns random bytes, sealed.
func seal(t interface {
	Helper()
	Fatal(...any)
}, size int, ad []byte) (*crypto.Sealer, []byte) {
	t.Helper()
	key, err := crypto.NewKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s := crypto.NewSealer(key, rand.Reader)
	plain := make([]byte, size)
	_, _ = rand.Read(plain)
	sealed, err := s.Seal(nil, plain, ad)
	if err != nil {
		t.Fatal(err)
	}
	return s, sealed
}

// damage changes n neighbouring bytes of b; the first and the last one for certain.
func damage(b []byte, at, n int, rng *mrand.Rand) []byte {
	b = bytes.Clone(b)
	for i := range n {
		by := byte(rng.IntN(256))
		if i == 0 || i == n-1 {
			by = byte(1 + rng.IntN(255))
		}
		b[at+i] ^= by
	}
	return b
}

func TestCorrect(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(1, 600).Draw(t, "size")
		ad := make([]byte, rapid.SampledFrom([]int{0, 1, 16, 37}).Draw(t, "ad"))
		rng := mrand.New(mrand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		s, sealed := seal(t, size, ad)
		text := sealed[24 : len(sealed)-16]
		n := rapid.IntRange(1, min(len(text), crypto.MaxCorrected)).Draw(t, "wrong")
		at := 24 + rapid.IntRange(0, len(text)-n).Draw(t, "at")
		if rapid.IntRange(0, 9).Draw(t, "where") == 0 {
			at = len(sealed) - 16 + rapid.IntRange(0, 16-n).Draw(t, "at in tag")
		}
		bad := damage(sealed, at, n, rng)
		if got := s.Correct(bad, ad, false); !bytes.Equal(got, sealed) {
			t.Fatalf("%d wrong bytes at %d of %d were not corrected", n, at, len(sealed))
		}
	})
}

func TestCorrectNonce(t *testing.T) {
	for at := range 24 {
		s, sealed := seal(t, 100, nil)
		bad := damage(sealed, at, 1, mrand.New(mrand.NewPCG(1, uint64(at))))
		if got := s.Correct(bad, nil, true); !bytes.Equal(got, sealed) {
			t.Errorf("byte %d of the nonce was not corrected", at)
		}
	}
	s, sealed := seal(t, 64<<10, nil)
	bad := damage(sealed, 2, 1, mrand.New(mrand.NewPCG(1, 2)))
	if s.Correct(bad, nil, false) != nil {
		t.Error("a quick correction took its time")
	}
	if got := s.Correct(bad, nil, true); !bytes.Equal(got, sealed) {
		t.Error("the nonce of a long block was not corrected")
	}
}

// More damage than can be corrected must not give other bytes.
func TestCorrectGivesUp(t *testing.T) {
	rng := mrand.New(mrand.NewPCG(1, 2))
	s, sealed := seal(t, 3000, nil)
	for name, bad := range map[string][]byte{
		"two places":  damage(damage(sealed, 100, 1, rng), 1000, 1, rng),
		"9 bytes":     damage(sealed, 500, 9, rng),
		"a sector":    damage(sealed, 512, 512, rng),
		"other key":   func() []byte { _, b := seal(t, 3000, nil); return b }(),
		"cut":         sealed[:len(sealed)-1],
		"empty":       {},
		"only zeroes": make([]byte, 3000),
	} {
		if got := s.Correct(bad, nil, false); got != nil {
			t.Errorf("%s: bytes were made up", name)
		}
	}
}

func BenchmarkCorrect(b *testing.B) {
	for _, size := range []int{1 << 10, 256 << 10, 1 << 20} {
		s, sealed := seal(b, size, nil)
		for _, n := range []int{1, 100} {
			bad := damage(sealed, 24, n, mrand.New(mrand.NewPCG(1, 2)))
			b.Run(fmt.Sprintf("size=%d/wrong=%d", size, n), func(b *testing.B) {
				for range b.N {
					s.Correct(bad, nil, false)
				}
			})
		}
	}
}
