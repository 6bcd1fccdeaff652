package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/device"
	"github.com/snap-backup/snap/device/host"
	"github.com/snap-backup/snap/device/materialize"
	"github.com/snap-backup/snap/device/mobilesync/manifest"
	"github.com/snap-backup/snap/device/protocol/backup2"
	"github.com/snap-backup/snap/device/simulator"
	"github.com/snap-backup/snap/device/simulator/devicefiles"
	"github.com/snap-backup/snap/device/simulator/lab"
	"github.com/snap-backup/snap/device/simulator/synthetic"
	"github.com/snap-backup/snap/repo"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
)

func (a *app) demoCommand() *cobra.Command {
	d := demo{a: a, middle: map[string]fingerprints{}}
	var scale string
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show backups and restores with simulated devices",
		Long: `Simulates an iPhone and an iPad, including the socket where programs look for
devices. Their databases, photos, settings and logs change a little every day;
the iPad encrypts its backups. Each day both are backed up, with the protocol of
real devices, to a repository in a temporary folder. Then the backups of a day
in the middle are materialized and compared byte by byte, and one is restored to
a new device. At the end the newest backups are verified, and the restore of one
is rehearsed without a device. Everything is removed at the end unless --keep is
given.

With -r, the repository is made there, and stays: in a new or empty folder, or
at an address ("snap help stores"), to try a store. SNAP_REPOSITORY and the
configuration file do not count.`,
		Example: "  snap demo\n  snap demo -r sftp:anna@nas.local:/volume1/demo --scale tiny",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if d.size, err = synthetic.ParseScale(scale); err != nil {
				return usageError{err}
			}
			return d.run(cmd.Context())
		},
	}
	cmd.Flags().StringVar(&scale, "scale", "demo", "`size` of the devices: tiny (2 MB each), demo (30 MB), small (60 MB), medium (600 MB) or large (3 GB)")
	cmd.Flags().IntVar(&d.days, "days", 4, "number of days")
	cmd.Flags().Uint64Var(&d.seed, "seed", 1, "equal seeds make equal devices")
	cmd.Flags().BoolVar(&d.keep, "keep", false, "keep the folders and the repository")
	return cmd
}

// demoPassword opens the demo's repository, which has no secrets.
const demoPassword = "demo"

// demo is one run of the command.
type demo struct {
	a    *app
	days int
	size synthetic.Scale
	seed uint64
	keep bool

	dir    string
	lab    *lab.Lab
	host   host.Host
	repo   *repo.Repo
	middle map[string]fingerprints // content of each device on the middle day, by UDID
	copied int64                   // size that full copies of every day would have
	day    atomic.Int64            // current day, from 0
}

// demoResult is the output of demo.
type demoResult struct {
	Snapshots   []snapshotJSON `json:"snapshots"`
	CopiedBytes int64          `json:"copied_bytes"` // size that full copies of every day would have
	StoredBytes int64          `json:"stored_bytes"` // size of the repository
	Verified    []string       `json:"verified"`     // IDs of snapshots that were materialized and compared
	Files       int            `json:"verified_files"`
	Restored    []string       `json:"restored"` // IDs of snapshots that were restored and compared
	// Certificates are those of the verifies and of the drill at the end.
	Certificates []*repo.Certificate `json:"certificates"`
	Seconds      float64             `json:"seconds"`
	Kept         string              `json:"kept,omitempty"`
}

func (d *demo) run(ctx context.Context) (err error) {
	start := time.Now()
	if d.days < 1 {
		return usageError{errors.New("--days takes a number of at least 1")}
	}
	if d.dir, err = os.MkdirTemp("", "snap-demo-"); err != nil {
		return err
	}
	defer func() {
		if !d.keep {
			err = errors.Join(err, removeFolders(d.dir))
		}
	}()
	end, err := d.connect(ctx)
	if err != nil {
		return err
	}
	defer end()
	if err := d.store(ctx); err != nil {
		return err
	}
	res := demoResult{CopiedBytes: d.copied}
	list, _, err := d.repo.Snapshots(ctx)
	if err != nil {
		return err
	}
	res.Snapshots = snapshotsJSON(list, nil)
	if !d.a.json {
		w := d.a.human()
		fmt.Fprintln(w)
		printSnapshots(w, res.Snapshots, time.Now(), false)
		fmt.Fprintln(w)
	}
	if err := d.verify(ctx, list, &res); err != nil {
		return err
	}
	// A check loads the index again, so nothing else may use the repository meanwhile.
	if err := d.check(ctx); err != nil {
		return err
	}
	for _, dev := range d.lab.Devices() {
		if wrong := dev.Violations(); len(wrong) > 0 {
			return fmt.Errorf("snap did something wrong to %s: %q", dev.Name(), wrong)
		}
	}
	if err := d.prove(ctx, &res); err != nil {
		return err
	}
	st, err := d.repo.Stats(ctx, list)
	if err != nil {
		return err
	}
	res.StoredBytes, res.Seconds = st.StoredBytes, time.Since(start).Seconds()
	if d.keep {
		res.Kept = d.dir
	}
	return d.a.print(res, func(w io.Writer) { d.conclude(w, &res) })
}

