package record_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/fault"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
)

func TestUnfinished(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := repotest.New(t, 1)
	r, err := repotest.Open(ctx, be, repotest.Secret, repotest.SmallPacks(5))
	if err != nil {
		t.Fatal(err)
	}
	u, err := r.NewUnfinished(repo.UnfinishedBackup, "udid")
	if err != nil {
		t.Fatal(err)
	}
	other, err := r.NewUnfinished(repo.UnfinishedPasswordChange, "udid")
	if err != nil || other.Run == u.Run {
		t.Fatal(other, err)
	}
	for i, data := range []string{"one", "two", "one again"} {
		if err := repotest.Receive(ctx, r, u, fmt.Sprintf("Snapshot/%d", i%2), []byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := repotest.Receive(ctx, r, other, "Manifest.plist", []byte("rekeyed")); err != nil {
		t.Fatal(err)
	}
	r, err = repotest.Open(ctx, be, repotest.Secret, repotest.SmallPacks(6))
	if err != nil {
		t.Fatal(err)
	}
	list, damaged, err := r.Unfinished(ctx)
	if err != nil || len(damaged) > 0 || len(list) != 2 || list[0].Run != u.Run || list[1].Kind != repo.UnfinishedPasswordChange {
		t.Fatalf("%v, %v, %v", list, damaged, err)
	}
	got, err := repotest.Received(ctx, r, list[0])
	if err != nil || len(got) != 2 || got["Snapshot/0"] != "one again" || got["Snapshot/1"] != "two" {
		t.Errorf("%v, %v", got, err)
	}
	if list[0].NewChunks < 3 || list[0].StoredBytes == 0 {
		t.Errorf("%+v", list[0])
	}
	if err := repotest.Verify(be, 1); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := r.RemoveUnfinished(ctx, list[0]); err != nil {
			t.Fatal(err)
		}
	}
	if list, _, err = r.Unfinished(ctx); err != nil || len(list) != 1 || list[0].Run != other.Run {
		t.Errorf("%v, %v", list, err)
	}
}

// A record that cannot be read any more is removed nevertheless: nobody should be told that
// it is gone, and then continue it.
func TestRemoveUnfinishedThatCannotBeRead(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	base := repotest.New(t, 1)
	store := fault.New(base)
	r, err := repotest.Open(ctx, store, repotest.Secret, repotest.SmallPacks(5))
	if err != nil {
		t.Fatal(err)
	}
	u, err := r.NewUnfinished(repo.UnfinishedBackup, "udid")
	if err == nil {
		err = repotest.Receive(ctx, r, u, "aa/first", []byte("first"))
	}
	if err != nil {
		t.Fatal(err)
	}
	store.SetPlan(fault.Unreadable(repotest.FilesIn(t, base, "runs/")[0], syscall.EIO))
	if err := r.RemoveUnfinished(ctx, u); err != nil {
		t.Fatal(err)
	}
	if left := repotest.FilesIn(t, base, "runs/"); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// Whatever happens while a record is replaced, the old or the new one exists with
// everything that it names, and all snapshots can be restored.
func TestUnfinishedSurvivesEveryFault(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	base := repotest.New(t, 1)
	first, err := repotest.Open(ctx, base, repotest.Secret, repotest.SmallPacks(5))
	if err != nil {
		t.Fatal(err)
	}
	u, err := first.NewUnfinished(repo.UnfinishedBackup, "udid")
	if err != nil {
		t.Fatal(err)
	}
	if err := repotest.Receive(ctx, first, u, "a", repotest.Noise(50, 30<<10)); err != nil {
		t.Fatal(err)
	}
	run := func(be backend.Backend) error {
		r, err := repotest.Open(ctx, be, repotest.Secret, repotest.SmallPacks(6))
		if err != nil {
			return err
		}
		list, _, err := r.Unfinished(ctx)
		if err != nil {
			return err
		}
		return repotest.Receive(ctx, r, list[0], "b", repotest.Noise(51, 60<<10))
	}
	verdict := func(be *memory.Backend, runErr error) error {
		r, err := repotest.Open(ctx, be, repotest.Secret, repotest.SmallPacks(7))
		if err != nil {
			return err
		}
		list, damaged, err := r.Unfinished(ctx)
		if err != nil || len(damaged) > 0 || len(list) != 1 {
			return fmt.Errorf("records %v, damaged %v, error %v", list, damaged, err)
		}
		got, err := repotest.Received(ctx, r, list[0])
		if err != nil || len(got) != len(list[0].Parts) || len(got["a"]) != 30<<10 || runErr == nil && len(got) != 2 {
			return fmt.Errorf("%d files: %w", len(got), err)
		}
		if err := repotest.Verify(be, 1); err != nil {
			return err
		}
		return r.RemoveUnfinished(ctx, list[0])
	}
	repotest.EveryFault(t, repotest.Run{Base: base, Do: run, Least: 8, Want: 12}, verdict)
	repotest.EveryCrash(t, repotest.Run{Base: base, Do: run, Least: 3, Want: 8}, func(be *memory.Backend) error { return verdict(be, errors.New("crashed")) })
}

// Check names a record that is damaged or has lost content. Nothing else is
// affected.
func TestDamagedUnfinished(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := repotest.New(t, 1)
	r, err := repotest.Open(ctx, be, repotest.Secret, repotest.SmallPacks(5))
	if err != nil {
		t.Fatal(err)
	}
	u, err := r.NewUnfinished(repo.UnfinishedBackup, "udid")
	if err != nil {
		t.Fatal(err)
	}
	before := repotest.Content(t, be)
	if err := repotest.Receive(ctx, r, u, "a", repotest.Noise(50, 30<<10)); err != nil {
		t.Fatal(err)
	}
	lose := func(prefix string) *memory.Backend {
		c := be.Clone()
		for name := range repotest.Content(t, be) {
			if _, old := before[name]; !old && strings.HasPrefix(name, prefix) {
				if prefix == repotest.RunsDir {
					err = c.Set(name, []byte("damaged"))
				} else {
					err = c.Delete(ctx, name)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
		}
		return c
	}
	for _, prefix := range []string{repotest.RunsDir, repotest.PacksDir} {
		v, err := repotest.Examine(lose(prefix), repotest.Secret)
		if err != nil || len(v.Report.Affected) > 0 || !slices.Equal(v.Days, []int{1}) {
			t.Fatalf("%s: %v, %+v", prefix, err, v)
		}
		named := slices.ContainsFunc(v.Report.Problems, func(p repo.Problem) bool { return strings.HasPrefix(p.File, repotest.RunsDir) && !p.Fatal })
		if !named {
			t.Errorf("%s: check says nothing of it: %+v", prefix, v.Report.Problems)
		}
	}
}
