// Package filesystem hides how file systems differ: signals interrupt calls, and some
// file systems lack calls or do not report their free space.
//
// FAT, FUSE and network file systems lack much of what local ones have. The package
// says what is missing and never fails for it; its users decide what follows. It never
// opens, makes or removes files.
package filesystem

import (
	"errors"
	"io"
	"math"
	"os"
	"syscall"
)

// Retry calls call again as long as a signal interrupts it (EINTR). FUSE and network
// file systems can return EINTR from any call, and the Go runtime sends signals to
// itself. Package os does this for its own calls.
func Retry(call func() error) error {
	_, err := RetryValue(func() (struct{}, error) { return struct{}{}, call() })
	return err
}

// RetryValue is Retry for a call that returns a value.
func RetryValue[T any](call func() (T, error)) (T, error) {
	for {
		v, err := call()
		if err == nil || !errors.Is(err, syscall.EINTR) {
			return v, err
		}
	}
}

// Close closes f. If a signal interrupts that, f is closed all the same, and it must not
// be closed again: another goroutine may have got its number.
func Close(f io.Closer) error {
	if err := f.Close(); !errors.Is(err, syscall.EINTR) {
		return err
	}
	return nil
}

// IsRefused reports whether err says that a file system cannot change the mode, owner or
// times of files, or does not let this process change them.
func IsRefused(err error) bool { return IsUnsupported(err) || errors.Is(err, syscall.EPERM) }

// Free returns how many bytes a user without privileges can write below dir. If the file
// system does not tell, the error is [errors.ErrUnsupported].
func Free(dir string) (int64, error) { return freeOf(measure(dir)) }

// space is the size of a file system in bytes.
type space struct{ free, total uint64 }

// freeOf returns the free bytes. File systems that do not know their size, such as some
// in FUSE, report one of zero bytes.
func freeOf(s space, err error) (int64, error) {
	switch {
	case IsUnsupported(err), err == nil && s.total == 0:
		return 0, errors.ErrUnsupported
	case err != nil:
		return 0, err
	}
	return int64(min(s.free, math.MaxInt64)), nil
}

// SyncFolder flushes the entries of an open folder. If the file system does not support
// this, it returns nil, since no other call could flush the entries.
func SyncFolder(f *os.File) error {
	if !FoldersCanSync {
		return nil
	}
	return SyncIfSupported(f)
}

// SyncIfSupported is like Sync, but returns nil if the file system cannot flush. It is
// for files whose loss in a power cut does little harm.
func SyncIfSupported(f *os.File) error {
	if err := Sync(f); err != nil && !IsUnsupported(err) {
		return err
	}
	return nil
}
