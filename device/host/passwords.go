package host

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/snap-backup/snap/device"
	"github.com/snap-backup/snap/device/ingest/passwordchange"
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/keybag"
	"github.com/snap-backup/snap/repo"
)

// Doubt is why somebody is asked for a backup password.
type Doubt int

// The doubts.
const (
	// PasswordUnknown says that the device encrypts, and that no password of it
	// is at hand.
	PasswordUnknown Doubt = iota
	// PasswordDoubted says that none at hand opens the last snapshot. If the
	// password was changed on the device by another computer, that is no fault of
	// it: the same answer twice is taken.
	PasswordDoubted
	// PasswordWrong says that none at hand opens what the device has just sent.
	PasswordWrong
)

const (
	// maxAsked is how often somebody is asked at a time.
	maxAsked = 3
	// askTime is how long is waited for an answer when the backup is already here:
	// it must not wait for a person who has gone away.
	askTime = 10 * time.Minute
)

// password is one that may open a backup.
type password struct {
	text []byte
	kept bool // in the repository
}

// opener opens a sealed backup with the first password that fits. Its keys are
// in use until close.
type opener struct {
	h         Host
	info      *device.Info
	opt       *BackupOptions
	o         Observer
	passwords []password

	bag  [sha256.Size]byte // of the last snapshot, which keys belong to
	keys *keybag.Keys
}

// newOpener returns nil if there is no password to try: first those given, then
// those that the repository keeps, then what a person types.
//
// They are tried on the keybag that the device continues from, if there is one,
// before anything is sent: what is mistyped is found out then, and not by a
// snapshot that is stored locked. But nothing is refused: when another computer has
// changed the password on the device, that keybag is out of date, and nobody here
// can know. What counts is the keybag that the device sends.
func (h Host) newOpener(ctx context.Context, info *device.Info, opt *BackupOptions, o Observer) (*opener, error) {
	kept, err := h.Repo.DevicePasswords(ctx, info.UDID)
	if err != nil {
		return nil, err
	}
	p := &opener{h: h, info: info, opt: opt, o: o}
	for _, g := range opt.Passwords {
		p.passwords = append(p.passwords, password{text: bytes.Clone(g)})
	}
	for _, k := range kept {
		p.passwords = append(p.passwords, password{k.Password, true})
	}
	if yes(info.WillEncrypt) {
		if err := p.prepare(ctx); err != nil {
			p.close()
			return nil, err
		}
	}
	if len(p.passwords) == 0 {
		return nil, nil
	}
	return p, nil
}

// prepare looks for a password that opens the last snapshot.
func (p *opener) prepare(ctx context.Context) error {
	bag, err := p.lastBag(ctx)
	if err != nil {
		return err
	}
	if bag != nil && len(p.passwords) > 0 {
		p.o.Phase(PhaseUnlocking)
	}
	for i := range p.passwords {
		if fits, err := p.fits(ctx, bag, i); err != nil || fits {
			return err
		}
	}
	if bag == nil && len(p.passwords) > 0 {
		return nil
	}
	sure, err := p.askBefore(ctx, bag)
	if err != nil || sure || len(p.passwords) == 0 {
		return err
	}
	p.o.Warning("no backup password at hand opens the last snapshot; if it was not changed on the device since, this backup will be stored locked")
	return nil
}

// askBefore asks before the beginning, and reports whether an answer can be relied
// on.
func (p *opener) askBefore(ctx context.Context, bag *keybag.Bag) (bool, error) {
	if p.opt.Ask == nil {
		return false, nil
	}
	why := PasswordUnknown
	if len(p.passwords) > 0 {
		why = PasswordDoubted
	}
	for range maxAsked {
		text, err := p.opt.Ask(ctx, p.info, why)
		if err != nil || len(text) == 0 {
			return false, err
		}
		if len(p.passwords) > 0 && bytes.Equal(text, p.passwords[0].text) {
			clear(text)
			return true, nil // it was changed on the device, says somebody
		}
		p.passwords = append([]password{{text: text}}, p.passwords...)
		if bag == nil {
			return true, nil
		}
		if fits, err := p.fits(ctx, bag, 0); err != nil || fits {
			return fits, err
		}
		why = PasswordDoubted
	}
	return false, nil
}

