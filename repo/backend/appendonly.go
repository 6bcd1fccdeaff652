package backend

import "errors"

// ErrAppendOnly says that a store lets nobody with the caller's rights remove or replace files,
// so that whoever breaks into a computer cannot remove its backups.
var ErrAppendOnly = errors.New("the store only accepts new files and lets nobody remove any")

// AppendOnly is a Backend that knows whether its store refuses to delete files.
type AppendOnly interface {
	// AppendOnly reports whether the store has said that it refuses.
	AppendOnly() bool
}

// IsAppendOnly reports whether a store has said that it refuses to delete files.
func IsAppendOnly(b Backend) bool {
	a, ok := Direct(b).(AppendOnly)
	return ok && a.AppendOnly()
}
