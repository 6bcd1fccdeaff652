package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/snap-backup/snap/device"
	"github.com/snap-backup/snap/device/host"
	"github.com/snap-backup/snap/device/ingest"
	"github.com/snap-backup/snap/device/ingest/receive"
	"github.com/snap-backup/snap/device/mobilesync/keybag"
	"github.com/snap-backup/snap/repo"
	"github.com/spf13/cobra"
)

// backupResult is what backup prints for one device.
type backupResult struct {
	UDID   string        `json:"udid"`
	Name   string        `json:"device_name,omitempty"`
	Result *backupReport `json:"result,omitempty"`
	Kept   *host.Kept    `json:"kept,omitempty"` // of a backup that broke off
	Error  *jsonError    `json:"error,omitempty"`
}

// backupReport is a backup that has become a snapshot.
type backupReport struct {
	*ingest.Result
	Received      int64       `json:"received_files"` // in this run, from the device
	ReceivedBytes int64       `json:"received_bytes"`
	Resumed       int64       `json:"resumed_files"` // of a run that broke off, not sent again
	ResumedBytes  int64       `json:"resumed_bytes"`
	Locked        bool        `json:"locked"` // encrypted, and the password is not known
	Parent        repo.FileID `json:"parent,omitzero"`
}

// backupCommand backs up devices that are connected.
func (a *app) backupCommand() *cobra.Command {
	var opt host.BackupOptions
	var source backupPassword
	var all bool
	var limit, host, checkpoint string
	cmd := &cobra.Command{
		Use:   "backup [DEVICE...]",
		Short: "Back up devices that are connected",
		Long: `Backs up iPhones and iPads that are connected by cable or Wi-Fi, each into a
snapshot. DEVICE is a UDID, a name, or the beginning of either; it may be left
out if only one device is connected. Several are backed up at the same time.

The device sends what has changed since its last snapshot, also if that was
imported from a folder. Since iOS 16 it asks for its passcode each time: enter it
on the device.

A backup that breaks off, by Ctrl-C, a pulled cable or a power cut, makes no
snapshot; what was received is kept, and the next backup goes on from there.

If the device encrypts its backups, the passwords that the repository keeps for
it ("snap device password set") open them, so that they share storage. Until its
keys come, at the end, what it sends waits as it is in the spool folder. Another
password comes from the flags below or from SNAP_BACKUP_PASSWORD, or is asked for
at a terminal. It is tried on the last snapshot first, but what counts is what the
device sends: if no password opens that, the backup is stored all the same, locked,
and the exit code is 20. Without any password it is stored locked, too.`,
		RunE: func(cmd *cobra.Command, argv []string) error {
			ctx := cmd.Context()
			var err error
			if opt.SpoolLimit, err = parseSize(limit); err != nil {
				return usageError{fmt.Errorf("--spool-limit: %w", err)}
			}
			if opt.CheckpointBytes, err = parseSize(checkpoint); err != nil {
				return usageError{fmt.Errorf("--checkpoint: %w", err)}
			}
			if all && len(argv) > 0 {
				return usageError{errors.New("name devices, or give --all, not both")}
			}
			m, entries, err := chosenDevices(ctx, argv, all)
			if err != nil {
				return err
			}
			if opt.SpoolDir == "" {
				if opt.SpoolDir, err = cacheDir("spool"); err != nil {
					return err
				}
			}
			if err := os.MkdirAll(opt.SpoolDir, 0o700); err != nil {
				return err
			}
			r, release, err := a.openToWrite(ctx, "snap backup")
			if err != nil {
				return err
			}
			defer release()
			defer a.protect(cmd, r)
			a.tidy(ctx)
			given, err := source.given(ctx, a)
			if err != nil {
				return err
			}
			defer clear(given)
			if given != nil {
				opt.Passwords = [][]byte{given}
			}
			opt.KeepPassword = source.keep
			opt.Workers = max(1, runtime.GOMAXPROCS(0)/len(entries))
			h, err := a.flowHost(m, r, host)
			if err != nil {
				return err
			}
			return a.backupAll(ctx, h, entries, opt)
		},
	}
	source.register(cmd)
	f := cmd.Flags()
	f.BoolVar(&source.keep, "keep-backup-password", false, "keep a backup password that opens the backup in the repository for later ones")
	f.BoolVar(&all, "all", false, "back up all devices that are connected")
	f.BoolVar(&opt.Full, "full", false, "let the device send all files, not only those that changed")
	f.StringArrayVar(&opt.Tags, "tag", nil, "`tag` the snapshots (can be repeated)")
	f.StringVar(&host, "host", "", "`name` of this computer for the record")
	f.StringVar(&checkpoint, "checkpoint", "256M", "after how much it is noted what was received, which is what a power cut can cost")
	f.StringVar(&opt.SpoolDir, "spool-dir", "", "`folder` where encrypted files wait for their keys (default: in the user's cache folder)")
	f.StringVar(&limit, "spool-limit", bytesFlag(receive.DefaultSpoolLimit), "how much may wait there, such as 500M or 64G")
	return cmd
}

