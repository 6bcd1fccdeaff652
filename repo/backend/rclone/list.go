package rclone

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/wire"
)

// entry is one file of a listing of rclone.
type entry struct {
	Name string `json:"name"`
	Size int64  `json:"size"` // negative if rclone does not know it
}

// List implements [backend.Backend]. It sends one request for a folder, and some for the whole
// repository.
func (b *Backend) List(ctx context.Context, prefix string, fn func(backend.Info) error) error {
	if err := backend.ValidPrefix(prefix); err != nil {
		return fmt.Errorf("list %s: %w", b.cfg, err)
	}
	if err := ctx.Err(); err != nil {
		return b.opError("list", prefix, err)
	}
	end := b.puts.watch()
	l := listing{}
	err := b.do(ctx, func(c *conn, client *wire.Client) error {
		l = listing{c: c, client: client, files: map[string]int64{}}
		return l.folder(ctx, prefix)
	})
	hidden := end()
	if err != nil {
		return b.opError("list", prefix, err)
	}
	names := make([]string, 0, len(l.files))
	for name := range l.files {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if hidden[name] {
			continue
		}
		if err := ctx.Err(); err != nil {
			return b.opError("list", prefix, err)
		}
		if err := fn(backend.Info{Name: name, Size: l.files[name]}); err != nil {
			return err
		}
	}
	return nil
}

// listing collects files. Some remotes can have two files of one name; they count once.
type listing struct {
	c      *conn
	client *wire.Client
	mu     sync.Mutex
	files  map[string]int64
}

// folder collects the files below a folder.
func (l *listing) folder(ctx context.Context, folder string) error {
	var alone []string // last elements that are the names of files in the root or in healing/
	hashed := false
	leaves := leavesOf(folder)
	err := listFolder(ctx, l.client, folder, func(base string, size int64) {
		switch name := nameOf(folder, base); {
		case name != "":
			l.add(name, size)
		case backend.IsHashed(base):
			hashed = true
		case len(leaves) > 0 && !slices.Contains(alone, base):
			alone = append(alone, base)
		}
	})
	if err != nil {
		return err
	}
	if hashed {
		if err := l.all(ctx, leaves, l.folder); err != nil {
			return err
		}
	}
	if folder == "" && !hashed && len(alone) > 0 {
		leaves = []string{healingFolder} // it may have a config
		if err := l.all(ctx, leaves, l.folder); err != nil {
			return err
		}
	}
	return l.all(ctx, alone, func(ctx context.Context, base string) error { return l.file(ctx, folder+base) })
}

// file collects a file if it exists. The listing of its folder does not tell whether it is in
// that folder or in one below.
func (l *listing) file(ctx context.Context, name string) error {
	if backend.ValidName(name) != nil || pathOf(name) != name {
		return nil
	}
	size, err := l.c.size(ctx, l.client, name)
	switch {
	case err == nil:
		l.add(name, size)
	case !errors.Is(err, backend.ErrNotExist):
		return err
	}
	return nil
}

func (l *listing) add(name string, size int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.files[name] = max(0, size)
}

// parallel is how many requests a listing sends at a time.
const parallel = 8

// all calls fn for all names, several at a time.
func (l *listing) all(ctx context.Context, names []string, fn func(context.Context, string) error) error {
	slots := make(chan struct{}, parallel)
	errs := make([]error, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			errs[i] = fn(ctx, name)
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// listFolder calls fn for each file below a folder.
func listFolder(ctx context.Context, client *wire.Client, folder string, fn func(base string, size int64)) error {
	resp, err := client.Send(ctx, http.MethodGet, baseURL+folder, nil, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	err = parseListing(resp.Body, fn)
	if ended := ctx.Err(); ended != nil {
		return ended
	}
	return err
}

func parseListing(r io.Reader, fn func(base string, size int64)) error {
	return wire.ReadListing(r, func(e entry) error {
		if e.Name == "" || strings.Contains(e.Name, "/") {
			return fmt.Errorf("rclone lists %.200q", e.Name)
		}
		fn(e.Name, e.Size)
		return nil
	})
}
