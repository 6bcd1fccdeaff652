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

// AskReason is why a person is asked for a backup password.
type AskReason int

// The reasons.
const (
	// PasswordUnknown says that the device encrypts, and that no password is known.
	PasswordUnknown AskReason = iota
	// PasswordDoubted says that no known password unlocks the last snapshot. A
	// password can be right nevertheless, since another computer may have changed
	// it on the device. So an answer that is given twice is accepted.
	PasswordDoubted
	// PasswordWrong says that no known password unlocks the backup that was sent.
	PasswordWrong
)

const (
	// maxAsked bounds how often a person is asked in a row.
	maxAsked = 3
	// askTime bounds the wait for an answer after the backup was received: the
	// backup must not wait for a person who is away.
	askTime = 10 * time.Minute
)

// candidate is a password that may unlock the backup.
type candidate struct {
	text []byte
	kept bool // by the repository
}

// unlocker unlocks a backup with the first password that fits. Its keys are in use
// until close.
type unlocker struct {
	h         Host
	info      *device.Info
	opt       *BackupOptions
	o         Observer
	passwords []candidate

	bag  [sha256.Size]byte // hash of the keybag that keys belong to
	keys *keybag.Keys
}

// newUnlocker collects the passwords of opt, those that the repository keeps,
// and those that a person types. It returns nil if there are none.
//
// Before the device sends anything, the passwords are tried on the keybag of the
// last backup, if there is one. This finds typing errors before a backup is
// stored locked. But no password is refused: if another computer has
// changed the password on the device, that keybag is out of date. Only the
// keybag that the device sends counts.
func (h Host) newUnlocker(ctx context.Context, info *device.Info, opt *BackupOptions, o Observer) (*unlocker, error) {
	kept, err := h.Repo.DevicePasswords(ctx, info.UDID)
	if err != nil {
		return nil, err
	}
	p := &unlocker{h: h, info: info, opt: opt, o: o}
	for _, g := range opt.Passwords {
		p.passwords = append(p.passwords, candidate{text: bytes.Clone(g)})
	}
	for _, k := range kept {
		p.passwords = append(p.passwords, candidate{k.Password, true})
	}
	if isTrue(info.WillEncrypt) {
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

// prepare finds a password that unlocks the last snapshot.
func (p *unlocker) prepare(ctx context.Context) error {
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
	p.o.Warning("no known backup password unlocks the last snapshot; this backup will be stored locked, unless the password was changed on the device since")
	return nil
}

// askBefore asks a person before the device sends anything. It reports whether the
// answer can be relied on.
func (p *unlocker) askBefore(ctx context.Context, bag *keybag.Bag) (bool, error) {
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
			return true, nil // typed twice, so the password was changed on the device
		}
		p.passwords = append([]candidate{{text: text}}, p.passwords...)
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

// lastBag returns the device's newest keybag in the repository, nil if there is no
// valid one.
func (p *unlocker) lastBag(ctx context.Context) (*keybag.Bag, error) {
	raw, err := passwordchange.LastKeyBag(ctx, p.h.Repo, p.info.UDID)
	if err != nil || raw == nil {
		// Damage is reported elsewhere.
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

// fits tries a password on the last keybag. If it fits, it becomes the first
// password, and its keys are kept, since deriving them takes seconds. They
// usually unlock the new backup too: the keybag changes only with the password.
func (p *unlocker) fits(ctx context.Context, bag *keybag.Bag, i int) (bool, error) {
	if bag == nil {
		return false, nil
	}
	keys, form, err := bag.UnlockText(ctx, p.passwords[i].text, nil)
	if err != nil {
		if ctx.Err() != nil {
			return false, fmt.Errorf("interrupted: %w", ctx.Err())
		}
		return false, nil // wrong, or nothing unlocks this keybag
	}
	clear(form)
	p.keys = keys
	p.passwords[0], p.passwords[i] = p.passwords[i], p.passwords[0]
	return true, nil
}

// unlock unlocks b. keybag.ErrWrongPassword says that no password fits.
func (p *unlocker) unlock(ctx context.Context, b *mobilesync.Backup) error {
	p.o.Phase(PhaseUnlocking)
	if p.keys != nil {
		if sha256.Sum256(b.KeyBag()) == p.bag {
			if err := b.UnlockWith(p.keys); err != nil {
				return err
			}
			p.unlocked(ctx, 0)
			return nil
		}
		p.keys.Destroy()
		p.keys = nil
	}
	err := error(keybag.ErrWrongPassword)
	for i := range p.passwords {
		if p.keys, err = b.Unlock(ctx, p.passwords[i].text, nil); err == nil {
			p.unlocked(ctx, i)
			return nil
		}
		if !errors.Is(err, keybag.ErrWrongPassword) {
			return err
		}
	}
	if p.opt.Ask != nil && !p.opt.AskOnlyBefore {
		err = p.askAfter(ctx, b, err)
	}
	return err
}

// askAfter asks for the password of the backup that was received.
func (p *unlocker) askAfter(ctx context.Context, b *mobilesync.Backup, wrong error) error {
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
		p.passwords = append(p.passwords, candidate{text: text})
		if p.keys, err = b.Unlock(ctx, text, nil); err == nil {
			p.unlocked(ctx, len(p.passwords)-1)
			return nil
		}
		if !errors.Is(err, keybag.ErrWrongPassword) {
			return err
		}
	}
	return wrong
}

// KeptPasswordUsed warns that the given password is wrong, and that a kept one
// is right.
const KeptPasswordUsed = "the given backup password does not unlock this backup, but one that the repository keeps does"

// unlocked is called when password i has unlocked the backup.
func (p *unlocker) unlocked(ctx context.Context, i int) {
	if p.passwords[i].kept {
		if len(p.opt.Passwords) > 0 {
			p.o.Warning(KeptPasswordUsed)
		}
		return
	}
	if !p.opt.KeepPassword {
		return
	}
	if err := p.h.Repo.KeepDevicePassword(ctx, p.info.UDID, p.passwords[i].text); err != nil {
		p.o.Warning(fmt.Sprintf("could not keep the backup password: %v", err))
	}
}

// close clears all passwords and keys.
func (p *unlocker) close() {
	if p == nil {
		return
	}
	if p.keys != nil {
		p.keys.Destroy()
	}
	for _, c := range p.passwords {
		clear(c.text)
	}
}
