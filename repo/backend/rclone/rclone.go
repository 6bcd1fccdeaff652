// Package rclone is a backend in a remote of rclone, such as a cloud drive. It runs
// "rclone serve restic --stdio" and sends it the requests of restic's REST protocol, version
// 2, over HTTP/2 on its standard input and output, as restic does.
//
// # Files
//
// A file of a repository has its own path in the remote, so that a copy of the remote is a
// repository in a folder. Other names, which no repository has, are kept in another form; see
// names.go.
//
// # Weaker than other stores
//
// The protocol cannot refuse to overwrite. Put asks first whether the name is free. Two
// processes that put one name at the same time can both succeed. rclone writes to disks,
// SFTP servers and shares in place, so another process can see a file that is still
// being written there, and a computer that crashes leaves a part of it. For such places
// there are folders and the sftp backend. Most cloud drives show only complete files. A
// part that was left is replaced when the same file is put again.
//
// # Not found
//
// Some versions of rclone answer "not found" to any failure of HEAD, GET or DELETE. So that
// answer is confirmed: by a HEAD request, or by a listing if this version does not say the
// truth to HEAD.
//
// # Failures
//
// rclone repeats what fails for a short time. Nothing is repeated here; package retry does
// that. If rclone ends, operations that wait fail with a temporary error, and the next one
// starts it again. rclone never outlives this process: it ends when its input does.
package rclone

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"sync/atomic"
	"time"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/limit"
	"github.com/snap-backup/snap/repo/backend/wire"
)

// Options are the settings of a store that are not in its address. The zero value has the
// defaults.
type Options struct {
	// Program is rclone, or another program that runs it, with arguments; "" for the rclone
	// in PATH. See [child.SplitWords] for quotes.
	Program string
	// Args are more arguments of "rclone serve restic", such as "--bwlimit 1M".
	Args string
	// Timeout is how long rclone may take until its first answer. 0 means a minute.
	Timeout time.Duration
	// Limits are those of all connections of the process; nil for none.
	Limits *limit.Limits
}

// Backend is a store in a remote. Use [Open] or [Create].
type Backend struct {
	cfg  Config
	opts Options

	connecting chan struct{} // holds an element while a goroutine looks for a connection
	current    *conn         // nil if there is none; guarded by connecting
	closed     bool          // guarded by connecting

	puts       puts
	appendOnly atomic.Bool // rclone has refused to delete a file
}

var (
	_ backend.Backend    = (*Backend)(nil)
	_ backend.FileReader = (*Backend)(nil)
	_ backend.AppendOnly = (*Backend)(nil)
)

// Open starts rclone and returns the store, after rclone has answered. It does not check
// whether there is a repository.
func Open(ctx context.Context, cfg Config, opts Options) (*Backend, error) {
	b := &Backend{cfg: cfg, opts: opts, connecting: make(chan struct{}, 1)}
	if _, err := b.connection(ctx); err != nil {
		return nil, b.opError("open", "", err)
	}
	return b, nil
}

// Create is Open: rclone makes folders and buckets when they are needed.
func Create(ctx context.Context, cfg Config, opts Options) (*Backend, error) {
	return Open(ctx, cfg, opts)
}

// Close ends rclone. No other method may run at the same time or be called afterwards.
func (b *Backend) Close() error {
	b.connecting <- struct{}{}
	defer func() { <-b.connecting }()
	b.closed = true
	if b.current != nil {
		b.current.close()
		b.current = nil
	}
	return nil
}

// Config returns what the store was opened with.
func (b *Backend) Config() Config { return b.cfg }

// AppendOnly implements [backend.AppendOnly]. rclone says so only when it refuses.
func (b *Backend) AppendOnly() bool {
	return b.appendOnly.Load() || strings.Contains(b.opts.Args, "--append-only")
}

func (b *Backend) timeout() time.Duration {
	if b.opts.Timeout > 0 {
		return b.opts.Timeout
	}
	return defaultTimeout
}

var errClosed = errors.New("the store is closed")

// connection returns the connection, and starts rclone if there is none.
func (b *Backend) connection(ctx context.Context) (*conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	select {
	case b.connecting <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-b.connecting }()
	if b.closed {
		return nil, errClosed
	}
	if b.current != nil && !b.current.broken() {
		return b.current, nil
	}
	if b.current != nil {
		b.current.close()
		b.current = nil
	}
	c, err := b.connect(ctx)
	if err != nil {
		return nil, err
	}
	b.current = c
	return c, nil
}

// do runs requests on the connection.
func (b *Backend) do(ctx context.Context, run func(c *conn, client *wire.Client) error) error {
	c, err := b.connection(ctx)
	if err != nil {
		return err
	}
	err = run(c, b.clientFor(c))
	if err == nil || err == io.EOF {
		return err
	}
	if ended := ctx.Err(); ended != nil {
		return ended
	}
	if backend.Temporary(err) && c.broken() {
		return c.lost(ctx, err)
	}
	return err
}

