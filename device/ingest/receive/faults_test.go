package receive

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
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
	old      map[string]string
	pictures []map[string]string
	opts     Options

	// About the process that ran last.
	last   *phone
	spools string
}

// newFaultRig returns a rig. All rigs of a policy share a device and a
// repository, which are made once.
func newFaultRig(t testing.TB, policy synthetic.Encryption) *faultRig {
	t.Helper()
	rigs.Lock()
	defer rigs.Unlock()
	g := rigs.made[policy]
	if g == nil {
		g = makeFaultRig(t, policy)
		rigs.made[policy] = g
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

func makeFaultRig(t testing.TB, policy synthetic.Encryption) *faultRig {
	t.Helper()
	dir, err := os.MkdirTemp(shared, "")
	if err != nil {
		t.Fatal(err)
	}
	s := newSeriesIn(t, synthetic.Config{Seed: 9, Encryption: policy}, dir)
	g := &faultRig{base: memory.New(), phone: s.phone}
	g.opts = Options{Encrypted: policy != synthetic.EncryptNone, SpoolDir: t.TempDir(), CheckpointBytes: 400 << 10}
	r := createRepo(t, g.base)
	if err := r.KeepDevicePassword(context.Background(), s.phone.udid, []byte(s.Password(0))); err != nil {
		t.Fatal(err)
	}
	for day := range 2 {
		s.next()
		p, err := folderPicture(s.phone.dir)
		if err != nil {
			t.Fatal(err)
		}
		g.pictures = append(g.pictures, p)
		if day == 0 {
			mustRun(t, r, s.phone, nil, g.opts)
			g.old = s.phone.state()
		}
	}
	return g
}

// process acts as a process that backs the device up.
func (g *faultRig) process(be backend.Backend) error {
	g.last, g.spools = newPhone(g.phone.dir), g.t.TempDir()
	r, err := openRepo(be, 20)
	if err != nil {
		return err
	}
	opts := g.opts
	opts.SpoolDir = g.spools
	_, err = run(r, g.last, g.old, opts)
	return err
}

// judge returns an error unless day 0 is complete, day 1 is complete or absent,
// only files that the disk has torn are damaged, and the next backup succeeds.
func (g *faultRig) judge(be *memory.Backend, succeeded bool) error {
	p, torn := g.last, repotest.Misnamed(g.t, be)
	ctx := context.Background()
	look := func() (int, error) {
		r, err := openRepo(be, 21)
		if err != nil {
			return 0, err
		}
		list, damaged, err := r.Snapshots(ctx)
		damaged = slices.DeleteFunc(damaged, func(err error) bool {
			var d *repo.DamageError
			return errors.As(err, &d) && slices.Contains(torn, d.File)
		})
		if err != nil || len(damaged) > 0 {
			return 0, fmt.Errorf("damaged: %v, %w", damaged, err)
		}
		for i, s := range list {
			got, err := snapshotPicture(r, s)
			if err == nil {
				err = samePicture(g.pictures[min(i, 1)], got)
			}
			if err != nil {
				return 0, fmt.Errorf("snapshot %d: %w", i, err)
			}
		}
		report, err := r.Check(ctx, repo.CheckOptions{})
		if err != nil || len(report.Affected) > 0 || slices.ContainsFunc(report.Problems, func(p repo.Problem) bool { return !slices.Contains(torn, p.File) }) {
			return 0, fmt.Errorf("check: %+v, torn are %v, %w", report, torn, err)
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
	old := g.old
	if n == 2 {
		old = p.state()
	}
	p.step = nil
	opts := g.opts
	opts.SpoolDir = g.spools
	r, err := openRepo(be, 22)
	if err != nil {
		return err
	}
	if _, err := run(r, p, old, opts); err != nil {
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
	for kind, policy := range kinds() {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			g := newFaultRig(t, policy)
			count := fault.New(g.base.Clone())
			if err := g.process(count); err != nil || count.Count() < 50 {
				t.Fatalf("without faults it had %d steps: %v", count.Count(), err)
			}
			plans := []struct {
				name string
				plan func(n int) fault.Plan
			}{
				{"refused", func(n int) fault.Plan { return fault.Once(n, fault.ErrInjected) }},
				{"gone", func(n int) fault.Plan { return fault.From(n, fault.ErrInjected) }},
				{"done, not told", func(n int) fault.Plan { return fault.OnceAfter(n, fault.ErrInjected) }},
			}
			for _, k := range faultpoint.Choose(t, len(plans), len(plans)) {
				name, plan := plans[k].name, plans[k].plan
				noticed := 0
				for _, i := range faultpoint.Choose(t, count.Count(), 4) {
					store := g.base.Clone()
					err := g.process(fault.New(store, plan(i+1)))
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
	if err := g.process(count); err != nil || count.Changes() < 5 {
		t.Fatalf("without a crash it made %d changes: %v", count.Changes(), err)
	}
	for _, i := range faultpoint.Choose(t, count.Changes(), want) {
		process := crash.New(g.base.Clone(), crash.Plan{At: i + 1, Seed: uint64(i), Torn: torn})
		err := g.process(process)
		if !process.Crashed() {
			if err != nil {
				t.Fatalf("without a crash: %v", err)
			}
			continue // this run made fewer changes
		}
		be := process.Reboot()
		damaged += len(repotest.Misnamed(t, be))
		if jerr := g.judge(be, false); jerr != nil {
			t.Fatalf("%s (the backup: %v): %v", process.Outcome(), err, jerr)
		}
	}
	return damaged
}

func TestBackupSurvivesEveryCrash(t *testing.T) {
	for kind, policy := range kinds() {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			newFaultRig(t, policy).crashes(t, false, 5)
		})
	}
}

// A disk that does not flush as promised can tear files.
func TestBackupSurvivesTornFiles(t *testing.T) {
	if testing.Short() {
		t.Skip("TestBackupSurvivesEveryCrash crashes as well; the default run tries it")
	}
	t.Parallel()
	torn := newFaultRig(t, synthetic.EncryptAll).crashes(t, true, 5)
	t.Logf("%d files were torn", torn)
	if torn == 0 && faultpoint.All() {
		t.Error("no file was torn")
	}
}

// The device is told that the store is full, at whatever byte that happens.
// Once the store has room again, the backup continues.
func TestBackupSurvivesFullStore(t *testing.T) {
	t.Parallel()
	g := newFaultRig(t, synthetic.EncryptNone)
	sizes, err := repotest.PutSizes(g.base, g.process)
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
		err := g.process(fault.New(store, fault.Full(room)))
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
	t.Logf("%d sizes of the store", points)
	if points == 0 && !testing.Short() {
		t.Error("the store was never full")
	}
	// While files arrive, the error is backup2.ErrNoSpace, which the session
	// handles.
	ctx := context.Background()
	r, err := openRepo(fault.New(g.base.Clone(), fault.Full(0)), 30)
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
	if err := newPhone(g.phone.dir).backup(ctx, n, g.old); !errors.Is(err, backup2.ErrNoSpace) {
		t.Errorf("the device hears %v", err)
	}
}
