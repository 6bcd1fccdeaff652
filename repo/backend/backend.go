// Package backend defines where a repository's files are stored: a flat set of
// named, immutable files behind five methods, which a local disk, an SFTP server or
// an object store can implement.
//
// # What it promises
//
// The contract is the documentation of [Backend]. Package backendtest has a check for
// each sentence of it. In short: a file exists completely or not at all, it never
// changes, and an operation that returned nil survives a power cut.
//
// # What it never does
//
// It does not know what files contain. It never encrypts, compresses, verifies or
// caches, and it has no operation that changes an existing file. Only package retry
// repeats operations.
//
// # Implementations
//
//   - local: a folder on a disk or on a mounted share
//   - rclone: a remote of rclone, such as a cloud drive
//   - rest: a server that "snap serve" runs
//   - s3: a bucket of an object store
//   - retry: wraps another backend and repeats what may succeed later
//   - sftp: a folder of an SFTP server
//   - memory: for tests
//   - fault: wraps another backend and fails as a test plans
//   - crash: a store whose process dies at a chosen operation
//   - cache: keeps copies of another store's files on this computer
package backend

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"
)

// Info describes one stored file.
type Info struct {
	Name string // as given to Put, see [ValidName]
	Size int64  // in bytes
	// Modified is when the file was put, by the clock of the store; zero if the
	// store does not tell. It may be compared with the times of other files of the
	// store, never with the clock of a host.
	Modified time.Time
}

// Backend stores files under names. Its contract:
//
// Names. Every name satisfies [ValidName]. For any other name, every method returns an
// error that is [ErrInvalidName] and does nothing. A file's name must not be the folder
// of another file ("a" beside "a/b"). Callers must not store two such files. If they
// do, an implementation may return [ErrNotFolder] for the second file, or [ErrExist] if
// the name of the second is a folder of the first, but must not change existing files.
//
// Concurrency. Many goroutines may call all methods at the same time, and many
// processes may use one store at the same time. When one of them has put or deleted a
// file, all see that immediately, also in a listing that begins later. Locks rely on that: a
// process that does not find its own lock in a listing does nothing else.
//
// Cancellation. A method called with a context that is done returns the context's
// error and does nothing. If the context ends later, the method either returns the
// context's error or completes.
//
// Times. If one file is put after another, its time may be earlier than that of the other
// by at most the resolution of the store's clock, which is at most two seconds. The times
// that Stat and List return for a file do not differ by more than that. These
// rules hold until somebody sets that clock, or moves a disk to a machine with another
// clock. So a caller must lose nothing if they are broken.
//
// Full store. If an operation fails because the store is full, [IsNoSpace] reports
// true for its error.
//
// Weaker stores. Some stores cannot refuse to overwrite: file systems without hard links,
// and object stores that do not support conditional writes. There, Put first finds out
// whether the name is free. If several Puts of one name run concurrently, more than one may
// succeed, and the last one replaces the file. Their documentation says so. Hence a caller
// gives files names that are hashes or random, so that two Puts of one name have equal
// bytes. No two processes may rely on a Put of another name, such as config, to decide which
// of them goes on.
//
// Lost answers. The answer of a server may get lost after it has carried out an operation.
// A Put whose answer was lost returns nil if the store has a file of this name with equal
// bytes. So if two processes put equal bytes under one name, both may succeed.
type Backend interface {
	// Put stores a copy of data as a new file. data may be empty.
	//
	// When Put returns nil, the file is complete and durable: content, name
	// and all folders above it survive a power cut.
	//
	// Put never overwrites. If anything already has the name, Put returns
	// ErrExist and changes nothing. If several Puts of one name run concurrently,
	// exactly one succeeds. Before Put returns ErrExist, it makes the existing
	// file durable, so callers whose file names are hashes may treat ErrExist as
	// success.
	//
	// After any other error, or a crash, the file is either absent or complete.
	// It is never partial: Stat, ReadAt and List never show a file that is still
	// being written. The space of a failed Put is freed, at the latest by the
	// cleanup that the implementation documents.
	//
	// Put does not change data and does not keep it after it returns.
	Put(ctx context.Context, name string, data []byte) error

	// ReadAt reads into p from offset off of the file. It is stricter than
	// [io.ReaderAt]: the error is nil if n == len(p) and not nil if n < len(p).
	// If the file ends before p is full, the error is io.EOF. An empty p reads
	// nothing and returns no error. A negative offset is an error other than
	// io.EOF. The error is ErrNotExist if the file does not exist.
	ReadAt(ctx context.Context, name string, p []byte, off int64) (n int, err error)

	// Stat describes a file. The error is ErrNotExist if it does not exist.
	Stat(ctx context.Context, name string) (Info, error)

	// List calls fn for all complete files whose name begins with prefix, one
	// after another, sorted by name in byte order. The prefix is "" for all
	// files, or a folder with its slash ("packs/"). Any other prefix is
	// ErrInvalidName. A folder that does not exist has no files, which is not an
	// error. If something else has its name, the error may be ErrNotFolder. List omits
	// files with invalid names and everything that is not a regular file, such as a link
	// or a pipe. But if something else has a name for which [IsHashed] is true, a file
	// may have been lost there: List shows it with size 0, Stat, ReadAt and Put return an
	// error other than ErrNotExist and ErrExist, and Delete removes it, unless it is a
	// folder that is not empty.
	//
	// List may show or omit a file that is put or deleted while List runs. It
	// shows every other file exactly once. It shows a file whose size it cannot find
	// out with size 0, so that one such file hides no others. fn may call any method of
	// the Backend.
	// An error of fn ends List, which returns it unchanged.
	List(ctx context.Context, prefix string, fn func(Info) error) error

	// Delete removes a file. The error is ErrNotExist if it does not exist. When
	// Delete returns nil or ErrNotExist, the absence is durable. After any other
	// error, or a crash, the file is either complete or absent. If several Deletes
	// of one file run concurrently, more than one may return nil: servers often do not
	// tell which of them removed the file.
	Delete(ctx context.Context, name string) error
}

