package status

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/repotest"
)

var now = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// made returns a good snapshot that was made and stored some days ago.
func made(days int, stored int64) *repo.Snapshot {
	at := now.Add(-time.Duration(days) * day)
	return &repo.Snapshot{Time: at, StoredAt: at, StoredBytes: stored, Complete: true, Device: repo.Device{UDID: "00008110-0123456789ABCDEF", Name: "Anna’s iPhone"}}
}

func TestDeviceAlarms(t *testing.T) {
	t.Parallel()
	change := func(f func(*repo.Snapshot)) *repo.Snapshot {
		s := made(1, 0)
		f(s)
		return s
	}
	for name, c := range map[string]struct {
		newest *repo.Snapshot
		level  Level
		text   string
	}{
		"new":        {made(0, 0), OK, ""},
		"a week":     {made(7, 0), OK, ""},
		"8 days":     {made(8, 0), Attention, "8 days old"},
		"28 days":    {made(28, 0), Attention, "28 days old"},
		"29 days":    {made(29, 0), Danger, "29 days old"},
		"incomplete": {change(func(s *repo.Snapshot) { s.Complete = false }), Attention, "incomplete"},
		"damaged": {change(func(s *repo.Snapshot) {
			s.Complete = false
			s.Findings = []repo.Finding{{Kind: "missing", Consequence: repo.Damage, Count: 1, Text: "x"}}
		}), Danger, "missing or damaged"},
		"lost":   {change(func(s *repo.Snapshot) { s.Lost = &repo.Lost{} }), Danger, "has lost files"},
		"locked": {change(func(s *repo.Snapshot) { s.Encrypted = true }), Attention, "stored locked"},
		"open":   {change(func(s *repo.Snapshot) { s.Encrypted, s.Unlocked = true, true }), OK, ""},
	} {
		d := judgeDevice([]*repo.Snapshot{made(200, 5), c.newest}, nil, DefaultRules, now)
		level := OK
		for _, a := range d.Alarms {
			level = max(level, a.Level)
		}
		if level != c.level || c.text != "" && !slices.ContainsFunc(d.Alarms, func(a Alarm) bool { return strings.Contains(a.Text, c.text) }) {
			t.Errorf("%s: %v %+v, want %v %q", name, level, d.Alarms, c.level, c.text)
		}
	}
}

func TestWeekBytes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		list []*repo.Snapshot
		want int64
	}{
		"none":         {nil, 0},
		"first only":   {[]*repo.Snapshot{made(3, 1000)}, 0},
		"three days":   {[]*repo.Snapshot{made(3, 1000), made(2, 10), made(1, 20)}, 30},
		"two weeks":    {[]*repo.Snapshot{made(14, 1000), made(8, 10), made(1, 30)}, 20},
		"four of many": {[]*repo.Snapshot{made(300, 1000), made(200, 5000), made(27, 40), made(1, 40)}, 20},
	} {
		if got := weekBytes(c.list, now); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

// A repository is judged by its free space and by what it has lost.
func TestJudge(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	be := repotest.New(t, 1, 2)
	judge := func() *Report {
		t.Helper()
		r := repotest.MustOpen(t, be)
		list, unread, err := r.Snapshots(ctx)
		if err != nil {
			t.Fatal(err)
		}
		rep, err := Judge(ctx, r, list, unread, DefaultRules, list[len(list)-1].Time.Add(day))
		if err != nil {
			t.Fatal(err)
		}
		return rep
	}
	if rep := judge(); rep.Level != OK || len(rep.Devices) != 1 || rep.Repository.Snapshots != 2 || rep.Repository.Unread == 0 {
		t.Errorf("%+v", rep)
	}
	if _, err := repotest.MustOpen(t, be).Check(ctx, repo.CheckOptions{ReadData: 1}); err != nil {
		t.Fatal(err)
	}
	if rep := judge(); rep.Level != OK || rep.Repository.Unread != 0 || rep.Repository.Read.IsZero() {
		t.Errorf("after a check of all data: %+v", rep.Repository)
	}
	repotest.Remove(t, be, repotest.FilesIn(t, be, repotest.SnapshotsDir)[0])
	if rep := judge(); rep.Level != Danger || len(rep.Repository.Alarms) != 1 || !strings.Contains(rep.Repository.Alarms[0].Text, "it is missing") {
		t.Errorf("a record is lost: %+v", rep.Repository)
	}
}
