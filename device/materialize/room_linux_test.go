package materialize

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A file that a file system cannot hold is named before anything is written, if the file
// system tells, and otherwise when its size is reached.
func TestFileTooLarge(t *testing.T) {
	t.Parallel()
	bytes := func(n int64) string { return fmt.Sprintf("%d B", n) }
	err := explain(&fs.PathError{Op: "write", Path: "x", Err: unix.EFBIG}, 5<<30, bytes)
	if !errors.Is(err, ErrFileTooLarge) || !errors.Is(err, unix.EFBIG) || !strings.Contains(err.Error(), "5368709120 B") {
		t.Errorf("EFBIG becomes %v", err)
	}
	for _, err := range []error{nil, unix.ENOSPC} {
		if got := explain(err, 5<<30, bytes); !errors.Is(got, err) || errors.Is(got, ErrFileTooLarge) {
			t.Errorf("%v becomes %v", err, got)
		}
	}

	dir, err := os.MkdirTemp("/var/tmp", "snap-large-*") // a tmpfs has no such limit
	if err != nil {
		t.Skip(err)
	}
	defer os.RemoveAll(dir)
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	m := &job{root: root, paths: &pathSet{largest: 1 << 62, largestPath: "DCIM/video.mov"}}
	if err := m.checkLargest(); err == nil {
		t.Skip("this file system does not tell what it can hold")
	} else if !errors.Is(err, ErrFileTooLarge) || !strings.Contains(err.Error(), "DCIM/video.mov has 4611686018427387904 bytes") {
		t.Errorf("got %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("%v is left: %v", left, err)
	}
}
