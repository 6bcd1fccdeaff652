package drill

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/snap-backup/snap/device/finding"
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/protocol/backup2"
	"github.com/snap-backup/snap/internal/faultpoint"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/fault"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
)

// kinds of drills.
var drills = map[string]func(context.Context, Options, string) (*Report, error){
	"device": func(ctx context.Context, o Options, _ string) (*Report, error) { return Device(ctx, o) },
	"folder": Folder,
}

// rehearse acts as a process that opens the repository, drills its only snapshot, and
// stores the certificate.
func rehearse(ctx context.Context, be backend.Backend, like *Options, drill func(context.Context, Options, string) (*Report, error), dir string) (*Report, error) {
	o := *like
	var err error
	if o.Repo, err = repotest.Open(ctx, be, repotest.Secret, repotest.Options(30)); err != nil {
		return nil, err
	}
	list, _, err := o.Repo.SnapshotsIndexed(ctx)
	if err != nil {
		return nil, err
	}
	if len(list) != 1 {
		return nil, fmt.Errorf("%d snapshots", len(list))
	}
	o.Snapshot = list[0]
	report, err := drill(ctx, o, dir)
	if err == nil {
		_, err = o.Repo.WriteCertificate(ctx, report.Certificate(&o))
	}
	return report, err
}

func empty(dirs ...string) error {
	for _, dir := range dirs {
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			return fmt.Errorf("%s: %v left behind, %w", dir, left, err)
		}
	}
	return nil
}

// If the repository fails, the drill fails with its error. It leaves nothing behind,
// and never says that the backup is bad.
func TestSurvivesEveryFailure(t *testing.T) {
	t.Parallel()
	f := newFolder(t, true)
	base := memory.New()
	o := f.stored(base)
	for name, drill := range drills {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var report *Report
			o, to := *o, t.TempDir()
			o.Temp, o.memory = t.TempDir(), 1
			run := repotest.Run{Base: base, Least: 10, Want: 2, Notices: true, Do: func(be backend.Backend) (err error) {
				report, err = rehearse(context.Background(), be, &o, drill, to)
				return err
			}}
			repotest.EveryFault(t, run, func(be *memory.Backend, err error) error {
				if err := empty(o.Temp, to); err != nil {
					return err
				}
				if report != nil && !report.Passed() {
					return fmt.Errorf("the drill failed: %+v", report.Findings)
				}
				r, _, err2 := repoOf(be)
				if err2 != nil {
					return err2
				}
				list, damaged, err2 := r.Certificates(context.Background())
				if err2 != nil || len(damaged) > 0 || err == nil && len(list) != 1 {
					return fmt.Errorf("%d certificates, %v, %w", len(list), damaged, err2)
				}
				return nil
			})
		})
	}
}

func repoOf(be backend.Backend) (*repo.Repo, []*repo.Snapshot, error) {
	r, err := repotest.Open(context.Background(), be, repotest.Secret, repotest.Options(31))
	if err != nil {
		return nil, nil, err
	}
	list, _, err := r.Snapshots(context.Background())
	return r, list, err
}

// An interruption at any point ends the drill at once and leaves nothing behind.
func TestInterruption(t *testing.T) {
	t.Parallel()
	f := newFolder(t, true)
	base := memory.New()
	o := f.stored(base)
	for name, drill := range drills {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o, to := *o, t.TempDir()
			o.Temp, o.memory = t.TempDir(), 1
			count := fault.New(base.Clone())
			if _, err := rehearse(t.Context(), count, &o, drill, to); err != nil {
				t.Fatal(err)
			}
			for _, n := range faultpoint.Choose(t, count.Count(), 4) {
				ctx, cancel := context.WithCancel(t.Context())
				be := fault.New(base.Clone(), func(c fault.Call) fault.Action {
					if c.N == n+1 {
						cancel()
					}
					return fault.Action{}
				})
				report, err := rehearse(ctx, be, &o, drill, to)
				cancel()
				if err != nil && !errors.Is(err, context.Canceled) || err == nil && !report.Passed() {
					t.Errorf("step %d: %+v, %v", n, report, err)
				}
				if err := empty(o.Temp, to); err != nil {
					t.Fatalf("step %d: %v", n, err)
				}
			}
		})
	}
}

