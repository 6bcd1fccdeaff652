package store

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/snap-backup/snap/index"
)

// held counts the bytes that the cache really holds.
func (c *blockCache) held() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for e := c.order.Front(); e != nil; e = e.Next() {
		n += cap(e.Value.(*cached).block.Plain)
	}
	if n != c.size || len(c.blocks) != c.order.Len() {
		panic(fmt.Sprintf("cache says %d bytes in %d blocks, holds %d in %d", c.size, len(c.blocks), n, c.order.Len()))
	}
	return n
}

func TestCacheKeepsItsLimit(t *testing.T) {
	t.Parallel()
	c := newBlockCache(1000)
	for i := range 500 {
		c.Put(index.BlockRef(i*7%90), Decoded{Plain: make([]byte, i%300, 300)})
		if held := c.held(); held > 1000 {
			t.Fatalf("held %d bytes", held)
		}
	}
	c.Put(1000, Decoded{Plain: make([]byte, 1001)})
	if _, ok := c.get(1000); ok {
		t.Error("a block above the limit was kept")
	}
	if c.held() == 0 {
		t.Error("nothing is kept")
	}
}

// A reader that waits for a block loads it itself if the reader that was loading
// it is canceled.
func TestCancelledLoadIsNotContagious(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newBlockCache(1000)
		giveUp := make(chan struct{})
		go func() {
			_, err := c.load(context.Background(), 1, func() (Decoded, error) {
				<-giveUp
				return Decoded{}, fmt.Errorf("read: %w", context.Canceled)
			})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("the canceled reader: got %v", err)
			}
		}()
		synctest.Wait()
		for range 4 {
			go func() {
				b, err := c.load(context.Background(), 1, func() (Decoded, error) { return Decoded{Plain: []byte("block")}, nil })
				if err != nil || string(b.Plain) != "block" {
					t.Errorf("a waiting reader: %q, %v", b.Plain, err)
				}
			}()
		}
		ctx, cancel := context.WithCancel(context.Background())
		go func() {
			_, err := c.load(ctx, 1, func() (Decoded, error) { return Decoded{}, ctx.Err() })
			if err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}()
		synctest.Wait() // until all of them wait
		cancel()
		close(giveUp)
	})
}
