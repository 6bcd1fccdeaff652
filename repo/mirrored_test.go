package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/fault"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/mirror"
)

// one worker makes runs repeatable.
var oneAtATime = mirror.Options{Workers: 1}

func mirrorTo(source, target backend.Backend, opts mirror.Options) error {
	_, err := mirror.Run(context.Background(), source, target, opts)
	return err
}

// sameRepository wants a mirror to have the files of its source, byte for byte.
func sameRepository(t testing.TB, source, target backend.Backend) error {
	t.Helper()
	a, b := content(t, source), content(t, target)
	for name := range a {
		if strings.HasPrefix(name, locksDir) || strings.HasPrefix(name, prunesDir) || strings.HasPrefix(name, checksDir) {
			delete(a, name)
		}
	}
	for name := range b {
		if strings.HasPrefix(name, "mirrored/") || strings.HasPrefix(name, checksDir) { // each remembers its own checks
			delete(b, name)
		}
	}
	for name := range b {
		if !bytes.Equal(a[name], b[name]) {
			return fmt.Errorf("%s differs, or is on the target alone", name)
		}
	}
	if len(a) != len(b) {
		return fmt.Errorf("the target has %d files, the source %d", len(b), len(a))
	}
	return nil
}

// judgeMirror wants whatever snapshots a mirror has to be whole.
func judgeMirror(be *memory.Backend) error {
	ctx := context.Background()
	if _, err := Open(ctx, be, testSecret, tinyOptions(2)); errors.Is(err, ErrNotFound) || errors.Is(err, ErrWrongPassword) {
		err := be.List(ctx, snapshotsDir, func(f backend.Info) error { return fmt.Errorf("%s without a key", f.Name) })
		return err // it has just begun
	}
	v, err := judge(be, testSecret)
	if err != nil {
		return err
	}
	if len(v.report.Problems) > 0 || len(v.report.Suffering) > 0 || len(v.damaged) > 0 {
		return fmt.Errorf("check: %+v %v", v.report, v.damaged)
	}
	return nil
}

// movedOn is a source on which days were stored, forgotten and pruned since its
// mirror was made, and that mirror.
func movedOn(t testing.TB) (source, target *memory.Backend) {
	t.Helper()
	source, target = chainRepo(t, 1, 2, 3), memory.New()
	if err := mirrorTo(source, target, oneAtATime); err != nil {
		t.Fatal(err)
	}
	if _, err := storeTiny(context.Background(), source, 4); err != nil {
		t.Fatal(err)
	}
	if _, err := pruneTiny(context.Background(), source, everything, 1); err != nil {
		t.Fatal(err)
	}
	return source, target
}

