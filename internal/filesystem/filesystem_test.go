package filesystem

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestRetry(t *testing.T) {
	t.Parallel()
	for _, last := range []error{nil, syscall.EIO} {
		calls := 0
		err := Retry(func() error {
			if calls++; calls < 3 {
				return &os.PathError{Op: "sync", Err: syscall.EINTR}
			}
			return last
		})
		if calls != 3 || !errors.Is(err, last) {
			t.Errorf("%d calls, %v", calls, err)
		}
	}
}

type closer struct {
	calls int
	err   error
}

func (c *closer) Close() error { c.calls++; return c.err }

func TestClose(t *testing.T) {
	t.Parallel()
	for err, want := range map[error]error{nil: nil, syscall.EINTR: nil, syscall.EDQUOT: syscall.EDQUOT} {
		c := &closer{err: err}
		if got := Close(c); !errors.Is(got, want) || c.calls != 1 {
			t.Errorf("%v: %v after %d calls", err, got, c.calls)
		}
	}
}

func TestFree(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		s    space
		err  error
		free int64
		is   error
	}{
		{space{5, 10}, nil, 5, nil},
		{space{0, 10}, nil, 0, nil}, // full
		{space{0, 0}, nil, 0, errors.ErrUnsupported},
		{space{}, syscall.ENOSYS, 0, errors.ErrUnsupported},
		{space{}, syscall.EIO, 0, syscall.EIO},
		{space{math.MaxUint64, math.MaxUint64}, nil, math.MaxInt64, nil},
	} {
		if free, err := freeOf(test.s, test.err); free != test.free || !errors.Is(err, test.is) {
			t.Errorf("%v, %v: %d, %v", test.s, test.err, free, err)
		}
	}
	if free, err := Free(t.TempDir()); err == nil && free <= 0 {
		t.Errorf("%d bytes free", free)
	}
	if _, err := Free(filepath.Join(t.TempDir(), "missing")); err == nil || errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("of a folder that is missing: %v", err)
	}
}

func TestKinds(t *testing.T) {
	t.Parallel()
	for errno, want := range map[syscall.Errno][2]bool{ // unsupported, refused
		syscall.ENOSYS:     {true, true},
		syscall.EOPNOTSUPP: {true, true},
		syscall.EINVAL:     {true, true},
		syscall.EPERM:      {false, true},
		syscall.EIO:        {false, false},
		syscall.ENOSPC:     {false, false},
		syscall.EROFS:      {false, false},
	} {
		err := fmt.Errorf("x: %w", errno)
		if got := [2]bool{IsUnsupported(err), IsRefused(err)}; got != want {
			t.Errorf("%v: %v, want %v", errno, got, want)
		}
	}
}
