package blob

import (
	"context"

	"github.com/snap-backup/snap/repo/tree"
	"golang.org/x/sync/errgroup"
)

// EachFile calls fn for all files among the entries that walk finds, with this many
// goroutines. Neighbouring files share blocks, so each goroutine gets sequences of
// neighbours. The first error ends EachFile.
func EachFile(ctx context.Context, workers int, walk func(context.Context, func(*tree.Entry) error) error, fn func(context.Context, *tree.Entry) error) error {
	g, gctx := errgroup.WithContext(ctx)
	work := make(chan []tree.Entry)
	g.Go(func() error {
		defer close(work)
		var batch []tree.Entry
		size := int64(0)
		send := func() error {
			select {
			case work <- batch:
				batch, size = nil, 0
				return nil
			case <-gctx.Done():
				return gctx.Err()
			}
		}
		err := walk(gctx, func(e *tree.Entry) error {
			if e.Kind != tree.File {
				return nil
			}
			batch = append(batch, *e)
			if size += Size(e); len(batch) >= BatchFiles || size >= BatchBytes {
				return send()
			}
			return nil
		})
		if err != nil {
			return err
		}
		return send()
	})
	for range max(1, workers) {
		g.Go(func() error {
			for batch := range work {
				for i := range batch {
					// Reading from the cache does not check ctx.
					if err := gctx.Err(); err != nil {
						return err
					}
					if err := fn(gctx, &batch[i]); err != nil {
						return err
					}
				}
			}
			return nil
		})
	}
	return g.Wait()
}