// The kinds of failure that callers distinguish, with [errors.Is]. All others are I/O
// errors of the store.
var (
	// ErrExist says that a file with this name exists. It is also fs.ErrExist.
	ErrExist error = &kind{"file already exists", fs.ErrExist}
	// ErrNotExist says that a file does not exist. It is also fs.ErrNotExist.
	ErrNotExist error = &kind{"file does not exist", fs.ErrNotExist}
	// ErrInvalidName says that a name or prefix breaks the rules of
	// [ValidName] or [ValidPrefix]. It is also fs.ErrInvalid.
	ErrInvalidName error = &kind{"not a valid file name for a repository", fs.ErrInvalid}
	// ErrNoSpace says that the store is full. Use [IsNoSpace] to test for it,
	// since it also knows the errors of operating systems.
	ErrNoSpace = errors.New("no space left there")
	// ErrNotRegular says that a folder, a link or something else that is not a file has
	// the name of a file.
	ErrNotRegular = errors.New("not a regular file")
	// ErrNotFolder says that a file, a link or something else has the name of a folder.
	// Nobody knows which files were in the folder.
	ErrNotFolder = errors.New("this is no folder")
	// ErrTooLarge says that a file is larger than the reader allows.
	ErrTooLarge = errors.New("file is larger than allowed")
)

// kind is a sentinel error that wraps an error of package fs.
type kind struct {
	text string
	is   error
}

func (k *kind) Error() string { return k.text }
func (k *kind) Unwrap() error { return k.is }

// IsNoSpace reports whether err says that a disk, quota or store is full: it is
// [ErrNoSpace] or an error of the operating system (ENOSPC and EDQUOT;
// ERROR_DISK_FULL, ERROR_HANDLE_DISK_FULL and ERROR_DISK_QUOTA_EXCEEDED on
// Windows).
func IsNoSpace(err error) bool {
	return errors.Is(err, ErrNoSpace) || isNoSpaceErrno(err)
}

// IsReadOnly reports whether err says that this process may not write to a store: the
// file system is read-only (EROFS, ERROR_WRITE_PROTECT), or permission is denied.
func IsReadOnly(err error) bool {
	return errors.Is(err, fs.ErrPermission) || isReadOnlyErrno(err)
}

// FileReader is a Backend that can read a file in one step, such as one request to a
// server. ReadAll then needs no Stat.
type FileReader interface {
	// ReadFile does what [ReadAll] does.
	ReadFile(ctx context.Context, name string, limit int64) ([]byte, error)
}

// RangeLister is a Backend that lists several folders as easily as one.
type RangeLister interface {
	// ListRange is like List, for all files whose names are after one string and before
	// another in byte order. If before is empty, it lists all that are after the first. A
	// store that cannot do it returns [errors.ErrUnsupported] and calls fn for no file.
	ListRange(ctx context.Context, after, before string, fn func(Info) error) error
}

// Surveyor is a Backend that can list all folders but that of the packs ahead, in few
// requests.
type Surveyor interface {
	// Survey lists these folders. The next List of each of them calls fn for the files that
	// Survey has found, without asking the store. This ends when this process changes
	// something in the folder. A caller that must see what others did later lists twice,
	// or calls Survey again.
	Survey(ctx context.Context) error
}

// Keeper is a Backend that can keep copies of files near, see package cache.
type Keeper interface {
	// Kept returns the names of the files in a folder of which it has copies. Some may
	// not exist any more.
	Kept(folder string) []string
	// ReadKept is like ReadAt, and may keep a copy of the file: its reader expects that
	// more of it is read, now or by a later command.
	ReadKept(ctx context.Context, name string, p []byte, off int64) (n int, err error)
}

// Direct returns the store behind a cache, or b if there is none. It is for callers that must
// know what the store has.
func Direct(b Backend) Backend {
	if c, ok := b.(interface{ Direct() Backend }); ok {
		return c.Direct()
	}
	return b
}

// ReadAll returns the content of a file of at most limit bytes. If the file is
// larger, ReadAll returns ErrTooLarge, and allocates nothing if the store says beforehand
// how large the file is. The caller verifies the bytes.
func ReadAll(ctx context.Context, b Backend, name string, limit int64) ([]byte, error) {
	if b, ok := b.(FileReader); ok {
		return b.ReadFile(ctx, name, limit)
	}
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
		// Files never change, so the store is damaged if the file ends before
		// the size that Stat returned.
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %d of %d bytes: %w", name, n, len(data), err)
	}
	return data, nil
}
