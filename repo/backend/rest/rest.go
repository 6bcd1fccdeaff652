// Package rest is a backend on a server that "snap serve" runs. docs/rest.md describes the
// protocol.
//
// # Answers
//
// Only an answer with the header of the protocol says something about a file. Everything
// else, such as the page of a hotel's network, a proxy or another server, is
// [backend.ErrOutOfReach]. Redirections are not followed. An answer that ends too early is
// never taken for a file or a listing that is shorter.
//
// # Put
//
// Put sends one request, with the length and the SHA-256 of the bytes. The server answers
// when the file is durable, and stores nothing if they differ. It never overwrites. If the
// answer is lost, Put asks the server whether the file has arrived, and compares the bytes
// unless the name is a hash.
//
// # Failures
//
// No operation is repeated here; package retry does that. Errors that may pass are
// [backend.TemporaryError].
//
// # What it never does
//
// It sends nothing without TLS, except to this computer or if [Options.InsecureHTTP] is set.
// It never puts the user or password into messages, nor into requests to another host.
package rest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/restapi"
	"github.com/snap-backup/snap/repo/backend/wire"
)

// Options are the settings of a store that are not in its address. The zero value has the
// defaults.
type Options struct {
	// User and Password are used if the address has none.
	User, Password Secret
	// InsecureHTTP allows http to other computers. Whoever is on the way then sees the
	// password of the server, and can change and remove files.
	InsecureHTTP bool
	// Connection has the settings of connections.
	Connection wire.TransportOptions
	// Transport is used instead of connections of this package, for tests.
	Transport http.RoundTripper
}

// Backend is a store on a server. Use [Open] or [Create].
type Backend struct {
	cfg        Config
	client     wire.Client
	transport  http.RoundTripper
	anonymous  bool        // there is no user
	appendOnly atomic.Bool // see AppendOnly
}

var (
	_ backend.Backend     = (*Backend)(nil)
	_ backend.FileReader  = (*Backend)(nil)
	_ backend.Freer       = (*Backend)(nil)
	_ backend.RangeLister = (*Backend)(nil)
	_ backend.AppendOnly  = (*Backend)(nil)
)

// Open returns the store at an address, which must exist. It sends one request, and does not
// check whether there is a repository.
func Open(ctx context.Context, cfg Config, opts Options) (*Backend, error) {
	b, err := newBackend(cfg, opts)
	if err == nil {
		if _, err = b.client.Do(ctx, http.MethodHead, cfg.base(), nil, nil); err == nil {
			return b, nil
		}
		_ = b.Close()
	}
	return nil, fmt.Errorf("open %s: %w", cfg, err)
}

// Create is Open, except that the server makes the folder of the repository if it is missing.
func Create(ctx context.Context, cfg Config, opts Options) (*Backend, error) {
	b, err := newBackend(cfg, opts)
	if err == nil {
		if _, err = b.client.Do(ctx, http.MethodPost, cfg.base()+"?create=true", nil, []byte{}); err == nil {
			return b, nil
		}
		_ = b.Close()
	}
	return nil, fmt.Errorf("create %s: %w", cfg, err)
}

func newBackend(cfg Config, opts Options) (*Backend, error) {
	if cfg.HTTP && !opts.InsecureHTTP && !wire.Loopback(cfg.Host) {
		return nil, errors.New("http to another computer is not allowed, since anybody on the way could see the password, and change or remove files (write https, or allow http explicitly)")
	}
	b := &Backend{cfg: cfg, transport: opts.Transport}
	if b.transport == nil {
		t, err := wire.NewTransport(opts.Connection)
		if err != nil {
			return nil, err
		}
		b.transport = t
	}
	headers := http.Header{"User-Agent": {"snap"}, "Accept": {restapi.MediaType}}
	user, password := cfg.User, cfg.Password
	if user == "" {
		user, password = opts.User, opts.Password
	}
	if b.anonymous = user == ""; !b.anonymous {
		r := http.Request{Header: headers}
		r.SetBasicAuth(string(user), string(password))
	}
	b.client = wire.Client{RoundTrip: b.transport.RoundTrip, Judge: b.judge, Headers: headers}
	return b, nil
}

// Close closes idle connections. No other method may run at the same time or be called
// afterwards.
func (b *Backend) Close() error {
	if t, ok := b.transport.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
	return nil
}

// Config returns what the store was opened with.
func (b *Backend) Config() Config { return b.cfg }

// AppendOnly implements [backend.AppendOnly]. The server says it in each answer.
func (b *Backend) AppendOnly() bool { return b.appendOnly.Load() }

// Free implements [backend.Freer].
func (b *Backend) Free(ctx context.Context) (int64, error) {
	header, err := b.client.Do(ctx, http.MethodHead, b.cfg.base(), nil, nil)
	if err != nil {
		return 0, b.opError("free space", "", err)
	}
	free, err := strconv.ParseInt(header.Get(restapi.Free), 10, 64)
	if err != nil || free < 0 {
		return 0, fmt.Errorf("free space of the store: %w", errors.ErrUnsupported)
	}
	return free, nil
}

// url returns the URL of a file. The characters of valid names need no escape.
func (b *Backend) url(name string) string { return b.cfg.base() + name }

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

