package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/snap-backup/snap/bench/farstore"
	"github.com/snap-backup/snap/device/simulator/synthetic"
	"github.com/snap-backup/snap/repo/backend/s3test"
)

// keptDays is how many snapshots of each device a fleet keeps.
const keptDays = 3

// fleet is many devices that several computers back up into one bucket.
type fleet struct {
	t       *testing.T
	dir     string
	gateway *s3test.Gateway
	owners  []*owner
	// prunes and mirrors are computers that prune and mirror.
	prunes, mirrors *computer

	mu   sync.Mutex              // guards want
	want map[string]fingerprints // by listedSnapshot.key
}

// computer runs commands, with a cache and a line of its own.
type computer struct {
	*shell
	line *farstore.Line
}

// owner is a computer that imports the backups of some devices.
type owner struct {
	*computer
	series *synthetic.Series
	folder string
}

func newFleet(t *testing.T, owners, devices int) *fleet {
	t.Helper()
	f := &fleet{t: t, dir: t.TempDir(), gateway: s3test.Start(t), want: map[string]fingerprints{}}
	f.prunes, f.mirrors = f.newComputer(), f.newComputer()
	for i := range owners {
		o := &owner{computer: f.newComputer(), folder: filepath.Join(f.dir, fmt.Sprint("backups", i))}
		var err error
		o.series, err = synthetic.New(synthetic.Config{Seed: uint64(i + 1), Devices: devices, Scale: synthetic.Tiny, Encryption: synthetic.Encryption(i % 2), StateDir: f.dir})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = o.series.Close() })
		f.owners = append(f.owners, o)
	}
	f.prunes.run(0, "init", "-o", "s3.make-bucket=true")
	return f
}

func (f *fleet) newComputer() *computer {
	f.t.Helper()
	l, err := farstore.Open(f.t.Context(), f.gateway.Addr, 0)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = l.Close() })
	s := newShell(f.t, "s3:http://"+l.Addr+"/fleet", "SNAP_BACKUP_PASSWORD="+synthetic.DefaultPassword,
		"AWS_ACCESS_KEY_ID="+s3test.ID, "AWS_SECRET_ACCESS_KEY="+s3test.Secret, "AWS_REGION=us-east-1")
	return &computer{s, l}
}

// patient is like try, but a warning that the store does not answer is right while it is
// restarted.
func (c *computer) patient(args ...string) error {
	cmd, out := c.command(args...)
	_ = cmd.Run()
	warned := slices.ContainsFunc(strings.Split(out.String(), "\n"), func(line string) bool {
		return strings.Contains(line, "warning") && !strings.Contains(line, "trying again")
	})
	if code := cmd.ProcessState.ExitCode(); code != 0 || warned {
		return fmt.Errorf("snap %s: exit code %d\n%s", strings.Join(args, " "), code, bytes.TrimSpace(out.Bytes()))
	}
	return nil
}

