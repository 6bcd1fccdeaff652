package host

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"github.com/snap-backup/snap/device"
	"github.com/snap-backup/snap/device/ingest/passwordchange"
	"github.com/snap-backup/snap/device/mobilesync/keybag"
	"github.com/snap-backup/snap/device/protocol/backup2"
	"github.com/snap-backup/snap/internal/password"
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
// password of a device. Snapshots keep the password that they had. The device is
// asked with each form of the old password until one is right, and gets the normal
// form of the new one; see package password.
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
	if new != nil {
		new = password.Normal(new)
		defer clear(new)
	}
	forms, err := h.formsOf(ctx, e.UDID, old)
	if err != nil {
		return nil, err
	}
	defer func() {
		for _, form := range forms {
			clear(form)
		}
	}()
	for _, form := range forms {
		var res *PasswordResult
		if res, err = h.changePassword(ctx, e, info, form, new, o); !errors.Is(err, backup2.ErrWrongPassword) {
			return res, err
		}
	}
	return nil, err
}

// formsOf returns copies of the forms of a device's old password. The first one is
// probably right: it unlocks the keybag of the last backup, if any does.
func (h Host) formsOf(ctx context.Context, udid string, old []byte) ([][]byte, error) {
	forms := password.Forms(old)
	forms[0] = bytes.Clone(old)
	if len(forms) == 1 {
		return forms, nil
	}
	raw, err := passwordchange.LastKeyBag(ctx, h.Repo, udid)
	if err != nil || raw == nil {
		return forms, err
	}
	bag, err := keybag.Parse(raw)
	if err != nil {
		return forms, nil
	}
	keys, form, err := bag.UnlockText(ctx, old, nil)
	if err != nil {
		return forms, ctx.Err()
	}
	keys.Destroy()
	defer clear(form)
	i := slices.IndexFunc(forms, func(f []byte) bool { return bytes.Equal(f, form) })
	forms[0], forms[i] = forms[i], forms[0]
	return forms, nil
}

func (h Host) changePassword(ctx context.Context, e device.Entry, info *device.Info, old, new []byte, o Observer) (*PasswordResult, error) {
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
