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

// MakeReserve sees to it that the store has a reserve: as much as all index
// files take, and 256 KiB, but at least 512 KiB and at most 128 MiB. It can fail
// with an error that backend.IsNoSpace recognises, which does no harm.
func (r *Store) MakeReserve(ctx context.Context) error {
	size := int64(256 << 10)
	err := r.Backend.List(ctx, layout.IndexDir, func(f backend.Info) error { size += f.Size; return nil })
	if err != nil {
		return fmt.Errorf("make the reserve: %w", err)
	}
	size = min(max(size, MinReserve), maxReserve)
	switch there, err := r.Backend.Stat(ctx, layout.ReserveName); {
	case err == nil && there.Size >= size:
		return nil
	case err == nil:
		// With half as much again, it does not have to be made again each time.
		size = min(size*3/2, maxReserve)
		if err := r.giveUpReserve(ctx); err != nil {
			return err
		}
	case !errors.Is(err, backend.ErrNotExist):
		return fmt.Errorf("make the reserve: %w", err)
	}
	// Noise, since some file systems take no room for zeros.
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

// UseReserve lets the reserve be given up when there is no room for a lock, a
// list or an index file: for commands that free room in the end.
func (r *Store) UseReserve() { r.useReserve = true }

func (r *Store) giveUpReserve(ctx context.Context) error {
	err := r.Backend.Delete(ctx, layout.ReserveName)
	if errors.Is(err, backend.ErrNotExist) {
		return nil
	}
	return err
}

// Free returns how many bytes the store can still take; errors.ErrUnsupported
// if it does not know.
func (r *Store) Free(ctx context.Context) (int64, error) {
	f, ok := r.Backend.(backend.Freer)
	if !ok {
		return 0, fmt.Errorf("free space of the store: %w", errors.ErrUnsupported)
	}
	return f.Free(ctx)
}
