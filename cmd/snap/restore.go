package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"

	"github.com/snap-backup/snap/device"
	"github.com/snap-backup/snap/device/blob"
	"github.com/snap-backup/snap/device/finding"
	"github.com/snap-backup/snap/device/host"
	"github.com/snap-backup/snap/device/protocol/backup2"
	"github.com/snap-backup/snap/repo"
	"github.com/spf13/cobra"
)

// restoreResult is the output of restore.
type restoreResult struct {
	Snapshot repo.FileID `json:"snapshot"`
	UDID     string      `json:"udid"`
	Name     string      `json:"device_name"`
	Source   string      `json:"source_udid"`
	Refusals []string    `json:"refusals"`
	Notes    []string    `json:"notes"`
	// Damage is what is missing or wrong in the snapshot, with the names of all files,
	// whether it is a reason to refuse or accepted.
	Damage   []repo.Finding `json:"damage"`
	Done     bool           `json:"done"`     // false with --dry-run
	Rebooted bool           `json:"rebooted"` // the device restarted before it reported the outcome
	Files    int64          `json:"sent_files"`
	Bytes    int64          `json:"sent_bytes"`
	Missing  int            `json:"missing_files"`
}

func (a *app) restoreCommand() *cobra.Command {
	var opt host.RestoreOptions
	var source backupPassword
	var target string
	var confirmed, dry, ignoreRoom, incomplete bool
	cmd := &cobra.Command{
		Use:   "restore SNAPSHOT",
		Short: "Restore a snapshot to a connected device",
		Long: `Restores a snapshot to its own device, or to another one with --device. The
content of the snapshot replaces that of the device. Content that only the
device has stays unless --remove-items-not-restored is given.

First it checks, without changing the device, that its iOS is not older than the
snapshot's, Find My is off, free storage and battery are sufficient, no file of
the snapshot is known to be missing or damaged, and the backup password opens
it. It reads all content of the snapshot, to find out whether the repository can
give it back. Then it shows what it will do and asks you to type the device's
name.

At the end the device restarts and reinstalls its apps from the App Store.

SNAPSHOT is the beginning of an ID, "latest", or "latest:DEVICE".`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, argv []string) (err error) {
			ctx := cmd.Context()
			asked := false // the device, to restore
			defer func() {
				if err = orInterrupted(ctx, err, "the device was not changed; run the same command again"); !asked {
					err = notAsked(err)
				}
			}()
			r, found, err := a.openToRead(cmd, argv[0])
			if err != nil {
				return err
			}
			s := found[0]
			m, e, err := restoreTarget(ctx, s, target)
			if err != nil {
				return err
			}
			h, err := a.newHost(m, r, "")
			if err != nil {
				return err
			}
			p, err := h.PlanRestore(ctx, e, s)
			if err != nil {
				return err
			}
			if ignoreRoom {
				p.IgnoreRoom()
			}
			if incomplete || len(p.Damage) == 0 {
				if err := a.readSnapshot(ctx, r, p); err != nil {
					return err
				}
			}
			if incomplete {
				p.IgnoreDamage()
			}
			res := newRestoreResult(p)
			if !a.json {
				a.describePlan(p, &opt)
			}
			if err := p.Err(); err != nil {
				return a.refuseRestore(p, res, err)
			}
			if p.NeedsPassword {
				if opt.Password, err = a.restorePassword(ctx, r, s, source); err != nil {
					return err
				}
				defer clear(opt.Password)
			}
			if dry {
				return a.print(res, func(w io.Writer) { fmt.Fprintln(w, "nothing was changed") })
			}
			if !confirmed {
				if err := a.confirm(ctx, p.Info); err != nil {
					return err
				}
			}
			board := a.newBoard(ctx, m, []device.Entry{e})
			asked = true
			out, err := h.Restore(ctx, p, opt, board.views[0])
			board.views[0].done()
			board.stop()
			if err != nil {
				return adviseRestore(err, p)
			}
			res.Done, res.Rebooted, res.Missing = true, out.Rebooted, out.Missing
			res.Files, res.Bytes = out.Progress.Files, out.Progress.Bytes
			err = a.conclude(res, opt.NoReboot || out.Rebooted || len(p.Failures()) > 0, func(w io.Writer) { describeRestore(w, p, &opt, res) })
			if n := len(p.Failures()); err == nil && n > 0 {
				return fmt.Errorf("snapshot %s: %w (%s)", s.ID.Short(), errNotSent, plural(n, "file"))
			}
			return err
		},
	}
	source.register(cmd)
	f := cmd.Flags()
	f.StringVar(&target, "device", "", "restore to this connected `device` (UDID or name) instead of the snapshot's own")
	f.BoolVar(&confirmed, "yes", false, "do not ask for confirmation")
	f.BoolVarP(&dry, "dry-run", "n", false, "check everything and change nothing")
	f.BoolVar(&ignoreRoom, "ignore-space", false, "restore even if the snapshot is larger than the device's free storage")
	f.BoolVar(&incomplete, "allow-incomplete", false, "also restore a snapshot with missing or damaged files; the device may stop in the middle")
	f.BoolVar(&opt.RemoveOthers, "remove-items-not-restored", false, "remove apps and data from the device that are not in the snapshot")
	f.BoolVar(&opt.SystemFiles, "system-files", false, "also restore system files, such as the layout of the home screen")
	f.BoolVar(&opt.ResetSettings, "settings", false, "replace the device's settings with those of the snapshot")
	f.BoolVar(&opt.NoReboot, "no-reboot", false, "do not restart the device at the end")
	f.BoolVar(&opt.SkipApps, "skip-apps", false, "do not reinstall the device's apps")
	return cmd
}

