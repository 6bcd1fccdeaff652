package window

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/snap-backup/snap/crypto/blake"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/backendtest"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/backend/retry"
)

// counting counts the reads, and fails those for which fails returns an error.
type counting struct {
	*memory.Backend
	reads, bytes atomic.Int64
	fails        func(size int) error
}

func (c *counting) ReadAt(ctx context.Context, name string, p []byte, off int64) (int, error) {
	c.reads.Add(1)
	if c.fails != nil {
		if err := c.fails(len(p)); err != nil {
			return 0, err
		}
	}
	n, err := c.Backend.ReadAt(ctx, name, p, off)
	c.bytes.Add(int64(n))
	return n, err
}

func newStore(t *testing.T) (*Backend, *counting) {
	t.Helper()
	c := &counting{Backend: memory.New()}
	s, ok := retry.New(c, retry.Options{}).(Store)
	if !ok {
		t.Fatal("package retry does not return a Store")
	}
	return New(s), c
}

// putPack stores a pack of random bytes.
func putPack(t *testing.T, be backend.Backend, random *rand.ChaCha8, size int) (name string, data []byte) {
	t.Helper()
	data = make([]byte, size)
	_, _ = random.Read(data)
	sum := blake.Sum(data)
	name = packsFolder + hex.EncodeToString(sum[:1]) + "/" + hex.EncodeToString(sum[:])
	if err := be.Put(t.Context(), name, data); err != nil {
		t.Fatal(err)
	}
	return name, data
}

func TestContract(t *testing.T) {
	backendtest.Run(t, func(t *testing.T) backend.Backend { b, _ := newStore(t); return b })
}

// Many blocks of a pack take few requests, in any order, and hardly more bytes than the pack has.
func TestFewReads(t *testing.T) {
	const size, block = 4 << 20, 10_000
	for _, shuffled := range []bool{false, true} {
		be, c := newStore(t)
		name, data := putPack(t, be, rand.NewChaCha8([32]byte{1}), size)
		var offsets []int
		for off := 0; off < size; off += block {
			offsets = append(offsets, off)
		}
		if shuffled {
			rand.New(rand.NewPCG(1, 2)).Shuffle(len(offsets), func(i, j int) { offsets[i], offsets[j] = offsets[j], offsets[i] })
		}
		for _, off := range offsets {
			p := make([]byte, min(block, size-off))
			if n, err := be.ReadAt(t.Context(), name, p, int64(off)); n != len(p) || err != nil || !bytes.Equal(p, data[off:off+n]) {
				t.Fatalf("read at %d: %d bytes, %v", off, n, err)
			}
		}
		t.Logf("shuffled %v: %d reads of %d bytes for %d blocks", shuffled, c.reads.Load(), c.bytes.Load(), len(offsets))
		if c.reads.Load() > 20 || c.bytes.Load() > size {
			t.Errorf("shuffled %v: %d reads of %d bytes", shuffled, c.reads.Load(), c.bytes.Load())
		}
	}
}

// The first read of a pack is exact, since it may be the only one.
func TestFirstReadIsExact(t *testing.T) {
	be, c := newStore(t)
	name, _ := putPack(t, be, rand.NewChaCha8([32]byte{1}), 1<<20)
	if _, err := be.ReadAt(t.Context(), name, make([]byte, 100), 5000); err != nil || c.bytes.Load() != 100 {
		t.Errorf("%d bytes, %v", c.bytes.Load(), err)
	}
}

// A pack of which more is expected to be read is read at once.
func TestReadKept(t *testing.T) {
	be, c := newStore(t)
	name, data := putPack(t, be, rand.NewChaCha8([32]byte{1}), 1<<20)
	for _, off := range []int64{500_000, 0, 1<<20 - 1000} {
		p := make([]byte, 1000)
		if n, err := be.ReadKept(t.Context(), name, p, off); n != len(p) || err != nil || !bytes.Equal(p, data[off:off+1000]) {
			t.Errorf("at %d: %d bytes, %v", off, n, err)
		}
	}
	if c.reads.Load() != 1 || be.bytes != 1<<20 || cap(be.used[0].data) > 2<<20 {
		t.Errorf("%d reads, %d bytes are kept in %d", c.reads.Load(), be.bytes, cap(be.used[0].data))
	}
	if names := be.Kept("keys/"); len(names) != 0 {
		t.Errorf("kept: %v", names)
	}
}

// Goroutines that read anything of a few packs at the same time get the right bytes. What is
// kept stays within its limit.
func TestTogether(t *testing.T) {
	be, c := newStore(t)
	const size = 1 << 20
	be.room = 2 * size
	random := rand.NewChaCha8([32]byte{2})
	var names []string
	var packs [][]byte
	for range 3 {
		name, data := putPack(t, be, random, size)
		names, packs = append(names, name), append(packs, data)
	}
	var g sync.WaitGroup
	for seed := range uint64(4) {
		g.Go(func() {
			random := rand.New(rand.NewPCG(seed, 3))
			for range 200 {
				i, off := random.IntN(len(packs)), random.IntN(size)
				p := make([]byte, 1+random.IntN(100_000))
				n, err := be.ReadAt(t.Context(), names[i], p, int64(off))
				want := packs[i][off:min(off+len(p), size)]
				if n != len(want) || (n < len(p)) != errors.Is(err, io.EOF) || n == len(p) && err != nil || !bytes.Equal(p[:n], want) {
					t.Errorf("%d bytes at %d of pack %d: %d, %v", len(p), off, i, n, err)
				}
			}
		})
	}
	g.Wait()
	kept := int64(0)
	for _, w := range be.used {
		kept += int64(len(w.data))
	}
	if kept != be.bytes || kept > be.room {
		t.Errorf("%d bytes are kept, counted as %d", kept, be.bytes)
	}
	t.Logf("%d reads", c.reads.Load())
}

// A failure to read more than was asked for is no failure.
func TestLongReadsFail(t *testing.T) {
	be, c := newStore(t)
	name, data := putPack(t, be, rand.NewChaCha8([32]byte{1}), 1<<20)
	failed := errors.New("too long")
	c.fails = func(size int) error {
		if size > 1000 {
			return failed
		}
		return nil
	}
	for off := 0; off < 10_000; off += 1000 {
		p := make([]byte, 1000)
		if n, err := be.ReadAt(t.Context(), name, p, int64(off)); err != nil || !bytes.Equal(p[:n], data[off:off+1000]) {
			t.Fatalf("at %d: %v", off, err)
		}
	}
	if _, err := be.ReadAt(t.Context(), name, make([]byte, 2000), 50_000); !errors.Is(err, failed) {
		t.Errorf("a read that fails: %v", err)
	}
}

// What this process removes or replaces is read anew.
func TestRemoved(t *testing.T) {
	be, c := newStore(t)
	name, data := putPack(t, be, rand.NewChaCha8([32]byte{1}), 1<<20)
	p := make([]byte, 100)
	read := func() error { _, err := be.ReadAt(t.Context(), name, p, 0); return err }
	if err := errors.Join(read(), be.Delete(t.Context(), name)); err != nil {
		t.Fatal(err)
	}
	if err := read(); !errors.Is(err, backend.ErrNotExist) {
		t.Errorf("a removed pack: %v", err)
	}
	if err := be.Put(t.Context(), name, data); err != nil {
		t.Fatal(err)
	}
	before := c.reads.Load()
	if err := read(); err != nil || c.reads.Load() != before+1 || be.bytes != 100 {
		t.Errorf("a pack that was put again: %v", err)
	}
}
