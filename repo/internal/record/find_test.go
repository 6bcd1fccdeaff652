package record_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
)

// putRecord stores an empty snapshot of a device.
func putRecord(t testing.TB, r *repo.Repo, udid, name string, day int) *repo.Snapshot {
	t.Helper()
	ctx := context.Background()
	w := r.NewWriter(ctx)
	defer w.Close()
	s := &repo.Snapshot{Time: time.Date(2026, 2, day, 8, 0, 0, 0, time.UTC), Device: repo.Device{UDID: udid, Name: name}}
	if err := w.Commit(ctx, s); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestFindSnapshot(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := memory.New()
	r := repotest.Create(t, be)
	if _, err := r.FindSnapshot(ctx, "latest"); !errors.Is(err, repo.ErrNoSnapshot) {
		t.Errorf("latest of an empty repository: got %v", err)
	}
	const anna, bert, carl, dora = "00008110-000A1234567890AB", "abcdef0123456789abcdef0123456789abcdef01", "00008110-000A000000000001", "00008110-000A000000000002"
	a1 := putRecord(t, r, anna, "Anna's iPhone", 1)
	a9 := putRecord(t, r, anna, "Anna: new name", 9)
	b5 := putRecord(t, r, bert, "Bert", 5)
	c7 := putRecord(t, r, carl, "iPad", 7)
	d8 := putRecord(t, r, dora, "ipad", 8)
	found := map[string]*repo.Snapshot{
		"latest":                          a9,
		"latest:" + anna:                  a9,
		"latest:00008110000A1234567890AB": a9,
		"latest:00008110000a1234567890ab": a9,
		"latest:Anna's iPhone":            a9, // the device had that name on day 1
		"latest:bert":                     b5,
		"latest:abcd":                     b5,
		"latest:anna: NEW name":           a9,
		"latest:BERT":                     b5,
		"latest:" + bert:                  b5,
		"latest:" + carl:                  c7,
		"latest:" + dora:                  d8,
		b5.ID.String():                    b5,
		c7.ID.String()[:16]:               c7,
	}
	for spec, want := range found {
		got, err := r.FindSnapshot(ctx, spec)
		if err != nil || got.ID != want.ID {
			t.Errorf("%q: got %v, %v, want %s", spec, got, err, want.ID.Short())
		}
	}
	failures := map[string]error{
		"":                   repo.ErrNoSnapshot,
		"nothing":            repo.ErrNoSnapshot,
		"latest:":            repo.ErrNoSnapshot,
		"latest:nobody":      repo.ErrNoSnapshot,
		"latest:iPad":        repo.ErrAmbiguous,
		"../config":          repo.ErrNoSnapshot,
		"latest:00008110":    repo.ErrAmbiguous,  // three UDIDs begin with it
		"latest:abc":         repo.ErrNoSnapshot, // too short for the beginning of a UDID
		a1.ID.String() + "0": repo.ErrNoSnapshot,
	}
	for spec, want := range failures {
		if got, err := r.FindSnapshot(ctx, spec); !errors.Is(err, want) {
			t.Errorf("%q: got %v, %v, want %v", spec, got, err, want)
		}
	}
}

func TestFindByPrefix(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	r := repotest.Create(t, memory.New())
	for day := range 17 { // 17 IDs cannot all begin with different digits
		putRecord(t, r, "udid", "name", day+1)
	}
	list, _, err := r.Snapshots(ctx)
	if err != nil {
		t.Fatal(err)
	}
	begin := map[string]int{}
	for _, s := range list {
		begin[s.ID.String()[:1]]++
	}
	for digit, n := range begin {
		_, err := r.FindSnapshot(ctx, digit)
		if n > 1 && !errors.Is(err, repo.ErrAmbiguous) || n == 1 && err != nil {
			t.Errorf("%q matches %d snapshots: got %v", digit, n, err)
		}
	}
}

// A damaged record does not hide others. The error names it if it may be the one
// that was meant.
func TestFindBesideDamage(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := memory.New()
	r := repotest.Create(t, be)
	good := putRecord(t, r, "one", "One", 1)
	bad := putRecord(t, r, "two", "Two", 2)
	if err := be.Set(repotest.SnapshotsDir+bad.ID.String(), []byte("damaged")); err != nil {
		t.Fatal(err)
	}
	if s, err := r.FindSnapshot(ctx, "latest:One"); err != nil || s.ID != good.ID {
		t.Error(s, err)
	}
	if _, err := r.FindSnapshot(ctx, "latest:Two"); !errors.Is(err, repo.ErrNoSnapshot) || !errors.Is(err, repo.ErrDamaged) {
		t.Errorf("got %v", err)
	}
	if _, err := r.FindSnapshot(ctx, bad.ID.String()); !errors.Is(err, repo.ErrDamaged) {
		t.Errorf("got %v", err)
	}
}

// A snapshot that another process forgets while the list is read is no damage.
func TestForgottenWhileListed(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := memory.New()
	r := repotest.Create(t, be)
	kept := putRecord(t, r, "one", "One", 1)
	gone := putRecord(t, r, "two", "Two", 2)
	name := repotest.SnapshotsDir + gone.ID.String()
	file := repotest.Content(t, be)[name]
	if err := r.Forget(ctx, gone.ID); err != nil {
		t.Fatal(err)
	}
	if err := be.Set(name, file); err != nil {
		t.Fatal(err)
	}
	r = repotest.MustOpen(t, vanishing{be, repotest.SnapshotsDir + gone.ID.String()})
	list, damaged, err := r.Snapshots(ctx)
	if err != nil || len(damaged) > 0 || len(list) != 1 || list[0].ID != kept.ID {
		t.Error(list, damaged, err)
	}
}

// vanishing lists a file that is gone when it is read.
type vanishing struct {
	backend.Backend
	name string
}

func (v vanishing) Stat(ctx context.Context, name string) (backend.Info, error) {
	if name == v.name {
		return backend.Info{}, backend.ErrNotExist
	}
	return v.Backend.Stat(ctx, name)
}
