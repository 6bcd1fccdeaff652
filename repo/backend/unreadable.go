package backend

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"syscall"
)

// Unreadable reports whether err, which reading a file returned, is about that file
// alone: its disk has a bad sector (EIO), it belongs to another user (EACCES), its
// handle is stale (ESTALE), or it ends too early. Such a file counts as damaged, and its
// reader goes on with the others.
//
// It returns false if the file does not exist, the reader was cancelled, the store is
// full or out of reach, or this process has too few resources. To find out whether the
// store is in reach, Unreadable asks it for something else.
func Unreadable(ctx context.Context, b Backend, err error) bool {
	switch {
	case err == nil, ctx.Err() != nil, errors.Is(err, ErrOutOfReach):
		return false
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.ErrNoProgress):
		return true
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded),
		errors.Is(err, ErrNotExist), errors.Is(err, ErrExist), errors.Is(err, ErrInvalidName),
		errors.Is(err, ErrTooLarge), IsNoSpace(err), isOutOfReach(err):
		return false
	}
	return answers(ctx, b)
}

// IsDenied reports whether err says that this process may not read a file now: permission
// is denied, or on Windows another program keeps the file open. The file may be good.
func IsDenied(err error) bool {
	return errors.Is(err, fs.ErrPermission) || isInUseErrno(err)
}

// answers reports whether a store that failed to read a file can do anything else.
func answers(ctx context.Context, b Backend) bool {
	if _, err := b.Stat(ctx, "config"); err == nil { // every repository has this file
		return true
	}
	found := errors.New("found")
	return errors.Is(b.List(ctx, "", func(Info) error { return found }), found)
}

// isOutOfReach reports whether err says that the device or server of a file is gone, or
// that this process lacks resources. Such an error is about all files.
func isOutOfReach(err error) bool {
	for _, e := range []syscall.Errno{
		syscall.ENODEV, syscall.ENXIO, syscall.ENOTCONN, syscall.ETIMEDOUT, syscall.ECONNRESET,
		syscall.ECONNABORTED, syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.ENETDOWN,
		syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.ENOBUFS,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return isOutOfReachErrno(err)
}
