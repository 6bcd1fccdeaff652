package repo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/crash"
	"github.com/snap-backup/snap/repo/backend/memory"
)

// everyCrash lets a run die at each of its changes, with several outcomes
// each, and judges what is found after the restart.
func everyCrash(t *testing.T, torn bool, least int, base *memory.Backend, run func(backend.Backend) error, judge func(be *memory.Backend) error) {
	t.Helper()
	someCrashes(t, eachOne, torn, least, base, run, judge)
}

// someCrashes is everyCrash, but for the changes that step leaves out.
func someCrashes(t *testing.T, step func() int, torn bool, least int, base *memory.Backend, run func(backend.Backend) error, judge func(be *memory.Backend) error) {
	t.Helper()
	seeds := uint64(4)
	if torn {
		seeds = 8
	}
	if testing.Short() {
		seeds = 2
	}
	points := 0
	defer func() { t.Logf("%d processes have died (torn: %v)", points, torn) }()
	for seed := range seeds {
		for at := step(); ; at += step() {
			process := crash.New(base.Clone(), crash.Plan{At: at, Seed: seed, Torn: torn})
			err := run(process)
			if !process.Crashed() {
				if err != nil || at <= least {
					t.Fatalf("the undisturbed run had %d changes, want over %d: %v", at-1, least, err)
				}
				break
			}
			points++
			if !errors.Is(err, crash.ErrCrashed) {
				t.Fatalf("%s: the run noticed nothing: %v", process.Outcome(), err)
			}
			if err := judge(process.Reboot()); err != nil {
				t.Fatalf("%s: %v", process.Outcome(), err)
			}
		}
	}
}

func TestStoreSurvivesEveryCrash(t *testing.T) {
	everyCrash(t, false, 5, tinyRepo(t, 1, 2),
		func(be backend.Backend) error { _, err := storeTiny(context.Background(), be, 3); return err },
		func(be *memory.Backend) error { return judgeStore(be, errors.New("crashed")) })
}

// A disk that lies about flushing can leave a damaged file. That file is
// reported and no other; all that was there before comes back.
func TestStoreSurvivesTornFiles(t *testing.T) {
	torn := 0
	everyCrash(t, true, 5, tinyRepo(t, 1, 2),
		func(be backend.Backend) error { _, err := storeTiny(context.Background(), be, 3); return err },
		func(be *memory.Backend) error {
			bad := misnamed(t, be)
			torn += len(bad)
			days, err := judgeTorn(be, bad)
			if err != nil {
				return err
			}
			if _, err := storeTiny(context.Background(), be, 4); err != nil {
				return fmt.Errorf("next run: %w", err)
			}
			after, err := judgeTorn(be, bad)
			if err == nil && !slices.Equal(after, append(days, 4)) {
				err = fmt.Errorf("snapshots of days %v after %v", after, days)
			}
			return err
		})
	if torn < 5 && !testing.Short() {
		t.Errorf("only %d files were torn", torn)
	}
}

// judgeTorn wants days 1 and 2 at least, and no word of damage but of the files
// in bad.
func judgeTorn(be backend.Backend, bad []string) ([]int, error) {
	v, err := judge(be, testSecret)
	if err != nil {
		return nil, err
	}
	if len(v.days) < 2 || v.days[0] != 1 || v.days[1] != 2 {
		return nil, fmt.Errorf("snapshots of days %v", v.days)
	}
	if len(v.report.Suffering) > 0 {
		return nil, fmt.Errorf("check: %+v", v.report)
	}
	for _, p := range v.report.Problems {
		if !slices.Contains(bad, p.File) {
			return nil, fmt.Errorf("check names %+v, torn are %v", p, bad)
		}
	}
	return v.days, nil
}

func TestCreateSurvivesEveryCrash(t *testing.T) {
	ctx := context.Background()
	everyCrash(t, false, 1, memory.New(),
		func(be backend.Backend) error {
			_, err := Create(ctx, be, testSecret, testInfo, tinyOptions(1))
			return err
		},
		func(be *memory.Backend) error {
			if _, err := Open(ctx, be, testSecret, tinyOptions(2)); errors.Is(err, ErrNotFound) {
				if _, err := Create(ctx, be, testSecret, testInfo, tinyOptions(3)); err != nil {
					return fmt.Errorf("create again: %w", err)
				}
			} else if err != nil {
				return err
			}
			if err := judgeClean(be, testSecret); err != nil {
				return err
			}
			if keys := len(content(t, be)) - 1; keys != 1 {
				return fmt.Errorf("%d key slots", keys)
			}
			_, err := storeTiny(ctx, be, 1)
			return err
		})
}

// Two processes that create a repository at one place at the same time: one
// succeeds, and its key slot is there.
func TestCreateRace(t *testing.T) {
	ctx := context.Background()
	for range 50 {
		be := memory.New()
		done := make(chan error)
		for i := range 2 {
			go func() {
				_, err := Create(ctx, be, testSecret, testInfo, tinyOptions(byte(i)))
				done <- err
			}()
		}
		a, b := <-done, <-done
		if (a == nil) == (b == nil) || a != nil && !errors.Is(a, ErrExists) || b != nil && !errors.Is(b, ErrExists) {
			t.Fatalf("got %v and %v", a, b)
		}
		if err := judgeClean(be, testSecret); err != nil {
			t.Fatal(err)
		}
	}
}
