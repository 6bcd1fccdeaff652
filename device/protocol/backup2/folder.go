package backup2

import (
	"context"
	"errors"
	"io"
	"time"
)

// ErrNoSpace says that there is no room: a [Folder] returns it, wrapped, for
// the device to hear so, and it is the kind of a [DeviceError] with which a
// device says that it or the computer is full.
var ErrNoSpace = errors.New("no space left")

// Folder is the backup folder as the device sees it. Its paths are checked,
// see [Folder.Open], and cases in which the last name is not there return an
// error that is fs.ErrNotExist.
//
// A session calls one method at a time. The context of a call ends only when
// the session is given up, not already when its caller wants it to end: the
// request that is being served is finished first, for a few seconds. It also
// holds for what a call returned: reads of what Open gave and writes to what
// Create gave must not block after the context of that call has ended.
//
// Errors are told to the device by kind: fs.ErrNotExist, fs.ErrExist and
// ErrNoSpace as such, all others as an I/O error.
type Folder interface {
	// Open returns the content of a file, exactly the bytes that were
	// committed. The caller closes it.
	//
	// All paths begin with an identifier of the request ("UDID/Status.plist",
	// "UDID/ab/ab…"; "UDID" itself is the device's folder), use slashes, have no
	// empty, "." or ".." elements, no backslashes and no NULs, are valid UTF-8
	// and at most 4,096 bytes long.
	Open(ctx context.Context, path string) (io.ReadCloser, error)
	// Create begins a file, and the folders above it where they are missing. A
	// file of that name stays as it is until Commit.
	Create(ctx context.Context, path string) (Upload, error)
	// List returns what is in a folder, one level deep, in any order.
	List(ctx context.Context, path string) ([]Item, error)
	// Mkdir makes a folder, and those above it where they are missing. A
	// folder that is there already is no error; a file is, fs.ErrExist.
	Mkdir(ctx context.Context, path string) error
	// Move renames a file or folder. A file that has the new name is replaced.
	// Below the new name may be "UDID-20240131-123456": a device puts a backup
	// aside that it cannot continue.
	Move(ctx context.Context, from, to string) error
	// Remove removes a file, or a folder with all that is in it.
	Remove(ctx context.Context, path string) error
	// Copy copies a file, or a folder with all that is in it. As in Move, a
	// device copies its whole folder aside before it restores another one.
	Copy(ctx context.Context, from, to string) error
	// Space returns the number of bytes that can be stored. The device does
	// not begin a backup that is larger, counting every file in full, so a
	// Folder that stores less than that may answer with more than there is.
	Space(ctx context.Context) (free int64, err error)
	// Purge makes room for at least want bytes if it can and returns how many
	// bytes it gained, 0 if none.
	Purge(ctx context.Context, want int64) (freed int64, err error)
}

// Upload is a file on its way into a [Folder]. Of Commit and Abort at least
// one is called.
type Upload interface {
	io.Writer
	// Commit makes the file visible, replacing one of the same name. Without
	// Commit, or when it fails, there is no trace of the file.
	Commit() error
	// Abort drops the file. After Commit it does nothing.
	Abort()
}

// Item is a name in a folder. Devices look at Name and Dir only.
type Item struct {
	Name    string // one path element
	Dir     bool
	Size    int64 // in bytes, 0 for a folder
	ModTime time.Time
}
