// Package sftp is a backend in a folder of an SFTP server.
//
// # Connection
//
// It runs the ssh program of the system, so that keys, agents, jump hosts and known hosts
// are those of the user's configuration. All operations share one connection. If it is
// lost, operations that wait for an answer fail with an error that is temporary (see
// [backend.Temporary]), and the next operation connects again. ssh may ask for a password
// if this process is in the foreground of a terminal; otherwise it never asks. It runs in
// a process group of its own, so that Ctrl-C does not end it.
//
// # Files
//
// A repository file named "packs/ab/cd" is the file packs/ab/cd below the folder, as in
// package local, so that a folder can also be used on the server itself. The folder tmp has
// the files that are being written. What crashes have left there can be removed by hand or
// with [Backend.RemoveStale]. Files have mode 0600 and folders 0700, plus the permissions
// that the repository's folder gives its group.
//
// # Put
//
// Put writes the bytes to a new file in tmp, flushes it (fsync@openssh.com) and compares the
// size that the server reports. It gives the file its name by a hard link
// (hardlink@openssh.com), which fails if the name exists, and flushes the folder. At the end
// it removes the name in tmp. The protocol says nothing of folders. Servers such as OpenSSH
// open them like files, and then they can be flushed.
//
// [Backend.Probe] says which of this a server supports. Without hard links, Put finds out
// that the name is free and then renames the file. Within one process this is as strict as
// a link. Between processes it depends on the server: OpenSSH refuses to replace a file, and
// others replace it. Without fsync, Put fails with [backend.ErrNoFsync], unless
// [Backend.AllowNoFsync] was called.
//
// # What it never does
//
// It never changes anything outside its folder, provided that the folder contains no links
// to other folders. List does not follow links, and Put refuses to make folders below
// them. It trusts the server to open what it names: the callers verify all content.
package sftp

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"sync"
	"sync/atomic"
	"time"

	"github.com/snap-backup/snap/internal/child"
	"github.com/snap-backup/snap/repo/backend"
)

// Backend is a store on a server. Use [Open] or [Create].
type Backend struct {
	config Config
	opts   Options
	prompt bool // whether ssh may ask for something

	noFsync       atomic.Bool // see AllowNoFsync
	noLink        atomic.Bool // hard links do not work there
	noFolderFlush atomic.Bool // folders cannot be flushed there

	folders  knownFolders
	renameMu sync.Mutex // held from checking that a name is free until the rename to it

	connecting chan struct{} // holds an element while a goroutine looks for a connection
	current    *conn         // nil if there is none; guarded by connecting
	closed     bool          // guarded by connecting
}

var (
	_ backend.Backend   = (*Backend)(nil)
	_ backend.Folders   = (*Backend)(nil)
	_ backend.Freer     = (*Backend)(nil)
	_ backend.NoFsyncer = (*Backend)(nil)
)

// Open connects to a server and returns the store in its folder, which must exist. It
// does not check whether the folder holds a repository.
func Open(ctx context.Context, c Config, opts Options) (*Backend, error) {
	b := newBackend(c, opts)
	err := b.do(ctx, "open", "", func(cn *conn) error {
		info, err := cn.client.Stat(c.Path)
		if err == nil && !info.IsDir() {
			return backend.ErrNotFolder
		}
		if errors.Is(err, fs.ErrNotExist) {
			return &advice{err, "check the path, or make a repository with init; if it is on a disk of the server, connect that"}
		}
		return err
	})
	if err != nil {
		_ = b.Close()
		return nil, err
	}
	return b, nil
}

func newBackend(c Config, opts Options) *Backend {
	return &Backend{
		config: c, opts: opts, connecting: make(chan struct{}, 1),
		prompt: opts.Command == "" && opts.dial == nil && !opts.NoPrompt && child.CanPrompt(),
	}
}

// Close ends the connection. No other method may run at the same time or be called
// afterwards.
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

// Address returns the address of the repository.
func (b *Backend) Address() string { return b.config.String() }

// AllowNoFsync implements [backend.NoFsyncer].
func (b *Backend) AllowNoFsync() { b.noFsync.Store(true) }

// Features says what a server supports.
type Features struct {
	// Fsync is whether files are durable when Put returns. Otherwise, the server decides
	// when they reach its disk.
	Fsync bool
	// FolderFsync is whether their names are, too.
	FolderFsync bool
	// HardLink is whether the server itself guarantees that Put never overwrites. Otherwise,
	// if two processes put the same name at the same time, both may succeed.
	HardLink bool
	// FreeSpace is whether the server says how much space is free.
	FreeSpace bool
}

// Probe finds out what the server supports. HardLink may become false when the first file
// is put: its file system decides.
func (b *Backend) Probe(ctx context.Context) (Features, error) {
	var f Features
	err := b.do(ctx, "examine", "", func(c *conn) error {
		if err := b.flushFolder(c, "."); err != nil {
			return err
		}
		f = Features{
			Fsync:       c.has(fsyncExtension),
			FolderFsync: c.has(fsyncExtension) && !b.noFolderFlush.Load(),
			HardLink:    c.has(linkExtension) && !b.noLink.Load(),
			FreeSpace:   c.has(statvfsExtension),
		}
		return nil
	})
	return f, err
}

// do runs an operation with a connection. If ctx ends, the operation gets a short time to
// end; then the connection is cut. name is "" for an operation on the whole store.
func (b *Backend) do(ctx context.Context, op, name string, run func(c *conn) error) error {
	c, err := b.connection(ctx)
	if err == nil {
		done := make(chan struct{})
		stop := context.AfterFunc(ctx, func() {
			select {
			case <-done:
			case <-time.After(patience):
				c.cut()
			}
		})
		err = run(c)
		stop()
		close(done)
		if err != nil && c.broken() {
			err = b.lost(c)
		}
	}
	if err == nil {
		return nil
	}
	if ended := ctx.Err(); ended != nil && (errors.Is(err, backend.ErrOutOfReach) || errors.Is(err, ended)) {
		err = ended
	}
	return b.opError(op, name, err)
}

// patience is how long an operation may go on after its context has ended. A connection
// that is cut fails all operations.
const patience = 5 * time.Second

// connection returns the connection, and connects if there is none.
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
		b.current.cut()
		b.current = nil
		b.folders.forget() // the server may have restarted without what was not flushed
	}
	c, err := b.connect(ctx)
	b.current = c
	return c, err
}

var errClosed = errors.New("the store is closed")

// check makes the checks that every operation on a file begins with.
func (b *Backend) check(ctx context.Context, op, name string) error {
	if err := backend.ValidName(name); err != nil {
		return fmt.Errorf("%s %s: %w", op, b.config, err)
	}
	if err := ctx.Err(); err != nil {
		return b.opError(op, name, err)
	}
	return nil
}

// path returns the path of a file on the server.
func (b *Backend) path(name string) string { return path.Join(b.config.Path, name) }
