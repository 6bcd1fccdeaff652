package mirror_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/fault"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/mirror"
	"github.com/snap-backup/snap/repo/repotest"
)

// oneAtATime makes runs repeatable.
var oneAtATime = mirror.Options{Workers: 1}

func mirrorTo(source, target backend.Backend, opts mirror.Options) error {
	_, err := mirror.Run(context.Background(), source, target, opts)
	return err
}

// sameRepository returns an error unless a mirror has the files of its source, byte
// for byte.
func sameRepository(t testing.TB, source, target backend.Backend) error {
	t.Helper()
	a, b := repotest.Content(t, source), repotest.Content(t, target)
	for name := range a {
		if strings.HasPrefix(name, repotest.LocksDir) || strings.HasPrefix(name, repotest.PrunesDir) || strings.HasPrefix(name, repotest.ChecksDir) {
			delete(a, name)
		}
	}
	for name := range b {
		if strings.HasPrefix(name, "mirrored/") || strings.HasPrefix(name, repotest.ChecksDir) { // source and mirror each remember their own checks
			delete(b, name)
		}
	}
	for name := range b {
		if !bytes.Equal(a[name], b[name]) {
			return fmt.Errorf("%s differs, or is only on the target", name)
		}
	}
	if len(a) != len(b) {
		return fmt.Errorf("the target has %d files, the source %d", len(b), len(a))
	}
	return nil
}

// verifyMirror returns an error unless all snapshots of a mirror can be restored.
func verifyMirror(be *memory.Backend) error {
	ctx := context.Background()
	if _, err := repo.Open(ctx, be, repotest.Secret, repotest.SmallPacks(2)); errors.Is(err, repo.ErrNotFound) || errors.Is(err, repo.ErrWrongPassword) {
		err := be.List(ctx, repotest.SnapshotsDir, func(f backend.Info) error { return fmt.Errorf("%s without a key", f.Name) })
		return err // the first run has copied no key yet
	}
	v, err := repotest.Examine(be, repotest.Secret)
	if err != nil {
		return err
	}
	if len(v.Report.Problems) > 0 || len(v.Report.Affected) > 0 || len(v.Damaged) > 0 {
		return fmt.Errorf("check: %+v %v", v.Report, v.Damaged)
	}
	return nil
}

// outdatedMirror returns a source and a mirror of it. After the mirror was made,
// days were stored and forgotten in the source, and it was pruned.
func outdatedMirror(t testing.TB) (source, target *memory.Backend) {
	t.Helper()
	source, target = repotest.New(t, 1, 2, 3), memory.New()
	if err := mirrorTo(source, target, oneAtATime); err != nil {
		t.Fatal(err)
	}
	if _, err := repotest.StoreDay(context.Background(), source, 4); err != nil {
		t.Fatal(err)
	}
	if _, err := repotest.Prune(context.Background(), source, repotest.NoWaste, 1); err != nil {
		t.Fatal(err)
	}
	return source, target
}

func TestMirrorIsExact(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	source, target := outdatedMirror(t)
	if err := repotest.Verify(target, 1, 2, 3); err != nil {
		t.Fatal(err)
	}
	rep, err := mirror.Run(ctx, source, target, mirror.Options{})
	if err != nil || rep.CopiedFiles == 0 || rep.RemovedFiles == 0 || len(rep.Damaged) > 0 {
		t.Fatalf("%+v, %v", rep, err)
	}
	if err := errors.Join(sameRepository(t, source, target), repotest.Verify(target, 2, 3, 4)); err != nil {
		t.Fatal(err)
	}
	// Without changes, a run only lists names.
	store := fault.New(target, nil)
	rep, err = mirror.Run(ctx, fault.New(source, fault.On(fault.ReadAt, "packs/", fault.From(1, fault.ErrInjected))), store, mirror.Options{})
	if err != nil || rep.CopiedFiles+rep.RemovedFiles > 0 || store.Count(fault.Put, fault.Delete) > 0 {
		t.Errorf("mirrored again: %+v, %d changes, %v", rep, store.Count(fault.Put, fault.Delete), err)
	}
	check, err := mirror.Check(ctx, source, target, mirror.Options{})
	if err != nil || !check.Clean() || !check.Same() || check.Files != rep.Files || check.Bytes != rep.Bytes {
		t.Errorf("check: %+v, %v", check, err)
	}
}

