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

	"github.com/snap-backup/snap/crypto/blake"
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

// followExactly runs a mirror with the key until the target has what the source has, and
// nothing else: one run sees what has left the source, the next removes it.
func followExactly(t testing.TB, source, target backend.Backend) error {
	t.Helper()
	opts := keyOptions(t, source, true)
	for range 2 {
		if err := mirrorTo(source, target, opts); err != nil {
			return fmt.Errorf("with the key: %w", err)
		}
	}
	return sameRepository(t, source, target)
}

// hasAll returns an error unless a mirror has all files of its source, and can restore all
// its snapshots.
func hasAll(t testing.TB, source backend.Backend, target *memory.Backend) error {
	t.Helper()
	a, b := repotest.Content(t, source), repotest.Content(t, target)
	for name := range a {
		if !strings.HasPrefix(name, repotest.LocksDir) && !strings.HasPrefix(name, repotest.PrunesDir) && !strings.HasPrefix(name, repotest.ChecksDir) && !bytes.Equal(a[name], b[name]) {
			return fmt.Errorf("%s is not on the target", name)
		}
	}
	return verifyMirror(target)
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
	certify := func(seed byte) {
		t.Helper()
		if err := repotest.CertifyAll(context.Background(), source, repotest.Secret, seed); err != nil {
			t.Fatal(err)
		}
	}
	certify(60)
	if err := mirrorTo(source, target, oneAtATime); err != nil {
		t.Fatal(err)
	}
	if _, err := repotest.StoreDay(context.Background(), source, 4); err != nil {
		t.Fatal(err)
	}
	certify(61)
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
	if err != nil || rep.CopiedFiles == 0 || rep.RemovedFiles > 0 || rep.KeptFiles == 0 || rep.KeptBytes == 0 || len(rep.Damaged) > 0 {
		t.Fatalf("%+v, %v", rep, err)
	}
	if err := errors.Join(hasAll(t, source, target), repotest.Verify(target, 1, 2, 3, 4)); err != nil {
		t.Fatal(err)
	}
	for n := range 2 { // the first run names what leaves
		rep, err = mirror.Run(ctx, source, target, keyOptions(t, source, true))
		if err != nil || (rep.RemovedFiles > 0) != (n == 1) || (rep.KeptFiles > 0) != (n == 0) || len(rep.Leaving) != 1-n || len(rep.Removed) != n {
			t.Fatalf("%+v, %v", rep, err)
		}
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
	for n, withKey := range []bool{false, true, true, true} { // the third run removes
		opts := keyOptions(t, source, withKey)
		before := repotest.Content(t, target)
		opts.DryRun = true
		dry, err := mirror.Run(context.Background(), source, target, opts)
		if err != nil {
			t.Fatal(err)
		}
		if after := repotest.Content(t, target); len(after) != len(before) {
			t.Error("a dry run has changed the target")
		}
		opts.DryRun = false
		rep, err := mirror.Run(context.Background(), source, target, opts)
		if err != nil || (rep.RemovedFiles > 0) != (n == 2) {
			t.Fatal(rep, err)
		}
		if dry.CopiedFiles != rep.CopiedFiles || dry.CopiedBytes != rep.CopiedBytes || dry.RemovedFiles != rep.RemovedFiles || dry.RemovedBytes != rep.RemovedBytes || dry.KeptBytes != rep.KeptBytes {
			t.Errorf("forecast %+v, done %+v", dry, rep)
		}
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
			return errors.Join(hasAll(t, source, be), followExactly(t, source, be))
		}
		noted := base.Clone() // the next run with the key removes files
		if err := mirrorTo(source, noted, oneAtATime); err != nil {
			t.Fatal(err)
		}
		withKey := keyOptions(t, source, true)
		follow := func(be backend.Backend) error { return mirrorTo(source, be, withKey) }
		repotest.EveryFault(t, repotest.Run{Base: noted, Do: follow, Least: 5, Want: 4}, func(be *memory.Backend, _ error) error { return again(be) })
		repotest.EveryCrash(t, repotest.Run{Base: noted, Do: follow, Least: 1, Want: 4}, again)
		run := func(be backend.Backend) error { return mirrorTo(source, be, oneAtATime) }
		repotest.EveryFault(t, repotest.Run{Base: base, Do: run, Least: 15, Want: 4}, func(be *memory.Backend, _ error) error { return again(be) })
		repotest.EveryCrash(t, repotest.Run{Base: base, Do: run, Least: 5, Want: 4}, again)
	}
}

