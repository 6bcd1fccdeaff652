package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/snap-backup/snap/device"
	"github.com/snap-backup/snap/device/host"
	"github.com/snap-backup/snap/device/mobilesync/keybag"
	"github.com/snap-backup/snap/repo"
	"golang.org/x/sync/errgroup"
)

// readyAtOnce is how many devices are checked at the same time before a backup.
const readyAtOnce = 8

// backups are the backups of a command.
type backups struct {
	a       *app
	board   *board
	results []backupResult
	errs    []error

	mu    sync.Mutex
	ended int
}

// backupAll backs up devices, as many at the same time as jobs says. Before the first
// backup begins, all devices are checked, and all questions are asked. If one backup fails,
// the others continue.
func (a *app) backupAll(ctx context.Context, h host.Host, entries []device.Entry, opt host.BackupOptions, jobs int) error {
	n := len(entries)
	b := &backups{a: a, board: a.newBoard(ctx, h.Mux, entries), results: make([]backupResult, n), errs: make([]error, n)}
	opt.AskOnlyBefore = n > 1
	ready := make([]*host.Ready, n)
	each(n, readyAtOnce, func(i int) {
		own, view := opt, b.board.views[i]
		own.Progress, own.Ask = view.storing, a.askForBackup(b.board)
		d, err := h.Ready(ctx, entries[i], own, view)
		if err != nil {
			b.end(i, nil, err)
			return
		}
		ready[i] = d
		view.waits()
	})
	clear(b.board.shared) // all questions are asked
	each(n, jobs, func(i int) {
		if ready[i] == nil {
			return
		}
		defer ready[i].Close()
		if ctx.Err() != nil {
			b.end(i, nil, context.Cause(ctx))
			return
		}
		res, err := ready[i].Backup(ctx)
		b.end(i, res, err)
	})
	b.board.stop()
	return b.conclude(ctx)
}

// each calls do for 0 to n-1, at most limit at the same time.
func each(n, limit int, do func(int)) {
	var g errgroup.Group
	g.SetLimit(limit)
	for i := range n {
		g.Go(func() error { do(i); return nil })
	}
	_ = g.Wait() // there are no errors
}

// waits says that a device is ready and waits for its turn.
func (v *view) waits() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.phase = ""
}

// end notes how the backup of a device ended.
func (b *backups) end(i int, res *host.BackupResult, err error) {
	v := b.board.views[i]
	v.done()
	switch {
	case err != nil:
	case errors.Is(res.Locked, keybag.ErrWrongPassword):
		err = storedLocked{res.Snapshot}
	case res.Snapshot.Damaged():
		err = storedDamaged(res.Snapshot)
	}
	b.results[i], b.errs[i] = b.outcome(v, res, err), err
}

// outcome returns the outcome of one device's backup. Without --json it also prints it at
// once: that of several devices as one line, since the summary follows.
func (b *backups) outcome(v *view, res *host.BackupResult, err error) backupResult {
	a := b.a
	out := backupResult{UDID: v.udid, Name: v.name}
	if res != nil {
		out.Name = res.Info.Name
		out.Result = &backupReport{Result: res.Import, Received: res.Files, ReceivedBytes: res.Bytes,
			Resumed: res.Resumed.Files, ResumedBytes: res.Resumed.Bytes, Locked: res.Locked != nil}
		if res.Parent != nil {
			out.Result.Parent = res.Parent.ID
		}
	}
	if err != nil {
		var broken *host.Interrupted
		if errors.As(err, &broken) && broken.Kept.Files > 0 {
			out.Kept = &broken.Kept
		}
		if errors.Is(err, context.Canceled) {
			err = stoppedBackup{out.Kept}
		}
		code, hint := classify(a.command, err)
		out.Error = &jsonError{err.Error(), code, hint}
	}
	if a.json {
		return out
	}
	one := len(b.results) == 1
	b.mu.Lock()
	b.ended++
	lead := fmt.Sprintf("[%d/%d] %s: ", b.ended, len(b.results), clean(out.Name))
	b.mu.Unlock()
	b.board.say(func() {
		switch {
		case res != nil && one:
			a.describeBackup(a.human(), res)
		case res != nil:
			a.remark("%ssnapshot %s", lead, res.Snapshot.ID.Short())
			a.describeProblems(res)
		}
		switch {
		case err != nil && one:
			a.printError(errors.New(named(v.name, v.udid, err.Error())), out.Error.Code, out.Error.Hint)
		case err != nil:
			a.remark("%s%s", lead, clean(strings.TrimPrefix(err.Error(), "device "+v.udid+": ")))
		}
	})
	return out
}

