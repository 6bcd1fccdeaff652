package repo_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/snap-backup/snap/internal/faultpoint"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/fault"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/keep"
	"github.com/snap-backup/snap/repo/repotest"
)

// work is the load of a store on one day.
type work struct {
	operations int
	bytes      int64
}

// TestYears stores three devices every day, and forgets and prunes every week. It
// simulates six weeks, or a year with SNAP_TEST_ALL. With SNAP_TEST_HUGE it runs three
// times, each time for three years and with other content.
func TestYears(t *testing.T) {
	t.Parallel()
	days, runs := 42, uint64(1)
	switch {
	case os.Getenv("SNAP_TEST_HUGE") != "":
		days, runs = 3*365, 3
	case faultpoint.All():
		days = 365
	case testing.Short():
		days = 14
	}
	for run := range runs {
		t.Run(fmt.Sprint("run ", run), func(t *testing.T) { testYears(t, days, run) })
	}
}

// testYears verifies at the end that every kept snapshot can be restored, that no
// chain is too long, that the store is hardly larger than a fresh one with the
// same snapshots, and that the last days need about as much work as those in the
// middle.
func testYears(t *testing.T, length int, run uint64) {
	ctx := context.Background()
	y := &yearsRig{now: time.Date(2026, 1, 1, 8, 0, 0, 0, time.UTC), want: map[string]repotest.Files{}}
	y.opts = repotest.Options(1)
	y.opts.Now, y.opts.PackSize, y.opts.Refresh = func() time.Time { return y.now }, 256<<10, -1
	for i := range 3 {
		y.devices = append(y.devices, yearsDiary(uint64(i)+100*run))
	}
	be, fresh := memory.New(), memory.New()
	for _, be := range []*memory.Backend{be, fresh} {
		if _, err := repo.Create(ctx, be, repotest.Secret, repotest.SlotInfo, y.opts); err != nil {
			t.Fatal(err)
		}
	}
	var days []work
	most := 0 // the largest number of files at any time
	for n := range length {
		w, err := y.runDay(ctx, be, n)
		if err != nil {
			t.Fatalf("day %d: %v", n, err)
		}
		days = append(days, w)
		if n%7 == 6 {
			rep, err := y.runWeek(ctx, be)
			if err != nil {
				t.Fatalf("prune of day %d: %v", n, err)
			}
			if rep.WrittenBytes > rep.FreedBytes+rep.PackBytes/100 {
				t.Logf("prune of day %d wrote %d bytes to free %d", n, rep.WrittenBytes, rep.FreedBytes)
			}
			if n%91 == 90 {
				t.Logf("day %d: %d bytes in packs, %d in use, %d of them only as bases; %d blocks rebased", n, rep.PackBytes, rep.UsedBytes, rep.BaseBytes, rep.Rebased)
			}
			most = max(most, len(repotest.Content(t, be)))
		}
		y.now = y.now.AddDate(0, 0, 1)
	}
	r := repotest.MustOpen(t, be)
	list, damaged, err := r.Snapshots(ctx)
	if err != nil || len(damaged) > 0 || len(list) != len(y.want) {
		t.Fatalf("%d snapshots, want %d; %v %v", len(list), len(y.want), damaged, err)
	}
	for _, s := range list {
		got, err := repotest.Restore(ctx, r, s)
		if err == nil {
			err = got.Same(y.want[yearsKey(s)])
		}
		if err == nil {
			err = y.store(ctx, fresh, &repo.Snapshot{Time: s.Time, Complete: true, Device: s.Device}, got)
		}
		if err != nil {
			t.Fatalf("snapshot of %v: %v", s.Time, err)
		}
	}
	report, err := r.Check(ctx, repo.CheckOptions{ReadData: 1, DryRun: true})
	if err != nil || !report.Clean() || len(report.Problems) > 0 || report.LongChains > 0 {
		t.Errorf("check finds %+v, error %v", report, err)
	}
	ratio := float64(repotest.Size(t, be, "")) / float64(repotest.Size(t, fresh, ""))
	t.Logf("%d snapshots in %d bytes, %.3f times a fresh repository of them; at most %d files", len(list), repotest.Size(t, be, ""), ratio, most)
	for name, be := range map[string]*memory.Backend{"this repository": be, "a fresh repository": fresh} {
		headers := 0
		for file, b := range repotest.Content(t, be) {
			if repotest.Folder(file) == "packs" {
				headers += int(binary.LittleEndian.Uint32(b[len(b)-4:]))
			}
		}
		t.Logf("in %s, index files have %d bytes and pack headers %d", name, repotest.Size(t, be, repotest.IndexDir), headers)
	}
	if ratio > 1.3 {
		t.Errorf("%.3f times the size of a fresh repository", ratio)
	}
	if most > 400 {
		t.Errorf("%d files at a time", most)
	}
	second, third := median(days[len(days)/3:len(days)*2/3]), median(days[len(days)*2/3:])
	t.Logf("a day of the second third takes %+v, of the last one %+v", second, third)
	// In the first year the number of snapshots grows every month.
	if length > 365 && (third.operations > second.operations*5/4 || third.bytes > second.bytes*5/4) {
		t.Error("the last days take more work than earlier ones")
	}
}

