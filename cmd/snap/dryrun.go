package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"time"

	"github.com/snap-backup/snap/device"
	"github.com/snap-backup/snap/device/host"
	"github.com/snap-backup/snap/device/ingest"
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/repo"
)

// openToForesee opens the repository and loads its index for a dry run. It writes nothing to
// the repository, not even a lock, so a prune that runs meanwhile can make the dry run fail.
func (a *app) openToForesee(ctx context.Context) (*repo.Repo, error) {
	r, err := a.open(ctx)
	if err != nil {
		return nil, err
	}
	list, damaged, err := r.SnapshotsIndexed(ctx)
	if err != nil {
		return nil, err
	}
	a.warnOfRecords(damaged)
	a.warnOfIndex(r, list...)
	a.warnOfFuture(list)
	return r, nil
}

// importForecast is the output of "import --dry-run" for one folder.
type importForecast struct {
	Folder   string           `json:"folder"`
	DryRun   bool             `json:"dry_run"`
	Forecast *folderForecast  `json:"forecast,omitempty"`
	Error    *jsonError       `json:"error,omitempty"`
	device   mobilesyncDevice // for people
}

type mobilesyncDevice struct {
	name string
	date time.Time
}

type folderForecast struct {
	*ingest.Forecast
	Parent   repo.FileID    `json:"parent,omitzero"`
	Findings []repo.Finding `json:"findings"`
}

// foreseeImports says what an import would do. It writes nothing to the repository.
func (a *app) foreseeImports(ctx context.Context, source backupPassword, sources []mobilesync.Found, opts ingest.Options) error {
	r, err := a.openToForesee(ctx)
	if err != nil {
		return err
	}
	source.keep = false
	u, err := a.newUnlocker(ctx, r, source)
	if err != nil {
		return err
	}
	defer u.close()
	u.allowDamaged, a.opaque = opts.AllowIncomplete, source.opaque
	opts.Workers = runtime.GOMAXPROCS(0)
	results := []importForecast{}
	var first error
	for _, found := range sources {
		out := importForecast{Folder: found.Dir, DryRun: true}
		err := found.Err
		if err == nil {
			err = a.foreseeImport(ctx, r, u, &out, opts)
		}
		if ctx.Err() != nil {
			return interruption{nothingDone}
		}
		if err != nil {
			code, hint := classify(a.command, err)
			out.Error = &jsonError{err.Error(), code, hint}
			if first == nil {
				first = silentError{err}
			}
		}
		results = append(results, out)
	}
	err = a.conclude(results, true, func(w io.Writer) { a.printImportForecasts(w, results) })
	return errors.Join(err, first)
}

func (a *app) foreseeImport(ctx context.Context, r *repo.Repo, u *unlocker, out *importForecast, opts ingest.Options) error {
	b, err := mobilesync.Open(ctx, out.Folder)
	if err != nil {
		return err
	}
	defer b.Close()
	stop, err := a.prepare(ctx, u, b, &opts)
	defer stop()
	if err != nil {
		return err
	}
	f, err := ingest.Foresee(ctx, r, b, opts)
	if err != nil {
		return err
	}
	out.device.name = b.Device().Name
	out.device.date, _ = repo.BackupTime(a.now(), b.Dates()...)
	out.Forecast = &folderForecast{Forecast: f, Findings: f.Findings}
	if f.Parent != nil {
		out.Forecast.Parent = f.Parent.ID
	}
	return nil
}

func (a *app) printImportForecasts(w io.Writer, results []importForecast) {
	stored := 0
	for _, res := range results {
		if res.Error != nil {
			a.printError(fmt.Errorf("this backup would not be stored: %s", res.Error.Error), res.Error.Code, forecastHint(res.Error))
			continue
		}
		f := res.Forecast
		lead := fmt.Sprintf("%s, backup of %s: ", clean(res.device.name), timeText(res.device.date))
		if f.Unchanged {
			fmt.Fprintf(w, "%swould make no snapshot, since nothing has changed since snapshot %s\n", lead, f.Parent.Short())
			continue
		}
		stored++
		fmt.Fprintf(w, "%swould become a snapshot", lead)
		if f.Parent != (repo.FileID{}) {
			fmt.Fprintf(w, " that continues %s", f.Parent.Short())
		}
		fmt.Fprintf(w, "\n          %s, %s: %s new, %s changed, %s unchanged, %s removed\n", plural(f.Files, "file"), bytesText(f.Bytes),
			count(f.New), count(f.Changed), count(f.Same), count(f.Removed))
		fmt.Fprintf(w, "          would read %s, %s\n", plural(f.ReadFiles, "file"), bytesText(f.ReadBytes))
		a.describeFindings(res.Folder, f.Findings)
	}
	fmt.Fprintf(w, "would store %s of %s; nothing was written\n", count(int64(stored)), plural(len(results), "backup"))
	if stored > 0 {
		a.remark("how much an import would add to the repository is known only when it has read what changed")
	}
}

// forecastHint is the hint of an error in a dry run. The hints of commands that store say
// what was stored.
func forecastHint(e *jsonError) string {
	if e.Code == exitIncomplete {
		return "let the backup finish, or store it as it is with --allow-incomplete"
	}
	return e.Hint
}