// lastBag is the keybag that the device continues from, nil if there is none that
// makes sense.
func (p *opener) lastBag(ctx context.Context) (*keybag.Bag, error) {
	raw, err := passwordchange.LastKeyBag(ctx, p.h.Repo, p.info.UDID)
	if err != nil || raw == nil {
		// What is damaged is told elsewhere.
		if errors.Is(err, repo.ErrDamaged) {
			err = nil
		}
		return nil, err
	}
	bag, err := keybag.Parse(raw)
	if err != nil {
		return nil, nil
	}
	p.bag = sha256.Sum256(raw)
	return bag, nil
}

// fits tries a password on the keybag of the last snapshot. One that fits is
// tried first from then on, and its keys are kept: deriving them takes seconds,
// and the keybag is the same as long as nobody changes the password.
func (p *opener) fits(ctx context.Context, bag *keybag.Bag, i int) (bool, error) {
	if bag == nil {
		return false, nil
	}
	keys, err := bag.Unlock(ctx, p.passwords[i].text, nil)
	if err != nil {
		if ctx.Err() != nil {
			return false, fmt.Errorf("interrupted: %w", ctx.Err())
		}
		return false, nil // wrong, or nothing opens this bag
	}
	p.keys = keys
	p.passwords[0], p.passwords[i] = p.passwords[i], p.passwords[0]
	return true, nil
}

// unlock opens b. keybag.ErrWrongPassword says that no password fits.
func (p *opener) unlock(ctx context.Context, b *mobilesync.Backup) error {
	p.o.Phase(PhaseUnlocking)
	if p.keys != nil {
		if sha256.Sum256(b.KeyBag()) == p.bag {
			if err := b.UnlockWith(p.keys); err != nil {
				return err
			}
			p.opened(ctx, 0)
			return nil
		}
		p.keys.Destroy()
		p.keys = nil
	}
	err := error(keybag.ErrWrongPassword)
	for i := range p.passwords {
		if p.keys, err = b.Unlock(ctx, p.passwords[i].text, nil); err == nil {
			p.opened(ctx, i)
			return nil
		}
		if !errors.Is(err, keybag.ErrWrongPassword) {
			return err
		}
	}
	if p.opt.Ask != nil {
		err = p.askAfter(ctx, b, err)
	}
	return err
}

// askAfter asks for the password of what has just been received.
func (p *opener) askAfter(ctx context.Context, b *mobilesync.Backup, wrong error) error {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	for range maxAsked {
		text, err := p.opt.Ask(ctx, p.info, PasswordWrong)
		if errors.Is(err, context.DeadlineExceeded) || err == nil && len(text) == 0 {
			return wrong
		}
		if err != nil {
			return err
		}
		p.passwords = append(p.passwords, password{text: text})
		if p.keys, err = b.Unlock(ctx, text, nil); err == nil {
			p.opened(ctx, len(p.passwords)-1)
			return nil
		}
		if !errors.Is(err, keybag.ErrWrongPassword) {
			return err
		}
	}
	return wrong
}

// opened is called when password i has opened the backup.
func (p *opener) opened(ctx context.Context, i int) {
	if p.passwords[i].kept {
		if len(p.opt.Passwords) > 0 {
			p.o.Warning("the backup password given does not open this backup; one that the repository keeps does")
		}
		return
	}
	if !p.opt.KeepPassword {
		return
	}
	if err := p.h.Repo.KeepDevicePassword(ctx, p.info.UDID, p.passwords[i].text); err != nil {
		p.o.Warning(fmt.Sprintf("the backup password could not be kept: %v", err))
	}
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
		clear(password.text)
	}
}
