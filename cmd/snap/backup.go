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

	"github.com/snap-backup/snap/device"
	"github.com/snap-backup/snap/device/host"
	"github.com/snap-backup/snap/device/ingest"
	"github.com/snap-backup/snap/device/ingest/receive"
	"github.com/snap-backup/snap/device/mobilesync/keybag"
	"github.com/snap-backup/snap/repo"
	"github.com/spf13/cobra"
)

// backupResult is the output of backup for one device.
type backupResult struct {
	UDID   string        `json:"udid"`
	Name   string        `json:"device_name,omitempty"`
	Result *backupReport `json:"result,omitempty"`
	Kept   *host.Kept    `json:"kept,omitempty"` // files kept from an interrupted backup
	Error  *jsonError    `json:"error,omitempty"`
}

// backupReport describes a backup that became a snapshot.
type backupReport struct {
	*ingest.Result
	Received      int64       `json:"received_files"` // files received from the device in this run
	ReceivedBytes int64       `json:"received_bytes"`
	Resumed       int64       `json:"resumed_files"` // files from an interrupted run that were not sent again
	ResumedBytes  int64       `json:"resumed_bytes"`
	Locked        bool        `json:"locked"` // the backup is encrypted, and its password is unknown
	Parent        repo.FileID `json:"parent,omitzero"`
}