// chosenDevices finds the devices that a command line names, each once.
func chosenDevices(ctx context.Context, argv []string, all bool) (*device.Mux, []device.Entry, error) {
	if !all && len(argv) < 2 {
		m, e, err := oneDevice(ctx, argv)
		return m, []device.Entry{e}, err
	}
	m, err := mux()
	if err != nil {
		return nil, nil, err
	}
	if all {
		list, err := m.List(ctx)
		if err == nil && len(list) == 0 {
			err = device.ErrNone
		}
		return m, list, err
	}
	var list []device.Entry
	for _, name := range argv {
		e, err := m.Find(ctx, name)
		if err != nil {
			return nil, nil, err
		}
		if !slices.ContainsFunc(list, func(o device.Entry) bool { return o.UDID == e.UDID }) {
			list = append(list, e)
		}
	}
	return m, list, nil
}

func (a *app) flowHost(m *device.Mux, r *repo.Repo, name string) (host.Host, error) {
	locks, err := cacheDir("devices")
	if err != nil {
		return host.Host{}, err
	}
	if name == "" {
		name, _ = os.Hostname()
	}
	return host.Host{Mux: m, Repo: r, LockDir: locks, Name: name, Program: "snap " + version, Now: a.now, Random: rand.Reader, Bytes: bytesText}, nil
}

// openToWrite opens the repository, locked for a writer, with its index.
func (a *app) openToWrite(ctx context.Context, what string) (*repo.Repo, func(), error) {
	r, err := a.open(ctx)
	if err != nil {
		return nil, nil, err
	}
	if err := a.takeLock(ctx, r, repo.LockWrite, what); err != nil {
		return nil, nil, err
	}
	if err := r.LoadIndex(ctx); err != nil {
		a.releaseLock()
		return nil, nil, err
	}
	a.warnOfIndex(r)
	return r, a.releaseLock, nil
}

// backupAll backs devices up at the same time. One that fails does not keep the
// others from being backed up.
func (a *app) backupAll(ctx context.Context, h host.Host, entries []device.Entry, opt host.BackupOptions) error {
	results := make([]backupResult, len(entries))
	errs := make([]error, len(entries))
	board := a.newBoard(ctx, h.Mux, entries)
	var wait sync.WaitGroup
	for i, e := range entries {
		wait.Go(func() {
			mine := opt
			view := board.views[i]
			mine.Progress, mine.Ask = view.storing, a.askForBackup(board)
			res, err := h.Backup(ctx, e, mine, view)
			view.done()
			if err == nil && errors.Is(res.Locked, keybag.ErrWrongPassword) {
				err = storedLocked{res.Snapshot}
			}
			results[i], errs[i] = a.backupOutcome(view, e, res, err), err
		})
	}
	wait.Wait()
	board.stop()
	failed := slices.DeleteFunc(slices.Clone(errs), func(err error) bool { return err == nil })
	if a.json {
		if err := a.print(results, nil); err != nil {
			return err
		}
	}
	switch {
	case len(failed) == 0:
		return nil
	case ctx.Err() != nil:
		return silentError{interruption{hintGoOn}} // each device has said so
	case len(failed) == len(errs):
		return silentError{failed[0]}
	}
	return silentError{errPartial}
}

