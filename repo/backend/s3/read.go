package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/minio/minio-go/v7"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/wire"
)

// Stat implements [backend.Backend]. If somebody has removed the bucket, the error is
// ErrNotExist, since the answer does not tell.
func (b *Backend) Stat(ctx context.Context, name string) (backend.Info, error) {
	if err := b.checkCall(ctx, "stat", name); err != nil {
		return backend.Info{}, err
	}
	info, err := b.stat(ctx, name)
	if err != nil {
		return backend.Info{}, b.opError("stat", name, err)
	}
	return info, nil
}

func (b *Backend) stat(ctx context.Context, name string) (backend.Info, error) {
	object, err := b.statObject(ctx, name)
	if err != nil {
		return backend.Info{}, err
	}
	return backend.Info{Name: name, Size: object.Size, Modified: object.LastModified}, nil
}

func (b *Backend) statObject(ctx context.Context, name string) (object minio.ObjectInfo, err error) {
	err = b.call(ctx, func(ctx context.Context) (err error) {
		object, err = b.client.StatObject(ctx, b.cfg.Bucket, b.key(name), minio.StatObjectOptions{})
		return err
	})
	if err == nil && object.Size < 0 {
		err = wire.ErrNoSize
	}
	return object, err
}

var errNegativeOffset = errors.New("negative offset")

// ReadAt implements [backend.Backend]. It sends one request.
func (b *Backend) ReadAt(ctx context.Context, name string, p []byte, off int64) (int, error) {
	if err := b.checkCall(ctx, "read", name); err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, b.opError("read", name, errNegativeOffset)
	}
	if len(p) == 0 {
		if _, err := b.stat(ctx, name); err != nil {
			return 0, b.opError("read", name, err)
		}
		return 0, nil
	}
	n, err := b.readAt(ctx, name, p, off)
	if err != nil && err != io.EOF {
		return n, b.opError("read", name, err)
	}
	return n, err
}

func (b *Backend) readAt(ctx context.Context, name string, p []byte, off int64) (n int, err error) {
	last := off + int64(len(p)) - 1
	if last < off {
		last = math.MaxInt64
	}
	opts := minio.GetObjectOptions{}
	opts.Set("Range", fmt.Sprintf("bytes=%d-%d", off, last))
	err = b.call(ctx, func(ctx context.Context) error {
		body, _, header, err := minio.Core{Client: b.client}.GetObject(ctx, b.cfg.Bucket, b.key(name), opts)
		if err != nil {
			return err
		}
		defer body.Close()
		want, err := wire.PartOf(header, off, len(p))
		if err != nil || want == 0 {
			return err
		}
		n, err = io.ReadFull(body, p[:want])
		return wire.Midway(err)
	})
	switch {
	case err == nil && n < len(p), code(err) == "InvalidRange", code(err) == "416 Requested Range Not Satisfiable":
		return n, io.EOF
	}
	return n, err
}

// ReadFile implements [backend.FileReader]. It sends one request.
func (b *Backend) ReadFile(ctx context.Context, name string, limit int64) ([]byte, error) {
	if err := b.checkCall(ctx, "read", name); err != nil {
		return nil, err
	}
	data, err := b.readObject(ctx, name, "", limit)
	if err != nil {
		return nil, b.opError("read", name, err)
	}
	return data, nil
}

// List implements [backend.Backend]. A request shows up to 1000 files.
func (b *Backend) List(ctx context.Context, prefix string, fn func(backend.Info) error) error {
	if err := backend.ValidPrefix(prefix); err != nil {
		return failure("list", b.cfg.String(), err)
	}
	return b.list(ctx, prefix, "", func(f backend.Info) (bool, error) { return true, fn(f) })
}

// ListRange implements [backend.RangeLister].
func (b *Backend) ListRange(ctx context.Context, after, before string, fn func(backend.Info) error) error {
	return b.list(ctx, "", after, func(f backend.Info) (bool, error) {
		if before != "" && f.Name >= before {
			return false, nil
		}
		return true, fn(f)
	})
}

// list calls fn for the files below a prefix whose names are after another, until it
// returns false or an error.
func (b *Backend) list(ctx context.Context, prefix, after string, fn func(backend.Info) (bool, error)) error {
	if err := ctx.Err(); err != nil {
		return b.opError("list", prefix, err)
	}
	var ferr error // of fn, which List returns unchanged
	err := b.call(ctx, func(ctx context.Context) error {
		opts, last := b.listing(prefix, 0), ""
		if after != "" {
			opts.StartAfter = b.key(after)
		}
		for object := range b.client.ListObjectsIter(ctx, b.cfg.Bucket, opts) {
			if object.Err != nil {
				return object.Err
			}
			name, ok := strings.CutPrefix(object.Key, b.prefix)
			if !ok || !strings.HasPrefix(name, prefix) {
				return fmt.Errorf("the store lists %.200q, which was not asked for", object.Key)
			}
			if object.Key <= last {
				return fmt.Errorf("the store lists %.200q after %.200q (use a kind of bucket that lists objects in order)", object.Key, last)
			}
			last = object.Key
			if backend.ValidName(name) != nil || after != "" && name <= after { // some stores do not know StartAfter
				continue
			}
			more := true
			if more, ferr = fn(backend.Info{Name: name, Size: object.Size, Modified: object.LastModified}); ferr != nil || !more {
				return nil
			}
		}
		return ctx.Err() // the loop ends silently with the context
	})
	switch {
	case ferr != nil:
		return ferr
	case err != nil:
		return b.opError("list", prefix, err)
	}
	return nil
}

func (b *Backend) listing(prefix string, count int) minio.ListObjectsOptions {
	owner := false
	return minio.ListObjectsOptions{Prefix: b.key(prefix), Recursive: true, MaxKeys: count, FetchOwner: &owner}
}
