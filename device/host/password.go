package host

import (
	"context"

	"github.com/snap-backup/snap/device"
	"github.com/snap-backup/snap/device/ingest/passwordchange"
)

// PasswordResult says what a change of the backup password has led to.
type PasswordResult struct {
	// Continues says that the next backup goes on from the last snapshot;
	// otherwise it is a full one.
	Continues bool
}

// Encryption describes a device and refuses a change of its backup password that
// cannot work: setting one where there is one, changing or removing one where
// there is none.
func (h Host) Encryption(ctx context.Context, e device.Entry, hasOld, hasNew bool) (*device.Info, error) {
	info, err := h.describe(ctx, e)
	if err != nil {
		return nil, err
	}
	name := nameOf(info)
	switch {
	case !hasOld && yes(info.WillEncrypt):
		return nil, refuse("%s encrypts its backups already; the password can be changed", name)
	case hasOld && !yes(info.WillEncrypt):
		return nil, refuse("%s does not encrypt its backups", name)
	case !hasNew && yes(info.RequiresEncryption):
		return nil, refuse("%s has to encrypt its backups: the organisation that manages it wants that", name)
	}
	return info, nil
}

// ChangePassword sets (no old), changes or removes (no new) the backup password
// of a device. Snapshots stay under the password that they had.
func (h Host) ChangePassword(ctx context.Context, e device.Entry, old, new []byte, observer Observer) (*PasswordResult, error) {
	o := &mentions{o: observer}
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
	defer c.hang(ctx)
	announcePasscode(info, o)
	if err := c.Session.ChangePassword(c.ctx, e.UDID, old, new, folder, o); err != nil {
		return nil, c.why(ctx, err)
	}
	return &PasswordResult{Continues: folder.Changed()}, nil
}
