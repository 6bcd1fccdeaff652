package repo

import (
	"container/list"
	"context"
	"sync"

	"github.com/snap-backup/snap/index"
)

// blockCache keeps decoded blocks up to a number of bytes, the least recently
// used go first. Several readers that want one block at the same time decode
// it once.
type blockCache struct {
	mu      sync.Mutex
	limit   int
	size    int
	order   *list.List // of *cached, most recent in front
	blocks  map[index.BlockRef]*list.Element
	loading map[index.BlockRef]*loading
}

type cached struct {
	ref   index.BlockRef
	plain []byte
}

type loading struct {
	done  chan struct{}
	plain []byte
	err   error
}

func newBlockCache(limit int) *blockCache {
	return &blockCache{
		limit: limit, order: list.New(),
		blocks:  map[index.BlockRef]*list.Element{},
		loading: map[index.BlockRef]*loading{},
	}
}

// get returns a block that is in the cache.
func (c *blockCache) get(ref index.BlockRef) ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lookup(ref)
}

func (c *blockCache) lookup(ref index.BlockRef) ([]byte, bool) {
	e, ok := c.blocks[ref]
	if !ok {
		return nil, false
	}
	c.order.MoveToFront(e)
	return e.Value.(*cached).plain, true
}

// put enters a block. Nobody may change it afterwards: it may be in use by
// readers even when it has left the cache.
func (c *blockCache) put(ref index.BlockRef, plain []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.blocks[ref]; ok || len(plain) > c.limit {
		return
	}
	c.blocks[ref] = c.order.PushFront(&cached{ref, plain})
	c.size += len(plain)
	for c.size > c.limit {
		last := c.order.Remove(c.order.Back()).(*cached)
		delete(c.blocks, last.ref)
		c.size -= len(last.plain)
	}
}

// load returns a block from the cache, or waits for the goroutine that is
// already loading it, or loads it with fn. fn must not call load: two loads
// could wait for each other.
func (c *blockCache) load(ctx context.Context, ref index.BlockRef, fn func() ([]byte, error)) ([]byte, error) {
	c.mu.Lock()
	if plain, ok := c.lookup(ref); ok {
		c.mu.Unlock()
		return plain, nil
	}
	if l, ok := c.loading[ref]; ok {
		c.mu.Unlock()
		select {
		case <-l.done:
			return l.plain, l.err
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	l := &loading{done: make(chan struct{})}
	c.loading[ref] = l
	c.mu.Unlock()

	l.plain, l.err = fn()
	if l.err == nil {
		c.put(ref, l.plain)
	}
	c.mu.Lock()
	delete(c.loading, ref)
	c.mu.Unlock()
	close(l.done)
	return l.plain, l.err
}
