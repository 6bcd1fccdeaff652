package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/snap-backup/snap/device"
	"github.com/snap-backup/snap/device/finding"
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/protocol/backup2"
	"github.com/snap-backup/snap/device/protocol/plist"
	"github.com/snap-backup/snap/device/restore"
	"github.com/snap-backup/snap/device/verify"
	"github.com/snap-backup/snap/internal/words"
	"github.com/snap-backup/snap/repo"
)

// ErrHalfRestored says that a restore failed after it had begun: the device may
// have part of it.
var ErrHalfRestored = errors.New("the restore was not completed; the device may have part of it")

const (
	restoreFolder = "/iTunesRestore"
	restoreApps   = restoreFolder + "/RestoreApplications.plist"
	// restoreBattery is the least charge in percent for a restore while the device
	// is not charging. A device that switches off during a restore must be erased.
	restoreBattery = 20
)

// Plan is the outcome of the checks before a restore, which do not touch the
// device.
type Plan struct {
	Info     *device.Info // of the device to restore to
	Snapshot *repo.Snapshot
	// Refusals say why the restore cannot be done. Notes say what else a person
	// should know before agreeing.
	Refusals []string
	Notes    []string
	// Damage says what is missing or wrong in the snapshot, with the names of all files;
	// see IgnoreDamage. Files of the kind finding.Lost are those that the repository has
	// lost.
	Damage []repo.Finding
	// Ignored is the damage that IgnoreDamage has accepted.
	Ignored []repo.Finding
	// Room says that the snapshot is larger than the device's free storage; it is
	// empty if the snapshot fits. See IgnoreRoom.
	Room string
	// NeedsPassword says that the device wants the backup password.
	NeedsPassword bool

	view  *restore.View
	entry device.Entry
	info  []byte // Info.plist
}

// Failures returns the files that Restore could not read from the repository.
func (p *Plan) Failures() []restore.Failure { return p.view.Failures() }

// Other reports whether the snapshot is of another device.
func (p *Plan) Other() bool { return !repo.SameDevice(p.Info.UDID, p.Snapshot.Device.UDID) }

// IgnoreRoom turns the lack of room into a note. The device may still refuse,
// since it knows better which of its content the snapshot replaces.
func (p *Plan) IgnoreRoom() {
	if p.Room != "" {
		p.Notes, p.Room = append(p.Notes, p.Room), ""
	}
}

// IgnoreDamage turns what is missing or wrong in the snapshot into notes. The
// device may still refuse it, or stop in the middle.
func (p *Plan) IgnoreDamage() {
	if len(p.Damage) == 0 {
		return
	}
	for _, f := range p.Damage {
		p.Notes = append(p.Notes, f.Text)
	}
	p.Notes = append(p.Notes, "the device may refuse a snapshot that lacks files, or stop at the first one; then it has only a part of the snapshot")
	p.Damage, p.Ignored = nil, p.Damage
}

// damage adds a finding, unless the same sentence is there.
func (p *Plan) damage(f repo.Finding) {
	if f.Consequence != repo.Remark && !slices.ContainsFunc(p.Damage, func(g repo.Finding) bool { return g.Text == f.Text }) {
		p.Damage = append(p.Damage, f)
	}
}

// Err returns the refusals as an error, nil if there are none. The error
// matches ErrNoRoom or ErrDamaged if that is the only reason, and also ErrLost if
// the repository has lost a part of the snapshot.
func (p *Plan) Err() error {
	reasons := slices.Clone(p.Refusals)
	for _, f := range p.Damage {
		reasons = append(reasons, f.Text)
	}
	if p.Room != "" {
		reasons = append(reasons, p.Room)
	}
	if len(reasons) == 0 {
		return nil
	}
	err := refusal(fmt.Sprintf("restore snapshot %s to %s: %s", p.Snapshot.ID.Short(), nameOf(p.Info), strings.Join(reasons, "; ")))
	switch {
	case len(reasons) == len(p.Damage) && finding.Has(p.Damage, finding.Lost):
		return fmt.Errorf("%w: %w: %w", ErrDamaged, ErrLost, err)
	case len(reasons) == len(p.Damage):
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	case len(reasons) == 1 && p.Room != "":
		return fmt.Errorf("%w: %w", ErrNoRoom, err)
	}
	return err
}

// PlanRestore checks everything that can be checked before a restore.
func (h Host) PlanRestore(ctx context.Context, e device.Entry, s *repo.Snapshot) (*Plan, error) {
	info, err := h.describe(ctx, e)
	if err != nil {
		return nil, err
	}
	p := &Plan{Info: info, Snapshot: s, NeedsPassword: s.Encrypted, entry: e}
	if p.view, err = restore.New(ctx, h.Repo, s, restore.Options{UDID: s.Device.UDID, Target: info.UDID}); err != nil {
		return nil, err
	}
	p.info, err = p.read(ctx, mobilesync.InfoPlist)
	if errors.Is(err, fs.ErrNotExist) {
		// Some imported folders have no Info.plist, but a device needs one.
		if p.info, err = plainInfo(s); err == nil {
			p.view, err = restore.New(ctx, h.Repo, s, restore.Options{UDID: s.Device.UDID, Target: info.UDID, Info: p.info})
		}
	}
	if err != nil {
		return nil, err
	}
	if err := h.verify(ctx, p); err != nil {
		return nil, err
	}
	p.check(h.bytes)
	return p, h.checkCertificates(ctx, p)
}

