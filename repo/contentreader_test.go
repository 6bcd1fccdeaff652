package repo_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"

	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
	"github.com/snap-backup/snap/repo/tree"
)

func TestContentReader(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	r := repotest.Create(t, memory.New())
	f := testFiles(1)
	s, err := repotest.Store(ctx, r, f, 1)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for _, name := range []string{"empty", "00/small0", "aa/photo", "bb/database"} {
		e, err := r.Find(ctx, s, tree.Key{Path: name})
		if err != nil || e == nil {
			t.Fatal(name, e, err)
		}
		c, err := r.NewContentReader(ctx, &e.Content)
		if err != nil {
			t.Fatal(name, err)
		}
		if c.Size() != int64(len(f[name])) {
			t.Errorf("%s: size %d, want %d", name, c.Size(), len(f[name]))
		}
		if err := iotest.TestReader(c, f[name]); err != nil && len(f[name]) < 1<<16 {
			t.Error(name, err)
		}
		for range 20 {
			from := rng.IntN(len(f[name]) + 1)
			p := make([]byte, rng.IntN(1<<20))
			n, err := c.ReadAt(p, int64(from))
			want := f[name][from:min(len(f[name]), from+len(p))]
			if !bytes.Equal(p[:n], want) || (n < len(p)) != errors.Is(err, io.EOF) {
				t.Fatalf("%s: ReadAt %d bytes at %d: %d, %v", name, len(p), from, n, err)
			}
		}
		for _, wrong := range []int64{-1, 1} {
			if c := e.Content; c.Size+wrong >= 0 {
				c.Size += wrong
				if _, err := r.NewContentReader(ctx, &c); !errors.Is(err, repo.ErrDamaged) {
					t.Errorf("%s: opened with a size that is wrong by %d: %v", name, wrong, err)
				}
			}
		}
	}
}
