package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/snap-backup/snap/device/blob"
	"github.com/snap-backup/snap/device/finding"
	"github.com/snap-backup/snap/device/ingest"
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/repo"
	"github.com/spf13/cobra"
)

// importResult is the output of import for one folder.
type importResult struct {
	Folder string         `json:"folder"`
	Result *ingest.Result `json:"result,omitempty"`
	Error  *jsonError     `json:"error,omitempty"`
}

func (a *app) importCommand() *cobra.Command {
	var opts ingest.Options
	var source backupPassword
	var keepUnchanged, dryRun, failIfLocked bool
	var host string
	cmd := &cobra.Command{
		Use:   "import [FOLDER...]",
		Short: "Store backups of Finder, iTunes, Apple Devices or idevicebackup2",
		Long: `Stores MobileSync backup folders as snapshots. FOLDER is a backup folder or a
folder of backup folders, including archived ones. Without FOLDER it imports the
backups of Finder, iTunes and Apple Devices on this computer.

Only what changed since the last import is read. A backup that has not changed
makes no new snapshot. A backup that is incomplete or changes while it is read
is rejected, and no snapshot is made.

With the device's backup password an encrypted backup is decrypted before it is
stored, so that it is deduplicated with other days, other devices and
unencrypted backups. "snap materialize" writes the same encrypted folder, and
needs no password. The password comes from the flags below,
SNAP_BACKUP_PASSWORD, the repository ("snap device password set") or a prompt.
Without it the backup is stored locked. If nothing has changed since it was
stored decrypted, nobody is asked.

--dry-run compares the backups with their last snapshots, and reads none of
their files unless only their bytes can show a change. It writes nothing to the
repository, not even a lock; if a prune runs at the same time, the dry run may
fail.`,
		RunE: func(cmd *cobra.Command, folders []string) error {
			ctx := cmd.Context()
			sources, err := findBackups(folders)
			if err != nil {
				return err
			}
			opts.SkipIfUnchanged, opts.Locked = !keepUnchanged, keepUnchanged && source.opaque
			if dryRun {
				return a.foreseeImports(ctx, source, sources, opts)
			}
			r, release, err := a.openToWrite(ctx, cmd.CommandPath())
			if err != nil {
				return err
			}
			defer release()
			opts.Host = hostName(host)
			opts.Program = "snap " + version
			opts.Workers = runtime.GOMAXPROCS(0)
			a.removeStale(ctx)
			u, err := a.newUnlocker(ctx, r, source)
			if err != nil {
				return err
			}
			defer u.close()
			u.failIfLocked = failIfLocked
			u.allowDamaged, a.opaque = opts.AllowIncomplete, source.opaque
			defer a.updateParity(cmd, r)
			return a.importAll(ctx, r, u, sources, opts)
		},
	}
	source.register(cmd)
	f := cmd.Flags()
	registerDryRun(cmd, &dryRun, "only show which backups would be stored and what would be read; write nothing")
	f.StringVar(&host, "host", "", "`name` of this computer in the snapshot")
	f.BoolVar(&source.opaque, "opaque", false, "store encrypted backups locked, without a backup password")
	defer cmd.MarkFlagsMutuallyExclusive("opaque", "keep-backup-password")
	f.BoolVar(&failIfLocked, "fail-if-locked", false, "end with exit code 21 if a backup was stored locked")
	f.BoolVar(&source.keep, "keep-backup-password", false, "store the backup password in the repository for later backups, if it opens this one")
	f.BoolVar(&opts.AllowIncomplete, "allow-incomplete", false, "also store unfinished, unreadable or changing backups, and mark the snapshot")
	f.BoolVar(&opts.Rescan, "rescan", false, "read all files, even if they look unchanged")
	f.BoolVar(&keepUnchanged, "keep-unchanged", false, "make a snapshot even if the backup has not changed since the last one")
	f.Bool("skip-if-unchanged", false, "deprecated: this is the default")
	_ = f.MarkHidden("skip-if-unchanged")
	f.Var(newTags{&opts.Tags, false}, "tag", "`tag` the snapshots (can be repeated)")
	return cmd
}

// importedLocked says that a backup was stored completely, but without its backup password.
type importedLocked struct{ s *repo.Snapshot }

func (e importedLocked) Error() string {
	return fmt.Sprintf("snapshot %s of %s is stored locked, without the backup password", e.s.ID.Short(), clean(e.s.Device.Name))
}

