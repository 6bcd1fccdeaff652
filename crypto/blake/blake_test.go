package blake

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"lukechampine.com/blake3"
)

func data(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{7}).Read(b)
	return b
}

func keyed(key [32]byte, b []byte) (out [32]byte) {
	h := blake3.New(32, key[:])
	h.Write(b)
	h.Sum(out[:0])
	return out
}

// TestSum compares with the reference implementation at lengths around those where
// the code path changes and at random lengths. It reuses the hashers.
func TestSum(t *testing.T) {
	t.Parallel()
	key := [32]byte{1, 2, 3, 31: 9}
	plain, withKey := New(), NewKeyed(key)
	all := data(5 << 20)
	var sizes []int
	for _, around := range []int{0, 64, 1 << 10, 2 << 10, 3 << 10, 8 << 10, 16 << 10, 17 << 10, 32 << 10, 48 << 10, 64 << 10, 100 << 10, 1 << 20, 3 << 20} {
		for d := -2; d <= 2; d++ {
			sizes = append(sizes, max(0, around+d))
		}
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		sizes = append(sizes, rng.IntN(100<<10))
	}
	sizes = append(sizes, len(all))
	for _, n := range sizes {
		b := all[len(all)-n:]
		want := blake3.Sum256(b)
		if got := plain.Sum(b); got != want {
			t.Fatalf("%d bytes: got %x, want %x", n, got, want)
		}
		if got := Sum(b); got != want {
			t.Fatalf("%d bytes with Sum: got %x, want %x", n, got, want)
		}
		if got, want := withKey.Sum(b), keyed(key, b); got != want {
			t.Fatalf("%d bytes with a key: got %x, want %x", n, got, want)
		}
	}
}

func FuzzSum(f *testing.F) {
	for _, n := range []int{0, 1, 1024, 1025, 20_000} {
		f.Add(data(n))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if New().Sum(b) != blake3.Sum256(b) {
			t.Fatalf("%d bytes: hashes differ", len(b))
		}
	})
}

func TestStream(t *testing.T) {
	t.Parallel()
	b := data(100_000)
	h := NewStream()
	for piece := range slices.Chunk(b, 999) {
		h.Write(piece)
	}
	if want := blake3.Sum256(b); [32]byte(h.Sum(nil)) != want {
		t.Errorf("got %x, want %x", h.Sum(nil), want)
	}
}

func BenchmarkSum(b *testing.B) {
	key := [32]byte{1}
	for _, n := range []int{300, 4 << 10, 64 << 10, 1 << 20} {
		buf := data(n)
		b.Run(fmt.Sprintf("Hasher/%d", n), func(b *testing.B) {
			b.SetBytes(int64(n))
			h := NewKeyed(key)
			for b.Loop() {
				h.Sum(buf)
			}
		})
		b.Run(fmt.Sprintf("stream/%d", n), func(b *testing.B) {
			b.SetBytes(int64(n))
			h := blake3.New(32, key[:])
			for b.Loop() {
				h.Reset()
				h.Write(buf)
				h.Sum(nil)
			}
		})
	}
}
