package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/snap-backup/snap/device"
	"github.com/snap-backup/snap/device/host"
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
	Done     bool        `json:"done"`     // false with --dry-run
	Rebooted bool        `json:"rebooted"` // the device restarted before it reported the outcome
	Files    int64       `json:"sent_files"`
	Bytes    int64       `json:"sent_bytes"`
	Missing  int         `json:"missing_files"`
}

func (a *app) restoreCommand() *cobra.Command {
	var opt host.RestoreOptions
	var source backupPassword
	var target string
	var confirmed, dry, ignoreRoom bool
	cmd := &cobra.Command{
		Use:   "restore SNAPSHOT",
		Short: "Restore a snapshot to a connected device",
		Long: `Restores a snapshot to its own device, or to another one with --device. The content
of the snapshot replaces that of the device. Content that only the device has stays
unless --remove-items-not-restored is given.

First it checks, without changing the device, that its iOS is not older than the
snapshot's, Find My is off, room and power suffice, the snapshot is complete, and
the backup password opens it. Then it shows what it will do and asks for the
device's name.

At the end the device restarts and reinstalls its apps from the App Store.

SNAPSHOT is the beginning of an ID, "latest", or "latest:DEVICE".`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, argv []string) (err error) {
			ctx := cmd.Context()
			defer func() { err = orInterrupted(ctx, err, "the device was not changed; run the same command again") }()
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
			res := restoreResult{Snapshot: s.ID, UDID: e.UDID, Name: p.Info.Name, Source: s.Device.UDID, Refusals: []string{}, Notes: []string{}}
			res.Refusals, res.Notes = append(res.Refusals, p.Refusals...), append(res.Notes, p.Notes...)
			if !a.json {
				a.describePlan(p, &opt)
			}
			if err := p.Err(); err != nil {
				return err
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
			out, err := h.Restore(ctx, p, opt, board.views[0])
			board.views[0].done()
			board.stop()
			if err != nil {
				return err
			}
			res.Done, res.Rebooted, res.Missing = true, out.Rebooted, out.Missing
			res.Files, res.Bytes = out.Progress.Files, out.Progress.Bytes
			return a.print(res, func(w io.Writer) { describeRestore(w, p, &opt, &res) })
		},
	}
	source.register(cmd)
	f := cmd.Flags()
	f.StringVar(&target, "device", "", "restore to this connected `device` (UDID or name) instead of the snapshot's own")
	f.BoolVar(&confirmed, "yes", false, "do not ask for confirmation")
	f.BoolVarP(&dry, "dry-run", "n", false, "check everything and change nothing")
	f.BoolVar(&ignoreRoom, "ignore-space", false, "restore even if the snapshot is larger than the device's free storage")
	f.BoolVar(&opt.RemoveOthers, "remove-items-not-restored", false, "remove apps and data from the device that are not in the snapshot")
	f.BoolVar(&opt.SystemFiles, "system-files", false, "also restore system files, such as the layout of the home screen")
	f.BoolVar(&opt.ResetSettings, "settings", false, "replace the device's settings with those of the snapshot")
	f.BoolVar(&opt.NoReboot, "no-reboot", false, "do not restart the device at the end")
	f.BoolVar(&opt.SkipApps, "skip-apps", false, "do not reinstall the device's apps")
	return cmd
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
	}
	if opt.RemoveOthers {
		a.remark("note      everything that is not in the snapshot will be removed from the device")
	}
}

// errPassword says that no known password opens the snapshot to restore.
var errPassword = errors.New("the device was not changed, because it would reject this password")

// restorePassword returns the password that opens a snapshot: the given one, one that
// the repository keeps, or one from a prompt. It tries passwords without the device.
func (a *app) restorePassword(ctx context.Context, r *repo.Repo, s *repo.Snapshot, source backupPassword) ([]byte, error) {
	given, err := source.given(ctx, a)
	if err != nil {
		return nil, err
	}
	try := [][]byte{given}
	if given == nil {
		kept, err := r.DevicePasswords(ctx, s.Device.UDID)
		if err != nil {
			return nil, err
		}
		try = nil
		for _, k := range slices.Backward(kept) {
			try = append(try, k.Password)
		}
	}
	for i, pw := range try {
		opens, err := a.opens(ctx, r, s, pw)
		if err != nil {
			return nil, err
		}
		if opens {
			for _, other := range try[i+1:] {
				clear(other)
			}
			return pw, nil
		}
		clear(pw)
	}
	wrong := fmt.Errorf("%w; %w", wrongBackupPassword{s.Device.Name}, errPassword)
	if given != nil {
		return nil, wrong
	}
	pw, err := a.ask(ctx, fmt.Sprintf("backup password of %s as of %s: ", clean(s.Device.Name), timeText(s.Time)), oldBackupPassword)
	if err != nil {
		return nil, err
	}
	if opens, err := a.opens(ctx, r, s, pw); err != nil || !opens {
		clear(pw)
		if err == nil {
			err = wrong
		}
		return nil, err
	}
	return pw, nil
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
