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
	"github.com/snap-backup/snap/repo/backend/local"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
)

func (a *app) demoCommand() *cobra.Command {
	d := demo{a: a, middle: map[string]fingerprints{}}
	var scale string
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show the main job on simulated devices, without a phone",
		Long: `Simulates an iPhone and an iPad over several days, down to the socket where
devices are found: real databases, photos, settings and logs that change a little
every day; the iPad encrypts its backups. Each day both are backed up, by the
protocol that real devices speak, into a repository in a temporary folder. Then a
day from the middle is given back as a folder and compared byte by byte, and
restored to a device that is new, which then has the same. Everything is removed
at the end unless --keep is given.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if d.size, err = synthetic.ParseScale(scale); err != nil {
				return usageError{err}
			}
			return d.run(cmd.Context())
		},
	}
	cmd.Flags().StringVar(&scale, "scale", "demo", "how much is on the devices: tiny, demo, small, medium or large: 3, 30, 60, 600 or 3000 MB each")
	cmd.Flags().IntVar(&d.days, "days", 4, "how many days")
	cmd.Flags().Uint64Var(&d.seed, "seed", 1, "equal seeds make equal devices")
	cmd.Flags().BoolVar(&d.keep, "keep", false, "leave the folders and the repository where they are")
	return cmd
}

// demoPassword is that of the demo's repository, which holds nothing secret.
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
	middle map[string]fingerprints // of each device on the middle day, by UDID
	copied int64                   // what a copy of every day would have taken
	day    atomic.Int64            // from 0 on
}

// demoResult is what the demo prints.
type demoResult struct {
	Snapshots   []snapshotJSON `json:"snapshots"`
	CopiedBytes int64          `json:"copied_bytes"` // what a full copy of every day would take
	StoredBytes int64          `json:"stored_bytes"` // what the repository takes
	Verified    []string       `json:"verified"`     // snapshots given back and compared
	Files       int            `json:"verified_files"`
	Restored    []string       `json:"restored"` // snapshots restored to a device, and compared
	Seconds     float64        `json:"seconds"`
	Kept        string         `json:"kept,omitempty"`
}

func (d *demo) run(ctx context.Context) (err error) {
	start := time.Now()
	if d.days < 1 {
		return usageError{errors.New("--days takes a number from 1 on")}
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
	res.Snapshots = snapshotsJSON(list)
	if !d.a.json {
		fmt.Fprintln(d.a.stdout)
		printSnapshots(d.a.stdout, list)
		fmt.Fprintln(d.a.stdout)
	}
	// All of it reads; much of it waits for one another's turn in a conversation.
	all, both := errgroup.WithContext(ctx)
	all.Go(func() error { return d.giveBack(both, list, &res) })
	all.Go(func() error { return d.check(both) })
	if err := all.Wait(); err != nil {
		return err
	}
	for _, dev := range d.lab.Devices() {
		if wrong := dev.Violations(); len(wrong) > 0 {
			return fmt.Errorf("%s has suffered from snap: %q", dev.Name(), wrong)
		}
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

// connect makes the repository, and the devices behind a socket of their own.
func (d *demo) connect(ctx context.Context) (end func(), err error) {
	be, err := local.Create(filepath.Join(d.dir, "repository"))
	if err != nil {
		return nil, err
	}
	if d.repo, err = repo.Create(ctx, be, []byte(demoPassword), crypto.SlotInfo{Kind: crypto.PasswordSlot, Label: "demo"}, d.a.options); err != nil {
		return nil, err
	}
	if d.lab, err = lab.New(ctx, lab.Options{Dir: d.dir, Devices: 2, Scale: d.size, Seed: d.seed, Encrypt: synthetic.EncryptAlternate, Clock: d.clock}); err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(err, d.lab.Close())
	}
	ctx, stop := context.WithCancel(ctx)
	served := make(chan error, 1)
	go func() { served <- d.lab.Serve(ctx, listener) }()
	end = func() {
		stop()
		<-served
		_ = d.lab.Close() // what it has open is in a folder that goes
	}
	m, err := device.Open(simulator.Address(listener.Addr()))
	if err != nil {
		end()
		return nil, err
	}
	if d.host, err = d.a.flowHost(m, d.repo, "demo"); err != nil {
		end()
		return nil, err
	}
	d.host.LockDir = d.dir
	return end, nil
}

// clock is that of the devices: their last day is today.
func (d *demo) clock() time.Time {
	return d.a.now().AddDate(0, 0, int(d.day.Load())-d.days+1)
}

// store lets the days go by and backs the devices up on each.
func (d *demo) store(ctx context.Context) error {
	for day := range d.days {
		d.say("day %d: two devices are backed up", day+1)
		d.day.Store(int64(day))
		if day > 0 {
			if err := d.lab.NextDay(ctx); err != nil {
				return err
			}
		}
		devices := d.lab.Devices()
		results := make([]*host.BackupResult, len(devices))
		var both errgroup.Group
		for i, dev := range devices {
			both.Go(func() (err error) {
				results[i], err = d.backup(ctx, dev)
				return err
			})
		}
		if err := both.Wait(); err != nil {
			return err
		}
		for i, dev := range devices {
			res := results[i]
			d.copied += res.Import.Bytes
			d.say("  %-16s %s in %s files; it sent %s, the repository grew by %s", clean(dev.Name()), bytesText(res.Import.Bytes),
				count(res.Import.Files), bytesText(res.Bytes), bytesText(res.Snapshot.StoredBytes))
			if day == d.days/2 {
				// Tomorrow it has something else.
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

// check reads all of the repository.
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

// giveBack gives the middle day of each device back as a folder, the first one's
// to a new device, too, and compares.
func (d *demo) giveBack(ctx context.Context, list []*repo.Snapshot, res *demoResult) error {
	devices := d.lab.Devices()
	snapshots, files := make([]*repo.Snapshot, len(devices)), make([]int, len(devices))
	all, ctx := errgroup.WithContext(ctx)
	for i, dev := range devices {
		mine, err := repo.OfDevice(list, dev.UDID())
		if err != nil {
			return err
		}
		snapshots[i] = mine[d.days/2]
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
		d.say("day %d of %s given back from snapshot %s: %s files and folders, every byte as on the device that day",
			d.days/2+1, clean(dev.Name()), s.ID.Short(), count(int64(files[i])))
		if i == 0 {
			res.Restored = append(res.Restored, s.ID.String())
			d.say("  and restored to New iPhone: %s, every file there as it was", bytesText(restored.Bytes))
		}
	}
	return nil
}

// materialize gives a snapshot back as a folder, compares, and returns the number
// of files and folders.
func (d *demo) materialize(ctx context.Context, dev *lab.Device, s *repo.Snapshot) (int, error) {
	out, err := materialize.Write(ctx, d.repo, s, filepath.Join(d.dir, "given back"), materialize.Options{Workers: runtime.GOMAXPROCS(0)})
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
		return 0, fmt.Errorf("%s is not what was on %s that day: %w", out.Dir, dev.Name(), err)
	}
	return len(got), nil
}

// restore restores a snapshot to a device that has just been bought.
func (d *demo) restore(ctx context.Context, s *repo.Snapshot, want fingerprints) (sent backup2.Progress, err error) {
	bought, err := d.lab.AddSpare(ctx, simulator.Spec{Name: "New iPhone"})
	if err != nil {
		return sent, err
	}
	e, err := d.host.Mux.Find(ctx, bought.UDID())
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
	got, err := inventory(ctx, bought.Agent.Content())
	if err != nil {
		return sent, err
	}
	if err := want.compare(got); err != nil {
		return sent, fmt.Errorf("%s does not have what was restored: %w", bought.Name(), err)
	}
	return out.Progress, nil
}

// removeFolders removes a folder, what is two levels down side by side: there are
// thousands of files, and file systems take their time.
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

// quietly is an observer that tells of trouble alone.
type quietly struct{ a *app }

func (quietly) Phase(backup2.Phase)       {}
func (quietly) Progress(backup2.Progress) {}
func (quietly) Remark(string)             {}
func (quietly) Prompt(bool)               {}
func (q quietly) Warning(text string)     { q.a.warn("%s", text) }

func (d *demo) conclude(w io.Writer, res *demoResult) {
	fmt.Fprintf(w, "\nA copy of every day would take %s; the repository, encrypted, takes %s.\n", bytesText(res.CopiedBytes), bytesText(res.StoredBytes))
	fmt.Fprintf(w, "Every byte of the repository was read and verified. %.0f seconds in all.\n", res.Seconds)
	if d.keep {
		fmt.Fprintf(w, "\nLook around (the password is %q):\n  export SNAP_REPOSITORY=%q\n  snap snapshots\n", demoPassword, filepath.Join(d.dir, "repository"))
	}
}

// say tells a person what goes on.
func (d *demo) say(format string, args ...any) {
	if !d.a.json {
		fmt.Fprintf(d.a.stdout, format+"\n", args...)
	}
}

// fingerprints are what must come back: kind, size, time and content of
// everything, by path.
type fingerprints map[string]string

// inventory takes the fingerprints of what is on a device, or in a backup folder
// of it.
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

// compare names the first difference.
func (f fingerprints) compare(got fingerprints) error {
	for path, want := range f {
		if got[path] != want {
			return fmt.Errorf("%s differs: %q, want %q", path, got[path], want)
		}
	}
	for path := range got {
		if _, ok := f[path]; !ok {
			return fmt.Errorf("%s should not be there", path)
		}
	}
	return nil
}