// verify turns what a quick verification finds, and the findings of the snapshot's
// record, into reasons against a restore.
func (h Host) verify(ctx context.Context, p *Plan) error {
	rep, err := verify.Verify(ctx, h.Repo, p.Snapshot, verify.Options{Level: verify.Quick})
	if err != nil {
		return err
	}
	for _, f := range rep.Findings {
		p.damage(f)
	}
	if !p.Snapshot.Complete && len(p.Damage) == 0 {
		p.damage(repo.Finding{Kind: string(mobilesync.ProblemUnfinished), Consequence: repo.Incomplete, Text: "the snapshot is of an incomplete backup"})
	}
	return nil
}

// checkCertificates adds what a verify or drill found in the snapshot. What the repository
// had lost then does not count: a disk or network may have failed for a moment, or a
// repair may have brought it back. The quick verification and ReadAll find what is lost now.
func (h Host) checkCertificates(ctx context.Context, p *Plan) error {
	list, _, err := h.Repo.Certificates(ctx)
	if err != nil {
		return err
	}
	c := repo.Refuted(list, p.Snapshot)
	if c == nil {
		return nil
	}
	lost := false
	for _, f := range c.Findings {
		if f.Kind == finding.Lost && f.Consequence != repo.Remark {
			lost = true
			continue
		}
		p.damage(f)
	}
	if len(p.Damage) == 0 && !lost {
		p.damage(repo.Finding{Kind: finding.Refused, Consequence: repo.Damage, Text: fmt.Sprintf("the snapshot failed a %s of %s", c.Kind, c.Time.Local().Format(time.DateOnly))})
	}
	return nil
}

// maxInfo bounds how many bytes of an Info.plist are read.
const maxInfo = 64 << 20

func (p *Plan) read(ctx context.Context, name string) ([]byte, error) {
	f, err := p.view.Open(ctx, p.Snapshot.Device.UDID+"/"+name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxInfo))
}

// plainInfo returns an Info.plist with the fields that a device reads.
func plainInfo(s *repo.Snapshot) ([]byte, error) {
	d := s.Device
	return plist.EncodeXML(map[string]any{
		"Device Name": d.Name, "Display Name": d.Name, "Product Type": d.ProductType, "Product Version": d.ProductVersion,
		"Build Version": d.BuildVersion, "Serial Number": d.SerialNumber, "Target Identifier": d.UDID, "Target Type": "Device",
		"Unique Identifier": strings.ToUpper(d.UDID), "Last Backup Date": s.Time, "Installed Applications": []any{},
	})
}

// check finds refusals and notes.
func (p *Plan) check(size func(int64) string) {
	s, d := p.Snapshot, p.Info
	refuse := func(format string, args ...any) { p.Refusals = append(p.Refusals, fmt.Sprintf(format, args...)) }
	note := func(format string, args ...any) { p.Notes = append(p.Notes, fmt.Sprintf(format, args...)) }
	if from, to := s.Device.ProductVersion, d.ProductVersion; from != "" && to != "" && compareVersions(to, from) < 0 {
		refuse("the snapshot was made with iOS %s, but the device has iOS %s, which is older: update the device first", from, to)
	}
	if isTrue(d.FindMy) {
		refuse("Find My is on: switch it off on the device, in Settings, your name, Find My")
	}
	if b := d.Battery; b != nil && b.Percent < restoreBattery && !b.Charging {
		refuse("the battery of the device is at %d%%: connect it to power", b.Percent)
	}
	if st := d.Storage; st != nil && s.Bytes > st.Total {
		refuse("the snapshot has %s, but the device has only %s of storage", size(s.Bytes), size(st.Total))
	} else if st != nil && s.Bytes > st.Free {
		p.Room = fmt.Sprintf("the snapshot has %s, but the device has only %s of free storage", size(s.Bytes), size(st.Free))
	}
	if s.Device.ProductVersion == "" {
		note("the snapshot does not say which iOS it was made with; a device with an older iOS refuses the snapshot")
	}
	if !s.Encrypted {
		note("the backup was not encrypted by the device: it has no passwords, health data, Wi-Fi networks or call history")
	}
	if p.Other() {
		note("the snapshot is of another device: what is bound to that device is not restored, such as Apple Pay cards, Face ID, Touch ID, and passwords that never leave a device")
	}
	if a, b := deviceFamily(s.Device.ProductType), deviceFamily(d.ProductType); a != "" && b != "" && a != b {
		note("the snapshot is of an %s, and this is an %s: apps and settings that only an %s has are left out", a, b, a)
	}
}

