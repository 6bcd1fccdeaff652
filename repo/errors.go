package repo

import (
	"github.com/snap-backup/snap/repo/internal/copy"
	"github.com/snap-backup/snap/repo/internal/lock"
	"github.com/snap-backup/snap/repo/internal/store"
)

// The kinds of failure that a caller decides on; test with errors.Is.
var (
	// ErrNotFound says that a backend has no repository.
	ErrNotFound = store.ErrNotFound
	// ErrExists says that a backend has a repository already.
	ErrExists = store.ErrExists
	// ErrUnsupported says that the repository was made by a newer snap.
	ErrUnsupported = store.ErrUnsupported
	// ErrWrongPassword says that no key slot opens with a password.
	ErrWrongPassword = store.ErrWrongPassword
	// ErrDamaged says that stored bytes are missing or wrong. The error is a
	// *DamageError if a file can be named.
	ErrDamaged = store.ErrDamaged
	// ErrNoSnapshot says that no snapshot matches.
	ErrNoSnapshot = store.ErrNoSnapshot
	// ErrChanged says that another process has changed or forgotten a snapshot.
	ErrChanged = store.ErrChanged
	// ErrAmbiguous says that several snapshots, keys or devices match.
	ErrAmbiguous = store.ErrAmbiguous
	// ErrReadOnly says that this process may not write to the repository.
	ErrReadOnly = store.ErrReadOnly
	// ErrLastKey says that the only key slot cannot be removed.
	ErrLastKey = store.ErrLastKey
	// ErrUnprovenKeys says that a key cannot be removed, since it is not known whether
	// those that would be left open the repository.
	ErrUnprovenKeys = store.ErrUnprovenKeys
	// ErrKeyInUse says that a key is the one that opened the repository.
	ErrKeyInUse = store.ErrKeyInUse
	// ErrNoKey says that there is no such key slot.
	ErrNoKey = store.ErrNoKey
	// ErrKeyExists says that a secret opens a key slot already.
	ErrKeyExists = store.ErrKeyExists
	// ErrLocked says that another process uses the repository. The error is a
	// *LockedError.
	ErrLocked = store.ErrLocked
	// ErrLockLost says that another process has removed the lock of this process,
	// so content that it relies on may be gone.
	ErrLockLost = store.ErrLockLost
	// ErrSameRepository says that source and target are the same repository, or that
	// one is an exact copy of the other.
	ErrSameRepository = copy.ErrSameRepository
	// ErrOtherRepository says that a repository is not a copy of this one.
	ErrOtherRepository = store.ErrOtherRepository
)

// DamageError names a repository file that is missing or wrong. It matches
// ErrDamaged.
type DamageError = store.DamageError

// LockedError describes the lock that excludes this process. It matches ErrLocked.
type LockedError = lock.LockedError