func TestMirrorDryRun(t *testing.T) {
	t.Parallel()
	source, target := outdatedMirror(t)
	before := repotest.Content(t, target)
	dry, err := mirror.Run(context.Background(), source, target, mirror.Options{DryRun: true})
	if err != nil {
		t.Fatal(err)
	}
	if after := repotest.Content(t, target); len(after) != len(before) {
		t.Error("a dry run has changed the target")
	}
	rep, err := mirror.Run(context.Background(), source, target, mirror.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if dry.CopiedFiles != rep.CopiedFiles || dry.CopiedBytes != rep.CopiedBytes || dry.RemovedFiles != rep.RemovedFiles || dry.RemovedBytes != rep.RemovedBytes {
		t.Errorf("forecast %+v, done %+v", dry, rep)
	}
}

func TestMirrorSurvivesEveryFault(t *testing.T) {
	t.Parallel()
	changed, older := outdatedMirror(t)
	for _, base := range []*memory.Backend{older, memory.New()} {
		source := changed.Clone()
		untouched := repotest.Content(t, source)
		again := func(be *memory.Backend) error {
			if err := verifyMirror(be); err != nil {
				return err
			}
			if err := mirrorTo(source, be, oneAtATime); err != nil {
				return fmt.Errorf("next run: %w", err)
			}
			if len(repotest.Content(t, source)) != len(untouched) {
				return errors.New("the source has changed")
			}
			return sameRepository(t, source, be)
		}
		run := func(be backend.Backend) error { return mirrorTo(source, be, oneAtATime) }
		repotest.EveryFault(t, repotest.Run{Base: base, Do: run, Least: 15, Want: 6}, func(be *memory.Backend, _ error) error { return again(be) })
		repotest.EveryCrash(t, repotest.Run{Base: base, Do: run, Least: 5, Want: 6}, again)
	}
}

// After a run is interrupted at any step, the target is recognized as a mirror of
// this source and of no other.
func TestMirrorKnowsWhatItHasBegun(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	source, other := repotest.New(t, 1, 2), repotest.NewOther(t)
	run := repotest.Run{Base: memory.New(), Least: 20, Want: 30, Do: func(be backend.Backend) error { return mirrorTo(source, be, oneAtATime) }}
	for _, n := range run.Steps(t) {
		target := memory.New()
		if err := run.Do(fault.New(target, fault.From(n, fault.ErrInjected))); err == nil {
			t.Fatalf("interrupted at %d: no error", n)
		}
		if files := repotest.Content(t, target); len(files) == 0 || files[repotest.ConfigName] != nil {
			continue
		}
		if shares, err := mirror.Shares(ctx, source, target); err != nil || !shares {
			t.Errorf("interrupted at %d: not recognized by %v: %v", n, slices.Sorted(maps.Keys(repotest.Content(t, target))), err)
		}
		if shares, err := mirror.Shares(ctx, other, target); err != nil || shares {
			t.Errorf("interrupted at %d: taken for a mirror of another repository, %v", n, err)
		}
	}
}

// A torn file is found by its length, or by --check.
func TestMirrorHealsTornFiles(t *testing.T) {
	t.Parallel()
	source, target := outdatedMirror(t)
	run := func(be backend.Backend) error { return mirrorTo(source, be, oneAtATime) }
	repotest.EveryTear(t, repotest.Run{Base: target, Do: run, Least: 5, Want: 8}, func(be *memory.Backend) error {
		bad := repotest.Misnamed(t, be)
		if err := run(be); err != nil {
			return err
		}
		rep, err := mirror.Check(context.Background(), source, be, oneAtATime)
		if err != nil || !rep.Same() || len(rep.Damaged) > len(bad) {
			return fmt.Errorf("%+v, %w", rep, err)
		}
		heal := oneAtATime
		heal.Heal = true
		healed, err := mirror.Check(context.Background(), source, be, heal)
		if err != nil || !healed.Clean() || len(healed.Healed) != len(rep.Damaged) {
			return fmt.Errorf("healed: %+v, %w", healed, err)
		}
		return sameRepository(t, source, be)
	})
}

func TestMirrorOfAFailingSource(t *testing.T) {
	t.Parallel()
	source, older := outdatedMirror(t)
	repotest.EveryFault(t, repotest.Run{Base: source, Do: func(be backend.Backend) error {
		target := older.Clone()
		err := mirrorTo(be, target, oneAtATime)
		if jerr := verifyMirror(target); jerr != nil {
			t.Fatalf("%v: %v", err, jerr)
		}
		return err
	}, Least: 15, Want: 8},
		func(be *memory.Backend, _ error) error { return sameRepository(t, source, be) })
}

// During a mirror run, at any of its steps, another process stores in the source or
// prunes it.
func TestMirrorOfALivelySource(t *testing.T) {
	t.Parallel()
	base, older := outdatedMirror(t)
	busy := map[string]func(be backend.Backend) error{
		"store": func(be backend.Backend) error { _, err := repotest.StoreDay(context.Background(), be, 5); return err },
		"prune": func(be backend.Backend) error {
			_, err := repotest.Prune(context.Background(), be, repotest.NoWaste, 2)
			return err
		},
		"store and prune": func(be backend.Backend) error {
			if _, err := repotest.StoreDay(context.Background(), be, 5); err != nil {
				return err
			}
			_, err := repotest.Prune(context.Background(), be, repotest.NoWaste, 3)
			return err
		},
	}
	for what, work := range busy {
		for _, start := range []*memory.Backend{older, memory.New()} {
			run := repotest.Run{Base: base, Want: 5, Do: func(be backend.Backend) error { return mirrorTo(be, start.Clone(), oneAtATime) }}
			for _, n := range run.Steps(t) {
				source, target := base.Clone(), start.Clone()
				var workErr error
				store := fault.New(source, func(c fault.Call) fault.Action {
					if c.N == n {
						workErr = work(source)
					}
					return fault.Action{}
				})
				if err := mirrorTo(store, target, oneAtATime); err != nil || workErr != nil {
					t.Fatalf("%s at %d: %v, %v", what, n, err, workErr)
				}
				if err := verifyMirror(target); err != nil {
					t.Fatalf("%s at %d: %v", what, n, err)
				}
				if err := mirrorTo(source, target, oneAtATime); err != nil {
					t.Fatalf("%s at %d: next run: %v", what, n, err)
				}
				if err := sameRepository(t, source, target); err != nil {
					t.Fatalf("%s at %d: %v", what, n, err)
				}
			}
		}
	}
}

func removeFiles(t testing.TB, be backend.Backend, dir string, n int) (removed []string) {
	t.Helper()
	for _, name := range repotest.FilesIn(t, be, dir) {
		if n == 0 {
			break
		}
		n--
		if err := be.Delete(context.Background(), name); err != nil {
			t.Fatal(err)
		}
		removed = append(removed, name)
	}
	return removed
}

// Files that a source has lost are not removed from its mirror.
func TestMirrorRefuses(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	tests := []struct {
		what    string
		spoil   func(t *testing.T, source, target *memory.Backend)
		want    string
		always  bool // refused even with AcceptRemovals
		withKey bool // whether the run has the key
	}{
		{"config missing", func(t *testing.T, s, _ *memory.Backend) { removeFiles(t, s, "", 1) }, "no config file", true, false},
		{"keys missing", func(t *testing.T, s, _ *memory.Backend) { removeFiles(t, s, repotest.KeysDir, 9) }, "no key slot", true, false},
		{"packs missing", func(t *testing.T, s, _ *memory.Backend) { removeFiles(t, s, repotest.PacksDir, 99) }, "no packs", true, false},
		{"index missing", func(t *testing.T, s, _ *memory.Backend) { removeFiles(t, s, repotest.IndexDir, 99) }, "no index file", true, false},
		{"snapshots missing", func(t *testing.T, s, _ *memory.Backend) { removeFiles(t, s, repotest.SnapshotsDir, 99) }, "more than half", false, true},
		{"most snapshots missing", func(t *testing.T, s, _ *memory.Backend) { removeFiles(t, s, repotest.SnapshotsDir, 3) }, "more than half", false, true},
		{"one pack missing", func(t *testing.T, s, _ *memory.Backend) { removeFiles(t, s, repotest.PacksDir, 1) }, "a prune does not do that", false, false},
		{"one pack missing, with the key", func(t *testing.T, s, _ *memory.Backend) { removeFiles(t, s, repotest.PacksDir, 1) }, "not complete", false, true},
		{"one index file missing", func(t *testing.T, s, _ *memory.Backend) { removeFiles(t, s, repotest.IndexDir, 1) }, "nothing replaced them", false, false},
		{"one index file missing, with the key", func(t *testing.T, s, _ *memory.Backend) { removeFiles(t, s, repotest.IndexDir, 1) }, "not complete", false, true},
		{"pack and index file missing, with the key", func(t *testing.T, s, _ *memory.Backend) {
			removeFiles(t, s, repotest.IndexDir, 1)
			removeFiles(t, s, repotest.PacksDir, 1)
		}, "not complete", false, true},
		{"another repository", func(t *testing.T, s, target *memory.Backend) {
			removeFiles(t, target, "", 1)
			if err := target.Put(ctx, "config", repotest.Content(t, repotest.NewOther(t))["config"]); err != nil {
				t.Fatal(err)
			}
		}, "another repository", true, false},
		{"stored into the mirror", func(t *testing.T, _, target *memory.Backend) {
			if _, err := repotest.StoreDay(ctx, target, 9); err != nil {
				t.Fatal(err)
			}
		}, "another program stored them in the mirror", false, true},
	}
	for _, tt := range tests {
		source := repotest.New(t, 1, 2, 3, 4)
		target := memory.New()
		if err := mirrorTo(source, target, oneAtATime); err != nil {
			t.Fatal(err)
		}
		tt.spoil(t, source, target)
		before := repotest.Content(t, target)
		opts := oneAtATime
		if tt.withKey {
			opts.VerifySnapshots = func(ctx context.Context) error {
				r, err := repo.Open(ctx, source, repotest.Secret, repotest.SmallPacks(5))
				if err != nil {
					return err
				}
				return r.CheckComplete(ctx)
			}
		}
		err := mirrorTo(source, target, opts)
		if !errors.Is(err, mirror.ErrRefused) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.what, err, tt.want)
		}
		if len(repotest.Content(t, target)) != len(before) {
			t.Errorf("%s: the target has changed", tt.what)
		}
		opts.AcceptRemovals = true
		if err := mirrorTo(source, target, opts); errors.Is(err, mirror.ErrRefused) != tt.always {
			t.Errorf("%s, accepted: %v", tt.what, err)
		}
		if !tt.always {
			if err := sameRepository(t, source, target); err != nil {
				t.Errorf("%s, accepted: %v", tt.what, err)
			}
		}
	}
}

