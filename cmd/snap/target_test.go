package main

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
)

// A share that is busy for a moment can be used; other errors are reported at once.
func TestWhileBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		busy := &fs.PathError{Op: "open", Path: "out", Err: syscall.EBUSY}
		for _, tt := range []struct {
			errs  []error
			want  error
			calls int
		}{
			{[]error{nil}, nil, 1},
			{[]error{busy, busy, nil}, nil, 3},
			{[]error{busy, os.ErrPermission, nil}, os.ErrPermission, 2},
			{[]error{busy}, syscall.EBUSY, 11},
		} {
			calls := 0
			err := whileBusy(func() error {
				calls++
				return tt.errs[min(calls, len(tt.errs))-1]
			})
			if !errors.Is(err, tt.want) || calls != tt.calls {
				t.Errorf("%v: %v after %d calls", tt.errs, err, calls)
			}
		}
	})
}
