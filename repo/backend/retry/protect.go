package retry

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/snap-backup/snap/repo/backend"
)

var _ backend.Protector = (*retrier)(nil)

// protector returns the inner backend as one that can protect files.
func (r *retrier) protector() (backend.Protector, error) {
	p, ok := r.inner.(backend.Protector)
	if !ok {
		return nil, fmt.Errorf("protect files in the store: %w", errors.ErrUnsupported)
	}
	return p, nil
}

// protect repeats an operation of a backend that can protect files.
func (r *retrier) protect(ctx context.Context, op, name string, size int64, do func(ctx context.Context, p backend.Protector) error) error {
	p, err := r.protector()
	if err != nil {
		return err
	}
	return r.repeat(ctx, op, name, size, func(ctx context.Context) error { return do(ctx, p) })
}

// Protection implements [backend.Protector].
func (r *retrier) Protection(ctx context.Context) (rule backend.Protection, err error) {
	err = r.protect(ctx, "read", "protection", 0, func(ctx context.Context, p backend.Protector) (err error) {
		rule, err = p.Protection(ctx)
		return err
	})
	return rule, err
}

// SetProtection implements [backend.Protector].
func (r *retrier) SetProtection(ctx context.Context, rule backend.Protection) error {
	return r.protect(ctx, "put", "protection", 0, func(ctx context.Context, p backend.Protector) error { return p.SetProtection(ctx, rule) })
}

// manyVersions is the size by which the time limit of a complete listing is set.
const manyVersions = 1 << 30

// Versions implements [backend.Protector]. It calls fn after the listing is complete, so that
// a repeated one shows no version twice.
func (r *retrier) Versions(ctx context.Context, fn func(backend.Version) error) error {
	var all []backend.Version
	err := r.protect(ctx, "list versions", "", manyVersions, func(ctx context.Context, p backend.Protector) error {
		all = nil
		return p.Versions(ctx, func(v backend.Version) error { all = append(all, v); return nil })
	})
	for _, v := range all {
		if err != nil {
			break
		}
		err = fn(v)
	}
	return err
}

// ProtectedUntil implements [backend.Protector].
func (r *retrier) ProtectedUntil(ctx context.Context, v backend.Version) (until time.Time, err error) {
	err = r.protect(ctx, "stat", v.Name, 0, func(ctx context.Context, p backend.Protector) (err error) {
		until, err = p.ProtectedUntil(ctx, v)
		return err
	})
	return until, err
}

// Protect implements [backend.Protector].
func (r *retrier) Protect(ctx context.Context, v backend.Version, until time.Time, compliance bool) error {
	return r.protect(ctx, "protect", v.Name, 0, func(ctx context.Context, p backend.Protector) error { return p.Protect(ctx, v, until, compliance) })
}

// ReadVersion implements [backend.Protector].
func (r *retrier) ReadVersion(ctx context.Context, v backend.Version) (data []byte, err error) {
	err = r.protect(ctx, "read", v.Name, v.Size, func(ctx context.Context, p backend.Protector) (err error) {
		data, err = p.ReadVersion(ctx, v)
		return err
	})
	return data, err
}

// BringBack implements [backend.Protector].
func (r *retrier) BringBack(ctx context.Context, v backend.Version, newer []backend.Version) error {
	return r.protect(ctx, "bring back", v.Name, 0, func(ctx context.Context, p backend.Protector) error { return p.BringBack(ctx, v, newer) })
}
