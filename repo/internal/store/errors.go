package store

import (
	"errors"
	"fmt"
	"io"

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
	// ErrUnreadable says that the bytes of a file are unknown, since reading it
	// failed. The error is a *DamageError, too. The file may be good: other
	// hardware or another user may be able to read it.
	ErrUnreadable = errors.New("file cannot be read")
	// ErrNoSnapshot says that no snapshot matches.
	ErrNoSnapshot = errors.New("no such snapshot")
	// ErrChanged says that another process has changed or forgotten a snapshot.
	ErrChanged = errors.New("another process has changed or forgotten it at the same time")
	// ErrAmbiguous says that several snapshots, keys or devices match.
	ErrAmbiguous = errors.New("ambiguous")
	// ErrReadOnly says that this process may not write to the repository.
	ErrReadOnly = errors.New("the repository is read-only")
	// ErrOtherRepository says that a repository is not a copy of this one.
	ErrOtherRepository = errors.New("it is another repository, with other keys")
	// ErrLastKey says that the only key slot cannot be removed.
	ErrLastKey = errors.New("this is the last key: nobody could open the repository any more")
	// ErrUnprovenKeys says that a key cannot be removed, since it is not known whether
	// those that would be left open the repository.
	ErrUnprovenKeys = errors.New("only keys of an older version would be left, and without their passwords nobody can tell whether they open the repository")
	// ErrKeyInUse says that a key is the one that opened the repository.
	ErrKeyInUse = errors.New("this key has just opened the repository")
	// ErrNoKey says that there is no such key slot.
	ErrNoKey = errors.New("no such key")
	// ErrKeyExists says that a secret opens a key slot already.
	ErrKeyExists = errors.New("this password or key file opens the repository already")
	// ErrLocked says that another process uses the repository. The error is a
	// *LockedError.
	ErrLocked = errors.New("the repository is locked")
	// ErrLockLost says that another process has removed the lock of this process,
	// so content that this process relies on may be gone.
	ErrLockLost = errors.New("another process has removed the lock of this process")
)

// DamageError names a repository file that is missing or wrong, or that cannot be read.
// It matches ErrDamaged.
type DamageError struct {
	File string // name in the repository; empty if the damage has no single file
	Err  error
}

func (e *DamageError) Error() string {
	if e.File == "" {
		return fmt.Sprintf("repository is damaged: %v", e.Err)
	}
	if u, ok := errors.AsType[*unreadableError](e.Err); ok {
		return fmt.Sprintf("repository file %s cannot be read: %v", e.File, u.err)
	}
	return fmt.Sprintf("repository file %s is damaged: %v", e.File, e.Err)
}

// Unwrap makes errors.Is match both the cause and ErrDamaged. If a file ends too early, the
// content that a reader returns has not ended, so io.EOF and io.ErrUnexpectedEOF never
// match.
func (e *DamageError) Unwrap() []error { return []error{ErrDamaged, notEnd{e.Err}} }

// notEnd is an error that does not match the ends of readers.
type notEnd struct{ error }

func (e notEnd) Is(target error) bool {
	return target != io.EOF && target != io.ErrUnexpectedEOF && errors.Is(e.error, target)
}

func (e notEnd) As(target any) bool { return errors.As(e.error, target) }

// unreadableError is the reason why a file cannot be read.
type unreadableError struct{ err error }

func (e *unreadableError) Error() string { return fmt.Sprintf("it cannot be read: %v", e.err) }

func (e *unreadableError) Unwrap() []error { return []error{ErrUnreadable, e.err} }
