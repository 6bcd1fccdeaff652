package restserver

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/backendtest"
	"github.com/snap-backup/snap/repo/backend/local"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/backend/restapi"
)

// quiet returns options for a server that anybody may use and that logs nothing.
func quiet() Options { return Options{Anybody: true, Log: slog.New(slog.DiscardHandler)} }

// remote is a store behind a server, as a client sees it by the words of docs/rest.md.
type remote struct {
	base string // ends with a slash
	hc   *http.Client
}

func (c *remote) do(ctx context.Context, method, path string, body []byte, header map[string]string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if body != nil {
		sum := sha256.Sum256(body)
		r.Header.Set(restapi.SHA256, hex.EncodeToString(sum[:]))
		r.ContentLength = int64(len(body))
	}
	for k, v := range header {
		r.Header.Set(k, v)
	}
	a, err := c.hc.Do(r)
	if err != nil {
		return nil, err
	}
	if a.StatusCode < 300 {
		return a, nil
	}
	defer a.Body.Close()
	text, _ := io.ReadAll(a.Body)
	err = map[string]error{
		restapi.ReasonExists: backend.ErrExist, restapi.ReasonNoFile: backend.ErrNotExist, restapi.ReasonName: backend.ErrInvalidName,
		restapi.ReasonFull: backend.ErrNoSpace, restapi.ReasonQuota: backend.ErrNoSpace, restapi.ReasonNotFolder: backend.ErrNotFolder,
		restapi.ReasonNotRegular: backend.ErrNotRegular,
	}[a.Header.Get(restapi.Reason)]
	if a.StatusCode == http.StatusRequestedRangeNotSatisfiable {
		err = io.EOF
	}
	return nil, fmt.Errorf("%s: %s: %w", a.Status, text, err)
}

// check does what a client does before it asks: a name must be valid, a context must not be
// done.
func check(ctx context.Context, name string) error {
	return errors.Join(backend.ValidName(name), ctx.Err())
}

func (c *remote) Put(ctx context.Context, name string, data []byte) error {
	if err := check(ctx, name); err != nil {
		return err
	}
	a, err := c.do(ctx, http.MethodPost, name, append([]byte{}, data...), nil)
	if err != nil {
		return err
	}
	return a.Body.Close()
}

func (c *remote) ReadAt(ctx context.Context, name string, p []byte, off int64) (int, error) {
	if err := check(ctx, name); err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, errors.New("negative offset")
	}
	if len(p) == 0 {
		_, err := c.Stat(ctx, name)
		return 0, err
	}
	last := off + int64(len(p)) - 1
	if last < off {
		last = math.MaxInt64
	}
	a, err := c.do(ctx, http.MethodGet, name, nil, map[string]string{"Range": fmt.Sprintf("bytes=%d-%d", off, last)})
	if err != nil {
		return 0, err
	}
	defer a.Body.Close()
	if a.StatusCode != http.StatusPartialContent {
		return 0, fmt.Errorf("asked for a range, got %s", a.Status)
	}
	n, err := io.ReadFull(a.Body, p)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	return n, err
}

func (c *remote) Stat(ctx context.Context, name string) (backend.Info, error) {
	if err := check(ctx, name); err != nil {
		return backend.Info{}, err
	}
	a, err := c.do(ctx, http.MethodHead, name, nil, nil)
	if err != nil {
		return backend.Info{}, err
	}
	defer a.Body.Close()
	modified, err := time.Parse(time.RFC3339Nano, a.Header.Get(restapi.Modified))
	return backend.Info{Name: name, Size: a.ContentLength, Modified: modified}, err
}

func (c *remote) List(ctx context.Context, prefix string, fn func(backend.Info) error) error {
	if err := errors.Join(backend.ValidPrefix(prefix), ctx.Err()); err != nil {
		return err
	}
	return c.list(ctx, prefix, fn)
}

func (c *remote) ListRange(ctx context.Context, after, before string, fn func(backend.Info) error) error {
	return c.list(ctx, "?"+url.Values{"after": {after}, "before": {before}}.Encode(), fn)
}

func (c *remote) list(ctx context.Context, path string, fn func(backend.Info) error) error {
	a, err := c.do(ctx, http.MethodGet, path, nil, nil)
	if err != nil {
		return err
	}
	defer a.Body.Close()
	var all []restapi.Entry
	if err := json.NewDecoder(a.Body).Decode(&all); err != nil {
		return err
	}
	for _, e := range all {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := fn(backend.Info{Name: e.Name, Size: e.Size, Modified: e.Modified}); err != nil {
			return err
		}
	}
	return nil
}

func (c *remote) Delete(ctx context.Context, name string) error {
	if err := check(ctx, name); err != nil {
		return err
	}
	a, err := c.do(ctx, http.MethodDelete, name, nil, nil)
	if err != nil {
		return err
	}
	return a.Body.Close()
}

// dial starts a server, and returns a client of one of its repositories.
func dial(t *testing.T, h http.Handler, base string) *remote {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return &remote{base: srv.URL + base, hc: srv.Client()}
}

// inside is a store in which everything is in one folder. So a name below the base path can be
// as long as one without it.
type inside struct {
	backend.Backend
	folder string
}

func (b inside) Put(ctx context.Context, name string, data []byte) error {
	return b.Backend.Put(ctx, strings.TrimPrefix(name, b.folder), data)
}

func (b inside) ReadAt(ctx context.Context, name string, p []byte, off int64) (int, error) {
	return b.Backend.ReadAt(ctx, strings.TrimPrefix(name, b.folder), p, off)
}

func (b inside) Stat(ctx context.Context, name string) (backend.Info, error) {
	return b.Backend.Stat(ctx, strings.TrimPrefix(name, b.folder))
}

func (b inside) Delete(ctx context.Context, name string) error {
	return b.Backend.Delete(ctx, strings.TrimPrefix(name, b.folder))
}

func (b inside) List(ctx context.Context, prefix string, fn func(backend.Info) error) error {
	return b.Backend.List(ctx, strings.TrimPrefix(prefix, b.folder), func(f backend.Info) error {
		f.Name = b.folder + f.Name
		return fn(f)
	})
}

// A store behind a server fulfils the contract, whatever is behind it.
func TestContract(t *testing.T) {
	for name, open := range map[string]func(t *testing.T) backend.Backend{
		"memory": func(*testing.T) backend.Backend { return memory.New() },
		"local": func(t *testing.T) backend.Backend {
			be, err := local.Open(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { be.Close() })
			return be
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			backendtest.RunSmall(t, func(t *testing.T) backend.Backend {
				return dial(t, New(inside{open(t), "phones/"}, quiet()), "/phones/")
			})
		})
	}
}
