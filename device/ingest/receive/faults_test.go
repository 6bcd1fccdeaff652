package receive

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/snap-backup/snap/device/protocol/backup2"
	"github.com/snap-backup/snap/device/simulator/synthetic"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/crash"
	"github.com/snap-backup/snap/repo/backend/fault"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
)

// faultRig is a repository with day 0 of a device that is at day 1.
type faultRig struct {
	t        testing.TB
	base     *memory.Backend
	phone    *phone
	old      map[string]string
	pictures []map[string]string
	opts     Options
}

func newFaultRig(t testing.TB, policy synthetic.Encryption) *faultRig {
	s := newSeries(t, synthetic.Config{Seed: 9, Encryption: policy})
	g := &faultRig{t: t, base: memory.New(), phone: s.phone}
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

// process is a run of a program that opens the repository first.
func (g *faultRig) process(be backend.Backend, p *phone, spools string) error {
	r, err := openRepo(be, 20)
	if err != nil {
		return err
	}
	opts := g.opts
	opts.SpoolDir = spools
	_, err = run(r, p, g.old, opts)
	return err
}

// judge wants day 0 whole, day 1 whole if it is there, nothing damaged but files
// that the disk has torn, and the next run to succeed.
func (g *faultRig) judge(be *memory.Backend, p *phone, spools string, succeeded bool) error {
	torn := repotest.Misnamed(g.t, be)
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
		if err != nil || len(report.Suffering) > 0 || slices.ContainsFunc(report.Problems, func(p repo.Problem) bool { return !slices.Contains(torn, p.File) }) {
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
	opts.SpoolDir = spools
	r, err := openRepo(be, 22)
	if err != nil {
		return err
	}
	if _, err := run(r, p, old, opts); err != nil {
		return fmt.Errorf("next run: %w", err)
	}
	after, err := look()
	if err == nil && after != n+1 {
		err = fmt.Errorf("%d snapshots after %d", after, n)
	}
	return err
}

func stride() int {
	if testing.Short() {
		return 23
	}
	return 4
}

func TestRunSurvivesEveryFailure(t *testing.T) {
	for kind, policy := range map[string]synthetic.Encryption{"plain": synthetic.EncryptNone, "encrypted": synthetic.EncryptAll} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			g := newFaultRig(t, policy)
			for name, plan := range map[string]func(n int) fault.Plan{
				"refused":        func(n int) fault.Plan { return fault.Once(n, fault.ErrInjected) },
				"done, not told": func(n int) fault.Plan { return fault.OnceAfter(n, fault.ErrInjected) },
				"gone":           func(n int) fault.Plan { return fault.From(n, fault.ErrInjected) },
			} {
				points, noticed := 0, 0
				for n := 1; ; n += stride() {
					store, p, spools := g.base.Clone(), newPhone(g.phone.dir), t.TempDir()
					be := fault.New(store, plan(n))
					err := g.process(be, p, spools)
					if be.Count() < n {
						if err != nil {
							t.Fatalf("the undisturbed run: %v", err)
						}
						break
					}
					if err != nil && !errors.Is(err, fault.ErrInjected) {
						t.Errorf("%s at %d: the cause is lost in %v", name, n, err)
					}
					points++
					if err != nil {
						noticed++
					}
					if err := g.judge(store, p, spools, err == nil); err != nil {
						t.Fatalf("%s at %d: %v", name, n, err)
					}
				}
				t.Logf("%s: %d points of failure, %d noticed", name, points, noticed)
				if points*stride() < 50 {
					t.Errorf("%s: only %d points", name, points)
				}
			}
		})
	}
}

func TestRunSurvivesEveryCrash(t *testing.T) {
	for kind, policy := range map[string]synthetic.Encryption{"plain": synthetic.EncryptNone, "encrypted": synthetic.EncryptAll} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			g := newFaultRig(t, policy)
			points := 0
			for at := 1; ; at += 1 + stride()/20 {
				p, spools := newPhone(g.phone.dir), t.TempDir()
				process := crash.New(g.base.Clone(), crash.Plan{At: at, Seed: uint64(at)})
				err := g.process(process, p, spools)
				if !process.Crashed() {
					if err != nil || at < 5 {
						t.Fatalf("the undisturbed run had %d changes: %v", at-1, err)
					}
					break
				}
				points++
				if err := g.judge(process.Reboot(), p, spools, false); err != nil {
					t.Fatalf("%s (the run: %v): %v", process.Outcome(), err, err)
				}
			}
			t.Logf("%d crashes", points)
		})
	}
}

// A disk that lies about flushing can tear a file. Each file takes a whole backup
// to try, so that few of them are: package repo tears every one of a run like this.
func TestRunSurvivesTornFiles(t *testing.T) {
	g := newFaultRig(t, synthetic.EncryptAll)
	points, torn := 0, 0
	for at := 1; ; at += 2 + stride()/8 {
		p, spools := newPhone(g.phone.dir), t.TempDir()
		process := crash.New(g.base.Clone(), crash.Plan{At: at, Seed: uint64(at), Torn: true})
		err := g.process(process, p, spools)
		if !process.Crashed() {
			if err != nil || at < 5 {
				t.Fatalf("the undisturbed run had %d changes: %v", at-1, err)
			}
			break
		}
		points++
		be := process.Reboot()
		torn += len(repotest.Misnamed(t, be))
		if err := g.judge(be, p, spools, false); err != nil {
			t.Fatalf("%s (the run: %v): %v", process.Outcome(), err, err)
		}
	}
	t.Logf("%d crashes, %d files were torn", points, torn)
	if torn == 0 && !testing.Short() {
		t.Error("nothing was ever torn")
	}
}

// A store that is full at any byte is told to the device as such; with room
// again the backup goes on.
func TestRunSurvivesFullStore(t *testing.T) {
	g := newFaultRig(t, synthetic.EncryptNone)
	points := 0
	for room := int64(0); ; room += int64(stride()) * 4_000 {
		store, p, spools := g.base.Clone(), newPhone(g.phone.dir), t.TempDir()
		err := g.process(fault.New(store, fault.Full(room)), p, spools)
		if err == nil {
			break
		}
		points++
		if !backend.IsNoSpace(err) {
			t.Fatalf("%d bytes of room: %v", room, err)
		}
		if err := g.judge(store, p, spools, false); err != nil {
			t.Fatalf("%d bytes of room: %v", room, err)
		}
	}
	t.Logf("%d sizes of the store", points)
	if points < 2 {
		t.Errorf("only %d sizes", points)
	}
	// While files arrive the error is the one that the session knows.
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
