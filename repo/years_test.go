package repo

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

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/fault"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/keep"
)

// work is what a day takes of a store.
type work struct {
	operations int
	bytes      int64
}

// TestYears stores three devices every day, and forgets and prunes every week,
// for a year; with SNAP_TEST_HUGE for three, with three kinds of content.
func TestYears(t *testing.T) {
	if testing.Short() {
		t.Skip("a year takes a while")
	}
	years, lives := 1, uint64(1)
	if os.Getenv("SNAP_TEST_HUGE") != "" {
		years, lives = 3, 3
	}
	for life := range lives {
		t.Run(fmt.Sprint("life ", life), func(t *testing.T) { testYears(t, years, life) })
	}
}

// testYears wants everything that was kept to come back at the end, no chain to be
// too long, the store to be hardly larger than one of what was kept alone, and a day to
// take about as much as it did in the middle.
func testYears(t *testing.T, years int, life uint64) {
	ctx := context.Background()
	y := &yearsRig{now: time.Date(2026, 1, 1, 8, 0, 0, 0, time.UTC), want: map[string]files{}}
	y.opts = testOptions(1)
	y.opts.Now, y.opts.PackSize, y.opts.Refresh = func() time.Time { return y.now }, 256<<10, -1
	for i := range 3 {
		y.devices = append(y.devices, yearsDiary(uint64(i)+100*life))
	}
	be, fresh := memory.New(), memory.New()
	for _, be := range []*memory.Backend{be, fresh} {
		if _, err := Create(ctx, be, testSecret, testInfo, y.opts); err != nil {
			t.Fatal(err)
		}
	}
	var days []work
	most := 0 // files at a time
	for n := range years * 365 {
		w, err := y.day(ctx, be, n)
		if err != nil {
			t.Fatalf("day %d: %v", n, err)
		}
		days = append(days, w)
		if n%7 == 6 {
			rep, err := y.week(ctx, be)
			if err != nil {
				t.Fatalf("prune of day %d: %v", n, err)
			}
			if n%91 == 90 {
				t.Logf("day %d: %d bytes in packs: %d in use, %d of them for others alone; %d blocks rebased", n, rep.PackBytes, rep.UsedBytes, rep.BaseBytes, rep.Rebased)
			}
			most = max(most, len(content(t, be)))
		}
		y.now = y.now.AddDate(0, 0, 1)
	}
	r := open(t, be)
	list, damaged, err := r.Snapshots(ctx)
	if err != nil || len(damaged) > 0 || len(list) != len(y.want) {
		t.Fatalf("%d snapshots, want %d; %v %v", len(list), len(y.want), damaged, err)
	}
	for _, s := range list {
		got, err := restore(ctx, r, s)
		if err == nil {
			err = sameFiles(got, y.want[yearsKey(s)])
		}
		if err == nil {
			err = y.store(ctx, fresh, &Snapshot{Time: s.Time, Complete: true, Device: s.Device}, got)
		}
		if err != nil {
			t.Fatalf("snapshot of %v: %v", s.Time, err)
		}
	}
	report, err := r.Check(ctx, CheckOptions{ReadData: 1, DryRun: true})
	if err != nil || !report.Clean() || len(report.Problems) > 0 || report.LongChains > 0 {
		t.Errorf("check finds %+v, error %v", report, err)
	}
	ratio := float64(size(t, be, "")) / float64(size(t, fresh, ""))
	t.Logf("%d snapshots in %d bytes, %.3f times a fresh repository of them; at most %d files", len(list), size(t, be, ""), ratio, most)
	for name, be := range map[string]*memory.Backend{"this one": be, "a fresh one": fresh} {
		headers := 0
		for file, b := range content(t, be) {
			if kindOf(file) == "packs" {
				headers += int(binary.LittleEndian.Uint32(b[len(b)-4:]))
			}
		}
		t.Logf("of %s, index files have %d bytes and pack headers %d", name, size(t, be, indexDir), headers)
	}
	if ratio > 1.3 {
		t.Errorf("%.3f times the size of a fresh repository", ratio)
	}
	if most > 400 {
		t.Errorf("%d files at a time", most)
	}
	second, third := median(days[len(days)/3:len(days)*2/3]), median(days[len(days)*2/3:])
	t.Logf("a day of the second third takes %+v, of the last one %+v", second, third)
	// In the first year there are more snapshots from month to month.
	if years > 1 && (third.operations > second.operations*5/4 || third.bytes > second.bytes*5/4) {
		t.Error("days take more and more")
	}
}

// yearsRig is what happens over the years.
type yearsRig struct {
	opts    Options
	now     time.Time
	devices []*diary
	want    map[string]files // what was kept
}

func yearsKey(s *Snapshot) string { return s.Device.UDID + s.Time.String() }

// day stores all devices after some use.
func (y *yearsRig) day(ctx context.Context, be *memory.Backend, n int) (w work, err error) {
	counted := fault.New(be, func(c fault.Call) fault.Action {
		w.operations++
		w.bytes += int64(c.Size)
		return fault.Action{}
	})
	for i, d := range y.devices {
		d.use(n)
		s := &Snapshot{Time: y.now, Complete: true, Device: Device{UDID: fmt.Sprintf("00008110-00000000000000%02d", i), Name: "device"}}
		y.want[yearsKey(s)] = d.files()
		err = errors.Join(err, y.store(ctx, counted, s, y.want[yearsKey(s)]))
	}
	return w, err
}

// store stores a snapshot after the newest one of its device.
func (y *yearsRig) store(ctx context.Context, be backend.Backend, s *Snapshot, f files) error {
	r, err := openWith(ctx, be, testSecret, y.opts)
	if err != nil {
		return err
	}
	list, _, err := r.Snapshots(ctx)
	if err != nil {
		return err
	}
	var parent *Snapshot
	for _, o := range list {
		if o.Device.UDID == s.Device.UDID {
			parent = o
		}
	}
	return storeSnapshot(ctx, r, f, s, parent)
}

// week forgets by a usual policy, and prunes.
func (y *yearsRig) week(ctx context.Context, be *memory.Backend) (*PruneReport, error) {
	r, err := Open(ctx, be, testSecret, y.opts)
	if err != nil {
		return nil, err
	}
	l, err := r.Lock(ctx, LockPrune, "prune")
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
	rep, err := r.Prune(ctx, PruneOptions{MaxRepack: -1})
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

// yearsDiary is a device of 300 KB.
func yearsDiary(which uint64) *diary {
	d := smallDiary(7, which)
	d.db = append([]byte("SQLite format 3\x00"), d.text(48*diaryPage-16)...)
	d.document = d.text(100 << 10)
	for i := range d.settings {
		d.settings[i] = d.text(2000)
	}
	return d
}

// use is a day that makes the device no larger.
func (d *diary) use(day int) {
	rng := rand.New(rand.NewPCG(uint64(day), d.rng.Uint64()))
	for range 3 {
		copy(d.db[100+rng.IntN(len(d.db)-300):], d.text(150))
	}
	copy(d.document[rng.IntN(len(d.document)-80):], d.text(80))
	for range 4 {
		copy(d.settings[rng.IntN(len(d.settings))][20:], fmt.Appendf(nil, "day %d", day))
	}
}
