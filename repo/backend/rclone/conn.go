package rclone

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/snap-backup/snap/internal/child"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/wire"
)

const (
	// host is the name of the server in requests. Nothing looks it up.
	host     = "localhost"
	baseURL  = "http://" + host + "/"
	program  = "rclone"
	accepted = "application/vnd.x.restic.rest.v2" // the type of listings

	defaultTimeout = time.Minute
	patienceAtEnd  = 5 * time.Second
	pingInterval   = 30 * time.Second
	pingTimeout    = 2 * time.Minute
)

// argv returns the command line of rclone.
func argv(c Config, opts Options) ([]string, error) {
	words, err := child.SplitWords(opts.Program)
	if err == nil && len(words) == 0 {
		words = []string{program}
	}
	if err != nil {
		return nil, fmt.Errorf("rclone.program: %w", err)
	}
	more, err := child.SplitWords(opts.Args)
	if err != nil {
		return nil, fmt.Errorf("rclone.args: %w", err)
	}
	// Objects that are cached would hide what other processes do. B2 hides what is deleted
	// unless it is told otherwise, and then a prune would free nothing. Standard input is for
	// requests, so rclone must not ask for the password of its configuration there.
	return slices.Concat(words, []string{"serve", "restic", "--stdio", "--cache-objects=false", "--b2-hard-delete", "--ask-password=false"},
		more, []string{"--", c.remote()}), nil
}

// conn is a running rclone. If anything goes wrong with its connection, it is never used
// again.
type conn struct {
	child   *child.Child
	pipe    *pipe
	http    *http.ClientConn
	unblock func()        // ends waits for a limit
	exact   bool          // "not found" is never another failure, see [Backend]
	ended   chan struct{} // closed when rclone has ended
	reason  error         // why it has
}

// connect starts rclone, and returns after it has answered.
func (b *Backend) connect(ctx context.Context) (*conn, error) {
	args, err := argv(b.cfg, b.opts)
	if err != nil {
		return nil, err
	}
	ch, err := child.Start(args, child.Options{DieWithParent: true})
	if err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return nil, &wire.Error{Text: "rclone is not installed, or not in PATH (install it, or name it with rclone.program)", Is: []error{err, backend.ErrOutOfReach}}
		}
		return nil, &wire.Error{Text: err.Error(), Is: []error{err, backend.ErrOutOfReach}}
	}
	out, in, unblock := b.opts.Limits.Pipe(ch.Out, ch.In)
	c := &conn{child: ch, unblock: unblock, pipe: &pipe{in: in, out: out, read: make(chan struct{})}, ended: make(chan struct{})}
	go c.end()
	limited, cancel := context.WithTimeout(ctx, b.timeout())
	defer cancel()
	stop := context.AfterFunc(limited, c.kill)
	defer stop()
	c.http, err = transport(c.pipe).NewClientConn(limited, "http", host+":80")
	if err != nil {
		c.close()
		return nil, c.lost(ctx, err)
	}
	if err := c.greet(limited, b); err != nil {
		broken := c.broken()
		c.close()
		switch {
		case ctx.Err() == nil && limited.Err() != nil:
			return nil, wire.OutOfReach(fmt.Sprintf("rclone does not answer within %v", b.timeout()))
		case broken:
			return nil, c.lost(ctx, err)
		}
		return nil, err
	}
	return c, nil
}

// greet asks for config, and learns from any answer which rclone this is.
func (c *conn) greet(ctx context.Context, b *Backend) error {
	client := b.clientFor(c)
	judge := client.Judge
	client.Judge = func(resp *http.Response) error {
		c.exact = isExact(resp.Header.Get("Server"))
		if err := judge(resp); err != nil && !errors.Is(err, errNotFound) {
			return err
		}
		return nil
	}
	_, err := client.Do(ctx, http.MethodHead, baseURL+pathOf("config"), nil, nil)
	return err
}

// isExact reports whether this version of rclone answers "not found" to HEAD only if there is
// no file. Versions before 1.68 answer the same if they cannot reach the remote.
func isExact(server string) bool {
	version, ok := strings.CutPrefix(server, "rclone/v")
	major, rest, _ := strings.Cut(version, ".")
	minor, _, _ := strings.Cut(rest, ".")
	x, errMajor := strconv.Atoi(major)
	y, errMinor := strconv.Atoi(minor)
	return ok && errMajor == nil && errMinor == nil && (x > 1 || x == 1 && y >= 68)
}

func transport(p *pipe) *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Transport{
		DialContext:        func(context.Context, string, string) (net.Conn, error) { return p, nil },
		Protocols:          protocols,
		DisableCompression: true,
		HTTP2:              &http.HTTP2Config{SendPingTimeout: pingInterval, PingTimeout: pingTimeout},
	}
}

// end waits until the connection has ended, and lets rclone end, too.
func (c *conn) end() {
	<-c.pipe.read // Wait closes the pipes, so nobody may read from them any more
	_ = c.child.In.Close()
	timer := time.AfterFunc(patienceAtEnd, c.kill)
	c.reason = c.child.Wait()
	timer.Stop()
	close(c.ended)
}

// kill ends rclone at once, so that reads and writes return.
func (c *conn) kill() {
	c.unblock()
	c.child.Kill()
}

// close ends rclone, and waits until it has ended.
func (c *conn) close() {
	if c.http != nil {
		_ = c.http.Close()
	}
	_ = c.child.In.Close()
	select {
	case <-c.ended:
	case <-time.After(patienceAtEnd):
		c.kill()
		<-c.ended
	}
}

// broken reports whether the connection can be used no more.
func (c *conn) broken() bool {
	select {
	case <-c.ended:
		return true
	default:
		return c.pipe.failed.Load() || c.http.Err() != nil
	}
}

// lost returns the error of a request that got no answer.
func (c *conn) lost(ctx context.Context, err error) error {
	if ended := ctx.Err(); ended != nil {
		return ended
	}
	_ = c.child.In.Close()
	select {
	case <-c.ended: // what rclone has said is better than the end of a pipe
	case <-time.After(patienceAtEnd + time.Second):
		return wire.ConnectionError(err)
	}
	why := "it was killed or has closed the connection"
	if c.reason != nil {
		why = wire.Clean(c.reason.Error())
	}
	return wire.OutOfReach("rclone has ended: " + why)
}

// pipe is the connection to a program. read is closed when nothing more can be read.
type pipe struct {
	in     io.WriteCloser
	out    io.Reader
	read   chan struct{}
	done   bool        // read is closed; only the reader uses it
	failed atomic.Bool // nothing more can be read or written
}

func (p *pipe) Read(b []byte) (int, error) {
	n, err := p.out.Read(b)
	if err != nil && !p.done {
		p.failed.Store(true)
		p.done = true
		close(p.read)
	}
	return n, err
}

func (p *pipe) Write(b []byte) (int, error) {
	n, err := p.in.Write(b)
	if err != nil {
		p.failed.Store(true)
	}
	return n, err
}

func (p *pipe) Close() error {
	p.failed.Store(true)
	return p.in.Close()
}

func (p *pipe) LocalAddr() net.Addr              { return &net.UnixAddr{Name: "pipe", Net: "unix"} }
func (p *pipe) RemoteAddr() net.Addr             { return p.LocalAddr() }
func (p *pipe) SetDeadline(time.Time) error      { return nil }
func (p *pipe) SetReadDeadline(time.Time) error  { return nil }
func (p *pipe) SetWriteDeadline(time.Time) error { return nil }
