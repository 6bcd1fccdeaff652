package receive

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/snap-backup/snap/device/protocol/backup2"
	"github.com/snap-backup/snap/device/simulator/synthetic"
	"github.com/snap-backup/snap/internal/faultpoint"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/crash"
	"github.com/snap-backup/snap/repo/backend/fault"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
)

// faultRig has a repository with the backup of day 0 of a device, and processes
// that back up day 1.
type faultRig struct {
	t        testing.TB
	base     *memory.Backend
	phone    *phone
	day0     map[string]string // what the device knows to be in the folder after day 0
	contents []map[string]string
	opts     Options

	// About the backup that ran last.
	last   *phone
	spools string
}

// newFaultRig returns a rig. All rigs with the same encryption share a
// device and a repository, which are made once.
func newFaultRig(t testing.TB, encryption synthetic.Encryption) *faultRig {
	t.Helper()
	rigs.Lock()
	defer rigs.Unlock()
	g := rigs.made[encryption]
	if g == nil {
		g = makeFaultRig(t, encryption)
		rigs.made[encryption] = g
	}
	own := *g
	own.t, own.phone = t, newPhone(g.phone.dir)
	own.opts.SpoolDir = t.TempDir()
	return &own
}

var rigs = struct {
	sync.Mutex
	made map[synthetic.Encryption]*faultRig
}{made: map[synthetic.Encryption]*faultRig{}}

func makeFaultRig(t testing.TB, encryption synthetic.Encryption) *faultRig {
	t.Helper()
	dir, err := os.MkdirTemp(shared, "")
	if err != nil {
		t.Fatal(err)
	}
	s := newSeriesIn(t, synthetic.Config{Seed: 9, Encryption: encryption}, dir)
	g := &faultRig{base: memory.New(), phone: s.phone}
	g.opts = Options{Encrypted: encryption != synthetic.EncryptNone, SpoolDir: t.TempDir(), CheckpointBytes: 400 << 10}
	r := createRepo(t, g.base)
	if err := r.KeepDevicePassword(context.Background(), s.phone.udid, []byte(s.Password(0))); err != nil {
		t.Fatal(err)
	}
	for day := range 2 {
		s.next()
		p, err := folderContents(s.phone.dir)
		if err != nil {
			t.Fatal(err)
		}
		g.contents = append(g.contents, p)
		if day == 0 {
			mustRun(t, r, s.phone, nil, g.opts)
			g.day0 = s.phone.state()
		}
	}
	return g
}

// backUp backs the device up, as a new process.
func (g *faultRig) backUp(be backend.Backend) error {
	g.last, g.spools = newPhone(g.phone.dir), g.t.TempDir()
	r, err := openRepo(be, seed(20))
	if err != nil {
		return err
	}
	opts := g.opts
	opts.SpoolDir = g.spools
	_, err = run(r, g.last, g.day0, opts)
	return err
}

// judge returns an error unless day 0 is complete, day 1 is complete or absent,
// only files that the disk has damaged are reported, and the next backup succeeds.
// The disk damages files only if the crash.Plan has Torn.
func (g *faultRig) judge(be *memory.Backend, succeeded bool) error {
	p, damaged := g.last, repotest.DamagedFiles(g.t, be)
	ctx := context.Background()
	look := func() (int, error) {
		r, err := openRepo(be, seed(21))
		if err != nil {
			return 0, err
		}
		list, unexpected, err := r.Snapshots(ctx)
		if err != nil {
			return 0, err
		}
		unexpected = slices.DeleteFunc(unexpected, func(err error) bool {
			var d *repo.DamageError
			return errors.As(err, &d) && slices.Contains(damaged, d.File)
		})
		if len(unexpected) > 0 {
			return 0, fmt.Errorf("snapshot records: %w", errors.Join(unexpected...))
		}
		for i, s := range list {
			got, err := snapshotContents(r, s)
			if err == nil {
				err = sameContents(g.contents[min(i, 1)], got)
			}
			if err != nil {
				return 0, fmt.Errorf("snapshot %d: %w", i, err)
			}
		}
		report, err := r.Check(ctx, repo.CheckOptions{})
		if err != nil {
			return 0, fmt.Errorf("check: %w", err)
		}
		if len(report.Affected) > 0 || slices.ContainsFunc(report.Problems, func(p repo.Problem) bool { return !slices.Contains(damaged, p.File) }) {
			return 0, fmt.Errorf("check finds %+v; the disk has damaged %v", report, damaged)
		}
		return len(list), nil
	}
	n, err := look()
	if err != nil {
		return err
	}
	if n != 2 && (succeeded || n != 1) {
		return fmt.Errorf("%d snapshots", n)
	}
	known := g.day0
	if n == 2 {
		known = p.state()
	}
	p.step = nil
	opts := g.opts
	opts.SpoolDir = g.spools
	r, err := openRepo(be, seed(22))
	if err != nil {
		return err
	}
	if _, err := run(r, p, known, opts); err != nil {
		return fmt.Errorf("next backup: %w", err)
	}
	after, err := look()
	if err == nil && after != n+1 {
		err = fmt.Errorf("%d snapshots after %d", after, n)
	}
	return err
}

