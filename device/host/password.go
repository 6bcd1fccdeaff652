package host

import (
	"context"

	"github.com/snap-backup/snap/device"
	"github.com/snap-backup/snap/device/ingest/passwordchange"
)

// PasswordResult is the outcome of a password change.
type PasswordResult struct {
	// Continues says that the next backup continues from the last snapshot.
	// Otherwise it is a full one.
	Continues bool
}

// Encryption describes a device and refuses a password change that cannot work:
// setting a password if the device has one, or changing or removing it if the
// device has none.
func (h Host) Encryption(ctx context.Context, e device.Entry, hasOld, hasNew bool) (*device.Info, error) {
	info, err := h.describe(ctx, e)
	if err != nil {
		return nil, err
	}
	name := nameOf(info)
	switch {
	case !hasOld && isTrue(info.WillEncrypt):
		return nil, refuse("%s already encrypts its backups; its password can be changed", name)
	case hasOld && !isTrue(info.WillEncrypt):
		return nil, refuse("%s does not encrypt its backups", name)
	case !hasNew && isTrue(info.RequiresEncryption):
		return nil, refuse("%s must encrypt its backups: the organisation that manages it requires that", name)
	}
	return info, nil
}

// ChangePassword sets (old is nil), changes or removes (new is nil) the backup
// password of a device. Snapshots keep the password that they had.
func (h Host) ChangePassword(ctx context.Context, e device.Entry, old, new []byte, observer Observer) (*PasswordResult, error) {
	o := &serialObserver{o: observer}
	info, err := h.Encryption(ctx, e, old != nil, new != nil)
	if err != nil {
		return nil, err
	}
	release, err := h.claim(e.UDID)
	if err != nil {
		return nil, err
	}
	defer release()
	folder, err := passwordchange.New(ctx, h.Repo, e.UDID)
	if err != nil {
		return nil, err
	}
	c, err := h.dial(ctx, e, o)
	if err != nil {
		return nil, err
	}
	defer c.close(ctx)
	announcePasscode(info, o)
	if err := c.Session.ChangePassword(c.ctx, e.UDID, old, new, folder, o); err != nil {
		return nil, c.explain(ctx, err)
	}
	return &PasswordResult{Continues: folder.Changed()}, nil
}