// yearsRig holds the devices and the files of the snapshots that were kept.
type yearsRig struct {
	opts    repo.Options
	now     time.Time
	devices []*repotest.Diary
	want    map[string]repotest.Files // files of the snapshots that were kept
}

func yearsKey(s *repo.Snapshot) string { return s.Device.UDID + s.Time.String() }

// runDay changes all devices and stores them.
func (y *yearsRig) runDay(ctx context.Context, be *memory.Backend, n int) (w work, err error) {
	counted := fault.New(be, func(c fault.Call) fault.Action {
		w.operations++
		w.bytes += int64(c.Size)
		return fault.Action{}
	})
	for i, d := range y.devices {
		useDevice(d, n)
		s := &repo.Snapshot{Time: y.now, Complete: true, Device: repo.Device{UDID: fmt.Sprintf("00008110-00000000000000%02d", i), Name: "device"}}
		y.want[yearsKey(s)] = d.Files()
		err = errors.Join(err, y.store(ctx, counted, s, y.want[yearsKey(s)]))
	}
	return w, err
}

// store stores the snapshot s of f. Its parent is the newest snapshot of its
// device.
func (y *yearsRig) store(ctx context.Context, be backend.Backend, s *repo.Snapshot, f repotest.Files) error {
	r, err := repotest.Open(ctx, be, repotest.Secret, y.opts)
	if err != nil {
		return err
	}
	list, _, err := r.Snapshots(ctx)
	if err != nil {
		return err
	}
	var parent *repo.Snapshot
	for _, o := range list {
		if o.Device.UDID == s.Device.UDID {
			parent = o
		}
	}
	return repotest.StoreSnapshot(ctx, r, f, s, parent)
}

// runWeek forgets snapshots by a common policy, and prunes.
func (y *yearsRig) runWeek(ctx context.Context, be *memory.Backend) (*repo.PruneReport, error) {
	r, err := repo.Open(ctx, be, repotest.Secret, y.opts)
	if err != nil {
		return nil, err
	}
	l, err := r.Lock(ctx, repo.LockPrune, "prune")
	if err != nil {
		return nil, err
	}
	list, _, err := r.Snapshots(ctx)
	for _, s := range forgettable(list, keep.Policy{Daily: 7, Weekly: 5, Monthly: 12, Yearly: 10}, y.now) {
		delete(y.want, yearsKey(s))
		err = errors.Join(err, r.Forget(ctx, s.ID))
	}
	if err != nil {
		return nil, errors.Join(err, l.Release())
	}
	rep, err := r.Prune(ctx, repo.PruneOptions{MaxRepack: -1})
	return rep, errors.Join(err, l.Release())
}

func median(days []work) work {
	o, b := []int{}, []int64{}
	for _, w := range days {
		o, b = append(o, w.operations), append(b, w.bytes)
	}
	slices.Sort(o)
	slices.Sort(b)
	return work{o[len(o)/2], b[len(b)/2]}
}

// yearsDiary returns a device of 300 KB.
func yearsDiary(which uint64) *repotest.Diary {
	d := repotest.NewSmallDiary(7, which)
	d.DB = append([]byte("SQLite format 3\x00"), d.Text(48*repotest.DiaryPage-16)...)
	d.Document = d.Text(100 << 10)
	for i := range d.Settings {
		d.Settings[i] = d.Text(2000)
	}
	return d
}

// useDevice changes a device without making it larger.
func useDevice(d *repotest.Diary, day int) {
	rng := rand.New(rand.NewPCG(uint64(day), d.Rng.Uint64()))
	for range 3 {
		copy(d.DB[100+rng.IntN(len(d.DB)-300):], d.Text(150))
	}
	copy(d.Document[rng.IntN(len(d.Document)-80):], d.Text(80))
	for range 4 {
		copy(d.Settings[rng.IntN(len(d.Settings))][20:], fmt.Appendf(nil, "day %d", day))
	}
}