// A mirror run repeats on the target everything that forget and prune did in the
// source.
func TestMirrorFollowsPrunes(t *testing.T) {
	t.Parallel()
	for _, forget := range [][]int{{1}, {1, 2}, {3}, {4, 5}} {
		source, target := repotest.New(t, 1, 2, 3, 4, 5), memory.New()
		for _, step := range []func() error{
			func() error { return nil },
			func() error { return repotest.Forget(context.Background(), source, forget...) },
			func() error { _, err := repotest.Prune(context.Background(), source, repotest.NoWaste); return err },
		} {
			if err := step(); err != nil {
				t.Fatal(err)
			}
			if err := mirrorTo(source, target, oneAtATime); err != nil {
				t.Fatalf("forget %v: %v", forget, err)
			}
			if err := sameRepository(t, source, target); err != nil {
				t.Fatalf("forget %v: %v", forget, err)
			}
		}
	}
}

// Damaged files of the source are not copied, and do not replace good files of the
// target.
func TestMirrorOfADamagedSource(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for _, dir := range []string{repotest.PacksDir, repotest.IndexDir, repotest.SnapshotsDir} {
		for _, emptyTarget := range []bool{false, true} {
			source, target := repotest.New(t, 1, 2, 3), memory.New()
			if !emptyTarget {
				if err := mirrorTo(source, target, oneAtATime); err != nil {
					t.Fatal(err)
				}
			}
			before := repotest.Content(t, target)
			name := repotest.FilesIn(t, source, dir)[0]
			b := repotest.Content(t, source)[name]
			if err := source.Delete(ctx, name); err != nil {
				t.Fatal(err)
			}
			if err := source.Put(ctx, name, b[:len(b)-7]); err != nil {
				t.Fatal(err)
			}
			if _, err := repotest.StoreDay(ctx, source, 4); err != nil {
				t.Fatal(err)
			}
			rep, err := mirror.Run(ctx, source, target, oneAtATime)
			if !errors.Is(err, mirror.ErrDamaged) || len(rep.Damaged) != 1 || rep.Damaged[0].File != name {
				t.Fatalf("%s: %+v, %v", name, rep, err)
			}
			after := repotest.Content(t, target)
			for n, b := range before {
				if !bytes.Equal(after[n], b) && !strings.HasPrefix(n, "mirrored/") {
					t.Errorf("%s: %s has changed on the target", name, n)
				}
			}
			if bad := repotest.Misnamed(t, target); len(bad) > 0 {
				t.Errorf("%s: damaged files were copied: %v", name, bad)
			}
			if err := verifyMirror(target); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			v, err := repotest.Examine(target, repotest.Secret)
			want := map[bool][]int{true: {1, 2, 3, 4}, false: {}}[!emptyTarget]
			if dir == repotest.SnapshotsDir && emptyTarget {
				continue // the target has three of the four days
			}
			if err != nil || !slices.Equal(v.Days, want) {
				t.Errorf("%s: days %v, want %v, %v", name, v.Days, want, err)
			}
		}
	}
}