// check makes the checks that every operation on a file begins with.
func (b *Backend) check(ctx context.Context, op, name string) error {
	if err := backend.ValidName(name); err != nil {
		return fmt.Errorf("%s %s: %w", op, b.cfg, err)
	}
	if err := ctx.Err(); err != nil {
		return b.opError(op, name, err)
	}
	return nil
}

func url(name string) string { return baseURL + pathOf(name) }

// Stat implements [backend.Backend]. rclone tells no times in listings, so no time is told
// here.
func (b *Backend) Stat(ctx context.Context, name string) (backend.Info, error) {
	if err := b.check(ctx, "stat", name); err != nil {
		return backend.Info{}, err
	}
	size, err := b.size(ctx, name)
	if err != nil {
		return backend.Info{}, b.opError("stat", name, err)
	}
	return backend.Info{Name: name, Size: size}, nil
}

// size returns the size of a file, unless this process is still writing it.
func (b *Backend) size(ctx context.Context, name string) (size int64, err error) {
	err = b.read(ctx, name, func(c *conn, client *wire.Client) (err error) {
		size, err = c.size(ctx, client, name)
		return err
	})
	if err != nil {
		return 0, err
	}
	return size, nil
}

// read runs the requests that read a file. While this process writes it, there is no file.
func (b *Backend) read(ctx context.Context, name string, run func(c *conn, client *wire.Client) error) error {
	end := b.puts.watch()
	err := b.do(ctx, run)
	if end()[name] {
		return backend.ErrNotExist
	}
	return err
}

// size asks for the size of a file.
func (c *conn) size(ctx context.Context, client *wire.Client, name string) (int64, error) {
	size, _, err := client.Size(ctx, url(name))
	if errors.Is(err, errNotFound) {
		err = c.missing(ctx, client, name)
	}
	return size, err
}

// missing returns ErrNotExist if a file that HEAD has not found does not exist.
func (c *conn) missing(ctx context.Context, client *wire.Client, name string) error {
	if c.exact {
		return backend.ErrNotExist
	}
	file := pathOf(name)
	folder := path.Dir(file) + "/"
	if folder == "./" {
		folder = plainFolders[0] // the listing of the root is long; this one shows that the remote answers
	}
	found := false
	err := listFolder(ctx, client, folder, func(base string, _ int64) { found = found || base == path.Base(file) })
	if errors.Is(err, backend.ErrNotFolder) {
		return backend.ErrNotExist
	}
	if err != nil {
		return err
	}
	if folder == plainFolders[0] && path.Dir(file) == "." {
		_, _, err := client.Size(ctx, url(name))
		found = err == nil
		if err != nil && !errors.Is(err, errNotFound) {
			return err
		}
	}
	if found {
		return errHidden
	}
	return backend.ErrNotExist
}

// errHidden says that rclone has answered "not found" although there is a file.
var errHidden = wire.OutOfReach("rclone lists the file and cannot read it now")

// confirm turns the error of a request other than HEAD into one that tells whether the file
// exists.
func (c *conn) confirm(ctx context.Context, client *wire.Client, name string, err error) error {
	if !errors.Is(err, errNotFound) {
		return err
	}
	if _, err := c.size(ctx, client, name); err != nil {
		return err
	}
	return errHidden
}

// ReadAt implements [backend.Backend].
func (b *Backend) ReadAt(ctx context.Context, name string, p []byte, off int64) (n int, err error) {
	if err := b.check(ctx, "read", name); err != nil {
		return 0, err
	}
	switch {
	case off < 0:
		err = errors.New("negative offset")
	case len(p) == 0:
		_, err = b.size(ctx, name)
	default:
		err = b.read(ctx, name, func(c *conn, client *wire.Client) (err error) {
			n, err = c.readAt(ctx, client, name, p, off)
			return err
		})
	}
	if err != nil && err != io.EOF {
		err = b.opError("read", name, err)
	}
	return n, err
}

// readAt reads a part of a file. rclone answers to a range after the end with whatever.
func (c *conn) readAt(ctx context.Context, client *wire.Client, name string, p []byte, off int64) (int, error) {
	n, err := client.ReadAt(ctx, url(name), p, off)
	if err == nil || err == io.EOF {
		return n, err
	}
	if n > 0 || c.broken() || !errors.Is(err, errNotFound) && !errors.Is(err, backend.ErrOutOfReach) {
		return n, err
	}
	switch size, failed := c.size(ctx, client, name); {
	case failed == nil && off >= size:
		return 0, io.EOF
	case !errors.Is(err, errNotFound):
		return 0, err
	case failed != nil:
		return 0, failed
	}
	return 0, errHidden
}

// ReadFile implements [backend.FileReader].
func (b *Backend) ReadFile(ctx context.Context, name string, limit int64) (data []byte, err error) {
	if err := b.check(ctx, "read", name); err != nil {
		return nil, err
	}
	err = b.read(ctx, name, func(c *conn, client *wire.Client) (err error) {
		data, err = client.ReadFile(ctx, url(name), limit)
		return c.confirm(ctx, client, name, err)
	})
	if err != nil {
		return nil, b.opError("read", name, err)
	}
	return data, nil
}
