package status

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/keep"
)

// disk is a store with free space. Its files were put at one time.
type disk struct {
	*memory.Backend
	free int64
}

func (d disk) Free(context.Context) (int64, error) { return d.free, nil }

func TestCopies(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	own, list := disk{memory.New(), 0}, []*repo.Snapshot{made(30, 0), made(9, 0), made(1, 0)}
	for i, s := range list {
		s.ID[0] = byte(i + 1)
	}
	former := list[0].ID
	former[1] = 9
	store := func(free int64, ids ...repo.FileID) disk {
		d := disk{memory.New(), free}
		for _, id := range ids {
			if err := d.Put(ctx, "snapshots/"+id.String(), nil); err != nil {
				t.Fatal(err)
			}
		}
		return d
	}
	week := DefaultRules
	for name, c := range map[string]struct {
		kind   string
		be     Store
		rules  Rules
		level  Level
		text   string
		lacks  int
		newest time.Time
	}{
		"not mounted":      {Mirror, nil, week, OK, "", 0, time.Time{}},
		"up to date":       {Mirror, store(1<<40, list[0].ID, list[1].ID, list[2].ID), week, OK, "", 0, list[2].Time},
		"lacks a new one":  {Mirror, store(1<<40, list[0].ID, list[1].ID), week, OK, "", 1, list[1].Time},
		"lacks an old one": {Mirror, store(1<<40, list[0].ID), week, Attention, `it lacks 2 snapshots; "snap mirror x" updates it`, 2, list[0].Time},
		"may lack it":      {Mirror, store(1<<40, list[0].ID), Rules{MaxAge: keep.Duration{Days: 10}}, OK, "", 2, list[0].Time},
		"an earlier ID":    {Mirror, store(1<<40, former, list[1].ID, list[2].ID), week, OK, "", 0, list[2].Time},
		"nearly full":      {Mirror, store(2<<20, list[0].ID, list[1].ID, list[2].ID), week, Attention, "the disk is full in 14 days", 0, list[2].Time},
		"full":             {Mirror, store(1<<10, list[0].ID, list[1].ID, list[2].ID), week, Danger, "the disk is full in 0 days", 0, list[2].Time},
		"a copy":           {Copied, store(1<<40, former), week, OK, "", 0, time.Time{}},
	} {
		list[0].Former = []repo.FileID{former}
		rep := &Report{Repository: Repository{WeekBytes: 1 << 20}}
		at := now
		if c.kind == Copied {
			at = time.Now() // the times of its files decide
		}
		if err := rep.Add(ctx, c.kind, "x", c.be, own, list, c.rules, at); err != nil {
			t.Fatal(err)
		}
		got := rep.Copies[0]
		if rep.Level != c.level || got.Missing != c.lacks || !got.Newest.Equal(c.newest) || got.Mounted != (c.be != nil) ||
			c.text != "" && !slices.ContainsFunc(got.Alarms, func(a Alarm) bool { return strings.Contains(a.Text, c.text) }) {
			t.Errorf("%s: %v %+v", name, rep.Level, got)
		}
	}
	// Nothing was copied for a week, and the repository has something new.
	rep, later := &Report{}, time.Now().Add(30*day)
	fresh := made(0, 0)
	fresh.StoredAt = later.Add(-day)
	if err := rep.Add(ctx, Copied, "x", store(1<<40, former), own, []*repo.Snapshot{fresh}, week, later); err != nil {
		t.Fatal(err)
	}
	if rep.Level != Attention || !strings.Contains(rep.Copies[0].Alarms[0].Text, `"snap copy --to x" updates it`) {
		t.Errorf("an old copy: %+v", rep.Copies)
	}
}

// A device that is retired is never overdue, but a damaged snapshot of it is told.
func TestRetiredDevice(t *testing.T) {
	t.Parallel()
	rules := DefaultRules
	rules.Expected = []Expected{{"old", "000081100123456789abcdef", true}}
	s := made(900, 0)
	if d := judgeDevice([]*repo.Snapshot{s}, nil, rules, now); !d.Retired || d.Alias != "old" || len(d.Alarms) != 0 {
		t.Errorf("%+v", d)
	}
	s.Lost = &repo.Lost{}
	if d := judgeDevice([]*repo.Snapshot{s}, nil, rules, now); len(d.Alarms) != 1 || d.Alarms[0].Level != Danger {
		t.Errorf("%+v", d)
	}
}

// A device that somebody has named needs a backup.
func TestExpectedDevices(t *testing.T) {
	t.Parallel()
	rules := DefaultRules
	rules.Expected = []Expected{{Alias: "annas-phone", UDID: "000081100123456789abcdef"}, {Alias: "kitchen-ipad", UDID: "00008110-0000000000000001"}, {"old", "00008110-0000000000000002", true}}
	rep := &Report{Devices: []Device{judgeDevice([]*repo.Snapshot{made(0, 0)}, nil, rules, now)}}
	rep.expect(rules.Expected)
	if len(rep.Devices) != 2 || rep.Devices[0].Alias != "annas-phone" || len(rep.Devices[0].Alarms) != 0 {
		t.Fatalf("%+v", rep.Devices)
	}
	if d := rep.Devices[1]; d.Alias != "kitchen-ipad" || len(d.Alarms) != 1 || d.Alarms[0].Level != Attention {
		t.Errorf("%+v", d)
	}
}