// backupForecast is the output of "backup --dry-run" for one device.
type backupForecast struct {
	UDID     string          `json:"udid"`
	Name     string          `json:"device_name,omitempty"`
	DryRun   bool            `json:"dry_run"`
	Forecast *deviceForecast `json:"forecast,omitempty"`
	Error    *jsonError      `json:"error,omitempty"`
}

type deviceForecast struct {
	Encrypted     *bool         `json:"will_encrypt,omitempty"`
	PasswordKnown bool          `json:"password_known"`
	Last          *lastSnapshot `json:"last_snapshot,omitempty"`
	Kept          *host.Kept    `json:"kept,omitempty"`
	Used          int64         `json:"device_used_bytes,omitempty"`
	Free          *int64        `json:"free_bytes,omitempty"`

	full bool
}

// foreseeBackups says what is known of the backups of devices before they are made.
func (a *app) foreseeBackups(ctx context.Context, m *device.Mux, entries []device.Entry, source backupPassword, opt host.BackupOptions, name string) error {
	r, err := a.openToForesee(ctx)
	if err != nil {
		return err
	}
	if opt.Passwords, err = source.toTry(ctx, a); err != nil {
		return err
	}
	defer clearAll(opt.Passwords)
	h, err := a.newHost(m, r, name)
	if err != nil {
		return err
	}
	board := a.newBoard(ctx, m, entries)
	results, errs := make([]backupForecast, len(entries)), make([]error, len(entries))
	each(len(entries), readyAtOnce, func(i int) {
		v := board.views[i]
		f, err := h.Foresee(ctx, entries[i], opt, v)
		v.done()
		results[i], errs[i] = backupForecast{UDID: v.udid, Name: v.name, DryRun: true}, err
		if err != nil {
			code, hint := classify(a.command, err)
			results[i].Error = &jsonError{err.Error(), code, hint}
			return
		}
		results[i].Forecast = a.deviceForecast(f, opt.Full)
	})
	board.stop()
	if ctx.Err() != nil {
		return interruption{nothingDone}
	}
	if err := a.conclude(results, true, func(w io.Writer) { a.printBackupForecasts(w, results) }); err != nil {
		return err
	}
	return manyFailed(errs)
}

func (a *app) deviceForecast(f *host.Forecast, full bool) *deviceForecast {
	out := &deviceForecast{Encrypted: f.Info.WillEncrypt, PasswordKnown: f.PasswordKnown, full: full || f.Last == nil}
	if f.Last != nil {
		out.Last = &lastSnapshot{f.Last.ID, f.Last.Time, int64(a.now().Sub(f.Last.Time) / time.Second)}
	}
	if f.Unfinished != nil {
		out.Kept = &host.Kept{Files: f.Unfinished.Files, Bytes: f.Unfinished.Bytes}
	}
	if s := f.Info.Storage; s != nil {
		out.Used = s.Total - s.Free
	}
	if f.Free >= 0 {
		out.Free = &f.Free
	}
	return out
}

func (a *app) printBackupForecasts(w io.Writer, results []backupForecast) {
	for _, res := range results {
		if res.Error != nil {
			text := named(res.Name, res.UDID, res.Error.Error)
			a.printError(errors.New(text), res.Error.Code, res.Error.Hint)
		}
	}
	could := 0
	for _, res := range results {
		if f := res.Forecast; f != nil {
			could++
			fmt.Fprintf(w, "%s (%s)\n", clean(res.Name), clean(res.UDID))
			for _, line := range f.lines() {
				fmt.Fprintf(w, "          %s\n", line)
			}
		}
	}
	fmt.Fprintf(w, "would back up %s of %s; nothing was written\n", count(int64(could)), plural(len(results), "device"))
	if could > 0 {
		a.remark("what a device would send is known only during a backup, when it compares its files with the last one")
	}
}

// lines describe a backup that could be made.
func (f *deviceForecast) lines() []string {
	kind := "would make an incremental backup"
	if f.full {
		kind = "would make a full backup"
	}
	last := ", the first one here"
	if f.Last != nil {
		last = fmt.Sprintf("; the last one here is %s, %s", f.Last.ID.Short(), ageOf(f.Last))
	}
	lines := []string{kind + last}
	if f.Kept != nil {
		lines = append(lines, fmt.Sprintf("would continue an interrupted backup, of which %s are kept", plural(f.Kept.Files, "file")))
	}
	switch {
	case f.Encrypted == nil:
	case !*f.Encrypted:
		lines = append(lines, "not encrypted by the device")
	case f.PasswordKnown:
		lines = append(lines, "encrypted by the device; a backup password is known, but was not tried")
	default:
		lines = append(lines, "encrypted by the device; no backup password is known, so that it would",
			"be stored locked unless the password is typed")
	}
	if f.Used > 0 && f.Free != nil {
		lines = append(lines, fmt.Sprintf("%s in use on the device, with system and apps; %s free here", bytesText(f.Used), bytesText(*f.Free)))
	}
	return lines
}
