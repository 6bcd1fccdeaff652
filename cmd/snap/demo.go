package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/device/mobilesync/keybag"
	"github.com/snap-backup/snap/device/synthetic"
	"github.com/snap-backup/snap/device/transfer"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend/local"
	"github.com/spf13/cobra"
)

func (a *app) demoCommand() *cobra.Command {
	d := demo{a: a}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show the main job on generated devices, without a phone",
		Long: `Generates backup folders of two small devices over several days, as Finder would
make them: real databases, photos, settings and logs that change a little every
day; the second device encrypts its backups. Each day goes into a repository in
a temporary folder. Then a day from the middle is given back and compared byte
by byte. Everything is removed at the end unless --keep is given.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return d.run(cmd.Context()) },
	}
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
	seed uint64
	keep bool

	dir    string
	series *synthetic.Series
	repo   *repo.Repo
	middle map[string]fingerprints // of each device's folder on the middle day, by UDID
	copied int64                   // what a copy of every day would have taken
}

// demoResult is what the demo prints.
type demoResult struct {
	Snapshots   []snapshotJSON `json:"snapshots"`
	CopiedBytes int64          `json:"copied_bytes"` // what a full copy of every day would take
	StoredBytes int64          `json:"stored_bytes"` // what the repository takes
	Verified    []string       `json:"verified"`     // snapshots given back and compared
	Files       int            `json:"verified_files"`
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
			err = errors.Join(err, os.RemoveAll(d.dir))
		}
	}()
	defer d.a.releaseLock() // before the folder goes
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
	}
	if err := d.giveBack(ctx, list, &res); err != nil {
		return err
	}
	report, err := d.repo.Check(ctx, repo.CheckOptions{ReadData: 1})
	if err != nil {
		return err
	}
	if !report.Clean() {
		return fmt.Errorf("the check of the repository failed: %w", repo.ErrDamaged)
	}
	st, _, err := d.repo.Stats(ctx)
	if err != nil {
		return err
	}
	res.StoredBytes, res.Seconds = st.StoredBytes, time.Since(start).Seconds()
	if d.keep {
		res.Kept = d.dir
	}
	return d.a.print(res, func(w io.Writer) { d.conclude(w, &res) })
}

// store makes the days and imports each.
func (d *demo) store(ctx context.Context) error {
	series, err := synthetic.New(synthetic.Config{Seed: d.seed, Devices: 2, Scale: synthetic.Small, Encryption: synthetic.EncryptAlternate, StateDir: d.dir})
	if err != nil {
		return err
	}
	defer series.Close()
	d.series = series
	be, err := local.Create(filepath.Join(d.dir, "repository"))
	if err != nil {
		return err
	}
	if d.repo, err = repo.Create(ctx, be, []byte(demoPassword), crypto.SlotInfo{Kind: crypto.PasswordSlot, Label: "demo"}, d.a.options); err != nil {
		return err
	}
	if err := d.a.takeLock(ctx, d.repo, repo.LockWrite, "snap demo"); err != nil {
		return err
	}
	folders := filepath.Join(d.dir, "Backup")
	if err := os.Mkdir(folders, 0o700); err != nil {
		return err
	}
	unlock := &unlocker{a: d.a, r: d.repo, given: []byte(series.Password(0)), keys: map[[32]byte]*keybag.Keys{}}
	defer unlock.close()
	for day := range d.days {
		d.say("day %d: two devices make their backups", day+1)
		if err := series.Next(ctx, folders); err != nil {
			return err
		}
		for _, dev := range series.Devices() {
			dir := filepath.Join(folders, dev.UDID)
			res, err := d.a.importOne(ctx, d.repo, unlock, dir, transfer.ImportOptions{Host: "demo", Program: "snap " + version, Workers: runtime.GOMAXPROCS(0)})
			if err != nil {
				return err
			}
			d.copied += res.Bytes
			d.say("  %-16s %s in %s files; %s had changed, the repository grew by %s", clean(dev.Name), bytesText(res.Bytes),
				count(res.Files), bytesText(res.ReadBytes), bytesText(res.Snapshot.StoredBytes))
		}
		if day == d.days/2 {
			if err := d.remember(folders); err != nil {
				return err
			}
		}
	}
	return nil
}

// remember fingerprints the folders of today: tomorrow the devices overwrite
// them, as Finder's are overwritten.
func (d *demo) remember(folders string) error {
	d.middle = map[string]fingerprints{}
	for _, dev := range d.series.Devices() {
		f, err := fingerprint(filepath.Join(folders, dev.UDID))
		if err != nil {
			return err
		}
		d.middle[dev.UDID] = f
	}
	return nil
}

// giveBack materializes the middle day of each device and compares it.
func (d *demo) giveBack(ctx context.Context, list []*repo.Snapshot, res *demoResult) error {
	target := filepath.Join(d.dir, "given back")
	for _, dev := range d.series.Devices() {
		mine, err := repo.OfDevice(list, dev.UDID)
		if err != nil {
			return err
		}
		s := mine[d.days/2]
		out, err := transfer.Materialize(ctx, d.repo, s, target, transfer.MaterializeOptions{Workers: runtime.GOMAXPROCS(0)})
		if err != nil {
			return err
		}
		got, err := fingerprint(out.Dir)
		if err != nil {
			return err
		}
		if err := d.middle[dev.UDID].compare(got); err != nil {
			return fmt.Errorf("%s is not what was imported: %w", out.Dir, err)
		}
		res.Verified = append(res.Verified, s.ID.String())
		res.Files += len(got)
		d.say("day %d of %s given back from snapshot %s: %s files and folders, every byte and time the same",
			d.days/2+1, clean(dev.Name), s.ID.Short(), count(int64(len(got))))
	}
	return nil
}

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

// fingerprints are what must come back of a folder: kind, size, mtime and
// content of everything in it, by path.
type fingerprints map[string]string

func fingerprint(dir string) (fingerprints, error) {
	f := fingerprints{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		sum := ""
		if !e.IsDir() {
			if sum, err = hashFile(path); err != nil {
				return err
			}
		}
		f[rel] = fmt.Sprintf("%v %d %s", e.IsDir(), info.ModTime().UnixNano(), sum)
		return nil
	})
	return f, err
}

func hashFile(path string) (string, error) {
	f, err := os.Open(path)
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
