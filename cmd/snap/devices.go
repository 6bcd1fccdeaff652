package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/snap-backup/snap/device"
	"github.com/snap-backup/snap/internal/words"
	"github.com/snap-backup/snap/repo"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
)

func (a *app) devicesCommand() *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use:   "devices",
		Short: "List connected devices",
		Long: `Lists the iPhones and iPads that are connected by cable or, where the system
supports it, by Wi-Fi, and whether they trust this computer. With a repository
(-r, or SNAP_REPOSITORY and a password that needs no prompt) it also shows the
age of each device's newest snapshot. --verbose also shows the UDIDs of the
devices.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			m, err := mux()
			if err != nil {
				return err
			}
			list, err := a.snapshotsWithoutPrompt(ctx)
			if err != nil {
				return err
			}
			if watch {
				return a.watchDevices(ctx, m, list)
			}
			entries, err := m.List(ctx)
			if err != nil {
				return err
			}
			found, err := a.describeAll(ctx, m, entries, list)
			if err != nil {
				return err
			}
			return a.print(found, func(w io.Writer) {
				if len(found) == 0 {
					fmt.Fprintln(w, "no device is connected")
					a.remark("connect one by cable, unlock it, and tap Trust")
					return
				}
				printDevices(w, found, a.verbose)
			})
		},
	}
	cmd.Flags().BoolVar(&watch, "watch", false, "report devices that are attached or detached, until interrupted")
	return cmd
}

// mux returns a client of this computer's usbmuxd.
func mux() (*device.Mux, error) {
	m, err := device.Open(os.Getenv(device.AddressVariable))
	if err != nil {
		return nil, usageError{err}
	}
	return m, nil
}

// deviceJSON is a connected device as --json shows it.
type deviceJSON struct {
	*device.Info
	LastSnapshot *lastSnapshot `json:"last_snapshot,omitempty"`
	Problem      string        `json:"problem,omitempty"` // why the description is incomplete
}

type lastSnapshot struct {
	ID         repo.FileID `json:"id"`
	Time       time.Time   `json:"time"`
	AgeSeconds int64       `json:"age_seconds"`
}

// snapshotsWithoutPrompt returns the snapshots of the repository if it can be opened
// without a prompt. Commands for devices also work without a repository.
func (a *app) snapshotsWithoutPrompt(ctx context.Context) ([]*repo.Snapshot, error) {
	if a.repoDir == "" {
		if _, err := a.location(); err != nil {
			return nil, nil
		}
		a.neverAsk = true
	}
	r, err := a.open(ctx)
	if errors.Is(err, errNotAsked) {
		return nil, nil
	}
	if err == nil {
		var list []*repo.Snapshot
		var damaged []error
		if list, damaged, err = r.Snapshots(ctx); err == nil {
			a.warnOfRecords(damaged)
			return list, nil
		}
	}
	if a.repoDir == "" && ctx.Err() == nil {
		a.warn("the repository is not used: %v", err)
		return nil, nil
	}
	return nil, err
}

// describeAll describes devices, several at a time.
func (a *app) describeAll(ctx context.Context, m *device.Mux, entries []device.Entry, list []*repo.Snapshot) ([]deviceJSON, error) {
	found := make([]deviceJSON, len(entries))
	var g errgroup.Group
	g.SetLimit(8)
	for i, e := range entries {
		g.Go(func() error {
			found[i] = a.describe(ctx, m, e, list)
			return nil
		})
	}
	_ = g.Wait() // errors are in Problem
	slices.SortStableFunc(found, func(a, b deviceJSON) int { return words.Compare(a.Name, b.Name) })
	return found, ctx.Err()
}

func (a *app) describe(ctx context.Context, m *device.Mux, e device.Entry, list []*repo.Snapshot) deviceJSON {
	info, err := m.Describe(ctx, e)
	d := deviceJSON{Info: info}
	if err != nil {
		d.Problem = err.Error()
	}
	for _, s := range list {
		if !repo.SameDevice(s.Device.UDID, e.UDID) || d.LastSnapshot != nil && s.Time.Before(d.LastSnapshot.Time) {
			continue
		}
		d.LastSnapshot = &lastSnapshot{s.ID, s.Time, int64(a.now().Sub(s.Time) / time.Second)}
	}
	return d
}

func (a *app) now() time.Time {
	if a.options.Now != nil {
		return a.options.Now()
	}
	return time.Now()
}

// printDevices lists devices. It shows UDIDs if they are wanted, and if names do not tell
// the devices apart.
func printDevices(w io.Writer, found []deviceJSON, udids bool) {
	var rows []string
	snapshots, names := false, map[string]bool{"": true}
	for _, d := range found {
		snapshots = snapshots || d.LastSnapshot != nil
		udids = udids || names[d.Name]
		names[d.Name] = true
	}
	for _, d := range found {
		row := []string{clean(orUnknown(d.Name)), clean(d.Model), clean(d.ProductVersion), linkText(d.Connection), trustText(d.Trust),
			yesNo(d.WillEncrypt), batteryText(d.Battery)}
		if snapshots {
			row = append(row, ageOf(d.LastSnapshot))
		}
		if udids {
			row = append(row, d.UDID)
		}
		rows = append(rows, strings.Join(row, "\t"))
	}
	header := "NAME\t<MODEL\tIOS\tLINK\tTRUST\tENCRYPTED\t->BATTERY"
	if snapshots {
		header += "\tSNAPSHOT"
	}
	if udids {
		header += "\t+UDID"
	}
	table(w, header, rows)
	for _, d := range found {
		if d.Problem != "" {
			fmt.Fprintf(w, "\n%s: %s\n", clean(orUnknown(d.Name)), clean(d.Problem))
		} else if d.Trust != device.Trusted {
			fmt.Fprintf(w, "\n%s: %s\n", clean(orUnknown(d.Name)), trustAdvice(d.Trust, d.UDID))
		}
	}
}

// trustAdvice says what a state of trust means and what to do.
func trustAdvice(t device.Trust, udid string) string {
	switch t {
	case device.NotPaired, device.Stale, device.Denied:
		return fmt.Sprintf("%s (snap device pair %s)", t.Words(), udid)
	}
	return t.Words()
}

func orUnknown(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}

func linkText(k device.Kind) string {
	if k == device.USB {
		return "cable"
	}
	return "Wi-Fi"
}

func trustText(t device.Trust) string {
	return strings.ReplaceAll(string(t), "-", " ")
}

func yesNo(b *bool) string {
	switch {
	case b == nil:
		return "?"
	case *b:
		return "yes"
	}
	return "no"
}

func batteryText(b *device.Battery) string {
	switch {
	case b == nil:
		return "?"
	case b.Charging:
		return fmt.Sprintf("%d%% +", b.Percent)
	}
	return fmt.Sprintf("%d%%", b.Percent)
}

func ageOf(s *lastSnapshot) string {
	if s == nil {
		return "none"
	}
	return words.Ago(time.Duration(s.AgeSeconds) * time.Second)
}

// deviceEvent is a line that --watch prints with --json.
type deviceEvent struct {
	Event  device.Change `json:"event"`
	UDID   string        `json:"udid"`
	Link   device.Kind   `json:"connection"`
	Device *deviceJSON   `json:"device,omitempty"`
}

// watchDevices reports devices that are attached or detached. Ctrl-C ends it without
// an error.
func (a *app) watchDevices(ctx context.Context, m *device.Mux, list []*repo.Snapshot) error {
	names := map[string]string{}
	err := m.Watch(ctx, func(e device.Event) error {
		ev := deviceEvent{Event: e.Change, UDID: e.Entry.UDID, Link: e.Entry.Link().Kind}
		about := ""
		if e.Change != device.Detached {
			d := a.describe(ctx, m, e.Entry, list)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			ev.Device = &d
			names[ev.UDID] = d.Name
			about = fmt.Sprintf(", %s, iOS %s: %s", clean(d.Model), clean(d.ProductVersion), trustAdvice(d.Trust, d.UDID))
			if d.Trust == device.Unknown {
				about = ": " + clean(d.Problem)
			}
		}
		if a.json {
			printLine(a.stdout, ev)
			return a.lostOutput()
		}
		fmt.Fprintf(a.human(), "%s %s %s (%s, %s)%s\n", a.now().Local().Format("15:04:05"), e.Change, clean(orUnknown(names[ev.UDID])), ev.UDID, linkText(ev.Link), about)
		return a.lostOutput()
	})
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return nil
	}
	return err
}
