package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"

	"github.com/snap-backup/snap/repo/backend"
)

// opError returns the error of an operation on a file: "op path: step: reason (what to
// do)".
func (b *Backend) opError(op, name, step string, err error) error {
	return failure(op, b.path(name), step, err, hint(err))
}

func (b *Backend) path(name string) string {
	return filepath.Join(b.dir, filepath.FromSlash(name))
}

func failure(op, path, step string, err error, hint string) error {
	if step != "" {
		step += ": "
	}
	if hint != "" {
		hint = " (" + hint + ")"
	}
	return fmt.Errorf("%s %s: %s%w%s", op, path, step, withoutPath(err), hint)
}

// withoutPath removes the operation and path from an error of package os, since the
// message already names both.
func withoutPath(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	if e, ok := errors.AsType[*os.LinkError](err); ok {
		return e.Err
	}
	return err
}

// isMissing reports whether err says that a name does not exist. ENOTDIR says so, too:
// a part of the path that should be a folder is a file.
func isMissing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// hint says what a person can do about an error; "" if nothing.
func hint(err error) string {
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return ""
	case backend.IsNoSpace(err):
		return "free some space on that disk"
	case backend.IsReadOnly(err) && !errors.Is(err, fs.ErrPermission):
		return "the disk is read-only; mount it for writing"
	case errors.Is(err, syscall.EPERM) && runtime.GOOS == "darwin":
		return "macOS denied access; allow this program in Privacy & Security, Full Disk Access"
	case errors.Is(err, fs.ErrPermission):
		return "check the owner and permissions of the repository folder"
	case errors.Is(err, syscall.EIO):
		return "the disk reports an error; check its cable and its health"
	}
	return ""
}

func hintOpen(err error) string {
	if errors.Is(err, fs.ErrNotExist) {
		return "check the path; if it is on an external disk or a share, connect it"
	}
	return hint(err)
}

func hintCreate(err error) string {
	if errors.Is(err, fs.ErrNotExist) {
		return "the folder above it does not exist; make it first, or connect its disk"
	}
	return hint(err)
}
