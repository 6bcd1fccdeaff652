package copy_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
)

// A snapshot with a wrong date has the right one in a copy, where nobody could find it
// out any more. It is still known to have been misdated.
func TestCopyOfMisdatedSnapshots(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	now := time.Date(2026, 3, 1, 22, 0, 0, 0, time.UTC) // by the clock of the store
	off := time.Duration(0)                             // of the computer
	newStore := func(seed byte) (*memory.Backend, *repo.Repo) {
		be := memory.New()
		be.SetClock(func() time.Time { return now })
		opts := repotest.SmallPacks(seed)
		opts.Now, opts.Refresh = func() time.Time { return now.Add(off) }, -1
		r, err := repo.Create(ctx, be, repotest.Secret, repotest.SlotInfo, opts)
		if err == nil {
			err = r.LoadIndex(ctx)
		}
		if err != nil {
			t.Fatal(err)
		}
		return be, r
	}
	_, from := newStore(1)
	list := func(r *repo.Repo) []*repo.Snapshot {
		list, damaged, err := r.Snapshots(ctx)
		if err != nil || len(damaged) > 0 {
			t.Fatal(damaged, err)
		}
		return list
	}
	for night, clock := range []time.Duration{0, -2000, 0, 1500, 0} {
		now, off = now.Add(24*time.Hour), clock*24*time.Hour
		before := list(from)
		s := &repo.Snapshot{Time: now.Add(off), Device: repo.Device{UDID: repotest.UDID}, Complete: true, Note: fmt.Sprint(night)}
		s.Follow(before)
		if err := repotest.StoreSnapshot(ctx, from, repotest.Day(night+1), s, nil); err != nil {
			t.Fatal(err)
		}
	}
	now = now.Add(100 * 24 * time.Hour)
	want := list(from)
	_, to := newStore(2)
	for _, s := range want { // one at a time, as a command names them
		now = now.Add(time.Hour)
		one, err := from.FindSnapshot(ctx, s.ID.String())
		if err != nil {
			t.Fatal(err)
		}
		if rep, err := from.CopyTo(ctx, to, []*repo.Snapshot{one}, repo.CopyOptions{}); err != nil || rep.Copied != 1 {
			t.Fatalf("%+v, %v", rep, err)
		}
	}
	// Years later the files of the copy have other times.
	now = now.Add(6 * 365 * 24 * time.Hour)
	got := list(to)
	last := time.Time{}
	for i, s := range want {
		c := got[i]
		wrong := s.Note == "1" || s.Note == "3"
		if c.Note != s.Note || !c.Time.Equal(s.Time) || c.Misdated != wrong || c.Estimated != wrong {
			t.Errorf("night %s of %s, misdated: %v, became night %s of %s, %v", s.Note, s.Time, s.Misdated, c.Note, c.Time, c.Misdated)
		}
		if age := now.Sub(c.StoredAt); age < 0 || age > 6*366*24*time.Hour || c.StoredAt.Before(c.NotBefore) || !c.NotBefore.After(last) {
			t.Errorf("night %s was copied at %s, not before %s", s.Note, c.StoredAt, c.NotBefore)
		}
		last = c.NotBefore
	}
	// So it is in a copy of the copy.
	_, third := newStore(3)
	if rep, err := to.CopyTo(ctx, third, got, repo.CopyOptions{}); err != nil || rep.Copied != 5 {
		t.Fatalf("%+v, %v", rep, err)
	}
	for i, c := range list(third) {
		if s := want[i]; c.Note != s.Note || !c.Time.Equal(s.Time) || c.Misdated != s.Misdated {
			t.Errorf("night %s of %s became night %s of %s, misdated: %v", s.Note, s.Time, c.Note, c.Time, c.Misdated)
		}
	}
}
