package repo

import (
	"context"

	"github.com/snap-backup/snap/repo/internal/record"
	"github.com/snap-backup/snap/repo/tree"
)

// DevicePassword is the backup password of a device, kept sealed in the
// repository. A device can have several: older snapshots may need older ones.
type DevicePassword = record.DevicePassword

// KeepDevicePassword stores a password of a device. One that is kept already
// is not stored again.
func (r *Repo) KeepDevicePassword(ctx context.Context, udid string, password []byte) error {
	return record.KeepDevicePassword(ctx, r.store, udid, password)
}

// DevicePasswords returns the passwords kept for a device, the newest first.
// A file that is damaged is passed over: what it held has to be typed again,
// and Check tells.
func (r *Repo) DevicePasswords(ctx context.Context, udid string) ([]DevicePassword, error) {
	return record.DevicePasswords(ctx, r.store, udid)
}

// ForgetDevicePasswords removes all passwords kept for a device and returns
// how many there were. Copies of the repository may still hold them.
func (r *Repo) ForgetDevicePasswords(ctx context.Context, udid string) (int, error) {
	return record.ForgetDevicePasswords(ctx, r.store, udid)
}

// Unfinished is the record of files that a device has sent and that no
// snapshot has: of a backup that broke off, above all. The next run goes on
// from there. It refers to chunks, which have to stay while it is there, but it
// is no snapshot: nobody else can rely on it, and it may be removed at any time
// at the price of sending the files again.
type Unfinished = record.Unfinished

// Kinds of unfinished backups.
const (
	// UnfinishedBackup is a backup that broke off.
	UnfinishedBackup = record.UnfinishedBackup
	// UnfinishedRekey is a change of the backup password: files that the
	// device has changed in its last backup and that the next one begins with.
	UnfinishedRekey = record.UnfinishedRekey
)

// NewUnfinished returns a record of a new run, without files. It is nowhere yet.
func (r *Repo) NewUnfinished(kind string, udid string) (*Unfinished, error) {
	return record.NewUnfinished(r.store, kind, udid)
}

// SaveUnfinished stores a record, then removes the one that it replaces. What
// its parts need must be in the index: after Finish of the writer that stored
// them. It fills in ID, Version and Saved. If somebody has removed the lock of
// this process, the parts may be gone: the new record is taken back, the earlier
// one stays, and the error is ErrLockLost.
func (r *Repo) SaveUnfinished(ctx context.Context, u *Unfinished) error {
	return record.SaveUnfinished(ctx, r.store, u)
}

// Unfinished returns the records of runs that have not finished, the newest of
// each run, in the order in which they were saved. Records that cannot be read
// are left out and reported in damaged: what they had has to be sent again.
func (r *Repo) Unfinished(ctx context.Context) (list []*Unfinished, damaged []error, err error) {
	return record.ListUnfinished(ctx, r.store)
}

// WalkUnfinished calls fn for every file of a record, part by part: a path that
// comes again replaces what came before. Removed is left to the caller.
func (r *Repo) WalkUnfinished(ctx context.Context, u *Unfinished, fn func(*tree.Entry) error) error {
	return record.WalkUnfinished(ctx, r.store, u, fn)
}

// RemoveUnfinished removes all records of a run. That they are gone already is
// no error.
func (r *Repo) RemoveUnfinished(ctx context.Context, u *Unfinished) error {
	return record.RemoveUnfinished(ctx, r.store, u)
}
