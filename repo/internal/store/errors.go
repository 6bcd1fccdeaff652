package store

import (
	"errors"
	"fmt"

	"github.com/snap-backup/snap/crypto"
)

// The kinds of failure that a caller decides on; test with errors.Is.
var (
	// ErrNotFound says that a backend has no repository.
	ErrNotFound = errors.New("no repository here")
	// ErrExists says that a backend has a repository already.
	ErrExists = errors.New("there is a repository here already")
	// ErrUnsupported says that the repository was made by a newer snap.
	ErrUnsupported = errors.New("repository is newer than this snap")
	// ErrWrongPassword says that no key slot opens with a password.
	ErrWrongPassword = crypto.ErrWrongPassword
	// ErrDamaged says that stored bytes are missing or wrong. The error is a
	// *DamageError if a file can be named.
	ErrDamaged = errors.New("repository is damaged")
	// ErrNoSnapshot says that no snapshot matches.
	ErrNoSnapshot = errors.New("no such snapshot")
	// ErrChanged says that another process has changed or forgotten a snapshot.
	ErrChanged = errors.New("another process has changed or forgotten it at the same time")
	// ErrAmbiguous says that several snapshots, keys or devices match.
	ErrAmbiguous = errors.New("ambiguous")
	// ErrLastKey says that the only key slot cannot be removed.
	ErrLastKey = errors.New("this is the last key: nobody could open the repository any more")
	// ErrNoKey says that there is no such key slot.
	ErrNoKey = errors.New("no such key")
	// ErrKeyExists says that a secret opens a key slot already.
	ErrKeyExists = errors.New("this password or key file opens the repository already")
	// ErrLocked says that another process uses the repository. The error is a
	// *LockedError.
	ErrLocked = errors.New("the repository is locked")
	// ErrLockLost says that another process has removed the lock of this process,
	// so content that it relies on may be gone.
	ErrLockLost = errors.New("another process has removed the lock of this process")
)

// DamageError names a repository file that is missing or wrong. It matches
// ErrDamaged.
type DamageError struct {
	File string // name in the repository; empty if the damage has no single file
	Err  error
}

func (e *DamageError) Error() string {
	if e.File == "" {
		return fmt.Sprintf("repository is damaged: %v", e.Err)
	}
	return fmt.Sprintf("repository file %s is damaged: %v", e.File, e.Err)
}

// Unwrap makes errors.Is match both the cause and ErrDamaged.
func (e *DamageError) Unwrap() []error { return []error{ErrDamaged, e.Err} }
