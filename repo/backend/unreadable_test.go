package backend_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"
	"testing"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/fault"
	"github.com/snap-backup/snap/repo/backend/memory"
)

func TestUnreadable(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	full := memory.New()
	if err := errors.Join(full.Put(ctx, "config", nil), full.Put(ctx, "index/a", nil)); err != nil {
		t.Fatal(err)
	}
	withoutConfig := memory.New()
	if err := withoutConfig.Put(ctx, "index/a", nil); err != nil {
		t.Fatal(err)
	}
	gone := fault.New(full, fault.From(1, syscall.EIO))
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	for _, tt := range []struct {
		err  error
		want bool
	}{
		{syscall.EIO, true}, {syscall.EACCES, true}, {syscall.ESTALE, true}, {syscall.EISDIR, true}, {syscall.EINTR, true},
		{io.EOF, true}, {io.ErrUnexpectedEOF, true}, {io.ErrNoProgress, true}, {errors.New("of a server"), true},
		{nil, false}, {backend.ErrNotExist, false}, {backend.ErrTooLarge, false}, {backend.ErrInvalidName, false},
		{backend.ErrOutOfReach, false}, {fmt.Errorf("%w: %w", backend.ErrOutOfReach, io.ErrUnexpectedEOF), false},
		{&backend.TemporaryError{Err: backend.ErrOutOfReach}, false}, {&backend.TemporaryError{Err: errors.New("failed")}, true},
		{backend.ErrNoSpace, false}, {syscall.ENOSPC, false}, {context.Canceled, false}, {context.DeadlineExceeded, false},
		{syscall.ENODEV, false}, {syscall.ENXIO, false}, {syscall.ETIMEDOUT, false}, {syscall.EMFILE, false}, {syscall.ENOMEM, false},
	} {
		err := tt.err
		if err != nil {
			err = fmt.Errorf("read index/a: %w", err)
		}
		for what, be := range map[string]backend.Backend{"a store": full, "a store without config": withoutConfig} {
			if got := backend.Unreadable(ctx, be, err); got != tt.want {
				t.Errorf("%v of %s: %v", err, what, got)
			}
		}
		if backend.Unreadable(canceled, full, err) {
			t.Errorf("%v of a reader that was cancelled is about one file", err)
		}
	}
	if backend.Unreadable(ctx, gone, syscall.EIO) || backend.Unreadable(ctx, memory.New(), syscall.EIO) {
		t.Error("a store that does not answer has one unreadable file")
	}
}

func TestTemporary(t *testing.T) {
	t.Parallel()
	lost := fmt.Errorf("put a: %w", &backend.TemporaryError{Err: syscall.ECONNRESET})
	for err, want := range map[error]bool{lost: true, syscall.ECONNRESET: false, context.DeadlineExceeded: false, backend.ErrOutOfReach: false} {
		if got := backend.Temporary(err); got != want {
			t.Errorf("Temporary(%v) = %v", err, got)
		}
	}
	if backend.Temporary(nil) {
		t.Error("no error is temporary")
	}
	if !errors.Is(lost, syscall.ECONNRESET) || lost.Error() != "put a: connection reset by peer" {
		t.Errorf("%v", lost)
	}
}