// importAll imports folders one after the other. If one import fails, the others
// still run, and the first failure decides the exit code.
func (a *app) importAll(ctx context.Context, r *repo.Repo, u *unlocker, sources []mobilesync.Found, opts ingest.Options) error {
	results := []importResult{}
	var first error
	for _, source := range sources {
		dir := source.Dir
		var res *ingest.Result
		err := source.Err
		if err == nil {
			res, err = a.importOne(ctx, r, u, dir, opts)
		}
		out := importResult{Folder: dir, Result: res}
		if err == nil {
			if !a.json {
				a.describeImport(a.human(), dir, res, opts.Tags)
			}
			switch {
			case damagedBesides(res.Snapshot, finding.Unreadable):
				err = storedDamaged(res.Snapshot)
			case u.failIfLocked && locked(res.Snapshot):
				err = importedLocked{res.Snapshot}
			}
		}
		if err != nil {
			if ctx.Err() != nil {
				return err
			}
			code, hint := classify(a.command, err)
			out.Error = &jsonError{err.Error(), code, hint}
			if !a.json {
				a.printError(err, code, hint)
			}
			if first == nil {
				first = silentError{err}
			}
		}
		results = append(results, out)
	}
	if a.json {
		if err := a.print(results, nil); err != nil {
			return err
		}
	} else if len(results) > 1 {
		a.summarizeImports(results)
	}
	return first
}

// summarizeImports repeats what failed of several imports, and counts what was stored.
func (a *app) summarizeImports(results []importResult) {
	var failed []string
	stored, unchanged := 0, 0
	for _, r := range results {
		switch {
		case r.Error != nil:
			failed = append(failed, fmt.Sprintf("      %s: %s", clean(r.Folder), clean(afterFolder(r.Error.Error, r.Folder))))
		case r.Result.Unchanged:
			unchanged++
		}
		if r.Result != nil && !r.Result.Unchanged {
			stored++
		}
	}
	if len(failed) > 0 {
		a.remark("%d of %s failed:\n%s", len(failed), plural(len(results), "backup"), strings.Join(failed, "\n"))
	}
	if !a.quiet {
		fmt.Fprintf(a.human(), "%s: %d stored, %d unchanged, %d failed\n", plural(len(results), "backup"), stored, unchanged, len(failed))
	}
}

// afterFolder returns an error without the folder at its beginning.
func afterFolder(text, folder string) string {
	abs, err := filepath.Abs(folder)
	for _, name := range []string{folder, abs} {
		if rest, ok := strings.CutPrefix(text, name+": "); ok && err == nil {
			return rest
		}
	}
	return text
}

