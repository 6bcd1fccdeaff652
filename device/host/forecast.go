package host

import (
	"context"
	"fmt"

	"github.com/snap-backup/snap/device"
	"github.com/snap-backup/snap/repo"
)

// Forecast says what can be known of a backup without making it. What a device would send
// is known only when it has compared its files with the last backup.
type Forecast struct {
	Info *device.Info
	// Last is the last snapshot of the device, nil if there is none.
	Last *repo.Snapshot
	// Unfinished is the interrupted backup that the next one continues, or nil.
	Unfinished *repo.Unfinished
	// PasswordKnown says that a backup password is given or kept. It was not tried.
	PasswordKnown bool
	// Free is the free space of the repository in bytes, -1 if it is not known.
	Free int64
}

// Foresee makes the checks before a backup, and writes nothing: not to the repository, not
// on the device. The error is that of a backup that would not begin.
func (h Host) Foresee(ctx context.Context, e device.Entry, opt BackupOptions, observer Observer) (*Forecast, error) {
	o := &serialObserver{o: observer}
	o.Phase(PhaseConnecting)
	info, err := h.describe(ctx, e)
	if err != nil {
		return nil, err
	}
	if info.Trust == device.Locked {
		return nil, fmt.Errorf("it has not been unlocked since it was switched on: %w", device.ErrLocked)
	}
	if err := h.preflight(ctx, info, o); err != nil {
		return nil, err
	}
	f := &Forecast{Info: info, Free: -1}
	list, _, err := h.Repo.Snapshots(ctx)
	if err != nil {
		return nil, err
	}
	for _, s := range list {
		if repo.SameDevice(s.Device.UDID, e.UDID) {
			f.Last = s
		}
	}
	unfinished, _, err := h.Repo.Unfinished(ctx)
	if err != nil {
		return nil, err
	}
	for _, u := range unfinished {
		if u.Kind == repo.UnfinishedBackup && repo.SameDevice(u.UDID, e.UDID) {
			f.Unfinished = u
		}
	}
	kept, err := h.Repo.DevicePasswords(ctx, e.UDID)
	if err != nil {
		return nil, err
	}
	f.PasswordKnown = len(opt.Passwords) > 0 || len(kept) > 0
	for _, k := range kept {
		clear(k.Password)
	}
	if free, err := h.Repo.Free(ctx); err == nil { // not every store knows its free space
		f.Free = free
	}
	return f, nil
}
