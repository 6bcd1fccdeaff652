package tree

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/pack/binread"
)

// Content lists keep entries small: a large database has thousands of chunks, and few
// change in a day. The last byte of an ID decides whether the ID ends a list, so a
// changed chunk changes one list.
const (
	listVersion = 1
	listMask    = 0x7f // lists of 128 IDs on average
	maxList     = 1024
)

// NewContent returns the content of a file with these chunks. It stores lists with save
// if the chunks are too many for an entry.
func NewContent(ctx context.Context, save Save, size int64, ids []chunk.ID) (Content, error) {
	c := Content{Size: size, IDs: ids}
	for len(c.IDs) > MaxInline {
		if c.Level == MaxListLevel {
			return Content{}, fmt.Errorf("a file of %d chunks is too large", len(ids))
		}
		c.Level++
		var lists []chunk.ID
		for start, i := 0, 0; i < len(c.IDs); i++ {
			last := i == len(c.IDs)-1
			if !last && c.IDs[i][31]&listMask != 0 && i-start+1 < maxList {
				continue
			}
			id, err := save(ctx, encodeList(c.Level, c.IDs[start:i+1]), nil)
			if err != nil {
				return Content{}, err
			}
			lists = append(lists, id)
			start = i + 1
		}
		c.IDs = lists
	}
	return c, nil
}

func encodeList(level uint8, ids []chunk.ID) []byte {
	return appendIDs([]byte{listVersion, level}, ids)
}

// parseList parses a list and checks its level.
func parseList(b []byte, level uint8) ([]chunk.ID, error) {
	r := binread.NewReader(b)
	if v := r.Byte(); v != listVersion {
		r.Fail("list version %d", v)
	}
	if l := r.Byte(); l != level {
		r.Fail("list of level %d, want %d", l, level)
	}
	ids := r.IDs(maxList)
	if len(ids) == 0 {
		r.Fail("list of no IDs")
	}
	if err := r.End(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return ids, nil
}

// ErrSkipList is returned by a function that All calls for a list, to leave out the list.
// All does not return it.
var ErrSkipList = errors.New("skip this list")

// Chunks calls fn for the ID of every chunk of the content, in order. Lists of few bytes
// can repeat a chunk more often than anybody can count, so fn must stop at some point,
// such as the content's size.
func (c *Content) Chunks(ctx context.Context, load Load, fn func(chunk.ID) error) error {
	each := func(level uint8, id chunk.ID) error {
		if level > 0 {
			return nil // a list
		}
		return fn(id)
	}
	return walkLists(ctx, load, c.Level, c.IDs, each, nil)
}

// All calls list for the ID of every list before it loads the list, and fn for the ID of
// every chunk. It reads each list once, however often the content repeats it. If list is
// nil, all lists are read.
func (c *Content) All(ctx context.Context, load Load, list, fn func(chunk.ID) error) error {
	var seen map[chunk.ID]struct{}
	each := func(level uint8, id chunk.ID) error {
		if level == 0 {
			return fn(id)
		}
		if _, again := seen[id]; again {
			return ErrSkipList
		}
		if seen == nil {
			seen = map[chunk.ID]struct{}{}
		}
		seen[id] = struct{}{}
		if list == nil {
			return nil
		}
		return list(id)
	}
	return walkLists(ctx, load, c.Level, c.IDs, each, nil)
}

// Measure returns the sum of what size returns for the chunks of the content, at most
// math.MaxInt64. It reads each list once.
func (c *Content) Measure(ctx context.Context, load Load, size func(chunk.ID) (int64, error)) (int64, error) {
	sums := []int64{0} // of the content and of the lists that are being read
	known := map[chunk.ID]int64{}
	add := func(n int64) {
		at := &sums[len(sums)-1]
		*at += min(n, math.MaxInt64-*at)
	}
	each := func(level uint8, id chunk.ID) error {
		if level == 0 {
			n, err := size(id)
			add(n)
			return err
		}
		if n, again := known[id]; again {
			add(n)
			return ErrSkipList
		}
		sums = append(sums, 0)
		return nil
	}
	end := func(id chunk.ID) {
		n := sums[len(sums)-1]
		sums = sums[:len(sums)-1]
		known[id] = n
		add(n)
	}
	err := walkLists(ctx, load, c.Level, c.IDs, each, end)
	return sums[0], err
}

// walkLists calls each for every ID: at level 0 for chunks, at higher levels for lists,
// before the list is read. It calls end, if not nil, after everything in a list was
// visited. The level decreases with each list, so a list cannot contain itself.
func walkLists(ctx context.Context, load Load, level uint8, ids []chunk.ID, each func(level uint8, id chunk.ID) error, end func(chunk.ID)) error {
	for _, id := range ids {
		err := each(level, id)
		if level > 0 && errors.Is(err, ErrSkipList) {
			continue
		}
		if err != nil {
			return err
		}
		if level == 0 {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		b, err := load(ctx, id)
		if err != nil {
			return &NodeError{id, err}
		}
		below, err := parseList(b, level)
		if err != nil {
			return &NodeError{id, err}
		}
		if err := walkLists(ctx, load, level-1, below, each, end); err != nil {
			return err
		}
		if end != nil {
			end(id)
		}
	}
	return nil
}