// After a run is interrupted at any step, the target is recognized as a mirror of
// this source and of no other.
func TestMirrorRecognizesInterruptedRuns(t *testing.T) {
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
		bad := repotest.DamagedFiles(t, be)
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
		return errors.Join(hasAll(t, source, be), followExactly(t, source, be))
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

// A source that is gone from some step on has neither lost nor damaged anything, and
// nothing is advised as if it had.
func TestMirrorOfAVanishingSource(t *testing.T) {
	t.Parallel()
	source, older := outdatedMirror(t)
	for _, opts := range []mirror.Options{oneAtATime, keyOptions(t, source, true)} {
		for n := 1; n <= 40; n++ {
			gone := fault.New(source, fault.From(n, fault.ErrInjected))
			if err := mirrorTo(gone, older.Clone(), opts); !errors.Is(err, fault.ErrInjected) || errors.Is(err, mirror.ErrRefused) || errors.Is(err, mirror.ErrDamaged) {
				t.Errorf("step %d: %v", n, err)
			}
		}
	}
}

// During a mirror run, at any of its steps, another process stores in the source or
// prunes it.
func TestMirrorOfABusySource(t *testing.T) {
	t.Parallel()
	base, older := outdatedMirror(t)
	if err := mirrorTo(base, older, oneAtATime); err != nil { // keeps what left
		t.Fatal(err)
	}
	if _, err := repotest.StoreDay(context.Background(), base, 6); err != nil {
		t.Fatal(err)
	}
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
				if err := errors.Join(hasAll(t, source, target), followExactly(t, source, target)); err != nil {
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
		{"config missing", func(t *testing.T, s, target *memory.Backend) {
			repotest.Remove(t, s, append(repotest.FilesIn(t, s, configsDir), "config")...)
			repotest.Remove(t, target, repotest.FilesIn(t, target, configsDir)...)
		}, "no config file", true, false},
		{"config and its copy exchanged", func(t *testing.T, s, _ *memory.Backend) {
			other := repotest.Content(t, repotest.NewOther(t))
			repotest.Remove(t, s, append(repotest.FilesIn(t, s, configsDir), "config")...)
			for name, b := range other {
				if name == "config" || strings.HasPrefix(name, configsDir) {
					s.Set(name, b)
				}
			}
		}, "another repository", true, false},
		{"keys missing", func(t *testing.T, s, _ *memory.Backend) { removeFiles(t, s, repotest.KeysDir, 9) }, "no key slot", true, false},
		{"packs missing", func(t *testing.T, s, _ *memory.Backend) { removeFiles(t, s, repotest.PacksDir, 99) }, "no packs", true, false},
		{"index missing", func(t *testing.T, s, _ *memory.Backend) { removeFiles(t, s, repotest.IndexDir, 99) }, "no index file", true, false},
		{"snapshots missing", func(t *testing.T, s, target *memory.Backend) {
			repotest.RemoveLedger(t, s) // or they would count as lost, see TestMirrorOfLostRecords
			repotest.RemoveLedger(t, target)
			removeFiles(t, s, repotest.SnapshotsDir, 99)
		}, "newest snapshot", false, true},
		{"snapshots missing, without the key", func(t *testing.T, s, _ *memory.Backend) { removeFiles(t, s, repotest.SnapshotsDir, 99) }, "4 of 4 snapshots", false, false},
		{"most snapshots missing", func(t *testing.T, s, _ *memory.Backend) { forgetDays(t, s, 1, 2, 3) }, "more than half", false, true},
		{"half of the snapshots missing, without the key", func(t *testing.T, s, _ *memory.Backend) { forgetDays(t, s, 1, 2) }, "2 of 4 snapshots", false, false},
		{"the newest snapshot missing", func(t *testing.T, s, _ *memory.Backend) { forgetDays(t, s, 4) }, "newest snapshot", false, true},
		{"one pack missing", func(t *testing.T, s, _ *memory.Backend) { removeFiles(t, s, repotest.PacksDir, 1) }, "a prune does not do that", false, false},
		{"one index file missing", func(t *testing.T, s, _ *memory.Backend) { removeFiles(t, s, repotest.IndexDir, 1) }, "nothing replaced them", false, false},
		{"another repository", func(t *testing.T, s, target *memory.Backend) {
			removeFiles(t, target, "", 99)
			for name, b := range repotest.Content(t, repotest.NewOther(t)) {
				target.Set(name, b)
			}
		}, "another repository", true, false},
		{"stored into the mirror", func(t *testing.T, _, target *memory.Backend) {
			if _, err := repotest.StoreDay(ctx, target, 9); err != nil {
				t.Fatal(err)
			}
		}, "another program stored into the mirror", false, true},
	}
	for _, tt := range tests {
		source := repotest.New(t, 1, 2, 3, 4)
		target := memory.New()
		if err := mirrorTo(source, target, oneAtATime); err != nil {
			t.Fatal(err)
		}
		judge := keyOptions(t, source, true)
		tt.spoil(t, source, target)
		before := repotest.Content(t, target)
		opts := oneAtATime
		if tt.withKey {
			opts = judge
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
		if tt.withKey && !tt.always {
			if err := sameRepository(t, source, target); err != nil {
				t.Errorf("%s, accepted: %v", tt.what, err)
			}
			continue
		}
		// Without the key, nothing leaves the target at once.
		for name := range before {
			if repotest.Content(t, target)[name] == nil && !strings.HasPrefix(name, "mirrored/") {
				t.Errorf("%s, accepted: %s was removed", tt.what, name)
			}
		}
	}
}

const configsDir = "configs/"

// A damaged config of the source replaces no good one, and a new target gets the good copy.
// A damaged config of the target is replaced once the good one is proven.
func TestMirrorOfADamagedConfig(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	rot := func(be *memory.Backend) {
		b := bytes.Clone(repotest.Content(t, be)["config"])
		at := bytes.Index(b, []byte(`"sealed":"`)) + 40
		b[at] = 'A' + (b[at]-'A'+1)%26
		be.Set("config", b)
	}
	old := func(be *memory.Backend) { repotest.Remove(t, be, repotest.FilesIn(t, be, configsDir)...) }
	missing := func(be *memory.Backend) { repotest.Remove(t, be, "config") }
	second := func(be *memory.Backend) { // another copy, by somebody without the key
		b := bytes.Replace(repotest.Content(t, be)["config"], []byte(`"sealed":"`), []byte(`"sealed":"AAAA`), 1)
		repotest.PutNamed(t, be, configsDir, b)
	}
	junk := func(be *memory.Backend) { repotest.PutNamed(t, be, configsDir, []byte("junk")) }
	cut := func(be *memory.Backend) { be.Set("config", repotest.Content(t, be)["config"][:40]) }
	type change = func(*memory.Backend)
	for _, tt := range []struct {
		what           string
		source, target []change // target nil: a new one
		withKey        bool
		want           error
		healed         bool // the target's config was damaged, and is good now
	}{
		{"rotten", []change{rot}, []change{}, false, mirror.ErrDamaged, false},
		{"rotten, with the key", []change{rot}, []change{}, true, mirror.ErrDamaged, false},
		{"missing", []change{missing}, []change{}, false, mirror.ErrDamaged, false},
		{"cut, new target", []change{cut}, nil, false, mirror.ErrDamaged, false},
		{"rotten, new target", []change{rot}, nil, false, mirror.ErrRefused, false},
		{"counterfeit instead of the copy", []change{old, second}, []change{}, false, nil, false},
		{"counterfeit instead of the copy, new target", []change{old, second}, nil, false, mirror.ErrRefused, false},
		{"junk instead of the copy, new target", []change{old, junk}, nil, false, nil, false},
		{"junk beside the copy, new target", []change{junk}, nil, false, nil, false},
		{"rotten, new target, with the key", []change{rot}, nil, true, mirror.ErrDamaged, false},
		{"rotten without a copy", []change{rot, old}, []change{}, false, mirror.ErrDamaged, false},
		{"rotten, older mirror", []change{rot, old}, []change{old}, false, mirror.ErrRefused, false},
		{"rotten target", nil, []change{rot}, false, nil, true},
		{"rotten target, with the key", nil, []change{rot}, true, nil, true},
		{"rotten target without copies", []change{old}, []change{rot, old}, false, mirror.ErrRefused, false},
		{"rotten target without copies, with the key", []change{old}, []change{rot, old}, true, nil, true},
		{"counterfeit copy", []change{second}, []change{}, false, nil, false},
		{"counterfeit copy, with the key", []change{second}, []change{}, true, mirror.ErrDamaged, false},
		{"rotten and a counterfeit copy", []change{rot, second}, []change{}, false, mirror.ErrDamaged, false},
		{"rotten and a counterfeit copy, with the key", []change{rot, second}, nil, true, mirror.ErrDamaged, false},
	} {
		source, target := repotest.New(t, 1, 2), memory.New()
		good, opts := repotest.Content(t, source)["config"], keyOptions(t, source, tt.withKey)
		if tt.target != nil {
			if err := mirrorTo(source, target, oneAtATime); err != nil {
				t.Fatal(err)
			}
		}
		for _, change := range tt.source {
			change(source)
		}
		for _, change := range tt.target {
			change(target)
		}
		before := repotest.Content(t, target)["config"]
		for range 2 {
			if err := mirrorTo(source, target, opts); !errors.Is(err, tt.want) || tt.want == nil && err != nil {
				t.Errorf("%s: %v", tt.what, err)
			}
			opts.AcceptRemovals = true
		}
		after := repotest.Content(t, target)["config"]
		if tt.healed || tt.target == nil && !errors.Is(tt.want, mirror.ErrRefused) {
			before = good
		}
		if !bytes.Equal(after, before) {
			t.Errorf("%s: the target's config is %s, want %s", tt.what, after, before)
		}
		if bytes.Equal(after, good) {
			used := target.Clone()
			l, err := repotest.MustOpen(t, used).Lock(ctx, repo.LockWrite, "use the mirror") // stores a missing copy of config
			if err := errors.Join(err, l.Release(), repotest.Verify(used, 1, 2)); err != nil {
				t.Errorf("%s: %v", tt.what, err)
			}
			if rep, err := mirror.Check(ctx, source, target, opts); errors.Is(err, mirror.ErrRefused) != errors.Is(tt.want, mirror.ErrRefused) || err == nil && !rep.Clean() {
				t.Errorf("%s: check: %+v, %v", tt.what, rep, err)
			}
		}
	}
}

func forgetDays(t testing.TB, be backend.Backend, days ...int) {
	t.Helper()
	if err := repotest.Forget(context.Background(), be, days...); err != nil {
		t.Fatal(err)
	}
}

// With the key, a source that has lost packs or index files is named, and the target keeps
// them. Its other snapshots are copied.
func TestMirrorOfALossySource(t *testing.T) {
	t.Parallel()
	for what, spoil := range map[string]func(source *memory.Backend){
		"a pack":        func(s *memory.Backend) { removeFiles(t, s, repotest.PacksDir, 1) },
		"an index file": func(s *memory.Backend) { removeFiles(t, s, repotest.IndexDir, 1) },
		"a pack and an index file": func(s *memory.Backend) {
			removeFiles(t, s, repotest.IndexDir, 1)
			removeFiles(t, s, repotest.PacksDir, 1)
		},
	} {
		source, target := repotest.New(t, 1, 2, 3, 4), memory.New()
		if err := mirrorTo(source, target, oneAtATime); err != nil {
			t.Fatal(err)
		}
		opts := keyOptions(t, source, true)
		spoil(source)
		if _, err := repotest.StoreDay(context.Background(), source, 5); err != nil {
			t.Fatal(err)
		}
		for _, opts.AcceptRemovals = range []bool{false, true} {
			for range 3 {
				rep, err := mirror.Run(context.Background(), source, target, opts)
				named := func(d mirror.Damage) bool {
					return strings.Contains(d.Text, "not whole") || what == "an index file" && strings.Contains(d.Text, "an index file is missing")
				}
				if !errors.Is(err, mirror.ErrDamaged) || !slices.ContainsFunc(rep.Damaged, named) {
					t.Fatalf("%s: %+v, %v", what, rep, err)
				}
			}
			if err := repotest.Verify(target, 1, 2, 3, 4, 5); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
}

// Mirror runs with the key repeat on the target everything that forget and prune did in
// the source. The target has lost nothing before the second of them.
func TestMirrorFollowsPrunes(t *testing.T) {
	t.Parallel()
	for _, forget := range [][]int{{1}, {1, 2}, {3}, {4, 5}} {
		source, target := repotest.New(t, 1, 2, 3, 4, 5), memory.New()
		opts := keyOptions(t, source, true)
		for _, step := range []func() error{
			func() error { return nil },
			func() error { return repotest.Forget(context.Background(), source, forget...) },
			func() error { _, err := repotest.Prune(context.Background(), source, repotest.NoWaste); return err },
		} {
			if err := step(); err != nil {
				t.Fatal(err)
			}
			err := mirrorTo(source, target, opts)
			if slices.Contains(forget, 5) && errors.Is(err, mirror.ErrRefused) {
				accept := opts // the newest snapshot of a device has left
				accept.AcceptRemovals = true
				err = mirrorTo(source, target, accept)
			} else if err == nil {
				err = repotest.Verify(target, daysOf(t, target)...)
			}
			if err != nil {
				t.Fatalf("forget %v: %v", forget, err)
			}
			if err := followExactly(t, source, target); err != nil {
				t.Fatalf("forget %v: %v", forget, err)
			}
		}
	}
}

// daysOf returns the days of a repository's snapshots.
func daysOf(t testing.TB, be *memory.Backend) []int {
	t.Helper()
	v, err := repotest.Examine(be, repotest.Secret)
	if err != nil {
		t.Fatal(err)
	}
	return v.Days
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
			if bad := repotest.DamagedFiles(t, target); len(bad) > 0 {
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

// A pack that is junk, or was cut, and that no index file lists does not keep snapshots
// from the mirror for ever. It is named until a prune removes it.
func TestMirrorBesideAJunkPack(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for _, withKey := range []bool{false, true} {
		source, target := repotest.New(t, 1, 2), memory.New()
		opts := keyOptions(t, source, withKey)
		if err := mirrorTo(source, target, opts); err != nil {
			t.Fatal(err)
		}
		hash := blake.Sum([]byte("junk"))
		junk := fmt.Sprintf("packs/%x/%x", hash[:1], hash)
		if err := source.Set(junk, []byte("junk")); err != nil {
			t.Fatal(err)
		}
		for day := 3; day <= 5; day++ {
			if _, err := repotest.StoreDay(ctx, source, day); err != nil {
				t.Fatal(err)
			}
			rep, err := mirror.Run(ctx, source, target, opts)
			if !errors.Is(err, mirror.ErrDamaged) || len(rep.Damaged) != 1 || rep.Damaged[0].File != junk || !strings.Contains(rep.Damaged[0].Text, "snap prune") {
				t.Fatalf("day %d: %+v, %v", day, rep, err)
			}
			want := []int{1, 2, 3, 4, 5}[:day]
			if day == 3 && !withKey {
				want = want[:2] // held back once
			}
			if got := daysOf(t, target); !slices.Equal(got, want) {
				t.Errorf("day %d, key %v: the mirror has days %v, want %v", day, withKey, got, want)
			}
			if err := verifyMirror(target); err != nil {
				t.Errorf("day %d: %v", day, err)
			}
		}
		repotest.Remove(t, source, junk)
		if err := mirrorTo(source, target, keyOptions(t, source, true)); err != nil {
			t.Errorf("after a prune: %v", err)
		}
	}
}

// A foreign copy of config on the target is named with what removes it.
func TestMirrorCheckNamesAForeignConfig(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	source, target := repotest.New(t, 1), memory.New()
	opts := keyOptions(t, source, true)
	if err := mirrorTo(source, target, opts); err != nil {
		t.Fatal(err)
	}
	name := configsDir + repotest.PutNamed(t, target, configsDir, repotest.Content(t, repotest.NewOther(t))["config"]).String()
	rep, err := mirror.Check(ctx, source, target, opts)
	if err != nil || len(rep.Damaged) != 1 || rep.Damaged[0].File != name || !strings.Contains(rep.Damaged[0].Text, "snap -r TARGET repair config") {
		t.Errorf("%+v, %v", rep, err)
	}
	// So is one in the source, with the key by its name, and without it together with the
	// good one, if nobody can tell which one that is.
	repotest.Remove(t, target, name)
	source.Set(name, repotest.Content(t, repotest.NewOther(t))["config"])
	copied := memory.New()
	plain, err := mirror.Run(ctx, source, copied, oneAtATime)
	if err != nil || !slices.Equal(plain.Foreign, []string{name}) || slices.Contains(repotest.FilesIn(t, copied, ""), name) {
		t.Errorf("without the key: %+v, %v", plain, err)
	}
	both := source.Clone()
	both.Set("config", bytes.Replace(repotest.Content(t, both)["config"], []byte(`"sealed":"`), []byte(`"sealed":"AAAA`), 1))
	for _, tt := range []struct {
		source *memory.Backend
		target *memory.Backend
		opts   mirror.Options
	}{{source, target, opts}, {both, memory.New(), oneAtATime}} {
		err := mirrorTo(tt.source, tt.target, tt.opts)
		hint := ""
		var refused *mirror.RefusedError
		if errors.As(err, &refused) {
			hint = refused.Hint()
		}
		if err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error()+hint, `"snap repair config"`) {
			t.Errorf("%v, %s", err, hint)
		}
	}
}

// A config that could not be replaced is not called healed.
func TestMirrorCheckHealsConfig(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	source, target := repotest.New(t, 1), memory.New()
	if err := mirrorTo(source, target, keyOptions(t, source, true)); err != nil {
		t.Fatal(err)
	}
	target.Set("config", []byte("{}"))
	heal := mirror.Options{Heal: true}
	full := fault.New(target.Clone(), fault.On(fault.Put, "config", fault.From(1, backend.ErrNoSpace)))
	if rep, err := mirror.Check(ctx, source, full, heal); !errors.Is(err, backend.ErrNoSpace) || len(rep.Healed) > 0 {
		t.Errorf("%+v, %v", rep, err)
	}
	if rep, err := mirror.Check(ctx, source, target, heal); err != nil || !slices.Equal(rep.Healed, []string{"config"}) {
		t.Errorf("%+v, %v", rep, err)
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
	opts := keyOptions(t, source, true)
	if err := mirrorTo(source, target, opts); err != nil {
		t.Fatal(err)
	}
	r, err := repo.Open(ctx, target, repotest.Secret, repotest.SmallPacks(5))
	if err != nil {
		t.Fatal(err)
	}
	l, err := r.Lock(ctx, repo.LockRead, "materialize")
	if err != nil {
		t.Fatal(err)
	}
	rep, err := mirror.Run(ctx, source, target, opts)
	if err != nil || rep.Kept == "" || rep.RemovedFiles > 0 {
		t.Errorf("%+v, %v", rep, err)
	}
	if err := l.Release(); err != nil {
		t.Fatal(err)
	}
	if err := mirrorTo(source, target, opts); err != nil {
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