// errPartial says that some of several devices failed.
var errPartial = errors.New("some devices were not backed up")

// storedLocked says that a backup is whole and stored, but that no password at
// hand opens it.
type storedLocked struct{ s *repo.Snapshot }

func (e storedLocked) Error() string {
	return fmt.Sprintf("snapshot %s is complete, but stored locked: wrong backup password", e.s.ID.Short())
}

// Hint says what to do.
func (e storedLocked) Hint() string {
	return fmt.Sprintf("nothing is lost: \"snap device password set %s\" with the right one, and the next backup opens what this one holds, too", e.s.Device.UDID)
}

func isStoredLocked(err error) bool {
	var e storedLocked
	return errors.As(err, &e)
}

// backupOutcome prints how the backup of one device ended, as soon as it has.
func (a *app) backupOutcome(v *view, e device.Entry, res *host.BackupResult, err error) backupResult {
	out := backupResult{UDID: e.UDID, Name: v.name}
	if res != nil {
		out.Name = res.Info.Name
		out.Result = &backupReport{Result: res.Import, Received: res.Files, ReceivedBytes: res.Bytes,
			Resumed: res.Resumed.Files, ResumedBytes: res.Resumed.Bytes, Locked: res.Locked != nil}
		if res.Parent != nil {
			out.Result.Parent = res.Parent.ID
		}
		if !a.json {
			v.board.say(func() { a.describeBackup(a.stdout, res) })
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
		code, hint := classify(err)
		out.Error = &jsonError{err.Error(), code, hint}
		if !a.json {
			v.board.say(func() { a.printError(errors.New(named(v.name, v.udid, err.Error())), code, hint) })
		}
	}
	return out
}

// stoppedBackup is a backup that a Ctrl-C ended, however that came out.
type stoppedBackup struct{ kept *host.Kept }

func (e stoppedBackup) Error() string {
	if e.kept == nil {
		return "interrupted; nothing was received that could be kept"
	}
	return fmt.Sprintf("interrupted; what was received is kept (%s)", plural(e.kept.Files, "file"))
}

func (stoppedBackup) Unwrap() error { return interruption{"run the same command again to go on"} }

// named says of which device a text is, unless the text does.
func named(name, udid, text string) string {
	text = strings.TrimPrefix(text, "device "+udid+": ")
	if strings.Contains(text, name) {
		return text
	}
	return name + ": " + text
}

func (a *app) describeBackup(w io.Writer, res *host.BackupResult) {
	s := res.Snapshot
	fmt.Fprintf(w, "%s  %s, iOS %s, backup of %s\n", s.ID.Short(), clean(s.Device.Name), clean(s.Device.ProductVersion), timeText(s.Time))
	fmt.Fprintf(w, "          %s, %s; received %s, %s; added %s\n",
		plural(res.Import.Files, "file"), bytesText(res.Import.Bytes), plural(res.Files, "file"), bytesText(res.Bytes), bytesText(s.StoredBytes))
	for _, p := range res.Problems {
		a.warn("%s", named(s.Device.Name, s.Device.UDID, p))
	}
	for _, p := range s.Problems {
		a.warn("%s", named(s.Device.Name, s.Device.UDID, p))
	}
	if errors.Is(res.Locked, keybag.ErrWrongPassword) {
		return // which is an error of its own
	}
	if res.Locked != nil {
		a.remark("          stored locked: %s; tell snap the backup password with \"snap device password set %s\" so that later backups share storage",
			clean(res.Locked.Error()), s.Device.UDID)
		return
	}
	a.describeReport(s.Device.Name, res.Import)
}