// kinds returns the kinds of devices to test: with -short, only the kind that
// covers more code.
func kinds() map[string]synthetic.Encryption {
	k := map[string]synthetic.Encryption{"plain": synthetic.EncryptNone, "encrypted": synthetic.EncryptAll}
	if testing.Short() {
		delete(k, "plain")
	}
	return k
}

// A backup succeeds even if its last steps fail, since they only clean up. So
// these tests cannot use the rig of package repotest, which expects an error.

func TestBackupSurvivesEveryFailure(t *testing.T) {
	for kind, encryption := range kinds() {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			g := newFaultRig(t, encryption)
			count := fault.New(g.base.Clone())
			if err := g.backUp(count); err != nil || count.Count() < 50 {
				t.Fatalf("without faults it had %d steps: %v", count.Count(), err)
			}
			plans := []struct {
				name string
				plan func(n int) fault.Plan
			}{
				{"refused once", func(n int) fault.Plan { return fault.Once(n, fault.ErrInjected) }},
				{"fails from then on", func(n int) fault.Plan { return fault.From(n, fault.ErrInjected) }},
				{"done, but reported as failed", func(n int) fault.Plan { return fault.OnceAfter(n, fault.ErrInjected) }},
			}
			for _, k := range faultpoint.Choose(t, len(plans), len(plans)) {
				name, plan := plans[k].name, plans[k].plan
				noticed := 0
				for _, i := range faultpoint.Choose(t, count.Count(), 3) {
					store := g.base.Clone()
					err := g.backUp(fault.New(store, plan(i+1)))
					if err != nil {
						noticed++
						if !errors.Is(err, fault.ErrInjected) {
							t.Errorf("%s at %d: the error hides its cause: %v", name, i+1, err)
						}
					}
					if err := g.judge(store, err == nil); err != nil {
						t.Fatalf("%s at %d: %v", name, i+1, err)
					}
				}
				t.Logf("%s: %d noticed; there are %d steps", name, noticed, count.Count())
			}
		})
	}
}

// crashes lets the process die at changes to the store, one run for each.
func (g *faultRig) crashes(t *testing.T, torn bool, want int) (damaged int) {
	t.Helper()
	count := crash.New(g.base.Clone(), crash.Plan{})
	if err := g.backUp(count); err != nil || count.Changes() < 5 {
		t.Fatalf("without a crash it made %d changes: %v", count.Changes(), err)
	}
	for _, i := range faultpoint.Choose(t, count.Changes(), want) {
		dying := crash.New(g.base.Clone(), crash.Plan{At: i + 1, Seed: uint64(i), Torn: torn})
		err := g.backUp(dying)
		if !dying.Crashed() {
			if err != nil {
				t.Fatalf("without a crash: %v", err)
			}
			continue // this run made fewer changes
		}
		be := dying.Reboot()
		damaged += len(repotest.DamagedFiles(t, be))
		if jerr := g.judge(be, false); jerr != nil {
			t.Fatalf("%s (the backup: %v): %v", dying.Outcome(), err, jerr)
		}
	}
	return damaged
}