func TestMirrorCheck(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	source, target := repotest.New(t, 1, 2), memory.New()
	if _, err := mirror.Check(ctx, source, target, oneAtATime); !errors.Is(err, mirror.ErrRefused) {
		t.Errorf("empty target: %v", err)
	}
	if err := mirrorTo(source, target, oneAtATime); err != nil {
		t.Fatal(err)
	}
	names := repotest.FilesIn(t, target, repotest.PacksDir)
	flipped := names[0]
	b := bytes.Clone(repotest.Content(t, target)[flipped])
	b[len(b)/2] ^= 1
	if err := errors.Join(target.Delete(ctx, flipped), target.Put(ctx, flipped, b), target.Delete(ctx, names[1]), source.Delete(ctx, names[2])); err != nil {
		t.Fatal(err)
	}
	rep, err := mirror.Check(ctx, source, target, mirror.Options{})
	if err != nil || rep.Clean() || rep.Same() {
		t.Fatalf("%+v, %v", rep, err)
	}
	if len(rep.Damaged) != 1 || rep.Damaged[0].File != flipped || !slices.Equal(rep.Missing, names[1:2]) || !slices.Equal(rep.Extra, names[2:3]) {
		t.Errorf("%+v", rep)
	}
	// A file that is damaged on both sides is not changed.
	other := bytes.Clone(b)
	other[0] ^= 1
	if err := errors.Join(source.Delete(ctx, flipped), source.Put(ctx, flipped, other)); err != nil {
		t.Fatal(err)
	}
	rep, err = mirror.Check(ctx, source, target, mirror.Options{Heal: true})
	if err != nil || rep.Clean() || len(rep.Healed) > 0 || !bytes.Equal(repotest.Content(t, target)[flipped], b) {
		t.Errorf("damaged on both sides: %+v, %v", rep, err)
	}
}

