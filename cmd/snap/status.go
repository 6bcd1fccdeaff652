package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/snap-backup/snap/internal/words"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/status"
	"github.com/spf13/cobra"
)

var (
	errAttention = errors.New("something needs attention")
	errDanger    = errors.New("backups are in danger")
)

func (a *app) statusCommand() *cobra.Command {
	rules := status.DefaultRules
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show whether all devices are backed up",
		Long: `Shows for each device when it was last backed up, verified and drilled, and for
the repository its size, its growth, and when the disk will be full. "!" marks
what needs attention, "!!" what is in danger. No device needs to be connected.

With a configuration file it also shows the mirrors and copies that are listed
there: how far each is behind, and when its disk will be full. One that is not
there now is "not mounted". It warns of devices that the file names and that
have no backup, and takes --max-age from the file. Retired devices come last and
are never overdue.

A backup folder that does not change any more is a reason to look at the device:
"an import 2 hours ago found no newer one" says that this computer has done its
work, and the device has made no backup. snap notes twice a day at most that an
import found a backup unchanged.

The exit code is 0 if all is well, 32 if something needs attention, such as a
newest backup older than --max-age, and 33 if backups are in danger: the newest
one is older than four times --max-age, it is damaged, or the disk will be full
within a week.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := a.fill(cmd, "max-age"); err != nil {
				return err
			}
			r, err := a.openLocked(cmd, repo.LockRead)
			if err != nil {
				return err
			}
			list, unread, err := r.SnapshotsIndexed(cmd.Context())
			if err != nil {
				return err
			}
			if a.settings.scope == scopeAll && a.settings.profile != nil {
				for _, d := range a.settings.profile.Devices {
					rules.Expected = append(rules.Expected, status.Expected{Alias: d.Alias, UDID: d.UDID, Retired: d.Retired})
				}
			}
			rep, err := status.Judge(cmd.Context(), r, list, unread, rules, a.now())
			if err != nil {
				return err
			}
			if err := a.addCopies(cmd.Context(), rep, list, rules); err != nil {
				return err
			}
			if err := a.conclude(rep, rep.Level > status.OK, func(w io.Writer) { printStatus(w, rep, a.now()) }); err != nil {
				return err
			}
			switch rep.Level {
			case status.Attention:
				return silentError{errAttention}
			case status.Danger:
				return silentError{errDanger}
			}
			return nil
		},
	}
	cmd.Flags().Var(keepDuration{&rules.MaxAge}, "max-age", "the newest backup of a device may have this age, a `duration` such as 36h or 7d")
	return cmd
}

// addCopies adds the mirrors and copies of the configuration file to a report.
func (a *app) addCopies(ctx context.Context, rep *status.Report, list []*repo.Snapshot, rules status.Rules) error {
	for _, c := range []struct{ key, kind string }{{"mirrors", status.Mirror}, {"copies", status.Copied}} {
		v, _ := a.fromFile(c.key)
		for _, folder := range v.List {
			var be status.Store
			if isThere(folder) {
				opened, err := a.openFolder(ctx, folder)
				switch {
				case err == nil:
					be = opened
					defer opened.Close()
				case ctx.Err() != nil:
					return err
				default: // the others can be judged all the same
					a.warn("%v", openError(folder, err))
				}
			}
			if err := rep.Add(ctx, c.kind, folder, be, a.store, list, rules, a.now()); err != nil {
				return err
			}
		}
	}
	return nil
}

// printCopies prints what a report says about mirrors and copies.
func printCopies(w io.Writer, rep *status.Report, now time.Time, alarms func([]status.Alarm)) {
	for i := range rep.Copies {
		c := &rep.Copies[i]
		fmt.Fprintf(w, "%s %s: ", c.Kind, clean(c.Folder))
		switch {
		case !c.Mounted:
			fmt.Fprintln(w, "not mounted")
			continue
		case c.Kind == status.Copied:
			fmt.Fprintf(w, "%s; last one copied %s\n", plural(c.Snapshots, "snapshot"), ageOrNever(c.Updated, now))
		case c.Missing == 0:
			fmt.Fprintf(w, "has all snapshots; newest backup %s\n", ageOrNever(c.Newest, now))
		default:
			fmt.Fprintf(w, "lacks %s; newest backup %s\n", plural(c.Missing, "snapshot"), ageOrNever(c.Newest, now))
		}
		if c.Free != nil {
			fmt.Fprintf(w, "     %s free", bytesText(*c.Free))
			if !c.Full.IsZero() {
				fmt.Fprintf(w, ", full around %s", c.Full.Local().Format(time.DateOnly))
			}
			fmt.Fprintln(w)
		}
		alarms(c.Alarms)
	}
}

func ageOrNever(t, now time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return words.Ago(now.Sub(t))
}

func printStatus(w io.Writer, rep *status.Report, now time.Time) {
	alarms := func(list []status.Alarm) {
		for _, a := range list {
			fmt.Fprintf(w, "  %s %s\n", map[status.Level]string{status.OK: "  ", status.Attention: paint(w, caution, "! "), status.Danger: paint(w, bad, "!!")}[a.Level], clean(a.Text))
		}
	}
	when := func(t time.Time) string { return ageOrNever(t, now) }
	for i := range rep.Devices {
		d := &rep.Devices[i]
		name := clean(cmp.Or(d.Name, d.UDID))
		if d.Alias != "" {
			name = fmt.Sprintf("%s (%s)", clean(d.Alias), name)
		}
		state := "backed up"
		if d.Retired {
			state = "retired; last backed up"
		}
		fmt.Fprintf(w, "%s: %s %s, %s\n", name, state, when(d.Time), plural(d.Snapshots, "snapshot"))
		if d.Snapshots > 0 {
			if !d.Looked.IsZero() {
				fmt.Fprintf(w, "     last import: %s, unchanged\n", when(d.Looked))
			}
			fmt.Fprintf(w, "     verified: %s; drilled: %s\n", when(d.Verified), when(d.Drilled))
		}
		alarms(d.Alarms)
	}
	x := &rep.Repository
	fmt.Fprintf(w, "repository: %s, grows by %s a week\n", bytesText(x.StoredBytes), bytesText(x.WeekBytes))
	if x.Free != nil {
		fmt.Fprintf(w, "     %s free", bytesText(*x.Free))
		if !x.Full.IsZero() {
			fmt.Fprintf(w, ", full around %s", x.Full.Local().Format(time.DateOnly))
		}
		fmt.Fprintln(w)
	}
	if x.Unread > 0 {
		fmt.Fprintf(w, "     no check has read %s\n", plural(x.Unread, "pack"))
	} else if !x.Read.IsZero() {
		fmt.Fprintf(w, "     all packs were read by checks since %s\n", timeText(x.Read))
	}
	alarms(x.Alarms)
	printCopies(w, rep, now, alarms)
	fmt.Fprintln(w, map[status.Level]string{
		status.OK:        paint(w, good, "all is well"),
		status.Attention: paint(w, caution, "something needs attention"),
		status.Danger:    paint(w, bad, "backups are in danger"),
	}[rep.Level])
}