// newRestoreResult returns the result of a restore that was planned.
func newRestoreResult(p *host.Plan) *restoreResult {
	res := &restoreResult{
		Snapshot: p.Snapshot.ID, UDID: p.Info.UDID, Name: p.Info.Name, Source: p.Snapshot.Device.UDID,
		Refusals: append([]string{}, p.Refusals...), Notes: append([]string{}, p.Notes...),
		Damage: append(append([]repo.Finding{}, p.Damage...), p.Ignored...),
	}
	for _, f := range p.Damage {
		res.Refusals = append(res.Refusals, f.Text)
	}
	if p.Room != "" {
		res.Refusals = append(res.Refusals, p.Room)
	}
	return res
}

// refuseRestore returns the error of a refused restore with advice. Whoever reads JSON
// gets the names of all files.
func (a *app) refuseRestore(p *host.Plan, res *restoreResult, err error) error {
	if errors.Is(err, host.ErrLost) {
		err = advised{err, "nothing on the device was changed; " + lostRecipe(p.Snapshot) + "; without a copy, choose an earlier snapshot, or restore what there is with --allow-incomplete"}
	}
	if a.json {
		err = errors.Join(err, a.print(res, nil))
	}
	return err
}

// lostRecipe says how to bring back what the repository has lost of a snapshot.
func lostRecipe(s *repo.Snapshot) string {
	if s.Lost != nil {
		return `"snap repair --from COPY" and then "snap repair snapshots" bring back what is lost, if the copy has it`
	}
	return `"snap repair --from COPY" or, with parity, "snap repair" brings back what is lost`
}

// readSnapshot reads all content of a snapshot if nothing else prevents its restore.
func (a *app) readSnapshot(ctx context.Context, r *repo.Repo, p *host.Plan) error {
	if len(p.Refusals) > 0 || p.Room != "" {
		return nil
	}
	read := &blob.Progress{}
	stop := a.showProgress(func() meter { return transferMeter(read) })
	defer stop()
	return p.ReadAll(ctx, r, runtime.GOMAXPROCS(0), read)
}

// notAsked adds to the advice of an error that nothing was changed on the device, unless
// that is clear: the error says it, or is about the command line.
func notAsked(err error) error {
	if err == nil || errors.Is(err, errPassword) || isA[interruption](err) || isA[silentError](err) {
		return err
	}
	code, hint := classify("restore", err)
	clear := []int{exitUsage, exitNoRepo, exitNoSnapshot, exitNoDevice}
	if slices.Contains(clear, code) || strings.Contains(hint, "was changed") {
		return err
	}
	return advised{err, strings.TrimSuffix("nothing on the device was changed; "+hint, "; ")}
}