func TestBackupSurvivesEveryCrash(t *testing.T) {
	for kind, encryption := range kinds() {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			newFaultRig(t, encryption).crashes(t, false, 4)
		})
	}
}

// A disk that does not flush as promised can damage files: a part of their bytes is
// missing.
func TestBackupSurvivesTornFiles(t *testing.T) {
	if testing.Short() {
		t.Skip("TestBackupSurvivesEveryCrash also tests crashes; torn files are tested without -short")
	}
	t.Parallel()
	damaged := newFaultRig(t, synthetic.EncryptAll).crashes(t, true, 4)
	t.Logf("%d files were damaged", damaged)
	if damaged == 0 && faultpoint.All() {
		t.Error("no file was damaged")
	}
}

// The device is told that the store is full, at whatever byte that happens.
// Once the store has room again, the backup continues.
func TestBackupSurvivesFullStore(t *testing.T) {
	t.Parallel()
	g := newFaultRig(t, synthetic.EncryptNone)
	sizes, err := repotest.PutSizes(g.base, g.backUp)
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, n := range sizes {
		total += n
	}
	const step = 4_000
	points := 0
	for _, i := range faultpoint.Choose(t, total/step, 4) {
		store, room := g.base.Clone(), int64(i*step)
		err := g.backUp(fault.New(store, fault.Full(room)))
		if err == nil {
			continue
		}
		points++
		if !backend.IsNoSpace(err) {
			t.Fatalf("%d bytes of room: %v", room, err)
		}
		if err := g.judge(store, false); err != nil {
			t.Fatalf("%d bytes of room: %v", room, err)
		}
	}
	t.Logf("the store was full in %d runs", points)
	if points == 0 && !testing.Short() {
		t.Error("the store was never full")
	}
	// While files arrive, the error is backup2.ErrNoSpace, which the session
	// handles.
	ctx := context.Background()
	r, err := openRepo(fault.New(g.base.Clone(), fault.Full(0)), seed(30))
	if err != nil {
		t.Fatal(err)
	}
	opts := g.opts
	opts.UDID, opts.CheckpointBytes = g.phone.udid, 1
	n, err := New(ctx, r, opts)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close(ctx)
	if err := newPhone(g.phone.dir).backup(ctx, n, g.day0); !errors.Is(err, backup2.ErrNoSpace) {
		t.Errorf("the device hears %v", err)
	}
}

// If the repository cannot give back what it has just stored, there is no snapshot that
// says that the device's files are damaged: the next backup continues this one.
func TestPublishOfWhatCannotBeRead(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	g := newFaultRig(t, synthetic.EncryptNone)
	be := g.base.Clone()
	before := repotest.Content(t, be)
	store := fault.New(be)
	r, err := openRepo(store, seed(20))
	if err != nil {
		t.Fatal(err)
	}
	p, opts := newPhone(g.phone.dir), g.opts
	opts.UDID = p.udid
	n, err := New(ctx, r, opts)
	if err == nil {
		err = n.SetInfo(p.read("Info.plist"))
	}
	if err == nil {
		err = p.backup(ctx, n, g.day0)
	}
	if err != nil {
		t.Fatal(err)
	}
	store.SetPlan(func(c fault.Call) fault.Action {
		if _, old := before[c.Name]; !old && c.Op == fault.ReadAt && repotest.Folder(c.Name) == "packs" {
			return fault.Action{Before: syscall.EACCES}
		}
		return fault.Action{}
	})
	res, err := n.Publish(ctx, PublishOptions{Workers: 1})
	if !errors.Is(err, repo.ErrDamaged) || !errors.Is(err, syscall.EACCES) || res != nil {
		t.Errorf("Publish returned %v, %v", res, err)
	}
	store.SetPlan()
	if err := n.Close(ctx); err != nil {
		t.Fatal(err)
	}
	g.last, g.spools = p, opts.SpoolDir
	if err := g.judge(be, false); err != nil {
		t.Error(err)
	}
}
