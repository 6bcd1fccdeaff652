package backup2

import (
	"context"
	"errors"
	"io"
	"time"
)

// ErrNoSpace says that there is no space left. A [Folder] returns it, wrapped, to
// tell the device. A [DeviceError] is of this kind if the device reports that the
// device or the computer is full.
var ErrNoSpace = errors.New("no space left")

// Folder is the backup folder that a device sees. A session checks paths before each
// call, see [Folder.Open]. The error for a missing file is fs.ErrNotExist.
//
// A session calls one method at a time. The context of a call ends some seconds after
// the context of the session, so that the current request can finish. Reads from a
// file of Open and writes to an Upload of Create must not block after the context of
// that Open or Create ended.
//
// The session reports the kind of an error to the device: fs.ErrNotExist,
// fs.ErrExist, ErrNoSpace, or an I/O error.
type Folder interface {
	// Open returns a file with exactly the bytes that were committed. The caller
	// closes it.
	//
	// All paths begin with an identifier of the request ("UDID/Status.plist",
	// "UDID/ab/ab…"; "UDID" is the device's folder). Slashes separate their elements.
	// No element is empty, "." or "..". Paths have no backslashes and no NULs, and are
	// valid UTF-8 of at most 4,096 bytes.
	Open(ctx context.Context, path string) (io.ReadCloser, error)
	// Create begins a file and creates missing parent folders. An existing file does
	// not change until Commit.
	Create(ctx context.Context, path string) (Upload, error)
	// List returns the names in a folder, in any order.
	List(ctx context.Context, path string) ([]Item, error)
	// Mkdir makes a folder and missing parents. An existing folder is not an error;
	// an existing file is fs.ErrExist.
	Mkdir(ctx context.Context, path string) error
	// Move renames a file or folder. It replaces an existing file. The new name may
	// begin with "UDID-20240131-123456": a device renames a backup that it cannot
	// continue.
	Move(ctx context.Context, from, to string) error
	// Remove removes a file, or a folder with its content.
	Remove(ctx context.Context, path string) error
	// Copy copies a file, or a folder with its content. Before a device restores
	// another backup, it may have its own backup copied to a name with a date, as in
	// Move.
	Copy(ctx context.Context, from, to string) error
	// Space returns the number of bytes that can be stored. The device does not begin
	// a backup whose files have more bytes in all. A Folder that stores fewer bytes
	// than it receives may return more than is free.
	Space(ctx context.Context) (free int64, err error)
	// Purge frees at least want bytes if possible, and returns how many it freed.
	Purge(ctx context.Context, want int64) (freed int64, err error)
}

// Upload is a file that is being written. At least one of Commit and Abort is
// called.
type Upload interface {
	io.Writer
	// Commit makes the file visible and replaces an existing one. If Commit fails or
	// is not called, the file leaves no trace.
	Commit() error
	// Abort discards the file. After Commit it does nothing.
	Abort()
}

// Item is a name in a folder. Devices use Name and Dir only.
type Item struct {
	Name    string // one path element
	Dir     bool
	Size    int64 // in bytes, 0 for a folder
	ModTime time.Time
}
