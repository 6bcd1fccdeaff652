package repo_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/snap-backup/snap/internal/faultpoint"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
)

func TestStoreSurvivesEveryCrash(t *testing.T) {
	t.Parallel()
	repotest.EveryCrash(t, repotest.Run{Base: repotest.New(t, 1, 2), Do: func(be backend.Backend) error { _, err := repotest.StoreDay(context.Background(), be, 3); return err }, Least: 5, Want: 8},
		func(be *memory.Backend) error { return judgeStore(be, errors.New("crashed")) })
}

// A disk that loses flushed data can leave a damaged file. Check reports that
// file and no other. Everything that was stored before can be restored.
func TestStoreSurvivesTornFiles(t *testing.T) {
	t.Parallel()
	torn := 0
	repotest.EveryTear(t, repotest.Run{Base: repotest.New(t, 1, 2), Do: func(be backend.Backend) error { _, err := repotest.StoreDay(context.Background(), be, 3); return err }, Least: 5, Want: 8},
		func(be *memory.Backend) error {
			bad := repotest.DamagedFiles(t, be)
			torn += len(bad)
			days, err := judgeTorn(be, bad)
			if err != nil {
				return err
			}
			if _, err := repotest.StoreDay(context.Background(), be, 4); err != nil {
				return fmt.Errorf("next run: %w", err)
			}
			after, err := judgeTorn(be, bad)
			if err == nil && !slices.Equal(after, append(days, 4)) {
				err = fmt.Errorf("snapshots of days %v after %v", after, days)
			}
			return err
		})

	if torn < 5 && faultpoint.All() {
		t.Errorf("only %d files were torn", torn)
	}
}

// judgeTorn returns an error unless days 1 and 2 can be restored and check
// reports no damaged files except those in bad.
func judgeTorn(be backend.Backend, bad []string) ([]int, error) {
	v, err := repotest.Examine(be, repotest.Secret)
	if err != nil {
		return nil, err
	}
	if len(v.Days) < 2 || v.Days[0] != 1 || v.Days[1] != 2 {
		return nil, fmt.Errorf("snapshots of days %v", v.Days)
	}
	if len(v.Report.Affected) > 0 {
		return nil, fmt.Errorf("check: %+v", v.Report)
	}
	for _, p := range v.Report.Problems {
		if !slices.Contains(bad, p.File) {
			return nil, fmt.Errorf("check names %+v, but only %v are torn", p, bad)
		}
	}
	return v.Days, nil
}

func TestCreateSurvivesEveryCrash(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	repotest.EveryCrash(t, repotest.Run{Base: memory.New(), Do: func(be backend.Backend) error {
		_, err := repo.Create(ctx, be, repotest.Secret, repotest.SlotInfo, repotest.SmallPacks(1))
		return err
	}, Least: 1, Want: 8},
		func(be *memory.Backend) error {
			if _, err := repo.Open(ctx, be, repotest.Secret, repotest.SmallPacks(2)); errors.Is(err, repo.ErrNotFound) {
				if _, err := repo.Create(ctx, be, repotest.Secret, repotest.SlotInfo, repotest.SmallPacks(3)); err != nil {
					return fmt.Errorf("create again: %w", err)
				}
			} else if err != nil {
				return err
			}
			if err := repotest.Verify(be); err != nil {
				return err
			}
			for _, dir := range []string{repotest.KeysDir, "configs/"} {
				if n := len(repotest.FilesIn(t, be, dir)); n != 1 {
					return fmt.Errorf("%d files in %s", n, dir)
				}
			}
			_, err := repotest.StoreDay(ctx, be, 1)
			return err
		})
}

// If two processes create a repository in the same place, one succeeds and keeps
// its key slot.
func TestCreateRace(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	rounds := 20
	if faultpoint.All() {
		rounds = 50
	}
	for range rounds {
		be := memory.New()
		done := make(chan error)
		for i := range 2 {
			go func() {
				_, err := repo.Create(ctx, be, repotest.Secret, repotest.SlotInfo, repotest.SmallPacks(byte(i)))
				done <- err
			}()
		}
		a, b := <-done, <-done
		if (a == nil) == (b == nil) || a != nil && !errors.Is(a, repo.ErrExists) || b != nil && !errors.Is(b, repo.ErrExists) {
			t.Fatalf("got %v and %v", a, b)
		}
		if err := repotest.Verify(be); err != nil {
			t.Fatal(err)
		}
	}
}
