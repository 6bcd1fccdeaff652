package backend

import (
	"context"
	"time"
)

// Protection is how long a store keeps each file that is put from being removed. The zero
// value is none.
type Protection struct {
	Period time.Duration
	// Compliance says that nobody can end the protection of a file earlier, not even the
	// owner of the store. Otherwise some access keys can.
	Compliance bool
}

// Version is the bytes of a file at some time, or a note that hides the file.
type Version struct {
	Name     string
	ID       string // of the store
	Size     int64
	Modified time.Time // by the clock of the store
	Tag      string    // equal for equal bytes of one file; the store invents it
	Latest   bool      // it decides what Stat, ReadAt and List show
	Hides    bool      // the file was deleted: it has no bytes, and older versions are hidden
}

// Protector is a Backend whose store can keep old versions of files, and can keep a version
// from being removed before a time. Delete then hides a file, and a file that somebody else
// replaces is hidden, too. A store that cannot do this returns [errors.ErrUnsupported].
type Protector interface {
	// Protection returns the protection that each Put gives to a file. It is the same for
	// all that use the store.
	Protection(ctx context.Context) (Protection, error)
	// SetProtection changes it for files that are put from now on.
	SetProtection(ctx context.Context, p Protection) error
	// Versions calls fn for all versions of all files, sorted by name.
	Versions(ctx context.Context, fn func(Version) error) error
	// ProtectedUntil returns when the protection of a version ends; zero if it has none.
	ProtectedUntil(ctx context.Context, v Version) (time.Time, error)
	// Protect keeps a version from being removed before a time. It never shortens a
	// protection.
	Protect(ctx context.Context, v Version, until time.Time, compliance bool) error
	// ReadVersion returns the bytes of a version.
	ReadVersion(ctx context.Context, v Version) ([]byte, error)
	// BringBack makes a version the one that Stat, ReadAt and List show. newer are the
	// versions of the file that are newer, from the newest on. BringBack removes no bytes:
	// it removes notes that hide the file, or stores the same bytes once more.
	BringBack(ctx context.Context, v Version, newer []Version) error
}