// waitFor waits until a computer has sent some requests, or all imports are over.
func (c *computer) waitFor(requests int, imported <-chan struct{}) {
	for c.line.Total().Requests < requests {
		select {
		case <-imported:
			return
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// generate makes the backups of the next day.
func (f *fleet) generate(o *owner) error {
	if err := o.series.Next(f.t.Context(), o.folder); err != nil {
		return err
	}
	for i, d := range o.series.Devices() {
		files, err := fingerprint(filepath.Join(o.folder, d.UDID))
		if err != nil {
			return err
		}
		key := listedSnapshot{UDID: d.UDID, Time: o.series.Time(i, o.series.Day())}.key()
		f.mu.Lock()
		f.want[key] = files
		f.mu.Unlock()
	}
	return nil
}

// day lets all computers work at the same time. If restart is set, the store is killed and
// started again meanwhile.
func (f *fleet) day(day int, restart bool) {
	f.t.Helper()
	var work, imports sync.WaitGroup
	imported := make(chan struct{})
	failed := make(chan error, len(f.owners)+2)
	for _, o := range f.owners {
		if err := f.generate(o); err != nil {
			f.t.Fatal(err)
		}
		imports.Go(func() { failed <- o.patient("import", "-q", o.folder) })
	}
	work.Go(func() { imports.Wait(); close(imported) })
	if day > 0 { // a prune of nothing is refused
		work.Go(func() {
			f.waitUntilLoaded(imported)
			failed <- f.prunes.patient("forget", "-q", "--keep-last", fmt.Sprint(keptDays), "--prune")
		})
	}
	work.Go(func() { failed <- f.mirrors.patient("mirror", "-q", filepath.Join(f.dir, "mirror")) })
	if restart {
		f.waitUntilOpened(day, imported)
		f.gateway.Kill()
		f.gateway.Start()
	}
	work.Wait()
	close(failed)
	for err := range failed {
		if err != nil {
			f.t.Error(err)
		}
	}
	i, p, m := f.imported(), f.prunes.line.Total(), f.mirrors.line.Total()
	f.t.Logf("day %d: imports %d requests, %d KB; prune %d, %d KB; mirror %d, %d KB; restarted: %v",
		day, i.Requests, i.Bytes/1000, p.Requests, p.Bytes/1000, m.Requests, m.Bytes/1000, restart)
}

// waitUntilOpened waits until all computers have found the store. A command that does not find
// it at its beginning fails at once, since its address may be wrong.
func (f *fleet) waitUntilOpened(day int, imported <-chan struct{}) {
	const opened = 5 // more requests than it takes to open a repository
	for _, c := range f.computers() {
		if c != f.prunes || day > 0 {
			c.waitFor(opened, imported)
		}
	}
}

// waitUntilLoaded waits until all imports have read which packs are about to be removed. A prune
// that begins before removes no pack, and leaves that to the next one.
func (f *fleet) waitUntilLoaded(imported <-chan struct{}) {
	const loaded = 25 // more requests than it takes to load the index
	for _, o := range f.owners {
		o.waitFor(loaded, imported)
	}
}

// imported returns what the imports have asked for today.
func (f *fleet) imported() (all farstore.Traffic) {
	for _, o := range f.owners {
		t := o.line.Total()
		all.Requests += t.Requests
		all.Bytes += t.Bytes
	}
	return all
}

// tomorrow begins the counts anew.
func (f *fleet) tomorrow() {
	for _, c := range f.computers() {
		c.line.Take()
	}
}

func (f *fleet) computers() []*computer {
	all := []*computer{f.prunes, f.mirrors}
	for _, o := range f.owners {
		all = append(all, o.computer)
	}
	return all
}

// verify compares the newest snapshot of each device, and of every fourth device all others,
// with their backups. s is a shell on the bucket or on its mirror.
func (f *fleet) verify(s *shell, every int) {
	f.t.Helper()
	var list []listedSnapshot
	s.json(&list, "snapshots")
	byKey := map[string]string{}
	for _, l := range list {
		byKey[l.key()] = l.ID
	}
	n, compared := 0, 0
	for _, o := range f.owners {
		for i, d := range o.series.Devices() {
			for back := range min(keptDays, o.series.Day()+1) {
				key := listedSnapshot{UDID: d.UDID, Time: o.series.Time(i, o.series.Day()-back)}.key()
				id := byKey[key]
				if id == "" {
					f.t.Errorf("the snapshot %s is lost", key)
					continue
				}
				if n%every != 0 && back > 0 || every > 4 && n%every != 0 {
					continue
				}
				compared++
				f.compare(s, id, key, d.UDID)
			}
			n++
		}
	}
	f.t.Logf("%d of %d snapshots equal their backups", compared, len(list))
}

func (f *fleet) compare(s *shell, id, key, udid string) {
	f.t.Helper()
	out := filepath.Join(f.dir, "out")
	s.run(0, "materialize", "-q", id, out)
	got, err := fingerprint(filepath.Join(out, udid))
	if err == nil {
		err = f.want[key].compare(got)
	}
	if err != nil {
		f.t.Errorf("snapshot %s: %v", key, err)
	}
	if err := os.RemoveAll(out); err != nil {
		f.t.Fatal(err)
	}
}

// TestFleetInterop backs up many devices of several computers into one bucket, day after day,
// while one computer prunes and another mirrors, and the store is killed twice. Nothing is
// lost, and a day does not cost more than one before. With SNAP_TEST_ALL these are 40 devices
// of 5 computers for 10 days.
func TestFleetInterop(t *testing.T) {
	if testing.Short() {
		t.Skip("it imports for several days")
	}
	owners, devices, days := int(amount(5, 2, 0)), int(amount(8, 2, 0)), int(amount(10, 3, 0)) //nolint:gosec // small
	f := newFleet(t, owners, devices)
	var imported []farstore.Traffic // by day without a restart
	for day := range days {
		restart := day == days/3 || day == days*2/3
		f.tomorrow()
		f.day(day, restart)
		if t.Failed() {
			return
		}
		if !restart {
			imported = append(imported, f.imported())
		}
	}
	// From the fourth day on, each day forgets as much as it stores.
	if last, middle := imported[len(imported)-1], imported[len(imported)/2]; len(imported) > 6 && last.Requests > middle.Requests*5/4 {
		t.Errorf("on the last day, imports took %+v, in the middle %+v", last, middle)
	}
	// A prune at last, without others, leaves nothing to wait for.
	if err := f.prunes.patient("prune", "-q"); err != nil {
		t.Error(err)
	}
	var report struct {
		Clean    bool  `json:"clean"`
		Problems []any `json:"problems"`
	}
	f.prunes.json(&report, "check", "--read-data")
	if !report.Clean || len(report.Problems) > 0 {
		t.Errorf("check finds %v", report.Problems)
	}
	f.verify(f.owners[0].shell, 4)
	mirror := filepath.Join(f.dir, "mirror")
	f.mirrors.run(0, "mirror", "-q", mirror)
	f.verify(newShell(t, mirror, "SNAP_BACKUP_PASSWORD="+synthetic.DefaultPassword), 8)
}
