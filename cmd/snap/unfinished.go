package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/snap-backup/snap/device/ingest/spool"
	"github.com/snap-backup/snap/internal/process"
	"github.com/snap-backup/snap/repo"
	"github.com/spf13/cobra"
)

// droppedResult is the output of forget --unfinished.
type droppedResult struct {
	DryRun     bool            `json:"dry_run"`
	Unfinished []droppedBackup `json:"unfinished"`
}

// droppedBackup is an interrupted backup of a device that was dropped.
type droppedBackup struct {
	UDID    string    `json:"udid"`
	Name    string    `json:"device_name,omitempty"`
	Started time.Time `json:"started"`
	Saved   time.Time `json:"saved"`
	Full    bool      `json:"full"`
	Files   int64     `json:"files"`
	Bytes   int64     `json:"bytes"`
}

// errNoUnfinished says that there is no interrupted backup.
var errNoUnfinished = errors.New("no interrupted backup is kept")

// dropUnfinished removes the records of interrupted backups of a device. It excludes every
// other process, since a running backup relies on its record.
func (a *app) dropUnfinished(cmd *cobra.Command, device string, dryRun bool) error {
	ctx := cmd.Context()
	r, err := a.open(ctx)
	if err != nil {
		return err
	}
	kind := repo.LockExclusive
	if dryRun {
		kind = repo.LockRead
	}
	r.UseReserve()
	if err := a.takeLock(ctx, r, kind, cmd.CommandPath()); err != nil {
		return err
	}
	chosen, known, err := a.unfinishedOf(ctx, r, device)
	if err != nil {
		return err
	}
	res := droppedResult{DryRun: dryRun, Unfinished: []droppedBackup{}}
	for _, u := range chosen {
		res.Unfinished = append(res.Unfinished, droppedBackup{u.UDID, u.Device, u.Started, u.Saved, u.Full, u.Files, u.Bytes})
		if dryRun {
			continue
		}
		delete(known, u.Run)
		if err := r.RemoveUnfinished(ctx, u); err != nil {
			return err
		}
	}
	if !dryRun {
		if dir, err := cacheDir("spool"); err == nil {
			spool.Sweep(dir, r.Config().ID, known, process.Current())
		}
	}
	return a.print(res, func(w io.Writer) { a.describeDropped(w, &res) })
}

// unfinishedOf returns the interrupted backups of a device. known has the names of all
// unfinished backups.
func (a *app) unfinishedOf(ctx context.Context, r *repo.Repo, device string) (chosen []*repo.Unfinished, known map[string]bool, err error) {
	all, damaged, err := r.Unfinished(ctx)
	if err != nil {
		return nil, nil, err
	}
	for _, err := range damaged {
		a.warn("%v; \"snap repair snapshots\" removes it", err)
	}
	// Devices are matched as in every command: the names in their snapshots count, too.
	list, records, err := r.Snapshots(ctx)
	if err != nil {
		return nil, nil, err
	}
	a.warnOfRecords(records)
	known = map[string]bool{}
	for _, u := range all {
		known[u.Run] = true
		list = append(list, &repo.Snapshot{Device: repo.Device{UDID: u.UDID, Name: u.Device}})
	}
	own, err := ofDevice(list, device)
	if err != nil {
		return nil, nil, err
	}
	for _, u := range all {
		if u.Kind == repo.UnfinishedBackup && repo.SameDevice(u.UDID, own[0].Device.UDID) {
			chosen = append(chosen, u)
		}
	}
	if len(chosen) == 0 {
		return nil, nil, fmt.Errorf("device %q: %w", device, errNoUnfinished)
	}
	return chosen, known, nil
}

func (a *app) describeDropped(w io.Writer, res *droppedResult) {
	verb := "dropped"
	if res.DryRun {
		verb = "would drop"
	}
	for _, u := range res.Unfinished {
		what := "interrupted backup"
		if u.Full {
			what = "interrupted full backup"
		}
		name := u.Name
		if name == "" {
			name = u.UDID
		}
		fmt.Fprintf(w, "%s the %s of %s that began on %s: %s, %s\n", verb, what, clean(name), timeText(u.Started), plural(u.Files, "file"), bytesText(u.Bytes))
	}
	if !res.DryRun {
		a.remark("the next backup starts from the last snapshot; \"snap prune\" frees the space")
	}
}