// Content that the repository has lost is found and named, and fails the drill.
func TestLost(t *testing.T) {
	t.Parallel()
	f := newFolder(t, false)
	base := memory.New()
	o := f.stored(base)
	// With small packs, a few files are affected. Damage one pack with content.
	var packs []string
	if err := base.List(t.Context(), "packs/", func(i backend.Info) error { packs = append(packs, i.Name); return nil }); err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, pack := range packs {
		for name, drill := range drills {
			be := fault.New(base.Clone(), fault.Overwrite(pack, 4000))
			report, err := rehearse(t.Context(), be, o, drill, t.TempDir())
			if errors.Is(err, repo.ErrDamaged) {
				continue // the tree itself
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if report.Passed() || !report.Lost() {
				t.Errorf("%s of %s: %+v", name, pack, report.Findings)
				continue
			}
			for _, l := range report.Findings {
				if l.Kind == finding.Lost && len(l.Names) > 0 && strings.Contains(l.Names[0], "/") {
					found++
				}
			}
		}
	}
	if found == 0 {
		t.Error("no lost file was named")
	}
}

// watcher looks at a folder whenever there is progress.
type watcher struct {
	dir  string
	seen atomic.Int64
	t    *testing.T
}

func (w *watcher) Phase(backup2.Phase) { w.Progress(backup2.Progress{}) }
func (w *watcher) Progress(backup2.Progress) {
	w.seen.Add(1)
	// A scratch file has a name for the moment between two system calls.
	for range 100 {
		if empty(w.dir) == nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	nothingIn(w.t, w.dir)
}
func (*watcher) Warning(string) {}
func (*watcher) Remark(string)  {}
func (*watcher) Prompt(bool)    {}

// A drill needs room for the largest database or the manifest, and no folder lists
// what it holds.
func TestBound(t *testing.T) {
	t.Parallel()
	f := newFolder(t, true)
	o := f.stored(memory.New())
	b := f.open()
	records, err := b.Records(t.Context())
	f.check(err)
	var largest, all int64
	file, size, err := b.OpenManifest()
	f.check(err)
	file.Close()
	largest = size
	for _, rec := range records.All() {
		all += rec.Size
		if mobilesync.NamedLikeDatabase(rec.RelativePath) {
			largest = max(largest, rec.Size)
		}
	}
	w := &watcher{dir: o.Temp, t: t}
	o.Observer, o.memory = w, 1
	report, err := Device(t.Context(), *o)
	if err != nil || !report.Passed() {
		t.Fatalf("%+v, %v", report, err)
	}
	if bound := largest + largest/1000 + 16; report.Scratch == 0 || report.Scratch > bound || bound > all/2 || w.seen.Load() < 3 {
		t.Errorf("%d bytes of scratch, want at most %d; the content has %d; looked %d times", report.Scratch, bound, all, w.seen.Load())
	}
	nothingIn(t, o.Temp)
	o.memory = 0
	if report, err = Device(t.Context(), *o); err != nil || report.Scratch != 0 {
		t.Errorf("%+v, %v", report, err)
	}
	o.Temp, o.memory = o.Temp+"/missing", 1
	if report, err = Device(t.Context(), *o); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a folder for scratch: %+v, %v", report, err)
	}
}

// What a device refuses, the drill refuses.
func TestRefusals(t *testing.T) {
	t.Parallel()
	f := newFolder(t, true)
	o := f.stored(memory.New())
	for name, change := range map[string]func(*Options){
		"older": func(o *Options) { o.IOS = "16.1" },
		"small": func(o *Options) { o.Storage = 1000 },
	} {
		c := *o
		change(&c)
		report, err := Device(t.Context(), c)
		if err != nil || report.Passed() || report.Refusal == nil || report.ReadFiles > 0 || kinds(report.Findings)[0] != finding.Refused {
			t.Errorf("%s: %+v, %v", name, report, err)
		}
	}
	c := *o
	c.Password = nil
	if _, err := Device(t.Context(), c); !errors.Is(err, ErrNoPassword) {
		t.Error(err)
	}
	if report, err := Folder(t.Context(), c, t.TempDir()); err != nil || !report.Passed() || len(report.NotChecked) == 0 || report.DigestFiles > 0 || report.ReadFiles == 0 {
		t.Errorf("without the password: %+v, %v", report, err)
	}
	c.Password = []byte("wrong")
	if report, err := Device(t.Context(), c); !errors.Is(err, backup2.ErrWrongPassword) {
		t.Errorf("with a wrong password: %+v, %v", report, err)
	}
}
