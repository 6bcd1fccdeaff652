package retry_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/backend/retry"
)

// protector fails each operation once.
type protector struct {
	*memory.Backend
	failed map[string]bool
}

func (p *protector) once(op string) error {
	if p.failed[op] {
		return nil
	}
	p.failed[op] = true
	return &backend.TemporaryError{Err: backend.ErrOutOfReach}
}

func (p *protector) Protection(context.Context) (backend.Protection, error) {
	return backend.Protection{Period: time.Hour}, p.once("Protection")
}

func (p *protector) SetProtection(context.Context, backend.Protection) error {
	return p.once("SetProtection")
}

func (p *protector) Versions(_ context.Context, fn func(backend.Version) error) error {
	if err := fn(backend.Version{Name: "a", ID: "2"}); err != nil {
		return err
	}
	if err := p.once("Versions"); err != nil {
		return err
	}
	return fn(backend.Version{Name: "a", ID: "1"})
}

func (p *protector) ProtectedUntil(context.Context, backend.Version) (time.Time, error) {
	return time.Unix(1, 0), p.once("ProtectedUntil")
}

func (p *protector) Protect(context.Context, backend.Version, time.Time, bool) error {
	return p.once("Protect")
}

func (p *protector) ReadVersion(context.Context, backend.Version) ([]byte, error) {
	return []byte("x"), p.once("ReadVersion")
}

func (p *protector) BringBack(context.Context, backend.Version, []backend.Version) error {
	return p.once("BringBack")
}

func TestProtector(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	inner := &protector{memory.New(), map[string]bool{}}
	b, ok := retry.New(inner, retry.Options{First: time.Nanosecond}).(backend.Protector)
	if !ok {
		t.Fatal("no Protector")
	}
	var v backend.Version
	rule, err1 := b.Protection(ctx)
	until, err2 := b.ProtectedUntil(ctx, v)
	data, err3 := b.ReadVersion(ctx, v)
	ids := ""
	err4 := b.Versions(ctx, func(v backend.Version) error { ids += v.ID; return nil })
	err := errors.Join(err1, err2, err3, err4, b.SetProtection(ctx, rule), b.Protect(ctx, v, until, false), b.BringBack(ctx, v, nil))
	if err != nil || rule.Period != time.Hour || until != time.Unix(1, 0) || string(data) != "x" || ids != "21" || len(inner.failed) != 7 {
		t.Errorf("%v, %v, %q, %q, %v, %d operations failed once", rule, until, data, ids, err, len(inner.failed))
	}
	want := errors.New("stop")
	if err := b.Versions(ctx, func(backend.Version) error { return want }); err != want { //nolint:errorlint // unchanged
		t.Errorf("Versions = %v", err)
	}
	none, _ := retry.New(memory.New(), retry.Options{}).(backend.Protector)
	if _, err := none.Protection(ctx); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("Protection of a store without it = %v", err)
	}
}