// errNotSent says that a restored device lacks files.
var errNotSent = errors.New("the repository has lost a part of it; the device did not get this part")

// codeCannotWrite is the code of a device that cannot write one of its files. After a
// restart it can.
const codeCannotWrite = 102

const hintErase = "if the device does not start, erase it with Finder, iTunes or Apple Devices first"

// adviseRestore adds advice to the error of a restore.
func adviseRestore(err error, p *host.Plan) error {
	var reported *backup2.DeviceError
	half := errors.Is(err, host.ErrHalfRestored)
	var hint string
	switch {
	case errors.As(err, &reported) && reported.Code == codeCannotWrite:
		hint = "restart the device, check that it has free storage, and run the same command again"
	case len(p.Failures()) > 0 || errors.Is(err, backup2.ErrDamaged):
		hint = rejectedHint(p, half)
	default:
		return err
	}
	if half {
		hint += "; " + hintErase
	}
	return advised{err, hint}
}

// rejectedHint says what to do if a device has stopped because of the snapshot. half says
// that the device may have a part of the snapshot.
func rejectedHint(p *host.Plan, half bool) string {
	hint := "the same command would end in the same way: "
	if half {
		hint = "the device would stop at the same place again: "
	}
	switch damage := slices.Concat(p.Damage, p.Ignored); {
	case len(p.Failures()) > 0, finding.Has(damage, finding.Lost):
		hint += lostRecipe(p.Snapshot) + "; then restore again; without a copy, restore an earlier snapshot"
	case len(damage) > 0:
		hint += "restore an earlier snapshot"
	default:
		hint += fmt.Sprintf(`restore an earlier snapshot; "snap drill %s" names what is wrong in this one`, p.Snapshot.ID.Short())
	}
	return hint + fmt.Sprintf(`; "snap materialize --decrypt %s FOLDER" writes the files that are whole`, p.Snapshot.ID.Short())
}

// restoreTarget returns the device to restore to: the named one or the snapshot's own.
func restoreTarget(ctx context.Context, s *repo.Snapshot, target string) (*device.Mux, device.Entry, error) {
	m, err := mux()
	if err != nil {
		return nil, device.Entry{}, err
	}
	if target != "" {
		e, err := m.Find(ctx, target)
		return m, e, err
	}
	list, err := m.List(ctx)
	if err != nil {
		return nil, device.Entry{}, err
	}
	i := slices.IndexFunc(list, func(e device.Entry) bool { return repo.SameDevice(e.UDID, s.Device.UDID) })
	if i < 0 {
		return nil, device.Entry{}, fmt.Errorf("the snapshot's device, %s, is not connected; use --device to restore to another: %w", s.Device.Name, device.ErrNotFound)
	}
	return m, list[i], nil
}

func (a *app) describePlan(p *host.Plan, opt *host.RestoreOptions) {
	s, d := p.Snapshot, p.Info
	a.remark("snapshot  %s of %s: %s (%s, iOS %s, %s)", s.ID.Short(), timeText(s.Time), clean(s.Device.Name), clean(device.Model(s.Device.ProductType)),
		clean(s.Device.ProductVersion), s.Device.UDID)
	a.remark("          %s, %s", plural(s.Files, "file"), bytesText(s.Bytes))
	a.remark("device    %s (%s, iOS %s, %s)", clean(d.Name), clean(d.Model), clean(d.ProductVersion), d.UDID)
	for _, n := range p.Notes {
		a.remark("note      %s", clean(n))
		if i := slices.IndexFunc(p.Ignored, func(f repo.Finding) bool { return f.Text == n }); i >= 0 {
			a.listMore(p.Ignored[i])
		}
	}
	for _, f := range p.Damage {
		a.remark("damage    %s", clean(f.Text))
		a.listMore(f)
	}
	if opt.RemoveOthers {
		a.remark("note      everything that is not in the snapshot will be removed from the device")
	}
}

// listMore prints the names of a finding's files except the first, which the text of the
// finding has. With --quiet it prints nothing.
func (a *app) listMore(f repo.Finding) {
	if len(f.Names) > 1 && !a.quiet {
		a.listNames(f.Names[1:], f.Count-1)
	}
}

// errPassword says that no known password opens the snapshot to restore.
var errPassword = errors.New("the device was not changed, because it would reject this password")

