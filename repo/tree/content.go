package tree

import (
	"context"
	"fmt"

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

// Chunks calls fn for the ID of every chunk of the content, in order.
func (c *Content) Chunks(ctx context.Context, load Load, fn func(chunk.ID) error) error {
	return c.walk(ctx, load, c.Level, c.IDs, nil, fn)
}

// All is like Chunks and also calls list for the ID of every list before it loads it.
func (c *Content) All(ctx context.Context, load Load, list, fn func(chunk.ID) error) error {
	return c.walk(ctx, load, c.Level, c.IDs, list, fn)
}

// walk visits IDs of a level. The level decreases with each list, so a list cannot
// contain itself.
func (c *Content) walk(ctx context.Context, load Load, level uint8, ids []chunk.ID, list, fn func(chunk.ID) error) error {
	for _, id := range ids {
		if level == 0 {
			if err := fn(id); err != nil {
				return err
			}
			continue
		}
		if list != nil {
			if err := list(id); err != nil {
				return err
			}
		}
		b, err := load(ctx, id)
		if err != nil {
			return &NodeError{id, err}
		}
		below, err := parseList(b, level)
		if err != nil {
			return &NodeError{id, err}
		}
		if err := c.walk(ctx, load, level-1, below, list, fn); err != nil {
			return err
		}
	}
	return nil
}
