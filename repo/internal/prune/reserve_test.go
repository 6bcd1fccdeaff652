package prune_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/internal/store"
	"github.com/snap-backup/snap/repo/repotest"
)

// quota is a store of limited size. Deleting makes room.
type quota struct {
	*memory.Backend
	limit int64
}

func (q *quota) Put(ctx context.Context, name string, data []byte) error {
	left, err := q.Free(ctx)
	if err != nil {
		return err
	}
	if int64(len(data)) > left {
		return backend.ErrNoSpace
	}
	return q.Backend.Put(ctx, name, data)
}

func (q *quota) Free(ctx context.Context) (int64, error) {
	left := q.limit
	err := q.List(ctx, "", func(f backend.Info) error { left -= f.Size; return nil })
	return left, err
}

// A full store can be pruned with the reserve, and has a reserve again
// afterwards.
func TestPruneOfAFullStore(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for _, reserve := range []bool{false, true} {
		be := repotest.New(t, 1, 2, 3)
		if reserve {
			if err := repotest.MustOpen(t, be).MakeReserve(ctx); err != nil {
				t.Fatal(err)
			}
		}
		full := &quota{Backend: be, limit: repotest.Size(t, be, "") + 100}
		r := repotest.MustOpen(t, full)
		if _, err := r.Lock(ctx, repo.LockPrune, "prune"); !backend.IsNoSpace(err) {
			t.Fatalf("the store is not full: %v", err)
		}
		r.UseReserve()
		l, err := r.Lock(ctx, repo.LockPrune, "prune")
		if !reserve {
			if !backend.IsNoSpace(err) {
				t.Fatalf("locked without room: %v", err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := repotest.ForgetDays(ctx, r, 1, 2); err != nil {
			t.Fatal(err)
		}
		opts := repotest.NoWaste
		opts.Reserve = true
		rep, err := r.Prune(ctx, opts)
		if err != nil || rep.FreedBytes == 0 {
			t.Fatalf("%+v, %v", rep, err)
		}
		if err := l.Release(); err != nil {
			t.Fatal(err)
		}
		if _, err := be.Stat(ctx, repotest.ReserveName); err != nil {
			t.Errorf("no reserve after the prune: %v", err)
		}
		if err := repotest.Verify(be, 3); err != nil {
			t.Error(err)
		}
	}
}

// However little room a store has, a prune that cannot write packs leaves enough
// for the next one to begin.
func TestPruneWithoutRoomCanBeRepeated(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	base := repotest.New(t)
	for day := 1; day <= 2; day++ {
		f := repotest.Day(day)
		for i := range 60 { // half of each pack is unused once day 1 is forgotten
			n := i
			if i%2 == 0 {
				n += 100 * day
			}
			f[fmt.Sprintf("ff/photo%02d", i)] = repotest.Noise(uint64(7000+n), 25<<10)
		}
		if _, err := repotest.StoreFiles(ctx, base, f, day); err != nil {
			t.Fatal(err)
		}
	}
	if err := repotest.MustOpen(t, base).MakeReserve(ctx); err != nil {
		t.Fatal(err)
	}
	if err := repotest.Forget(ctx, base, 1); err != nil {
		t.Fatal(err)
	}
	stopped := 0
	step := int64(40_009)
	if testing.Short() {
		step = 250_007
	}
	for room := int64(0); room < 1<<20; room += step {
		be := base.Clone()
		full := &quota{Backend: be, limit: repotest.Size(t, be, "") + room}
		opts := repotest.NoWaste
		opts.Reserve = true
		for try := range 3 {
			r := repotest.MustOpen(t, full)
			r.UseReserve()
			l, err := r.Lock(ctx, repo.LockPrune, "prune")
			if err != nil {
				t.Fatalf("room for %d bytes: prune %d cannot begin: %v", room, try+1, err)
			}
			_, err = r.Prune(ctx, opts)
			if err != nil && !backend.IsNoSpace(err) {
				t.Fatalf("room for %d bytes: prune %d: %v", room, try+1, err)
			}
			if err != nil {
				stopped++
			}
			if err := l.Release(); err != nil {
				t.Fatal(err)
			}
		}
		if rep, err := repotest.MustOpen(t, be).Check(ctx, repo.CheckOptions{ReadData: 1}); err != nil || !rep.Clean() {
			t.Fatalf("room for %d bytes: %+v, %v", room, rep, err)
		}
	}
	if stopped == 0 {
		t.Error("there was always room")
	}
}

// A backup does not use the reserve.
func TestOnlyPruneUsesTheReserve(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := repotest.New(t, 1)
	if err := repotest.MustOpen(t, be).MakeReserve(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := repotest.StoreDay(ctx, &quota{Backend: be, limit: repotest.Size(t, be, "") + 100}, 2); !backend.IsNoSpace(err) {
		t.Fatalf("got %v", err)
	}
	if _, err := be.Stat(ctx, repotest.ReserveName); err != nil {
		t.Error(err)
	}
	if err := repotest.Verify(be, 1); err != nil {
		t.Error(err)
	}
	r, err := repotest.Open(ctx, be, repotest.Secret, repotest.SmallPacks(5))
	if err != nil {
		t.Fatal(err)
	}
	stats, err := r.Stats(ctx, nil)
	if err != nil || stats.ReserveBytes != store.MinReserve || stats.StoredBytes >= store.MinReserve {
		t.Errorf("%+v, %v", stats, err)
	}
}

func TestReserveGrowsWithTheIndex(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := repotest.New(t)
	r := repotest.MustOpen(t, be)
	reserve := func() int64 {
		t.Helper()
		if err := r.MakeReserve(ctx); err != nil {
			t.Fatal(err)
		}
		f, err := be.Stat(ctx, repotest.ReserveName)
		if err != nil {
			t.Fatal(err)
		}
		return f.Size
	}
	if got := reserve(); got != store.MinReserve {
		t.Errorf("%d bytes for an empty repository", got)
	}
	if err := be.Put(ctx, repotest.IndexDir+repo.FileID{1}.String(), make([]byte, 8<<20)); err != nil {
		t.Fatal(err)
	}
	if got := reserve(); got != (8<<20+256<<10)*3/2 {
		t.Errorf("%d bytes for an index of 8 MiB", got)
	}
	if err := be.Put(ctx, repotest.IndexDir+repo.FileID{2}.String(), make([]byte, 3<<20)); err != nil {
		t.Fatal(err)
	}
	if got := reserve(); got != (8<<20+256<<10)*3/2 {
		t.Errorf("%d bytes: it was made again without need", got)
	}
	if err := (&quota{Backend: be}).Put(ctx, "x", []byte{1}); !errors.Is(err, backend.ErrNoSpace) {
		t.Error(err)
	}
}

// MaxRepack bounds everything that a prune writes.
func TestPruneMaxRepack(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for _, limit := range []int64{0, 60 << 10, -1} {
		be := repotest.New(t, 1, 2, 3, 4)
		opts := repotest.NoWaste
		opts.MaxRepack = limit
		rep, err := repotest.Prune(ctx, be, opts, 1, 3)
		if err != nil {
			t.Fatal(err)
		}
		if limit >= 0 && rep.WrittenBytes > limit+limit/4 || limit < 0 && rep.WrittenBytes == 0 {
			t.Errorf("limit %d: %d bytes were written", limit, rep.WrittenBytes)
		}
		if err := repotest.Verify(be, 2, 4); err != nil {
			t.Errorf("limit %d: %v", limit, err)
		}
	}
}

// A forecast can assume that snapshots were forgotten, and changes nothing.
func TestPruneForecastAfterForgetting(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := repotest.New(t, 1, 2, 3)
	r := repotest.MustOpen(t, be)
	var ids []repo.FileID
	for _, day := range []int{1, 2} {
		s, err := repotest.FindDay(ctx, r, day)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, s.ID)
	}
	opts := repotest.NoWaste
	opts.DryRun, opts.Forget = true, ids
	forecast, err := r.Prune(ctx, opts)
	if err != nil {
		t.Fatal(err)
	}
	if err := repotest.Verify(be, 1, 2, 3); err != nil {
		t.Fatal(err)
	}
	if err := repotest.Forget(ctx, be, 1, 2); err != nil {
		t.Fatal(err)
	}
	opts.Forget = nil
	after, err := repotest.MustOpen(t, be).Prune(ctx, opts)
	if err != nil || forecast.BytesToFree == 0 || forecast.BytesToFree != after.BytesToFree || forecast.Snapshots != 1 {
		t.Errorf("forecast %+v\nafter forgetting %+v, %v", forecast, after, err)
	}
}
