package rclone

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/wire"
)

// Put implements [backend.Backend]. It sends three requests: two ask for the size, before and
// afterwards.
func (b *Backend) Put(ctx context.Context, name string, data []byte) error {
	if err := b.check(ctx, "put", name); err != nil {
		return err
	}
	unlock, err := b.puts.lock(ctx, name)
	if err == nil {
		defer unlock()
		err = b.put(ctx, name, data)
	}
	if err != nil {
		return b.opError("put", name, err)
	}
	return nil
}

func (b *Backend) put(ctx context.Context, name string, data []byte) error {
	size := int64(len(data))
	err := b.do(ctx, func(c *conn, client *wire.Client) error {
		has, err := c.size(ctx, client, name)
		if err == nil && (has == size || !backend.IsHashed(name)) {
			return backend.ErrExist
		}
		// A file that is named by its hash and has another size is a part of it.
		if err != nil && !errors.Is(err, backend.ErrNotExist) {
			return err
		}
		return nil
	})
	if err != nil {
		return err
	}
	b.puts.begin(name)
	if data == nil {
		data = []byte{}
	}
	stored := int64(-1)
	err = b.do(ctx, func(c *conn, client *wire.Client) error {
		if _, err := client.Do(ctx, http.MethodPost, url(name), nil, data); err != nil {
			return err
		}
		stored, _, err = client.Size(ctx, url(name))
		return err
	})
	switch {
	case err == nil && stored == size:
		return nil
	case errors.Is(err, backend.ErrNotRegular) && !backend.IsHashed(name):
		return backend.ErrExist
	case errors.Is(err, backend.ErrExist), errors.Is(err, backend.ErrNotFolder), errors.Is(err, backend.ErrNotRegular):
		return err
	}
	if err == nil {
		err = fmt.Errorf("the remote has accepted %d bytes and kept %d (something between this computer and the store changes files; do not use it)", size, stored)
	}
	return b.afterFailure(ctx, name, data, err)
}

// afterFailure looks what a failed Put has left. It returns nil if the file has arrived, and
// removes a part of it.
func (b *Backend) afterFailure(ctx context.Context, name string, data []byte, err error) error {
	// The caller may have given up, but its file must not stay incomplete.
	cleaning, cancel := context.WithTimeout(context.WithoutCancel(ctx), patienceAtEnd)
	defer cancel()
	failed := b.do(cleaning, func(c *conn, client *wire.Client) error {
		has, _, err := client.Size(cleaning, url(name))
		if err != nil {
			return err
		}
		if has == int64(len(data)) {
			if backend.IsHashed(name) {
				return nil
			}
			stored, err := client.ReadFile(cleaning, url(name), has)
			if err == nil && bytes.Equal(stored, data) {
				return nil
			}
			if err == nil && !bytes.Equal(stored, data) {
				return backend.ErrExist // somebody else has put it: a part would be shorter
			}
		}
		if _, err := client.Do(cleaning, http.MethodDelete, url(name), nil, nil); err != nil {
			return err
		}
		return errNotFound
	})
	if failed == nil && ctx.Err() == nil {
		return nil
	}
	return err
}

// Delete implements [backend.Backend].
func (b *Backend) Delete(ctx context.Context, name string) error {
	if err := b.check(ctx, "delete", name); err != nil {
		return err
	}
	unlock, err := b.puts.lock(ctx, name)
	if err == nil {
		defer unlock()
		err = b.do(ctx, func(c *conn, client *wire.Client) error {
			_, err := client.Do(ctx, http.MethodDelete, url(name), nil, nil)
			if errors.Is(err, backend.ErrAppendOnly) {
				b.appendOnly.Store(true)
			}
			return c.confirm(ctx, client, name, err)
		})
	}
	if err != nil {
		return b.opError("delete", name, err)
	}
	return nil
}

// puts are the files that this process is putting or deleting, one operation at a time for
// each name. Files that are being written are hidden: a remote may show a part of them.
type puts struct {
	mu    sync.Mutex
	names map[string]*putting
	reads map[*[]string]bool // what each running operation that reads has to hide
}

type putting struct {
	done    chan struct{}
	writing bool
}

// lock waits until nobody puts or deletes a file.
func (p *puts) lock(ctx context.Context, name string) (unlock func(), err error) {
	for {
		p.mu.Lock()
		other, taken := p.names[name]
		if !taken {
			if p.names == nil {
				p.names = map[string]*putting{}
			}
			own := &putting{done: make(chan struct{})}
			p.names[name] = own
			p.mu.Unlock()
			return func() {
				p.mu.Lock()
				defer p.mu.Unlock()
				delete(p.names, name)
				close(own.done)
			}, nil
		}
		p.mu.Unlock()
		select {
		case <-other.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// begin notes that a file is being written until its lock is released.
func (p *puts) begin(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.names[name].writing = true
	for l := range p.reads {
		*l = append(*l, name)
	}
}

// watch begins to read. The function that it returns ends that, and returns the files that were
// being written meanwhile.
func (p *puts) watch() (end func() map[string]bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	hidden := new([]string)
	for name, n := range p.names {
		if n.writing {
			*hidden = append(*hidden, name)
		}
	}
	if p.reads == nil {
		p.reads = map[*[]string]bool{}
	}
	p.reads[hidden] = true
	return func() map[string]bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.reads, hidden)
		set := map[string]bool{}
		for _, name := range *hidden {
			set[name] = true
		}
		return set
	}
}