// deviceFamily returns iPhone, iPad, iPod or "".
func deviceFamily(productType string) string {
	for _, f := range []string{"iPhone", "iPad", "iPod"} {
		if strings.HasPrefix(productType, f) {
			return f
		}
	}
	return ""
}

// RestoreOptions say how to restore.
type RestoreOptions struct {
	backup2.RestoreOptions
	SkipApps bool // the device does not install its apps
	Password []byte
}

// Restore does a planned restore. If it fails after the device has begun, the
// error matches ErrHalfRestored. Otherwise it says that nothing was restored.
func (h Host) Restore(ctx context.Context, p *Plan, opt RestoreOptions, observer Observer) (backup2.RestoreResult, error) {
	if err := p.Err(); err != nil {
		return backup2.RestoreResult{}, err
	}
	res, err := h.restore(ctx, p, opt, &serialObserver{o: observer})
	switch {
	case err == nil:
	case p.view.Begun():
		err = fmt.Errorf("%w: %w", ErrHalfRestored, err)
	default:
		err = fmt.Errorf("nothing of snapshot %s was restored to %s: %w", p.Snapshot.ID.Short(), nameOf(p.Info), err)
	}
	return res, err
}

func (h Host) restore(ctx context.Context, p *Plan, opt RestoreOptions, o Observer) (backup2.RestoreResult, error) {
	p.view.Restart()
	release, err := h.claim(p.Info.UDID)
	if err != nil {
		return backup2.RestoreResult{}, err
	}
	defer release()
	c, err := h.dial(ctx, p.entry, o)
	if err != nil {
		return backup2.RestoreResult{}, err
	}
	defer c.close(ctx)
	o.Phase(PhaseLocking)
	if err := c.sync.Lock(c.ctx); err != nil {
		return backup2.RestoreResult{}, c.explain(ctx, err)
	}
	if !opt.SkipApps {
		if err := p.putApps(c.ctx, c); err != nil {
			return backup2.RestoreResult{}, c.explain(ctx, p.explainApps(c, err))
		}
	}
	announcePasscode(p.Info, o)
	res, err := c.Session.Restore(c.ctx, backup2.RestoreRequest{
		Target: p.Info.UDID, Source: p.Snapshot.Device.UDID, Options: opt.RestoreOptions, Password: opt.Password,
	}, p.view, o)
	if err != nil {
		if !opt.SkipApps {
			p.removeApps(ctx, c)
		}
		return res, c.explain(ctx, err)
	}
	if res.Missing > 0 {
		o.Warning(fmt.Sprintf("the device asked for %s that the snapshot does not have", words.Plural(res.Missing, "file")))
	}
	return res, nil
}

// putApps tells the device which apps to install.
func (p *Plan) putApps(ctx context.Context, c *connection) error {
	apps := map[string]any{}
	if d, err := plist.Dict(p.info); err == nil {
		if list, ok := d["Applications"].(map[string]any); ok {
			apps = list
		}
	}
	b, err := plist.EncodeXML(apps)
	if err != nil {
		return fmt.Errorf("list the apps to install: %w", err)
	}
	if err := c.sync.Files().Mkdir(ctx, restoreFolder); err != nil {
		return fmt.Errorf("list the apps to install: %w", err)
	}
	if err := c.sync.Files().WriteFile(ctx, restoreApps, b); err != nil {
		return fmt.Errorf("list the apps to install: %w", err)
	}
	return nil
}

// noAppList says that a device cannot be told which apps to install, because a file
// has the name of the folder for the list.
type noAppList struct {
	error
	command string // that restores without the list
}

func (e noAppList) Error() string {
	return fmt.Sprintf("a file is in the place of the folder %s on the device: %v", restoreFolder, e.error)
}

func (e noAppList) Unwrap() error { return e.error }

// Hint implements the hints of errors, see backup2.DeviceError.
func (e noAppList) Hint() string {
	return fmt.Sprintf("nothing was restored; \"%s\" restores without that folder, and the device reinstalls no apps", e.command)
}

// explainApps explains why the list of apps could not be written.
func (p *Plan) explainApps(c *connection, err error) error {
	if info, failed := c.sync.Files().Stat(c.ctx, restoreFolder); failed != nil || info.Dir {
		return err
	}
	command := "snap restore --skip-apps"
	if p.Other() {
		command += " --device " + p.Info.UDID
	}
	return noAppList{err, command + " " + p.Snapshot.ID.Short()}
}

// removeApps removes the list of apps after a failure, if the device can still
// be reached.
func (p *Plan) removeApps(ctx context.Context, c *connection) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	_ = c.sync.Files().Remove(ctx, restoreApps)
	_ = c.sync.Files().Remove(ctx, restoreFolder)
}
