package flow

import (
	"context"
	"errors"

	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/keybag"
)

// opener opens a sealed backup with the first password that fits. Its keys are
// in use until close.
type opener struct {
	passwords [][]byte
	o         Observer
	keys      *keybag.Keys
}

// newOpener returns nil if there is no password to try: first those given, then
// those that the repository keeps.
func (h Host) newOpener(ctx context.Context, udid string, given [][]byte, o Observer) (*opener, error) {
	kept, err := h.Repo.DevicePasswords(ctx, udid)
	if err != nil {
		return nil, err
	}
	p := &opener{o: o}
	for _, g := range given {
		p.passwords = append(p.passwords, append([]byte(nil), g...))
	}
	for _, k := range kept {
		p.passwords = append(p.passwords, k.Password)
	}
	if len(p.passwords) == 0 {
		return nil, nil
	}
	return p, nil
}

// unlock opens b. keybag.ErrWrongPassword says that no password fits.
func (p *opener) unlock(ctx context.Context, b *mobilesync.Backup) error {
	p.o.Phase(PhaseUnlocking)
	err := error(keybag.ErrWrongPassword)
	for _, password := range p.passwords {
		var keys *keybag.Keys
		if keys, err = b.Unlock(ctx, password, nil); err == nil {
			p.keys = keys
			break
		}
		if !errors.Is(err, keybag.ErrWrongPassword) {
			break
		}
	}
	return err
}

// close forgets everything.
func (p *opener) close() {
	if p == nil {
		return
	}
	if p.keys != nil {
		p.keys.Destroy()
	}
	for _, password := range p.passwords {
		clear(password)
	}
}