// Put implements [backend.Backend].
func (b *Backend) Put(ctx context.Context, name string, data []byte) error {
	if err := b.check(ctx, "put", name); err != nil {
		return err
	}
	if data == nil {
		data = []byte{}
	}
	sum := sha256.Sum256(data)
	want := hex.EncodeToString(sum[:])
	headers := http.Header{restapi.SHA256: {want}, "Content-Type": {"application/octet-stream"}}
	answer, err := b.client.Do(ctx, http.MethodPost, b.url(name), headers, data)
	if err == nil && answer.Get(restapi.SHA256) != want {
		err = errNotConfirmed() // perhaps a proxy has answered
	}
	if err == nil || backend.Temporary(err) && b.arrived(ctx, name, data) {
		return nil
	}
	return b.opError("put", name, err)
}

// arrived reports whether the server has a file with these bytes, after an answer was lost.
func (b *Backend) arrived(ctx context.Context, name string, data []byte) bool {
	size, _, err := b.client.Size(ctx, b.url(name))
	if err != nil || size != int64(len(data)) {
		return false
	}
	if backend.IsHashed(name) {
		return true
	}
	stored, err := b.client.ReadFile(ctx, b.url(name), size)
	return err == nil && bytes.Equal(stored, data)
}

// Stat implements [backend.Backend].
func (b *Backend) Stat(ctx context.Context, name string) (backend.Info, error) {
	if err := b.check(ctx, "stat", name); err != nil {
		return backend.Info{}, err
	}
	size, header, err := b.client.Size(ctx, b.url(name))
	if err != nil {
		return backend.Info{}, b.opError("stat", name, err)
	}
	modified, _ := time.Parse(time.RFC3339Nano, header.Get(restapi.Modified)) // zero if the server does not tell
	return backend.Info{Name: name, Size: size, Modified: modified}, nil
}

// ReadAt implements [backend.Backend]. It sends one request.
func (b *Backend) ReadAt(ctx context.Context, name string, p []byte, off int64) (n int, err error) {
	if err := b.check(ctx, "read", name); err != nil {
		return 0, err
	}
	switch {
	case off < 0:
		err = errors.New("negative offset")
	case len(p) == 0:
		_, _, err = b.client.Size(ctx, b.url(name))
	default:
		n, err = b.client.ReadAt(ctx, b.url(name), p, off)
	}
	if err != nil && err != io.EOF {
		err = b.opError("read", name, err)
	}
	return n, err
}

// ReadFile implements [backend.FileReader]. It sends one request.
func (b *Backend) ReadFile(ctx context.Context, name string, limit int64) ([]byte, error) {
	if err := b.check(ctx, "read", name); err != nil {
		return nil, err
	}
	data, err := b.client.ReadFile(ctx, b.url(name), limit)
	if err != nil {
		return nil, b.opError("read", name, err)
	}
	return data, nil
}

// Delete implements [backend.Backend].
func (b *Backend) Delete(ctx context.Context, name string) error {
	if err := b.check(ctx, "delete", name); err != nil {
		return err
	}
	if _, err := b.client.Do(ctx, http.MethodDelete, b.url(name), nil, nil); err != nil {
		return b.opError("delete", name, err)
	}
	return nil
}

// List implements [backend.Backend]. It sends one request.
func (b *Backend) List(ctx context.Context, prefix string, fn func(backend.Info) error) error {
	if err := backend.ValidPrefix(prefix); err != nil {
		return fmt.Errorf("list %s: %w", b.cfg, err)
	}
	if prefix == "" {
		return b.ListRange(ctx, "", "", fn)
	}
	return b.list(ctx, prefix, b.url(prefix), func(name string) bool { return strings.HasPrefix(name, prefix) }, fn)
}

// ListRange implements [backend.RangeLister]. It sends one request.
func (b *Backend) ListRange(ctx context.Context, after, before string, fn func(backend.Info) error) error {
	query := url.Values{"after": {after}, "before": {before}}
	return b.list(ctx, after, b.cfg.base()+"?"+query.Encode(), func(name string) bool {
		return name > after && (before == "" || name < before)
	}, fn)
}

// list calls fn for the files of an answer, after it has read all of it: fn may take long,
// and may need the connection.
func (b *Backend) list(ctx context.Context, what, url string, asked func(string) bool, fn func(backend.Info) error) error {
	files, err := b.listing(ctx, url, asked)
	if ended := ctx.Err(); ended != nil {
		err = ended
	}
	if err != nil {
		return b.opError("list", what, err)
	}
	for _, f := range files {
		if err := ctx.Err(); err != nil {
			return b.opError("list", what, err)
		}
		if err := fn(f); err != nil {
			return err
		}
	}
	return nil
}

func (b *Backend) listing(ctx context.Context, url string, asked func(string) bool) ([]backend.Info, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	resp, err := b.client.Send(ctx, http.MethodGet, url, nil, nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return parseListing(resp.Body, asked)
}

// parseListing reads a listing. Files with names that no repository has are left out.
func parseListing(r io.Reader, asked func(name string) bool) ([]backend.Info, error) {
	var files []backend.Info
	last := ""
	err := wire.ReadListing(r, func(e restapi.Entry) error {
		switch {
		case e.Name <= last:
			return fmt.Errorf("the server lists %.200q after %.200q", e.Name, last)
		case e.Size < 0:
			return fmt.Errorf("the server lists %.200q with %d bytes", e.Name, e.Size)
		}
		last = e.Name
		if backend.ValidName(e.Name) != nil {
			return nil
		}
		if !asked(e.Name) {
			return fmt.Errorf("the server lists %.200q, which was not asked for", e.Name)
		}
		files = append(files, backend.Info{Name: e.Name, Size: e.Size, Modified: e.Modified})
		return nil
	})
	if err != nil {
		return nil, err
	}
	return files, nil
}
