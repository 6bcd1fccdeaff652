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

// fail makes the error of an operation on the file name: "op path: step: why
// (what to do)".
func (b *Backend) fail(op, name, step string, err error) error {
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
	return fmt.Errorf("%s %s: %s%w%s", op, path, step, bare(err), hint)
}

// bare takes off what the os package says about operation and path: the
// message names both already, in the user's terms.
func bare(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	if e, ok := errors.AsType[*os.LinkError](err); ok {
		return e.Err
	}
	return err
}

// isMissing reports whether there is nothing of that name: also if what should
// be a folder above it is a file.
func isMissing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// hint says what a person can do about an error, "" if there is nothing to say.
func hint(err error) string {
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return ""
	case backend.IsNoSpace(err):
		return "free some space on that disk"
	case isReadOnly(err):
		return "the disk can only be read; connect or mount it for writing"
	case errors.Is(err, syscall.EPERM) && runtime.GOOS == "darwin":
		return "macOS forbids it; allow this program under Privacy & Security, Full Disk Access"
	case errors.Is(err, fs.ErrPermission):
		return "check who owns the repository folder and whether you may write to it"
	case errors.Is(err, syscall.EIO):
		return "the disk reports a fault; check its cable and its health"
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
		return "the folder above it does not exist; make it first, or connect the disk it is on"
	}
	return hint(err)
}
