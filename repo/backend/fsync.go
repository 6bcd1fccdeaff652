package backend

// NoFsyncer is a Backend whose files may be on a file system that does not support
// fsync, such as some network shares.
type NoFsyncer interface {
	// AllowNoFsync makes Put succeed there. Put still flushes files where the file
	// system can, and every other error of a flush is an error. Where it cannot, the
	// system and the file server decide when files reach the disk: what Put and Delete
	// promise of a power cut does not hold.
	AllowNoFsync()
}