// connect creates the repository and the devices, and serves the devices on a socket
// of their own.
func (d *demo) connect(ctx context.Context) (end func(), err error) {
	if err := d.create(ctx); err != nil {
		return nil, err
	}
	if d.lab, err = lab.New(ctx, lab.Options{Dir: d.dir, Devices: 2, Scale: d.size, Seed: d.seed, Encrypt: synthetic.EncryptAlternate, Clock: d.clock, QuickKeys: true}); err != nil {
		return nil, err
	}
	listener, unlink, err := listenPrivately()
	if err != nil {
		return nil, errors.Join(err, d.lab.Close())
	}
	ctx, stop := context.WithCancel(ctx)
	served := make(chan error, 1)
	go func() { served <- d.lab.Serve(ctx, listener) }()
	end = func() {
		stop()
		<-served
		unlink()
		_ = d.lab.Close() // an error does not matter: the folder with its files is removed
	}
	m, err := device.Open(simulator.Address(listener.Addr()))
	if err != nil {
		end()
		return nil, err
	}
	if d.host, err = d.a.newHost(m, d.repo, "demo"); err != nil {
		end()
		return nil, err
	}
	d.host.LockDir = d.dir
	return end, nil
}

// create makes the repository.
func (d *demo) create(ctx context.Context) error {
	dir := d.repoDir()
	if err := checkNewFolder(dir); err != nil {
		return err
	}
	be, err := d.a.newStore(ctx, dir)
	if err == nil && be == nil {
		if err = checkEmpty(dir); err == nil {
			be, err = d.a.newFolder(dir)
		}
	}
	if err != nil {
		return err
	}
	opts := d.a.options
	opts.Distant = isDistant(be)
	if d.repo, err = repo.Create(ctx, be, []byte(demoPassword), crypto.SlotInfo{Kind: crypto.PasswordSlot, Label: "demo"}, opts); err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	return nil
}

// repoDir returns the folder or address of the repository.
func (d *demo) repoDir() string {
	if d.a.repoDir != "" {
		return d.a.repoDir
	}
	return filepath.Join(d.dir, "repository")
}

// listenPrivately listens on a socket that only this user can reach: simulated devices
// obey whoever connects. Windows has no such sockets; there it listens on an address that
// only programs on this computer can reach.
func listenPrivately() (l net.Listener, unlink func(), err error) {
	if runtime.GOOS == "windows" {
		l, err = net.Listen("tcp", "127.0.0.1:0")
		return l, func() {}, err
	}
	dir, err := os.MkdirTemp("", "snap-demo-") // mode 0700, and a short path: those of sockets are bounded
	if err != nil {
		return nil, nil, err
	}
	unlink = func() { _ = os.RemoveAll(dir) }
	if l, err = net.Listen("unix", filepath.Join(dir, "usbmuxd")); err != nil {
		unlink()
		return nil, nil, err
	}
	return l, unlink, nil
}

// clock is the clock of the devices; their last day is today.
func (d *demo) clock() time.Time {
	return d.a.now().AddDate(0, 0, int(d.day.Load())-d.days+1)
}

