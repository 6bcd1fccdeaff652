// Package backend is the room where a repository's files are kept: a flat set
// of named, immutable files, behind five methods small enough to be put on a
// local disk, an SFTP server or an object store.
//
// # What it promises
//
// The contract stands at [Backend], sentence by sentence, and the sub-package
// backendtest holds every implementation to it. In short: a file is there
// whole or not at all, it never changes once it is there, and an operation
// that returned nil survives a power cut.
//
// # What it never does
//
// It knows nothing of what the files mean. It does not encrypt, compress,
// check or cache, it does not retry, and it has no operation that changes an
// existing file.
//
// # Implementations
//
//   - local: a folder on a disk or on a mounted share
//   - memory: for tests
//   - fault: wraps another one and fails as a test tells it
//   - crash: a store whose process dies at a chosen operation
package backend

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
)

// Info describes one stored file.
type Info struct {
	Name string // as given to Put, see [ValidName]
	Size int64  // in bytes
}

// Backend keeps files under names. Its contract:
//
// Names. Every name satisfies [ValidName]; for any other, every method returns
// an error that is [ErrInvalidName] and does nothing. No file's name may be
// the folder of another ("a" beside "a/b"): callers never ask for that, and an
// implementation may refuse it with [ErrExist]; either way no other file
// changes.
//
// Concurrency. All methods may be called by many goroutines at once, and many
// processes may use one store at once. What one of them has put or deleted is
// at once seen by all.
//
// Cancellation. A method called with a context that is done returns the
// context's error and does nothing. When a context ends later, the method
// either stops with the context's error or completes.
//
// Full store. An operation that failed because the store has no room returns
// an error that [IsNoSpace] recognises.
type Backend interface {
	// Put stores a copy of data as a new file. An empty file is a file.
	//
	// When Put returns nil, the file is complete and durable: content, name
	// and every folder above it survive a power cut.
	//
	// Put never overwrites. If the name is taken, by whatever, it returns
	// ErrExist and what is there stays as it is. Of several concurrent Puts of
	// one name exactly one succeeds. A file found in the way was made durable
	// before ErrExist is returned, so that a caller whose file names are
	// hashes may treat ErrExist as success.
	//
	// After any other error, or a crash, the file is absent or, if the failure
	// came after it had become visible, complete. It is never partial, and
	// neither Stat, ReadAt nor List ever show a file that is still being
	// written. Space taken by a failed Put is given back, at the latest by the
	// housekeeping that the implementation documents.
	//
	// Put does not change data and does not keep it after it returns.
	Put(ctx context.Context, name string, data []byte) error

	// ReadAt reads into p from offset off of the file, with the semantics of
	// [io.ReaderAt] made exact: n == len(p) goes with a nil error; n < len(p)
	// with a non-nil error, which is io.EOF if the file ended. An empty p
	// reads nothing, without an error. A negative offset is an error other
	// than io.EOF. ErrNotExist if there is no such file.
	ReadAt(ctx context.Context, name string, p []byte, off int64) (n int, err error)

	// Stat describes a file. ErrNotExist if there is no such file.
	Stat(ctx context.Context, name string) (Info, error)

	// List calls fn for all complete files whose name begins with prefix, one
	// after another, sorted by name in byte order. The prefix is "" for all,
	// or a folder with its slash ("packs/"); any other is ErrInvalidName. A
	// folder that does not exist holds no files, which is no error. Names that
	// are not valid, and everything that is not a plain file, are left out.
	//
	// A file that is put or deleted while List runs may be shown or not; all
	// others are shown exactly once. fn may call any method of the Backend. An
	// error of fn ends the listing and is returned as it is.
	List(ctx context.Context, prefix string, fn func(Info) error) error

	// Delete removes a file. ErrNotExist if there is no such file. When Delete
	// returns nil or ErrNotExist, the absence is durable. After any other
	// error, or a crash, the file is there complete, or gone.
	Delete(ctx context.Context, name string) error
}

// The kinds of failure that callers decide on; test for them with [errors.Is].
// Everything else is an I/O error of the store.
var (
	// ErrExist says that a name is taken. It is also fs.ErrExist.
	ErrExist error = &kind{"file already exists", fs.ErrExist}
	// ErrNotExist says that there is no such file. It is also fs.ErrNotExist.
	ErrNotExist error = &kind{"file does not exist", fs.ErrNotExist}
	// ErrInvalidName says that a name or prefix breaks the rules of
	// [ValidName] or [ValidPrefix]. It is also fs.ErrInvalid.
	ErrInvalidName error = &kind{"not a valid file name for a repository", fs.ErrInvalid}
	// ErrNoSpace says that the store is full. Ask with [IsNoSpace], which
	// also knows what the operating systems say.
	ErrNoSpace = errors.New("no space left in the store")
	// ErrTooLarge says that a file is larger than the reader allows.
	ErrTooLarge = errors.New("file is larger than allowed")
)

// kind is a sentinel that is also one of package fs.
type kind struct {
	text string
	is   error
}

func (k *kind) Error() string { return k.text }
func (k *kind) Unwrap() error { return k.is }

// IsNoSpace reports whether err says that a disk, quota or store is full:
// [ErrNoSpace], or what the operating system calls it (ENOSPC and EDQUOT;
// ERROR_DISK_FULL, ERROR_HANDLE_DISK_FULL and ERROR_DISK_QUOTA_EXCEEDED on
// Windows).
func IsNoSpace(err error) bool {
	return errors.Is(err, ErrNoSpace) || isNoSpaceErrno(err)
}

// IsReadOnly reports whether err says that a store takes no writes from this
// process: a read-only file system (EROFS, ERROR_WRITE_PROTECT), or a lack of
// permission.
func IsReadOnly(err error) bool {
	return errors.Is(err, fs.ErrPermission) || isReadOnlyErrno(err)
}

// ReadAll returns the whole content of a file of at most limit bytes; a larger
// one is ErrTooLarge, before anything is allocated. It returns the bytes as
// the store gave them: checking them is the caller's part.
func ReadAll(ctx context.Context, b Backend, name string, limit int64) ([]byte, error) {
	info, err := b.Stat(ctx, name)
	if err != nil {
		return nil, err
	}
	if info.Size < 0 || info.Size > limit {
		return nil, fmt.Errorf("read %s: %d bytes, at most %d expected: %w", name, info.Size, limit, ErrTooLarge)
	}
	data := make([]byte, info.Size)
	n, err := b.ReadAt(ctx, name, data, 0)
	if err == nil && n != len(data) {
		err = io.ErrNoProgress
	}
	if errors.Is(err, io.EOF) {
		// Files never change, so the end cannot come before the size that
		// Stat gave, unless the store is damaged.
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %d of %d bytes: %w", name, n, len(data), err)
	}
	return data, nil
}
