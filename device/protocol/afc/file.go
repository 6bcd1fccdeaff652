package afc

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// File is an open file of a device.
type File struct {
	c      *Client
	path   string
	handle uint64
}

// Open opens a file.
func (c *Client) Open(ctx context.Context, path string, mode Mode) (*File, error) {
	arg, err := pathArg(path)
	if err != nil {
		return nil, err
	}
	kind, body, err := c.request(ctx, opOpen, append(u64(uint64(mode)), arg...), nil)
	if err == nil && (kind != opOpenResult || len(body) < 8) {
		err = fmt.Errorf("%w: operation %#x with %d bytes instead of a handle", ErrProtocol, kind, len(body))
	}
	if err != nil {
		return nil, wrap("open", path, err)
	}
	return &File{c, path, binary.LittleEndian.Uint64(body)}, nil
}

func u64(n ...uint64) []byte {
	var b []byte
	for _, n := range n {
		b = binary.LittleEndian.AppendUint64(b, n)
	}
	return b
}

// Read returns the next bytes of the file, or none at its end.
func (f *File) Read(ctx context.Context) ([]byte, error) {
	b, err := f.c.requestData(ctx, opRead, u64(f.handle, transfer))
	if err == nil && len(b) > transfer {
		err = fmt.Errorf("%w: %d bytes instead of at most %d", ErrProtocol, len(b), transfer)
	}
	return b, wrap("read", f.path, err)
}

// Write writes at the current position.
func (f *File) Write(ctx context.Context, b []byte) error {
	for len(b) > 0 {
		n := min(len(b), transfer)
		if err := f.c.requestStatus(ctx, opWrite, u64(f.handle), b[:n]); err != nil {
			return wrap("write", f.path, err)
		}
		b = b[n:]
	}
	return nil
}

// Lock takes the exclusive lock of the file. It tries up to tries times, once
// every interval. If another program still holds the lock then, the error is
// WouldBlock.
func (f *File) Lock(ctx context.Context, tries int, interval time.Duration) error {
	for {
		err := f.c.requestStatus(ctx, opLock, u64(f.handle, lockExclusive), nil)
		if tries--; tries <= 0 || !errors.Is(err, WouldBlock) {
			return wrap("lock", f.path, err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(interval):
		}
	}
}

// Unlock releases the lock.
func (f *File) Unlock(ctx context.Context) error {
	return wrap("unlock", f.path, f.c.requestStatus(ctx, opLock, u64(f.handle, lockRelease), nil))
}

// Close closes the file.
func (f *File) Close(ctx context.Context) error {
	return wrap("close", f.path, f.c.requestStatus(ctx, opClose, u64(f.handle), nil))
}

// ErrTooLarge says that a file is larger than the limit of the caller.
var ErrTooLarge = errors.New("the file is too large")

// ReadFile returns the content of a file. The error is ErrTooLarge if the file
// has more than limit bytes.
func (c *Client) ReadFile(ctx context.Context, path string, limit int) ([]byte, error) {
	f, err := c.Open(ctx, path, Read)
	if err != nil {
		return nil, err
	}
	var out []byte
	for {
		var b []byte
		if b, err = f.Read(ctx); err != nil || len(b) == 0 {
			break
		}
		if len(out)+len(b) > limit {
			err = wrap("read", path, fmt.Errorf("%w: over %d bytes", ErrTooLarge, limit))
			break
		}
		out = append(out, b...)
	}
	if cerr := f.Close(ctx); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, err
	}
	return out, nil
}

// WriteFile creates or replaces a file.
func (c *Client) WriteFile(ctx context.Context, path string, content []byte) error {
	f, err := c.Open(ctx, path, Truncate)
	if err != nil {
		return err
	}
	err = f.Write(ctx, content)
	if cerr := f.Close(ctx); err == nil {
		err = cerr
	}
	return err
}