func (a *app) importOne(ctx context.Context, r *repo.Repo, u *unlocker, dir string, opts ingest.Options) (*ingest.Result, error) {
	b, err := mobilesync.Open(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	stop, err := a.prepare(ctx, u, b, &opts)
	defer stop()
	if err != nil {
		return nil, err
	}
	return ingest.Import(ctx, r, b, opts)
}

// prepare shows the progress of an import until the caller calls stop. It unlocks the backup
// at once if somebody gave a password, so that a wrong one is told. Otherwise the import does
// so if the backup has changed.
func (a *app) prepare(ctx context.Context, u *unlocker, b *mobilesync.Backup, opts *ingest.Options) (stop func(), err error) {
	p := &blob.Progress{}
	opts.Progress = p
	hide := func() {}
	show := func() { hide = a.showProgress(func() meter { return transferMeter(p) }) }
	if u.given != nil || u.source.keep || u.source.opaque {
		err = u.unlock(ctx, b)
	} else {
		opts.Unlock = func(ctx context.Context) error {
			hide() // it may ask
			defer show()
			return u.unlock(ctx, b)
		}
	}
	show()
	return func() { hide() }, err
}

func transferMeter(p *blob.Progress) meter {
	return meter{
		phase: p.Phase(), files: p.Files.Load(), totalFiles: p.TotalFiles.Load(),
		bytes: p.Bytes.Load(), totalBytes: p.TotalBytes.Load(),
	}
}

func (a *app) describeImport(w io.Writer, dir string, res *ingest.Result, tags []string) {
	s := res.Snapshot
	if a.quiet {
		w = io.Discard
	}
	if res.Unchanged {
		a.describeUnchanged(w, dir, res, tags)
		return
	}
	fmt.Fprintf(w, "%s  %s, iOS %s, backup of %s\n", s.ID.Short(), clean(cmp.Or(s.Device.Name, s.Device.UDID)), clean(cmp.Or(s.Device.ProductVersion, "unknown")), timeText(s.Time))
	fmt.Fprintf(w, "          %s, %s; read %s, %s; added %s\n",
		plural(res.Files, "file"), bytesText(res.Bytes), plural(res.ReadFiles, "file"), bytesText(res.ReadBytes), bytesText(s.StoredBytes))
	a.describeFindings(dir, res.Findings)
	a.describeReport(res)
}

// describeUnchanged describes a backup of which the repository has a snapshot. Of the
// findings it repeats only damage.
func (a *app) describeUnchanged(w io.Writer, dir string, res *ingest.Result, tags []string) {
	s := res.Snapshot
	fmt.Fprintf(w, "%s, backup of %s: unchanged since snapshot %s", clean(s.Device.Name), timeText(s.Time), s.ID.Short())
	if res.NoPassword {
		fmt.Fprint(w, ", which is stored decrypted")
	}
	fmt.Fprintln(w)
	a.describeFindings(dir, slices.DeleteFunc(slices.Clone(res.Findings), func(f repo.Finding) bool {
		return f.Consequence == repo.Remark && slices.ContainsFunc(s.Findings, func(o repo.Finding) bool { return o.Kind == f.Kind && o.Text == f.Text })
	}))
	missing := slices.DeleteFunc(slices.Clone(tags), func(tag string) bool { return slices.Contains(s.Tags, tag) })
	if len(missing) > 0 {
		a.remark("          not tagged %s; \"snap tag %s --add TAG\" tags it", clean(strings.Join(missing, ", ")), s.ID.Short())
	}
}

// describeReport notes that a backup was stored locked, and files that belong to no
// backup.
func (a *app) describeReport(res *ingest.Result) {
	switch {
	case res.Snapshot.Unlocked:
		a.describeRaw(res)
	case res.Snapshot.Encrypted:
		a.sayLocked("snapshot %s is stored locked, without the backup password: changed files are not deduplicated with other days; store the backup password (\"snap help device password\")", res.Snapshot.ID.Short())
	}
	if res.Report == nil {
		return
	}
	switch o := res.Report.Other; o.Count {
	case 0:
	case 1:
		a.remark("          note: 1 file is not part of a backup (kept): %s", clean(o.Names[0]))
	default:
		a.remark("          note: %s files are not part of a backup (kept), such as %s", count(int64(o.Count)), clean(o.Names[0]))
	}
}

// sayLocked warns that a backup was stored locked, also with --quiet. With --opaque that is
// wanted, and only noted.
func (a *app) sayLocked(format string, args ...any) {
	if a.opaque {
		a.remark("          "+format, args...)
		return
	}
	a.warn(format, args...)
}

// findBackups returns the backup folders that the arguments name, each only once.
// Without arguments it returns those of Apple's programs. What cannot be looked at is
// returned with its error. findBackups fails if it finds no backup.
func findBackups(folders []string) ([]mobilesync.Found, error) {
	if len(folders) == 0 {
		return findInPlaces(mobilesync.DefaultLocations())
	}
	var found []mobilesync.Found
	for _, f := range folders {
		dirs, err := mobilesync.Find(f)
		if errors.Is(err, os.ErrNotExist) {
			err = fmt.Errorf("%s does not exist: %w", f, mobilesync.ErrNoBackup)
		}
		if err != nil {
			dirs = []mobilesync.Found{{Dir: f, Err: err}}
		}
		found = append(found, dirs...)
	}
	return orErrors(uniq(found))
}

// findInPlaces returns the backup folders in places that need not exist.
func findInPlaces(places []string) ([]mobilesync.Found, error) {
	if len(places) == 0 {
		return nil, advised{usageError{errors.New("no folder is given, and this system has no default location of backups")},
			`name the folder to which idevicebackup2 or another program writes: "snap import FOLDER"`}
	}
	var found []mobilesync.Found
	for _, place := range places {
		dirs, err := mobilesync.Find(place)
		switch {
		case errors.Is(err, os.ErrNotExist), errors.Is(err, mobilesync.ErrNoBackup):
			continue
		case err != nil:
			dirs = []mobilesync.Found{{Dir: place, Err: err}}
		}
		found = append(found, dirs...)
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("looked in %q: %w", places, mobilesync.ErrNoBackup)
	}
	return orErrors(uniq(found))
}

// orErrors returns found. If every item of it has an error, it returns these errors
// instead.
func orErrors(found []mobilesync.Found) ([]mobilesync.Found, error) {
	var all []error
	for _, f := range found {
		if f.Err == nil {
			return found, nil
		}
		all = append(all, f.Err)
	}
	return nil, errors.Join(all...)
}

func uniq(list []mobilesync.Found) []mobilesync.Found {
	var out []mobilesync.Found
	for _, s := range list {
		if !slices.ContainsFunc(out, func(o mobilesync.Found) bool { return o.Dir == s.Dir }) {
			out = append(out, s)
		}
	}
	return out
}
