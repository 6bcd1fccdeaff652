package backend

import "errors"

// ErrNoFsync says that a file system does not support fsync.
var ErrNoFsync = errors.New("this file system does not support fsync, so a power cut can lose files that were stored")

// NoFsyncer is a Backend whose files may be on a file system that does not support
// fsync, such as some network shares.
type NoFsyncer interface {
	// AllowNoFsync makes Put succeed on such a file system. Put still flushes files, and
	// ignores only the error that flushing is not supported. After this error, the system
	// and the file server decide when files reach the disk: what Put and Delete promise
	// of a power cut does not hold.
	AllowNoFsync()
}
