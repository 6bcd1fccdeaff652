package sftp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"time"

	"github.com/pkg/sftp"

	"github.com/snap-backup/snap/repo/backend"
)

const (
	fsyncExtension   = "fsync@openssh.com"
	linkExtension    = "hardlink@openssh.com"
	statvfsExtension = "statvfs@openssh.com"
)

// conn is one connection. If anything goes wrong with it, it is never used again.
type conn struct {
	client *sftp.Client
	link   link
	shape  shape // of the repository's folder
	open   openFiles

	mu    sync.Mutex
	cause error // why it does not work any more

	ended  chan struct{} // closed when link.wait has returned
	reason error         // what link.wait has returned
}

// connect starts ssh and waits until the server answers.
func (b *Backend) connect(ctx context.Context) (*conn, error) {
	dial := b.opts.dial
	if dial == nil {
		args, err := argv(b.config, b.opts, b.prompt)
		if err != nil {
			return nil, err
		}
		dial = func() (link, error) { return process(args, b.prompt) }
	}
	l, err := dial()
	if err != nil {
		return nil, b.connectError(err, nil)
	}
	l = l.limited(b.opts.Limits)
	c := &conn{link: l, ended: make(chan struct{})}
	stop := context.AfterFunc(ctx, l.kill)
	client, err := sftp.NewClientPipe(watchedReader{l.out, c}, &watchedWriter{l.in, c}, sftp.UseConcurrentWrites(true))
	if err != nil {
		c.fail(err)
		go c.end(nil)
		<-c.ended
		stop()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, b.connectError(c.reason, c.cause)
	}
	l.connected()
	c.client = client
	go c.end(client)
	if info, err := client.Stat(b.config.Path); err == nil {
		c.shape = shapeOf(info)
	}
	if !stop() { // killed; the operation notices
		c.fail(ctx.Err())
	}
	return c, nil
}

// end waits until the connection has ended, and lets the program end, too.
func (c *conn) end(client *sftp.Client) {
	if client != nil {
		_ = client.Wait()
	}
	_ = c.link.in.Close()
	timer := time.AfterFunc(patienceAtEnd, c.link.kill)
	c.reason = c.link.wait()
	timer.Stop()
	close(c.ended)
}

// patienceAtEnd is how long a program may take to end when its connection has ended.
const patienceAtEnd = 3 * time.Second

// close ends the connection in order.
func (c *conn) close() {
	c.open.forget()
	c.fail(errClosed)
	_ = c.link.in.Close()
	select {
	case <-c.ended:
	case <-time.After(patienceAtEnd):
		c.cut()
		<-c.ended
	}
}

// cut ends the connection at once: what waits for an answer fails.
func (c *conn) cut() {
	c.fail(errors.New("the connection was cut"))
	c.link.kill()
}

// fail notes why the connection does not work any more. The first reason counts.
func (c *conn) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cause == nil {
		c.cause = err
	}
}

func (c *conn) broken() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cause != nil
}

func (c *conn) has(extension string) bool {
	_, ok := c.client.HasExtension(extension)
	return ok
}

// lost returns the error of an operation whose answer did not arrive.
func (b *Backend) lost(c *conn) error {
	c.open.forget()
	select {
	case <-c.ended:
	case <-time.After(patienceAtEnd + 2*time.Second): // a program that ignores its signals
		c.cut()
	}
	c.mu.Lock()
	err := c.cause
	c.mu.Unlock()
	select {
	case <-c.ended:
		if c.reason != nil {
			err = c.reason
		}
	default:
	}
	if errors.Is(err, errInterrupted) {
		return fmt.Errorf("%w: %w", errInterrupted, context.Canceled)
	}
	if errors.Is(err, io.EOF) {
		err = errors.New("the server closed it")
	}
	return &backend.TemporaryError{Err: fmt.Errorf("the connection to %s was lost: %w%w", b.config.Host, err, quiet{backend.ErrOutOfReach})}
}

// quiet is an error of a kind whose text is not needed in a message.
type quiet struct{ error }

func (quiet) Error() string   { return "" }
func (q quiet) Unwrap() error { return q.error }

// watchedReader and watchedWriter note when a connection stops working, before the
// operations that wait for an answer learn of it.
type watchedReader struct {
	io.Reader
	c *conn
}

func (r watchedReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err != nil {
		r.c.fail(err)
	}
	return n, err
}

type watchedWriter struct {
	io.WriteCloser
	c *conn
}

func (w *watchedWriter) Write(p []byte) (int, error) {
	n, err := w.WriteCloser.Write(p)
	if err != nil {
		w.c.fail(err)
	}
	return n, err
}

// Close is called by the client when it receives what it does not understand.
func (w *watchedWriter) Close() error {
	w.c.fail(errGarbled)
	return w.WriteCloser.Close()
}

var errGarbled = errors.New("the server sent something that is not SFTP")

// shape is the group and mode of the repository's folder, which new files get, too.
type shape struct {
	gid  uint32
	mode fs.FileMode
}

func shapeOf(info fs.FileInfo) shape {
	s := shape{mode: info.Mode()}
	if stat, ok := info.Sys().(*sftp.FileStat); ok {
		s.gid = stat.GID
	}
	return s
}

// fileMode and folderMode return the modes of new files and folders, as package local
// has them.
func (s shape) fileMode() fs.FileMode   { return 0o600 | s.mode&0o060 }
func (s shape) folderMode() fs.FileMode { return 0o700 | s.mode&0o070 | s.mode&fs.ModeSetgid }
func (s shape) isShared() bool          { return s.mode&0o070 != 0 }