// store backs up the devices on each day.
func (d *demo) store(ctx context.Context) error {
	for day := range d.days {
		d.say("day %d: backing up two devices", day+1)
		d.day.Store(int64(day))
		if day > 0 {
			if err := d.lab.NextDay(ctx); err != nil {
				return err
			}
		}
		devices := d.lab.Devices()
		results := make([]*host.BackupResult, len(devices))
		var group errgroup.Group
		for i, dev := range devices {
			group.Go(func() (err error) {
				results[i], err = d.backup(ctx, dev)
				return err
			})
		}
		if err := group.Wait(); err != nil {
			return err
		}
		for i, dev := range devices {
			res := results[i]
			d.copied += res.Import.Bytes
			d.say("  %-16s %s in %s; sent %s; the repository grew by %s", clean(dev.Name()), bytesText(res.Import.Bytes),
				plural(res.Import.Files, "file"), bytesText(res.Bytes), bytesText(res.Snapshot.StoredBytes))
			if day == d.days/2 {
				// Take the inventory now: the content changes on the next day.
				var err error
				if d.middle[dev.UDID()], err = inventory(ctx, dev.Agent.Content()); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (d *demo) backup(ctx context.Context, dev *lab.Device) (*host.BackupResult, error) {
	e, err := d.host.Mux.Find(ctx, dev.UDID())
	if err == nil && dev.Agent.WillEncrypt() {
		err = d.repo.KeepDevicePassword(ctx, dev.UDID(), []byte(synthetic.DefaultPassword))
	}
	if err != nil {
		return nil, err
	}
	res, err := d.host.Backup(ctx, e, host.BackupOptions{SpoolDir: filepath.Join(d.dir, "spool"), Workers: runtime.GOMAXPROCS(0)}, quietly{d.a})
	if err == nil && res.Locked != nil {
		err = fmt.Errorf("the backup of %s was stored locked: %w", dev.Name(), res.Locked)
	}
	return res, err
}

// check verifies the repository, including all pack data.
func (d *demo) check(ctx context.Context) error {
	report, err := d.repo.Check(ctx, repo.CheckOptions{ReadData: 1})
	if err != nil {
		return err
	}
	if !report.Clean() {
		return fmt.Errorf("the check of the repository failed: %w", repo.ErrDamaged)
	}
	return nil
}

// verify materializes the middle snapshot of each device, and restores the first
// device's to a new device. It compares the results with the content on that day.
func (d *demo) verify(ctx context.Context, list []*repo.Snapshot, res *demoResult) error {
	devices := d.lab.Devices()
	snapshots, files := make([]*repo.Snapshot, len(devices)), make([]int, len(devices))
	all, ctx := errgroup.WithContext(ctx)
	for i, dev := range devices {
		own, err := repo.OfDevice(list, dev.UDID())
		if err != nil {
			return err
		}
		snapshots[i] = own[d.days/2]
		all.Go(func() (err error) {
			files[i], err = d.materialize(ctx, dev, snapshots[i])
			return err
		})
	}
	var restored backup2.Progress
	all.Go(func() (err error) {
		restored, err = d.restore(ctx, snapshots[0], d.middle[devices[0].UDID()])
		return err
	})
	if err := all.Wait(); err != nil {
		return err
	}
	for i, dev := range devices {
		s := snapshots[i]
		res.Verified = append(res.Verified, s.ID.String())
		res.Files += files[i]
		d.say("day %d of %s, snapshot %s: materialized %s files and folders, identical to the device on that day",
			d.days/2+1, clean(dev.Name()), s.ID.Short(), count(int64(files[i])))
		if i == 0 {
			res.Restored = append(res.Restored, s.ID.String())
			d.say("  and restored to New iPhone: %s, every file identical", bytesText(restored.Bytes))
		}
	}
	return nil
}

// materialize writes a snapshot as a folder, compares the folder with the device's
// content on that day, and returns the number of files and folders.
func (d *demo) materialize(ctx context.Context, dev *lab.Device, s *repo.Snapshot) (int, error) {
	out, err := materialize.Write(ctx, d.repo, s, filepath.Join(d.dir, "materialized"), materialize.Options{Workers: runtime.GOMAXPROCS(0)})
	if err != nil {
		return 0, err
	}
	folder, err := devicefiles.OpenFolder(ctx, out.Dir, []byte(synthetic.DefaultPassword))
	if err != nil {
		return 0, err
	}
	got, err := inventory(ctx, folder)
	if err = errors.Join(err, folder.Close()); err != nil {
		return 0, err
	}
	if err := d.middle[dev.UDID()].compare(got); err != nil {
		return 0, fmt.Errorf("%s differs from %s on that day: %w", out.Dir, dev.Name(), err)
	}
	return len(got), nil
}

// restore restores a snapshot to a new device and compares the device's content with
// want.
func (d *demo) restore(ctx context.Context, s *repo.Snapshot, want fingerprints) (sent backup2.Progress, err error) {
	spare, err := d.lab.AddSpare(ctx, simulator.Spec{Name: "New iPhone"})
	if err != nil {
		return sent, err
	}
	e, err := d.host.Mux.Find(ctx, spare.UDID())
	if err != nil {
		return sent, err
	}
	p, err := d.host.PlanRestore(ctx, e, s)
	if err != nil {
		return sent, err
	}
	opt := host.RestoreOptions{RestoreOptions: backup2.RestoreOptions{SystemFiles: true, RemoveOthers: true}}
	out, err := d.host.Restore(ctx, p, opt, quietly{d.a})
	if err != nil {
		return sent, err
	}
	got, err := inventory(ctx, spare.Agent.Content())
	if err != nil {
		return sent, err
	}
	if err := want.compare(got); err != nil {
		return sent, fmt.Errorf("%s differs from the snapshot: %w", spare.Name(), err)
	}
	return out.Progress, nil
}

// removeFolders removes a folder that has thousands of files. It removes several
// subfolders at a time.
func removeFolders(dir string) error {
	parts, err := filepath.Glob(filepath.Join(dir, "*", "*"))
	if err != nil {
		return err
	}
	var all errgroup.Group
	all.SetLimit(4)
	for _, p := range parts {
		all.Go(func() error { return os.RemoveAll(p) })
	}
	return errors.Join(all.Wait(), os.RemoveAll(dir))
}

// quietly is an observer that prints only warnings.
type quietly struct{ a *app }

func (quietly) Phase(backup2.Phase)       {}
func (quietly) Progress(backup2.Progress) {}
func (quietly) Remark(string)             {}
func (quietly) Prompt(bool)               {}
func (q quietly) Warning(text string)     { q.a.warn("%s", text) }

func (d *demo) conclude(w io.Writer, res *demoResult) {
	fmt.Fprintf(w, "\nFull copies of every day would take %s; the encrypted repository takes %s.\n", bytesText(res.CopiedBytes), bytesText(res.StoredBytes))
	fmt.Fprintf(w, "Every byte of the repository was read and verified. Total time: %.0f seconds.\n", res.Seconds)
	if d.keep || d.a.repoDir != "" {
		fmt.Fprintf(w, "\nTo explore it (the password is %q):\n  export SNAP_REPOSITORY=%q\n  snap snapshots\n", demoPassword, d.repoDir())
	}
}

// say prints what happens, unless --json is given.
func (d *demo) say(format string, args ...any) {
	if !d.a.json {
		fmt.Fprintf(d.a.human(), format+"\n", args...)
	}
}

// fingerprints has the kind, size, time and content hash of files, by path.
type fingerprints map[string]string

// inventory returns the fingerprints of all files on a device or in a backup folder.
func inventory(ctx context.Context, c devicefiles.Source) (fingerprints, error) {
	records, err := c.Records(ctx)
	if err != nil {
		return nil, err
	}
	all := fingerprints{}
	for _, rec := range records.All() {
		sum := ""
		if rec.IsFile() {
			if sum, err = hashContent(c, &rec); err != nil {
				return nil, err
			}
		}
		all[rec.Domain+"-"+rec.RelativePath] = fmt.Sprintf("%d %o %d %d %s%s", rec.Flags, rec.Mode, rec.Size, rec.ModTime, rec.Target, sum)
	}
	return all, nil
}

func hashContent(c devicefiles.Source, rec *manifest.Record) (string, error) {
	f, err := c.Open(rec)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	return fmt.Sprintf("%d %x", n, h.Sum(nil)), err
}

// compare returns an error that names a difference, or nil if there is none.
func (f fingerprints) compare(got fingerprints) error {
	for path, want := range f {
		if got[path] != want {
			return fmt.Errorf("%s differs: %q, want %q", path, got[path], want)
		}
	}
	for path := range got {
		if _, ok := f[path]; !ok {
			return fmt.Errorf("%s is unexpected", path)
		}
	}
	return nil
}
