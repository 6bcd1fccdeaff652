package repo_test

import (
	"errors"
	"testing"
	"time"

	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/keep"
)

func TestCheckRetention(t *testing.T) {
	t.Parallel()
	day := func(udid string, n int, complete bool) *repo.Snapshot {
		return &repo.Snapshot{
			ID: repo.FileID{byte(n), udid[0]}, Time: time.Date(2026, 1, n, 0, 0, 0, 0, time.UTC),
			Device: repo.Device{UDID: udid, Name: "device " + udid}, Complete: complete,
		}
	}
	a1, a2, a3 := day("AB-1", 1, true), day("ab1", 2, true), day("AB-1", 3, false)
	b1, b2 := day("B", 1, false), day("B", 2, false)
	pinned := day("C", 1, true)
	pinned.Pin = &repo.Pin{}
	all := []*repo.Snapshot{a1, b1, pinned, a2, b2, a3}
	for name, c := range map[string]struct {
		forget []*repo.Snapshot
		want   error
	}{
		"nothing":                         {nil, nil},
		"one of two":                      {[]*repo.Snapshot{a1}, nil},
		"both complete ones":              {[]*repo.Snapshot{a1, a2}, repo.ErrLastSnapshot},
		"the incomplete one":              {[]*repo.Snapshot{a3}, nil},
		"one of those all incomplete":     {[]*repo.Snapshot{b1}, nil},
		"all of those, which are no good": {[]*repo.Snapshot{b1, b2}, repo.ErrLastSnapshot},
		"a pinned one":                    {[]*repo.Snapshot{pinned}, repo.ErrPinned},
	} {
		if err := repo.CheckRetention(all, repo.RetainNone(c.forget)); !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
	// A policy is applied to each device separately.
	policy := &keep.Policy{Last: 1}
	got := repo.Retain(all, policy, time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC), time.UTC)
	if len(got) != 3 || got[0].UDID != "AB-1" || len(got[0].Snapshots) != 3 {
		t.Fatalf("%+v", got)
	}
	going := repo.Forgotten(got)
	if len(going) != 2 || going[0] != a1 || going[1] != b1 {
		t.Errorf("it forgets %+v", going)
	}
	if err := repo.CheckRetention(all, got); err != nil {
		t.Error(err)
	}
	// A policy with tags may keep no snapshot of a device.
	if err := repo.CheckRetention(all, repo.Retain(all, &keep.Policy{Tags: [][]string{{"x"}}}, time.Now(), time.UTC)); !errors.Is(err, repo.ErrLastSnapshot) {
		t.Errorf("a policy that keeps nothing: %v", err)
	}
}

// TestRetainIncompleteSnapshots applies a policy after a pack was damaged: all
// earlier snapshots are incomplete, and a new one is complete.
func TestRetainIncompleteSnapshots(t *testing.T) {
	t.Parallel()
	day := func(n int) *repo.Snapshot {
		return &repo.Snapshot{ID: repo.FileID{byte(n)}, Time: time.Date(2026, 1, n, 0, 0, 0, 0, time.UTC), Device: repo.Device{UDID: "A"}}
	}
	was, wasNot, now := day(1), day(2), day(3)
	was.Lost = &repo.Lost{Complete: true, Files: 1}
	wasNot.Lost = &repo.Lost{Files: 1}
	now.Complete = true
	going := repo.Forgotten(repo.Retain([]*repo.Snapshot{was, wasNot, now}, &keep.Policy{Daily: 7}, time.Date(2026, 1, 4, 0, 0, 0, 0, time.UTC), time.UTC))
	if len(going) != 1 || going[0] != wasNot {
		t.Errorf("forgotten: %v; want only the one that never was complete", going)
	}
}
