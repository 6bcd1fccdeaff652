package backend

import (
	"errors"
	"time"
)

// ErrOutOfReach says that a store does not answer, or refuses all operations: its server
// cannot be reached, is overloaded, or does not accept the caller's keys. Such an error is
// about all files. It never means that a file is damaged.
var ErrOutOfReach = errors.New("the store is out of reach")

// TemporaryError says that an operation failed for a reason that may pass, such as a lost
// connection. The operation may have been carried out nevertheless: its answer may have
// been lost.
type TemporaryError struct {
	Err error // what happened
	// After is how long the store asked to wait before the next attempt; zero if it said
	// nothing.
	After time.Duration
}

// Error returns the text of the error that it wraps.
func (e *TemporaryError) Error() string { return e.Err.Error() }

// Unwrap returns what happened.
func (e *TemporaryError) Unwrap() error { return e.Err }

// Temporary reports whether the operation that returned err may succeed if it is repeated
// later: err is a [TemporaryError].
func Temporary(err error) bool {
	_, ok := errors.AsType[*TemporaryError](err)
	return ok
}
