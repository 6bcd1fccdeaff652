package check

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/layout"
)

// sampleOf is how many packs are read for each one that is decoded.
const sampleOf = 10

// proven reports whether the hash of a pack proves that it has the bytes that a program
// with the key has written. It does if a good index file lists the pack, since that names
// it by this hash. Packs that are listed because their own header can be unsealed prove
// nothing: somebody may have joined this header with other blocks. If a pack is missing,
// everything is decoded to tell what is lost with it.
func (c *Checker) proven() bool {
	return len(c.Store.DamagedIndex) == 0 && len(c.Store.Missing) == 0
}

// sample divides packs into those to decode and the rest. It chooses those that were
// never decoded, then those that were decoded longest ago.
func (c *Checker) sample(files []backend.Info, past *readTimes) (sample, rest []backend.Info) {
	when := func(f backend.Info) int64 {
		id, _ := layout.ParseFileID(f.Name)
		return past.decoded[id].Unix()
	}
	files = slices.SortedStableFunc(slices.Values(files), func(a, b backend.Info) int { return cmp.Compare(when(a), when(b)) })
	n := (len(files) + sampleOf - 1) / sampleOf
	return files[:n], files[n:]
}

// comparePacks reads packs and compares their bytes with their names, and their headers
// with the index. It reports whether all are good, and notes the good ones as read.
func (c *Checker) comparePacks(ctx context.Context, files []backend.Info, m *progress) (good bool, err error) {
	damaged := errors.New("damaged")
	err = c.work(ctx, nil, func(submit func(job) error) error {
		for _, f := range files {
			if err := submit(func(ctx context.Context, v *verifier) error {
				p := c.indexed(f)
				if p.Size != f.Size {
					return damaged // it may be longer than a pack can be
				}
				file, err := v.read(ctx, f)
				switch {
				case ctx.Err() != nil:
					return ctx.Err()
				case errors.Is(err, errUnreachable):
					return fmt.Errorf("read %s: %w", f.Name, err)
				case int64(len(file)) < f.Size || v.compare(file, p) != nil:
					return damaged
				}
				c.noteRead(f)
				m.add(f.Size)
				return nil
			}); err != nil {
				return err
			}
		}
		return nil
	})
	if errors.Is(err, damaged) {
		return false, nil
	}
	return err == nil, err
}
