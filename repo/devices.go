package repo

import (
	"context"

	"github.com/snap-backup/snap/repo/internal/record"
	"github.com/snap-backup/snap/repo/tree"
)

// DevicePassword is the backup password of a device, kept sealed in the
// repository. A device can have several: older snapshots may need older ones.
type DevicePassword = record.DevicePassword

// KeepDevicePassword stores a backup password of a device, unless it is kept
// already.
func (r *Repo) KeepDevicePassword(ctx context.Context, udid string, password []byte) error {
	return record.KeepDevicePassword(ctx, r.store, udid, password)
}

// DevicePasswords returns the passwords that are kept for a device, the newest
// first. It skips damaged files, which Check reports.
func (r *Repo) DevicePasswords(ctx context.Context, udid string) ([]DevicePassword, error) {
	return record.DevicePasswords(ctx, r.store, udid)
}

// ForgetDevicePasswords removes all passwords that are kept for a device and
// returns their number. Copies of the repository may still have them.
func (r *Repo) ForgetDevicePasswords(ctx context.Context, udid string) (int, error) {
	return record.ForgetDevicePasswords(ctx, r.store, udid)
}

// Unfinished is the record of a device backup that was interrupted, with the files
// that the device has sent. The next backup of the device continues from these
// files. A prune keeps their chunks. The record may be removed at any time: the
// device then sends the files again.
type Unfinished = record.Unfinished

// Complaint is a problem that a device reported without ending its backup.
type Complaint = record.Complaint

// MaxComplaints bounds the complaints in the record of an unfinished backup.
const MaxComplaints = record.MaxComplaints

// Kinds of unfinished backups.
const (
	// UnfinishedBackup is a backup that was interrupted.
	UnfinishedBackup = record.UnfinishedBackup
	// UnfinishedPasswordChange is a change of the backup password. The device writes
	// files of its last backup again, with new keys. The record has these files, and
	// the next backup begins with them.
	UnfinishedPasswordChange = record.UnfinishedPasswordChange
)

// NewUnfinished returns a new record without files. It stores nothing.
func (r *Repo) NewUnfinished(kind, udid string) (*Unfinished, error) {
	return record.NewUnfinished(r.store, kind, udid)
}

// SaveUnfinished stores a record, then removes the one that it replaces. It sets
// ID, Version and Saved. All chunks that u.Parts need must be in the index, so
// call SaveUnfinished after Finish of the writer that stored the parts.
//
// If the lock of this process was removed, the parts may be gone. Then
// SaveUnfinished removes the new record, keeps the earlier one, and returns
// ErrLockLost.
func (r *Repo) SaveUnfinished(ctx context.Context, u *Unfinished) error {
	return record.SaveUnfinished(ctx, r.store, u)
}

// Unfinished returns the newest record of each unfinished backup, in the order in
// which they were saved. damaged has an error for each record that cannot be read;
// the device must send its files again.
func (r *Repo) Unfinished(ctx context.Context) (list []*Unfinished, damaged []error, err error) {
	return record.ListUnfinished(ctx, r.store)
}

// WalkUnfinished calls fn for every file of a record, part by part. A path that
// appears again replaces the earlier file. The caller must leave out the paths in
// u.Removed.
func (r *Repo) WalkUnfinished(ctx context.Context, u *Unfinished, fn func(*tree.Entry) error) error {
	return record.WalkUnfinished(ctx, r.store, u, fn)
}

// RemoveUnfinished removes all records of an unfinished backup. It is no error if
// they do not exist any more.
func (r *Repo) RemoveUnfinished(ctx context.Context, u *Unfinished) error {
	return record.RemoveUnfinished(ctx, r.store, u)
}
