package store

import (
	"container/list"
	"context"
	"errors"
	"sync"

	"github.com/snap-backup/snap/index"
)

// blockCache keeps decoded blocks up to a number of bytes. It evicts the least
// recently used first. Readers that want the same block at the same time decode it
// once.
type blockCache struct {
	mu      sync.Mutex
	limit   int
	size    int
	order   *list.List // of *cached, most recent in front
	blocks  map[index.BlockRef]*list.Element
	loading map[index.BlockRef]*loading
}

// Decoded is a block's plaintext and its depth (see pack.MaxDepth). The cache keeps
// the depth too, so that the test for chains that are too long does not depend on
// which blocks are cached.
type Decoded struct {
	Plain []byte
	Depth int
}

type cached struct {
	ref   index.BlockRef
	block Decoded
}

type loading struct {
	done  chan struct{}
	block Decoded
	err   error
}

func newBlockCache(limit int) *blockCache {
	return &blockCache{
		limit: limit, order: list.New(),
		blocks:  map[index.BlockRef]*list.Element{},
		loading: map[index.BlockRef]*loading{},
	}
}

// Size returns how many bytes the cache holds.
func (c *blockCache) Size() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.size
}

// get returns a block that is in the cache.
func (c *blockCache) get(ref index.BlockRef) (Decoded, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lookup(ref)
}

func (c *blockCache) lookup(ref index.BlockRef) (Decoded, bool) {
	e, ok := c.blocks[ref]
	if !ok {
		return Decoded{}, false
	}
	c.order.MoveToFront(e)
	return e.Value.(*cached).block, true
}

// Put adds a block. The block must not change afterwards: readers may use it even
// after it was evicted.
func (c *blockCache) Put(ref index.BlockRef, b Decoded) {
	c.mu.Lock()
	defer c.mu.Unlock()
	// A block takes as much memory as its capacity, not its length.
	size := cap(b.Plain)
	if _, ok := c.blocks[ref]; ok || size > c.limit {
		return
	}
	for c.size+size > c.limit {
		last := c.order.Remove(c.order.Back()).(*cached)
		delete(c.blocks, last.ref)
		c.size -= cap(last.block.Plain)
	}
	c.blocks[ref] = c.order.PushFront(&cached{ref, b})
	c.size += size
}

// Remove removes a block and returns it.
func (c *blockCache) Remove(ref index.BlockRef) (Decoded, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.blocks[ref]
	if !ok {
		return Decoded{}, false
	}
	b := c.order.Remove(e).(*cached).block
	delete(c.blocks, ref)
	c.size -= cap(b.Plain)
	return b, true
}

// load returns a block from the cache, or waits for the goroutine that is loading
// it, or loads it with fn. fn must not call load, since two loads could wait for each
// other.
func (c *blockCache) load(ctx context.Context, ref index.BlockRef, fn func() (Decoded, error)) (Decoded, error) {
	for {
		c.mu.Lock()
		if b, ok := c.lookup(ref); ok {
			c.mu.Unlock()
			return b, nil
		}
		l, ok := c.loading[ref]
		if !ok {
			l = &loading{done: make(chan struct{})}
			c.loading[ref] = l
			c.mu.Unlock()
			return c.fill(ref, l, fn)
		}
		c.mu.Unlock()
		select {
		case <-l.done:
		case <-ctx.Done():
			return Decoded{}, ctx.Err()
		}
		// If the goroutine that loaded it was cancelled, try again.
		if !errors.Is(l.err, context.Canceled) && !errors.Is(l.err, context.DeadlineExceeded) {
			return l.block, l.err
		}
		if err := ctx.Err(); err != nil {
			return Decoded{}, err
		}
	}
}

func (c *blockCache) fill(ref index.BlockRef, l *loading, fn func() (Decoded, error)) (Decoded, error) {
	l.block, l.err = fn()
	if l.err == nil {
		c.Put(ref, l.block)
	}
	c.mu.Lock()
	delete(c.loading, ref)
	c.mu.Unlock()
	close(l.done)
	return l.block, l.err
}