func (a *app) backupCommand() *cobra.Command {
	var opt host.BackupOptions
	var source backupPassword
	var all, dryRun bool
	var jobs int
	var limit, host, checkpoint string
	cmd := &cobra.Command{
		Use:   "backup [DEVICE...]",
		Short: "Back up connected devices",
		Long: `Backs up iPhones and iPads that are connected by cable or Wi-Fi, each to a
snapshot. DEVICE is a UDID, a name, or the beginning of either. It may be
omitted if only one device is connected.

Several devices are backed up at the same time, as many as --jobs says; the
others wait for their turn. snap first checks all devices and asks for all
backup passwords, then it asks nothing more. If one backup fails, the others
continue. The summary at the end begins with what failed. A device asks for its
passcode when its turn comes; with a large --jobs all devices ask at once.

A device sends what changed since its last snapshot, even if that snapshot was
imported from a folder. From iOS 15.7 on, except with iOS 16.0, a device with a
passcode asks for it each time: enter it on the device.

A backup that is interrupted, by Ctrl-C, a pulled cable or a power cut, makes no
snapshot. What was received is kept, and the next backup continues from there.
For a device that never finishes its backup, --allow-incomplete also makes a
snapshot of what was received. It displaces no other snapshot, and the exit code
stays that of the failure.

A backup with missing or damaged files is stored all the same. "snap snapshots"
shows it with a "!", and the exit code is 3. The next backup continues from the
last complete snapshot.

snap can deduplicate encrypted backups only if it knows the backup password. It
tries the passwords that the repository keeps ("snap device password set"), and
one from the flags below, SNAP_BACKUP_PASSWORD, or a prompt. The device sends
its keys last. Until then snap keeps the received files, still encrypted, in the
spool folder. If no password is known, the backup is stored as the device
encrypted it ("locked"): it can be restored, but it is not deduplicated. If
passwords were tried and none was right, it is stored in the same way, and the
exit code is 20.

--dry-run makes the checks that come before a backup, and shows the last
snapshot, whether the device encrypts, and the space. It cannot show what the
device would send. It writes nothing to the repository, not even a lock, and
asks for no backup password.`,
		RunE: func(cmd *cobra.Command, argv []string) error {
			ctx := cmd.Context()
			if _, err := a.fill(cmd, "spool-dir"); err != nil {
				return err
			}
			ofFile, err := a.fill(cmd, "spool-limit")
			if err != nil {
				return err
			}
			if opt.SpoolLimit, err = parseSize(limit); err != nil && ofFile {
				return usageError{fmt.Errorf("spool-limit in %s: %w", a.settings.profileFile(), err)}
			}
			if err != nil {
				return usageError{fmt.Errorf("--spool-limit: %w", err)}
			}
			if opt.CheckpointBytes, err = parseSize(checkpoint); err != nil {
				return usageError{fmt.Errorf("--checkpoint: %w", err)}
			}
			if all && len(argv) > 0 {
				return usageError{errors.New("name devices or give --all, not both")}
			}
			if jobs < 1 {
				return usageError{errors.New("--jobs takes a number of at least 1")}
			}
			m, entries, err := a.chosenDevices(ctx, a.deviceNames(argv), all)
			if err != nil {
				return err
			}
			if dryRun {
				return a.foreseeBackups(ctx, m, entries, source, opt, host)
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
			defer a.updateParity(cmd, r)
			a.removeStale(ctx)
			if opt.Passwords, err = source.toTry(ctx, a); err != nil {
				return err
			}
			defer clearAll(opt.Passwords)
			opt.KeepPassword = source.keep
			opt.Workers = max(1, runtime.GOMAXPROCS(0)/min(jobs, len(entries)))
			h, err := a.newHost(m, r, host)
			if err != nil {
				return err
			}
			return a.backupAll(ctx, h, entries, opt, jobs)
		},
	}
	source.register(cmd)
	f := cmd.Flags()
	f.BoolVar(&source.keep, "keep-backup-password", false, "store the backup password in the repository for later backups, if it opens this one")
	registerDryRun(cmd, &dryRun, "only check the devices, and show what is known before a backup; write nothing")
	f.BoolVar(&all, "all", false, "back up all connected devices")
	f.IntVarP(&jobs, "jobs", "j", defaultJobs(), "back up at most this `number` of devices at the same time (default: that of the processors, at least 4)")
	f.Lookup("jobs").DefValue = "0" // the usage says more
	f.BoolVar(&opt.Full, "full", false, "have the device send all files, not only changed ones")
	f.BoolVar(&opt.IgnoreSpace, "ignore-space", false, "go on even if a device asks for more space than the repository has; devices may overestimate what they will send")
	f.BoolVar(&opt.AllowIncomplete, "allow-incomplete", false, "also store what a device has sent if its backup breaks off or is damaged, and mark the snapshot")
	f.Var(newTags{&opt.Tags, false}, "tag", "`tag` the snapshots (can be repeated)")
	f.StringVar(&host, "host", "", "`name` of this computer in the snapshot")
	f.StringVar(&checkpoint, "checkpoint", "256M", "save a checkpoint whenever this `size` has been received; a power cut loses at most this much")
	f.StringVar(&opt.SpoolDir, "spool-dir", "", "`folder` for encrypted files that wait for their keys (default: in the user's cache folder)")
	f.StringVar(&limit, "spool-limit", bytesFlag(receive.DefaultSpoolLimit), "largest `size` of the spool folder, such as 500M or 64G")
	return cmd
}

// defaultJobs is how many devices are backed up at the same time. A device is often
// slower than a computer, so there are some even with few processors.
func defaultJobs() int { return max(4, runtime.GOMAXPROCS(0)) }

// chosenDevices returns the devices to back up: all, those that argv names (each only
// once), or the only connected one.
func (a *app) chosenDevices(ctx context.Context, argv []string, all bool) (*device.Mux, []device.Entry, error) {
	if !all && len(argv) < 2 {
		m, e, err := a.oneDevice(ctx, argv)
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

// newHost returns the Host for operations with devices. If name is empty, it gets
// this computer's name.
func (a *app) newHost(m *device.Mux, r *repo.Repo, name string) (host.Host, error) {
	locks, err := cacheDir("devices")
	if err != nil {
		return host.Host{}, err
	}
	return host.Host{Mux: m, Repo: r, LockDir: locks, Name: hostName(name), Program: "snap " + version, Now: a.now, Random: rand.Reader, Bytes: bytesText}, nil
}

// hostName returns the name of a computer in a snapshot: the given one or, if it is empty,
// that of this computer.
func hostName(given string) string {
	if given == "" {
		given, _ = os.Hostname()
	}
	return given
}

// openToWrite opens the repository, locks it for writing and loads its index.
func (a *app) openToWrite(ctx context.Context, what string) (*repo.Repo, func(), error) {
	r, err := a.open(ctx)
	if err != nil {
		return nil, nil, err
	}
	if err := a.takeLock(ctx, r, repo.LockWrite, what); err != nil {
		return nil, nil, err
	}
	list, damaged, err := r.SnapshotsIndexed(ctx)
	if err == nil {
		err = r.CanEnter(ctx)
	}
	if err != nil {
		a.releaseLock()
		return nil, nil, err
	}
	a.warnOfRecords(damaged)
	a.warnOfIndex(r, list...)
	a.warnOfFuture(list)
	a.warnOfMirror(ctx, a.store)
	return r, a.releaseLock, nil
}

// errPartial says that some of several devices failed.
var errPartial = errors.New("some devices were not backed up")

// storedLocked says that a backup was stored completely, but no known password opens
// it.
type storedLocked struct{ s *repo.Snapshot }

func (e storedLocked) Error() string {
	return fmt.Sprintf("snapshot %s is complete, but stored locked: wrong backup password", e.s.ID.Short())
}

func (e storedLocked) Hint() string {
	return fmt.Sprintf("nothing is lost: run \"snap device password set %s\" with the right password, and the next backup is stored decrypted", e.s.Device.UDID)
}

// stoppedBackup is a backup that Ctrl-C ended.
type stoppedBackup struct{ kept *host.Kept }

func (e stoppedBackup) Error() string {
	if e.kept == nil {
		return "interrupted; nothing that could be kept was received"
	}
	return fmt.Sprintf("interrupted; what was received is kept (%s)", plural(e.kept.Files, "file"))
}

func (stoppedBackup) Unwrap() error { return interruption{"run the same command again to continue"} }

// named adds a device's name to a text that lacks it.
func named(name, udid, text string) string {
	text = strings.TrimPrefix(text, "device "+udid+": ")
	if strings.Contains(text, name) {
		return text
	}
	return name + ": " + text
}

func (a *app) describeBackup(w io.Writer, res *host.BackupResult) {
	s := res.Snapshot
	if a.quiet {
		w = io.Discard
	}
	fmt.Fprintf(w, "%s  %s, iOS %s, backup of %s\n", s.ID.Short(), clean(s.Device.Name), clean(s.Device.ProductVersion), timeText(s.Time))
	fmt.Fprintf(w, "          %s, %s; received %s, %s; added %s\n",
		plural(res.Import.Files, "file"), bytesText(res.Import.Bytes), plural(res.Files, "file"), bytesText(res.Bytes), bytesText(s.StoredBytes))
	a.describeProblems(res)
}

// describeProblems warns of what was wrong with a backup that was stored.
func (a *app) describeProblems(res *host.BackupResult) {
	s := res.Snapshot
	for _, p := range res.Problems {
		a.warn("%s", named(s.Device.Name, s.Device.UDID, p))
	}
	a.describeFindings(s.Device.Name, res.Import.Findings)
	if errors.Is(res.Locked, keybag.ErrWrongPassword) {
		return // reported as an error
	}
	if res.Locked != nil {
		a.sayLocked("snapshot %s is stored locked: %s; store the backup password with \"snap device password set %s\", so that later backups are deduplicated",
			s.ID.Short(), res.Locked, s.Device.UDID)
		return
	}
	a.describeReport(res.Import)
}