func TestMirrorIsExact(t *testing.T) {
	ctx := context.Background()
	source, target := movedOn(t)
	if err := judgeClean(target, testSecret, 1, 2, 3); err != nil {
		t.Fatal(err)
	}
	rep, err := mirror.Run(ctx, source, target, mirror.Options{})
	if err != nil || rep.CopiedFiles == 0 || rep.RemovedFiles == 0 || len(rep.Damaged) > 0 {
		t.Fatalf("%+v, %v", rep, err)
	}
	if err := errors.Join(sameRepository(t, source, target), judgeClean(target, testSecret, 2, 3, 4)); err != nil {
		t.Fatal(err)
	}
	// Without changes nothing is read or written but names.
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
	source, target := movedOn(t)
	before := content(t, target)
	dry, err := mirror.Run(context.Background(), source, target, mirror.Options{DryRun: true})
	if err != nil {
		t.Fatal(err)
	}
	if after := content(t, target); len(after) != len(before) {
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
	changed, older := movedOn(t)
	targets := []*memory.Backend{older, memory.New()}
	if testing.Short() {
		targets = targets[:1]
	}
	for _, base := range targets {
		source := changed.Clone()
		untouched := content(t, source)
		again := func(be *memory.Backend) error {
			if err := judgeMirror(be); err != nil {
				return err
			}
			if err := mirrorTo(source, be, oneAtATime); err != nil {
				return fmt.Errorf("next run: %w", err)
			}
			if len(content(t, source)) != len(untouched) {
				return errors.New("the source has changed")
			}
			return sameRepository(t, source, be)
		}
		run := func(be backend.Backend) error { return mirrorTo(source, be, oneAtATime) }
		everyOperation(t, 15, base, run, func(be *memory.Backend, _ error) error { return again(be) })
		everyCrash(t, false, 5, base, run, again)
	}
}

// Whatever a run that was cut off has left, the target is known as a mirror of
// this source, and of no other.
func TestMirrorKnowsWhatItHasBegun(t *testing.T) {
	ctx := context.Background()
	source, other := chainRepo(t, 1, 2), otherRepo(t)
	for n := 1; ; n++ {
		target := memory.New()
		store := fault.New(target, fault.From(n, fault.ErrInjected))
		err := mirrorTo(source, store, oneAtATime)
		if store.Count() < n {
			if err != nil || n < 20 {
				t.Errorf("the undisturbed run had %d operations: %v", n-1, err)
			}
			break
		}
		if files := content(t, target); len(files) == 0 || files[configName] != nil {
			continue
		}
		if shares, err := mirror.Shares(ctx, source, target); err != nil || !shares {
			t.Errorf("cut off at %d it has left %v, which nobody knows: %v", n, slices.Sorted(maps.Keys(content(t, target))), err)
		}
		if shares, err := mirror.Shares(ctx, other, target); err != nil || shares {
			t.Errorf("cut off at %d: taken for a mirror of another repository, %v", n, err)
		}
	}
}

// A file that the disk has torn is found by its length or by --check.
func TestMirrorHealsTornFiles(t *testing.T) {
	source, target := movedOn(t)
	run := func(be backend.Backend) error { return mirrorTo(source, be, oneAtATime) }
	everyCrash(t, true, 5, target, run, func(be *memory.Backend) error {
		bad := misnamed(t, be)
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
	source, older := movedOn(t)
	everyOperation(t, 15, source,
		func(be backend.Backend) error {
			target := older.Clone()
			err := mirrorTo(be, target, oneAtATime)
			if jerr := judgeMirror(target); jerr != nil {
				t.Fatalf("%v: %v", err, jerr)
			}
			return err
		},
		func(be *memory.Backend, _ error) error { return sameRepository(t, source, be) })
}

// At every operation of a mirror on its source, somebody stores or prunes.
func TestMirrorOfALivelySource(t *testing.T) {
	base, older := movedOn(t)
	busy := map[string]func(be backend.Backend) error{
		"store": func(be backend.Backend) error { _, err := storeTiny(context.Background(), be, 5); return err },
		"prune": func(be backend.Backend) error {
			_, err := pruneTiny(context.Background(), be, everything, 2)
			return err
		},
		"store and prune": func(be backend.Backend) error {
			if _, err := storeTiny(context.Background(), be, 5); err != nil {
				return err
			}
			_, err := pruneTiny(context.Background(), be, everything, 3)
			return err
		},
	}
	targets := []*memory.Backend{older, memory.New()}
	if testing.Short() {
		targets = targets[:1]
		delete(busy, "store")
	}
	for what, work := range busy {
		for _, start := range targets {
			for n := 1; ; n++ {
				source, target := base.Clone(), start.Clone()
				var workErr error
				store := fault.New(source, func(c fault.Call) fault.Action {
					if c.N == n {
						workErr = work(source)
					}
					return fault.Action{}
				})
				err := mirrorTo(store, target, oneAtATime)
				if store.Count() < n {
					break
				}
				if err != nil || workErr != nil {
					t.Fatalf("%s at %d: %v, %v", what, n, err, workErr)
				}
				if err := judgeMirror(target); err != nil {
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
	for _, name := range fileNames(t, be, dir) {
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

func fileNames(t testing.TB, be backend.Backend, dir string) (names []string) {
	t.Helper()
	err := be.List(context.Background(), dir, func(f backend.Info) error { names = append(names, f.Name); return nil })
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// A source that has lost files must not take them from its mirror.
func TestMirrorRefuses(t *testing.T) {
	ctx := context.Background()
	tests := []struct {
		what    string
		spoil   func(t *testing.T, source, target *memory.Backend)
		want    string
		always  bool // also with AcceptRemovals
		withKey bool // also, or only, with the key
	}{
		{"config gone", func(t *testing.T, s, _ *memory.Backend) { removeFiles(t, s, "", 1) }, "no config file", true, false},
		{"keys gone", func(t *testing.T, s, _ *memory.Backend) { removeFiles(t, s, keysDir, 9) }, "no key slot", true, false},
		{"packs gone", func(t *testing.T, s, _ *memory.Backend) { removeFiles(t, s, packsDir, 99) }, "no packs", true, false},
		{"index gone", func(t *testing.T, s, _ *memory.Backend) { removeFiles(t, s, indexDir, 99) }, "no index file", true, false},
		{"snapshots gone", func(t *testing.T, s, _ *memory.Backend) { removeFiles(t, s, snapshotsDir, 99) }, "more than half", false, true},
		{"most snapshots gone", func(t *testing.T, s, _ *memory.Backend) { removeFiles(t, s, snapshotsDir, 3) }, "more than half", false, true},
		{"one pack gone", func(t *testing.T, s, _ *memory.Backend) { removeFiles(t, s, packsDir, 1) }, "a prune does not do that", false, false},
		{"one pack gone, with the key", func(t *testing.T, s, _ *memory.Backend) { removeFiles(t, s, packsDir, 1) }, "not complete", false, true},
		{"one index file gone", func(t *testing.T, s, _ *memory.Backend) { removeFiles(t, s, indexDir, 1) }, "nothing replaced them", false, false},
		{"one index file gone, with the key", func(t *testing.T, s, _ *memory.Backend) { removeFiles(t, s, indexDir, 1) }, "not complete", false, true},
		{"pack and index file gone, with the key", func(t *testing.T, s, _ *memory.Backend) {
			removeFiles(t, s, indexDir, 1)
			removeFiles(t, s, packsDir, 1)
		}, "not complete", false, true},
		{"another repository", func(t *testing.T, s, target *memory.Backend) {
			removeFiles(t, target, "", 1)
			if err := target.Put(ctx, "config", content(t, otherRepo(t))["config"]); err != nil {
				t.Fatal(err)
			}
		}, "another repository", true, false},
		{"stored into the mirror", func(t *testing.T, _, target *memory.Backend) {
			if _, err := storeTiny(ctx, target, 9); err != nil {
				t.Fatal(err)
			}
		}, "another program stored them in the mirror", false, true},
	}
	for _, tt := range tests {
		source := chainRepo(t, 1, 2, 3, 4)
		target := memory.New()
		if err := mirrorTo(source, target, oneAtATime); err != nil {
			t.Fatal(err)
		}
		tt.spoil(t, source, target)
		before := content(t, target)
		opts := oneAtATime
		if tt.withKey {
			opts.VerifySnapshots = func(ctx context.Context) error {
				r, err := Open(ctx, source, testSecret, tinyOptions(5))
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
		if len(content(t, target)) != len(before) {
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

func otherRepo(t testing.TB) *memory.Backend {
	t.Helper()
	be := memory.New()
	if _, err := Create(context.Background(), be, testSecret, testInfo, tinyOptions(99)); err != nil {
		t.Fatal(err)
	}
	return be
}

// What a repository does by itself is never refused.
func TestMirrorFollowsPrunes(t *testing.T) {
	for _, forget := range [][]int{{1}, {1, 2}, {3}, {4, 5}} {
		source, target := chainRepo(t, 1, 2, 3, 4, 5), memory.New()
		for _, step := range []func() error{
			func() error { return nil },
			func() error { return forgetTiny(context.Background(), source, forget...) },
			func() error { _, err := pruneTiny(context.Background(), source, everything); return err },
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

// Damaged files of the source do not come to the target, and do not cost it its
// sound ones.
func TestMirrorOfADamagedSource(t *testing.T) {
	ctx := context.Background()
	for _, dir := range []string{packsDir, indexDir, snapshotsDir} {
		for _, fresh := range []bool{false, true} {
			source, target := chainRepo(t, 1, 2, 3), memory.New()
			if !fresh {
				if err := mirrorTo(source, target, oneAtATime); err != nil {
					t.Fatal(err)
				}
			}
			before := content(t, target)
			name := fileNames(t, source, dir)[0]
			b := content(t, source)[name]
			if err := source.Delete(ctx, name); err != nil {
				t.Fatal(err)
			}
			if err := source.Put(ctx, name, b[:len(b)-7]); err != nil {
				t.Fatal(err)
			}
			if _, err := storeTiny(ctx, source, 4); err != nil {
				t.Fatal(err)
			}
			rep, err := mirror.Run(ctx, source, target, oneAtATime)
			if !errors.Is(err, mirror.ErrDamaged) || len(rep.Damaged) != 1 || rep.Damaged[0].File != name {
				t.Fatalf("%s: %+v, %v", name, rep, err)
			}
			after := content(t, target)
			for n, b := range before {
				if !bytes.Equal(after[n], b) && !strings.HasPrefix(n, "mirrored/") {
					t.Errorf("%s: %s has changed on the target", name, n)
				}
			}
			if bad := misnamed(t, target); len(bad) > 0 {
				t.Errorf("%s: damage came to the target: %v", name, bad)
			}
			if err := judgeMirror(target); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			v, err := judge(target, testSecret)
			want := map[bool][]int{true: {1, 2, 3, 4}, false: {}}[!fresh]
			if dir == snapshotsDir && fresh {
				continue // three of the four
			}
			if err != nil || !slices.Equal(v.days, want) {
				t.Errorf("%s: days %v, want %v, %v", name, v.days, want, err)
			}
		}
	}
}

func TestMirrorCheck(t *testing.T) {
	ctx := context.Background()
	source, target := chainRepo(t, 1, 2), memory.New()
	if _, err := mirror.Check(ctx, source, target, oneAtATime); !errors.Is(err, mirror.ErrRefused) {
		t.Errorf("nothing there: %v", err)
	}
	if err := mirrorTo(source, target, oneAtATime); err != nil {
		t.Fatal(err)
	}
	names := fileNames(t, target, packsDir)
	flipped := names[0]
	b := bytes.Clone(content(t, target)[flipped])
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
	// A file that is damaged in the source as well stays as it is.
	other := bytes.Clone(b)
	other[0] ^= 1
	if err := errors.Join(source.Delete(ctx, flipped), source.Put(ctx, flipped, other)); err != nil {
		t.Fatal(err)
	}
	rep, err = mirror.Check(ctx, source, target, mirror.Options{Heal: true})
	if err != nil || rep.Clean() || len(rep.Healed) > 0 || !bytes.Equal(content(t, target)[flipped], b) {
		t.Errorf("damaged on both sides: %+v, %v", rep, err)
	}
}

// Nobody loses what he reads on the mirror.
func TestMirrorKeepsWhatIsInUse(t *testing.T) {
	ctx := context.Background()
	source, target := movedOn(t)
	r, err := Open(ctx, target, testSecret, tinyOptions(5))
	if err != nil {
		t.Fatal(err)
	}
	l, err := r.Lock(ctx, LockRead, "materialize")
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
	source, _ := movedOn(t)
	for n := 1; ; n++ {
		ctx, cancel := context.WithCancel(context.Background())
		target := memory.New()
		store := fault.New(target, func(c fault.Call) fault.Action {
			if c.N == n {
				cancel()
			}
			return fault.Action{}
		})
		_, err := mirror.Run(ctx, source, store, mirror.Options{})
		done := store.Count() < n
		cancel()
		if done {
			return
		}
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Fatalf("cancelled at %d: %v", n, err)
		}
		if err := judgeMirror(target); err != nil {
			t.Fatalf("cancelled at %d: %v", n, err)
		}
	}
}