// Files stay on the mirror while a process reads it.
func TestMirrorKeepsWhatIsInUse(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	source, target := outdatedMirror(t)
	r, err := repo.Open(ctx, target, repotest.Secret, repotest.SmallPacks(5))
	if err != nil {
		t.Fatal(err)
	}
	l, err := r.Lock(ctx, repo.LockRead, "materialize")
	if err != nil {
		t.Fatal(err)
	}
	rep, err := mirror.Run(ctx, source, target, oneAtATime)
	if err != nil || rep.Kept == "" || rep.RemovedFiles > 0 {
		t.Errorf("%+v, %v", rep, err)
	}
	if err := l.Release(); err != nil {
		t.Fatal(err)
	}
	if err := mirrorTo(source, target, oneAtATime); err != nil {
		t.Fatal(err)
	}
	if err := sameRepository(t, source, target); err != nil {
		t.Error(err)
	}
}

func TestMirrorEndsWithItsContext(t *testing.T) {
	t.Parallel()
	source, _ := outdatedMirror(t)
	run := repotest.Run{Base: memory.New(), Want: 12, Do: func(be backend.Backend) error { return mirrorTo(source, be, mirror.Options{}) }}
	for _, n := range run.Steps(t) {
		ctx, cancel := context.WithCancel(t.Context())
		target := memory.New()
		store := fault.New(target, func(c fault.Call) fault.Action {
			if c.N == n {
				cancel()
			}
			return fault.Action{}
		})
		_, err := mirror.Run(ctx, source, store, mirror.Options{})
		cancel()
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Fatalf("cancelled at %d: %v", n, err)
		}
		if err := verifyMirror(target); err != nil {
			t.Fatalf("cancelled at %d: %v", n, err)
		}
	}
}
