package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/layout"
)

const (
	MinReserve = 512 << 10
	maxReserve = 128 << 20
)

// MakeReserve makes a reserve if there is none or it has become too small, as
// repo.Repo.MakeReserve describes.
func (r *Store) MakeReserve(ctx context.Context) error {
	size := int64(256 << 10)
	err := r.Backend.List(ctx, layout.IndexDir, func(f backend.Info) error { size += f.Size; return nil })
	if err != nil {
		return fmt.Errorf("make the reserve: %w", err)
	}
	size = min(max(size, MinReserve), maxReserve)
	switch old, err := r.Backend.Stat(ctx, layout.ReserveName); {
	case err == nil && old.Size >= size:
		return nil
	case err == nil:
		// Add half, so that the reserve need not be replaced each time.
		size = min(size*3/2, maxReserve)
		if err := r.removeReserve(ctx); err != nil {
			return err
		}
	case !errors.Is(err, backend.ErrNotExist):
		return fmt.Errorf("make the reserve: %w", err)
	}
	// Write random bytes, since some file systems use no space for zeros.
	var seed [32]byte
	if _, err := io.ReadFull(r.Options.Rand, seed[:]); err != nil {
		return err
	}
	noise := make([]byte, size)
	_, _ = rand.NewChaCha8(seed).Read(noise) // never fails
	if err := r.Backend.Put(ctx, layout.ReserveName, noise); err != nil && !errors.Is(err, backend.ErrExist) {
		return fmt.Errorf("make the reserve: %w", err)
	}
	return nil
}

// UseReserve allows this process to remove the reserve if there is no room for a
// lock, a prune list or an index file. It is for commands that free room.
func (r *Store) UseReserve() { r.useReserve = true }

func (r *Store) removeReserve(ctx context.Context) error {
	err := r.Backend.Delete(ctx, layout.ReserveName)
	if errors.Is(err, backend.ErrNotExist) {
		return nil
	}
	return err
}

// Free returns how many bytes the store can still take. The error is
// errors.ErrUnsupported if the store does not know.
func (r *Store) Free(ctx context.Context) (int64, error) {
	f, ok := r.Backend.(backend.Freer)
	if !ok {
		return 0, fmt.Errorf("free space of the store: %w", errors.ErrUnsupported)
	}
	return f.Free(ctx)
}