// conclude prints the results of several devices and returns what decides the exit code.
func (b *backups) conclude(ctx context.Context) error {
	a := b.a
	switch {
	case a.json:
		if err := a.print(b.results, nil); err != nil {
			return err
		}
	case len(b.results) > 1:
		b.sayFailures()
		if !a.quiet {
			printBackups(a.human(), b.results)
			b.sayUnencrypted()
		}
	}
	err := manyFailed(b.errs)
	if err != nil && ctx.Err() != nil {
		return silentError{interruption{hintContinue}} // reported for each device
	}
	return err
}

// manyFailed returns the error that decides the exit code if some of several devices failed:
// errPartial or, if all failed, the first error.
func manyFailed(errs []error) error {
	failed := slices.DeleteFunc(slices.Clone(errs), func(err error) bool { return err == nil })
	switch len(failed) {
	case 0:
		return nil
	case len(errs):
		return silentError{failed[0]}
	}
	return silentError{errPartial}
}

// sayFailures prints which backups of several failed. Those with the same hint are
// printed together.
func (b *backups) sayFailures() {
	none, flawed := 0, 0
	hints, groups := []string{}, map[string][]backupResult{}
	for _, r := range b.results {
		if r.Error == nil {
			continue
		}
		if r.Result == nil {
			none++
		} else {
			flawed++
		}
		if groups[r.Error.Hint] == nil {
			hints = append(hints, r.Error.Hint)
		}
		groups[r.Error.Hint] = append(groups[r.Error.Hint], r)
	}
	all := plural(len(b.results), "device")
	var heading []string
	if none > 0 {
		heading = append(heading, fmt.Sprintf("%s of %s %s not backed up", count(int64(none)), all, wasWere(none)))
	}
	if flawed > 0 {
		heading = append(heading, fmt.Sprintf("%s of %s %s backed up with a problem", count(int64(flawed)), all, wasWere(flawed)))
	}
	if len(heading) == 0 {
		return
	}
	b.a.printError(errors.New(strings.Join(heading, "; ")), exitPartial, "")
	for _, hint := range hints {
		var lines []string
		code := exitPartial
		for _, r := range groups[hint] {
			code = r.Error.Code
			lines = append(lines, named(r.Name, r.UDID, strings.ReplaceAll(r.Error.Error, "\n", "; ")))
		}
		b.a.printError(errors.New(strings.Join(lines, "\n")), code, hint)
	}
}

// sayUnencrypted says what the first backups of devices that do not encrypt lack. With a
// single device, package host says so.
func (b *backups) sayUnencrypted() {
	var names []string
	for _, r := range b.results {
		if r.Result != nil && r.Result.Parent == (repo.FileID{}) && !r.Result.Snapshot.Encrypted {
			names = append(names, clean(r.Name))
		}
	}
	if len(names) == 0 {
		return
	}
	list := strings.Join(names[:min(len(names), maxNamed)], ", ")
	if more := len(names) - maxNamed; more > 0 {
		list += fmt.Sprintf(" and %s more", count(int64(more)))
	}
	b.a.remark("not encrypted by the device, so without passwords, health data, Wi-Fi networks and call history: %s; \"snap device encryption on DEVICE\" changes that", list)
}

func wasWere(n int) string {
	if n == 1 {
		return "was"
	}
	return "were"
}

// printBackups prints the snapshots that were made.
func printBackups(w io.Writer, results []backupResult) {
	var rows []string
	for _, r := range results {
		if r.Result == nil {
			continue
		}
		s := r.Result.Snapshot
		rows = append(rows, strings.Join([]string{s.ID.Short(), timeText(s.Time), clean(s.Device.Name), count(r.Result.Received),
			bytesText(r.Result.ReceivedBytes), bytesText(s.StoredBytes), marks(s)}, "\t"))
	}
	if len(rows) == 0 {
		return
	}
	table(w, "ID\tDATE\tDEVICE\t>RECEIVED\t>SIZE\t>ADDED\tFLAGS", rows)
	fmt.Fprintf(w, "%s of %s backed up\n", count(int64(len(rows))), plural(len(results), "device"))
}
