package store

import (
	"context"

	"github.com/snap-backup/snap/repo/backend"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
)

const (
	// aheadFiles is how many files are read at the same time, so that a store far away is
	// not asked for one after another.
	aheadFiles = 8
	// aheadBytes bounds the length of the files that wait to be used. A longer file is
	// read alone.
	aheadBytes = 32 << 20
)

// readAhead reads files, each as ReadNamed does, several at the same time, and calls fn for
// one after another in their order.
func (r *Store) readAhead(ctx context.Context, files []backend.Info, limit int64, fn func(name string, b []byte, err error) error) error {
	type result struct {
		name   string
		weight int64
		b      []byte
		err    error
	}
	g, ctx := errgroup.WithContext(ctx)
	room := semaphore.NewWeighted(aheadBytes)
	queue := make(chan chan result, aheadFiles-1)
	g.Go(func() error {
		defer close(queue)
		for _, f := range files {
			weight := min(max(f.Size, 1), aheadBytes)
			if err := room.Acquire(ctx, weight); err != nil {
				return err
			}
			next := make(chan result, 1)
			go func() {
				b, err := r.ReadNamed(ctx, f.Name, limit)
				next <- result{f.Name, weight, b, err}
			}()
			select {
			case queue <- next:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	g.Go(func() error {
		for next := range queue {
			got := <-next
			if err := fn(got.name, got.b, got.err); err != nil {
				return err
			}
			room.Release(got.weight)
		}
		return nil
	})
	return g.Wait()
}
