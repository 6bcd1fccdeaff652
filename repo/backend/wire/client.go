package wire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"sync"

	"github.com/snap-backup/snap/repo/backend"
)

var (
	// ErrNoSize says that an answer does not tell the size of a file.
	ErrNoSize error = &Error{"the store does not say how large the file is", []error{backend.ErrOutOfReach}}
	// ErrWrongRange says that an answer has another part of a file than was asked for.
	ErrWrongRange error = &Error{"the store has sent another part of the file than it was asked for", []error{backend.ErrOutOfReach}}
	// ErrAfterEnd is what Judge returns for an answer that says that a range is after the
	// end of a file.
	ErrAfterEnd = errors.New("the range is after the end of the file")
)

// Client sends the requests of a store.
type Client struct {
	// RoundTrip sends a request. It follows no redirections.
	RoundTrip func(*http.Request) (*http.Response, error)
	// Judge returns nil if an answer comes from the store, and is what was asked for.
	// Otherwise it returns what the answer means. It may read the body.
	Judge func(*http.Response) error
	// Headers are sent with each request.
	Headers http.Header
}

// Send sends a request and judges the answer. The caller closes the body of the answer. data
// is nil for a request without a body.
func (c *Client) Send(ctx context.Context, method, url string, headers http.Header, data []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return nil, err
	}
	for _, set := range []http.Header{c.Headers, headers} {
		for key, values := range set {
			req.Header[key] = values
		}
	}
	if data != nil {
		body := NewBody(data)
		defer body.Revoke()
		req.Body, req.ContentLength = body, int64(len(data))
		if len(data) == 0 {
			req.Body = http.NoBody // so that its length is sent
		}
	}
	resp, err := c.RoundTrip(req)
	if err != nil {
		if ended := ctx.Err(); ended != nil {
			return nil, ended
		}
		return nil, ConnectionError(err)
	}
	if err := c.Judge(resp); err != nil {
		_ = resp.Body.Close()
		return nil, err
	}
	return resp, nil
}

// Do sends a request and ignores the body of the answer.
func (c *Client) Do(ctx context.Context, method, url string, headers http.Header, data []byte) (http.Header, error) {
	resp, err := c.Send(ctx, method, url, headers, data)
	if err != nil {
		return nil, err
	}
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10) // so that the connection can be used again
	_ = resp.Body.Close()
	return resp.Header, nil
}

// Size returns the size of a file, and the headers of the answer.
func (c *Client) Size(ctx context.Context, url string) (int64, http.Header, error) {
	headers, err := c.Do(ctx, http.MethodHead, url, nil, nil)
	if err != nil {
		return 0, nil, err
	}
	size, err := strconv.ParseInt(headers.Get("Content-Length"), 10, 64)
	if err != nil || size < 0 {
		return 0, nil, ErrNoSize
	}
	return size, headers, nil
}

// ReadAt reads a part of a file. If the file ends before p is full, the error is io.EOF.
func (c *Client) ReadAt(ctx context.Context, url string, p []byte, off int64) (int, error) {
	last := off + int64(len(p)) - 1
	if last < off {
		last = math.MaxInt64
	}
	resp, err := c.Send(ctx, http.MethodGet, url, http.Header{"Range": {fmt.Sprintf("bytes=%d-%d", off, last)}}, nil)
	if errors.Is(err, ErrAfterEnd) {
		return 0, io.EOF
	}
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	want, err := PartOf(resp.Header, off, len(p))
	if err != nil {
		return 0, err
	}
	n, err := io.ReadFull(resp.Body, p[:want])
	switch {
	case err != nil:
		return n, bodyError(ctx, err)
	case n < len(p):
		return n, io.EOF
	}
	return n, nil
}

// ReadFile reads a file of at most limit bytes.
func (c *Client) ReadFile(ctx context.Context, url string, limit int64) ([]byte, error) {
	resp, err := c.Send(ctx, http.MethodGet, url, nil, nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	size := resp.ContentLength
	switch {
	case size < 0:
		return nil, ErrNoSize
	case size > limit:
		return nil, fmt.Errorf("%d bytes, at most %d expected: %w", size, limit, backend.ErrTooLarge)
	}
	data := make([]byte, size)
	if _, err := io.ReadFull(resp.Body, data); err != nil {
		return nil, bodyError(ctx, err)
	}
	return data, nil
}

// bodyError returns the error for an answer that ends in the middle.
func bodyError(ctx context.Context, err error) error {
	if ended := ctx.Err(); ended != nil {
		return ended
	}
	return ConnectionError(err)
}

// Midway returns the error of an answer that ended too early.
func Midway(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// PartOf returns how many bytes of an answer belong to a request for size bytes from off.
func PartOf(header http.Header, off int64, size int) (int, error) {
	sent := header.Get("Content-Range")
	if sent == "" {
		// The answer has the complete file.
		length, err := strconv.ParseInt(header.Get("Content-Length"), 10, 64)
		switch {
		case err != nil || length < 0:
			return 0, ErrNoSize
		case off >= length:
			return 0, nil
		case off > 0:
			return 0, ErrWrongRange
		}
		return int(min(length, int64(size))), nil
	}
	var first, last int64
	var total string
	if _, err := fmt.Sscanf(sent, "bytes %d-%d/%s", &first, &last, &total); err != nil || first != off || last < first || last-first >= int64(size) {
		return 0, ErrWrongRange
	}
	n := int(last - first + 1)
	if n < size {
		// Fewer bytes are right only at the end of the file.
		if length, err := strconv.ParseInt(total, 10, 64); err != nil || last != length-1 {
			return 0, ErrWrongRange
		}
	}
	return n, nil
}

// Body is the body of a request, whose bytes can be taken away. A connection may read it
// after the request has failed, and a store must not keep its caller's bytes.
type Body struct {
	mu sync.Mutex
	r  *bytes.Reader // nil after Revoke
}

// NewBody returns a body of these bytes.
func NewBody(data []byte) *Body { return &Body{r: bytes.NewReader(data)} }

func (b *Body) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.r == nil {
		return 0, http.ErrBodyReadAfterClose
	}
	return b.r.Read(p)
}

// Close implements [io.Closer].
func (b *Body) Close() error { return nil }

// Revoke takes the bytes away.
func (b *Body) Revoke() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.r = nil
}