// restorePassword returns the password that opens a snapshot, in the form that the
// device expects: the given one, one that the repository keeps, or one from a prompt.
// It tries passwords without the device.
func (a *app) restorePassword(ctx context.Context, r *repo.Repo, s *repo.Snapshot, source backupPassword) ([]byte, error) {
	form, given, err := a.knownPassword(ctx, r, s, source)
	switch {
	case err != nil || form != nil:
		return form, err
	case !given:
		form, err = a.askBackupPassword(ctx, r, s)
	default:
		err = wrongBackupPassword{s.Device.Name}
	}
	if isA[wrongBackupPassword](err) {
		err = fmt.Errorf("%w; %w", err, errPassword)
	}
	return form, err
}

// knownPassword returns the password that opens a snapshot, in the form that the device
// expects: the given one or one that the repository keeps. It returns nil if none does.
// given reports whether the user gave one.
func (a *app) knownPassword(ctx context.Context, r *repo.Repo, s *repo.Snapshot, source backupPassword) (form []byte, given bool, err error) {
	try, err := source.toTry(ctx, a)
	if err != nil {
		return nil, false, err
	}
	given = try != nil
	if !given {
		kept, err := r.DevicePasswords(ctx, s.Device.UDID)
		if err != nil {
			return nil, false, err
		}
		for _, k := range kept { // the newest first
			try = append(try, k.Password)
		}
	}
	defer clearAll(try)
	form, err = a.opensAny(ctx, r, s, try)
	return form, given, err
}

// opensAny returns the first password that opens a snapshot, in the form that the
// device expects, or nil.
func (a *app) opensAny(ctx context.Context, r *repo.Repo, s *repo.Snapshot, try [][]byte) ([]byte, error) {
	for _, pw := range try {
		if form, err := a.opens(ctx, r, s, pw); err != nil || form != nil {
			return form, err
		}
	}
	return nil, nil
}

// askBackupPassword asks for the password that opens a snapshot, and returns it in the
// form that the device expects.
func (a *app) askBackupPassword(ctx context.Context, r *repo.Repo, s *repo.Snapshot) ([]byte, error) {
	pw, err := a.ask(ctx, fmt.Sprintf("backup password of %s as of %s: ", clean(s.Device.Name), timeText(s.Time)), oldBackupPassword)
	if err != nil {
		return nil, err
	}
	form, err := a.opensAny(ctx, r, s, pw.tries())
	pw.clear()
	if err == nil && form == nil {
		err = wrongBackupPassword{s.Device.Name}
	}
	return form, err
}

// errNotConfirmed says that the user did not confirm.
var errNotConfirmed = advised{usageError{errors.New("not confirmed: nothing was changed")},
	`run the same command again and type the name as shown, or use --yes`}

// confirm asks for the name of the device that will be changed.
func (a *app) confirm(ctx context.Context, d *device.Info) error {
	line, err := a.askLine(ctx, fmt.Sprintf("type the name of the device, %s, to continue: ", clean(d.Name)))
	if err != nil {
		return err
	}
	if fold(line) != fold(d.Name) && !repo.SameDevice(line, d.UDID) || line == "" {
		return errNotConfirmed
	}
	return nil
}

// fold removes differences of case, blanks and apostrophes, so that typed text can be
// compared with a name.
func fold(s string) string {
	return strings.Join(strings.Fields(strings.ToLower(strings.ReplaceAll(s, "\u2019", "'"))), " ")
}

func describeRestore(w io.Writer, p *host.Plan, opt *host.RestoreOptions, res *restoreResult) {
	name := clean(p.Info.Name)
	fmt.Fprintf(w, "restored snapshot %s to %s: sent %s, %s\n", p.Snapshot.ID.Short(), name, plural(res.Files, "file"), bytesText(res.Bytes))
	switch {
	case res.Rebooted:
		fmt.Fprintf(w, "%s restarted before it reported the outcome. This is common; the restore is probably complete: check the device.\n", name)
	case opt.NoReboot:
		fmt.Fprintf(w, "Restart %s now.\n", name)
	default:
		fmt.Fprintf(w, "%s restarts and finishes on its own.\n", name)
	}
}
