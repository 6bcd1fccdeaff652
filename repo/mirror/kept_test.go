package mirror_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/fault"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/mirror"
	"github.com/snap-backup/snap/repo/repotest"
)

// Without the key, what the source has removed leaves the target after 14 more runs. Only
// complete runs count.
func TestMirrorLetsGoAfterManyRuns(t *testing.T) {
	t.Parallel()
	source, target := outdatedMirror(t)
	locked := source.Clone() // a source that is damaged now: its runs do not count
	locked.Set(repotest.RunsDir+strings.Repeat("ab", 32), []byte("rotten"))
	for n := range 14 {
		rep, err := mirror.Run(context.Background(), source, target, oneAtATime)
		if err != nil || rep.RemovedFiles > 0 || rep.KeptRuns != 14-n {
			t.Fatalf("run %d: %+v, %v", n+1, rep, err)
		}
		if err := mirrorTo(locked, target, oneAtATime); !errors.Is(err, mirror.ErrDamaged) {
			t.Fatal(err)
		}
		if n == 6 { // these two notes count together
			one := target.Clone()
			if err := mirrorTo(source, one, oneAtATime); err != nil {
				t.Fatal(err)
			}
			for name, b := range repotest.Content(t, one) {
				target.Set(name, b)
			}
		}
	}
	if err := repotest.Verify(target, 1, 2, 3, 4); err != nil {
		t.Fatal(err)
	}
	last := func(be backend.Backend) error { return mirrorTo(source, be, oneAtATime) }
	again := func(be *memory.Backend) error {
		// If a note could not be read, the count of runs begins anew.
		var err error
		for range 16 {
			if err := errors.Join(verifyMirror(be), last(be)); err != nil {
				return err
			}
			if err = sameRepository(t, source, be); err == nil {
				return nil
			}
		}
		return err
	}
	repotest.EveryFault(t, repotest.Run{Base: target, Do: last, Least: 10, Want: 6}, func(be *memory.Backend, _ error) error { return again(be) })
	repotest.EveryCrash(t, repotest.Run{Base: target, Do: last, Least: 5, Want: 6}, again)
	if err := again(target); err != nil {
		t.Error(err)
	}
}

// A key that was removed in the source leaves the target in a run that has a key, and never
// before. Many new keys at once need a key, too: they could crowd out the good
// ones.
func TestMirrorOfKeys(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	source, target := repotest.New(t, 1), memory.New()
	opts := keyOptions(t, source, true)
	r := repotest.MustOpen(t, source)
	id, err := r.AddKey(ctx, []byte("of the laptop"), repotest.SlotInfo)
	if err != nil {
		t.Fatal(err)
	}
	if err := mirrorTo(source, target, opts); err != nil {
		t.Fatal(err)
	}
	if _, err := r.RemoveKey(ctx, id.String()); err != nil {
		t.Fatal(err)
	}
	for n := range 20 {
		rep, err := mirror.Run(ctx, source, target, oneAtATime)
		if err != nil || rep.OldKeys != 1 || rep.RemovedFiles > 0 {
			t.Fatalf("run %d: %+v, %v", n+1, rep, err)
		}
	}
	if _, err := mirror.Run(ctx, source, target, opts); !errors.Is(err, mirror.ErrRefused) || !strings.Contains(err.Error(), id.Short()) {
		t.Fatal(err) // nobody but the holder of this key could open the target any more
	}
	accept := opts
	accept.AcceptRemovals = true
	rep, err := mirror.Run(ctx, source, target, accept)
	if err != nil || rep.OldKeys != 0 || rep.RemovedFiles != 1 || len(rep.Removed) != 1 {
		t.Fatalf("%+v, %v", rep, err)
	}
	if _, err := repo.Open(ctx, target, []byte("of the laptop"), repotest.SmallPacks(5)); !errors.Is(err, repo.ErrWrongPassword) {
		t.Error(err)
	}

	slot := repotest.Content(t, source)[repotest.FilesIn(t, source, repotest.KeysDir)[0]]
	for n := range 40 {
		repotest.PutNamed(t, source, repotest.KeysDir, append(slot, strings.Repeat(" ", n+1)...)) // parses as JSON
	}
	before := len(repotest.Content(t, target))
	if err := mirrorTo(source, target, oneAtATime); !errors.Is(err, mirror.ErrRefused) || len(repotest.Content(t, target)) != before {
		t.Error(err)
	}
	if err := mirrorTo(source, target, opts); !errors.Is(err, mirror.ErrDamaged) || len(repotest.FilesIn(t, target, repotest.KeysDir)) > 2 {
		t.Error(err)
	}
}

// A file that cannot be read counts as damaged, in the source and on the target. Nothing
// is lost, and with the key all snapshots that do not need it are copied.
func TestMirrorOfUnreadableFiles(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	source, older := outdatedMirror(t)
	if err := mirrorTo(source, older, keyOptions(t, source, true)); err != nil { // the next run with the key removes files
		t.Fatal(err)
	}
	if _, err := repotest.StoreDay(ctx, source, 5); err != nil {
		t.Fatal(err)
	}
	if err := repotest.CertifyAll(ctx, source, repotest.Secret, 62); err != nil {
		t.Fatal(err)
	}
	opts := keyOptions(t, source, true)
	bad := func(be backend.Backend, name string) backend.Backend {
		return fault.New(be, fault.On(fault.ReadAt, name, fault.From(1, syscall.EIO)))
	}
	for _, dir := range []string{repotest.PacksDir, repotest.IndexDir, repotest.SnapshotsDir, repotest.CertificatesDir, repotest.KeysDir} {
		for _, withKey := range []bool{false, true} {
			run := oneAtATime
			if withKey {
				run = opts
			}
			name, target := newest(t, source, older, dir), older.Clone()
			err := mirrorTo(bad(source, name), target, run)
			if dir != repotest.KeysDir && !errors.Is(err, mirror.ErrDamaged) || err != nil && !errors.Is(err, syscall.EIO) {
				t.Errorf("source, %s, key %v: %v", name, withKey, err)
			}
			v, err := repotest.Examine(target, repotest.Secret)
			if err == nil && len(v.Damaged)+len(v.Report.Affected) > 0 {
				err = fmt.Errorf("%+v", v)
			}
			if err := errors.Join(err, mirrorTo(source, target, run), hasAll(t, source, target)); err != nil {
				t.Errorf("source, %s, key %v: %v", name, withKey, err)
			}
			name, target = "", older.Clone()
			for _, name = range repotest.FilesIn(t, older, dir) {
				if repotest.Content(t, source)[name] != nil {
					break
				}
			}
			if err := mirrorTo(source, bad(target, name), run); err != nil && !errors.Is(err, mirror.ErrDamaged) {
				t.Errorf("target, %s, key %v: %v", name, withKey, err)
			}
			if err := repotest.Verify(target, daysOf(t, target)...); err != nil {
				t.Errorf("target, %s, key %v: %v", name, withKey, err)
			}
			rep, err := mirror.Check(ctx, source, bad(target, name), run)
			if err != nil || rep.Clean() || rep.Damaged[0].File != name {
				t.Errorf("check, %s, key %v: %+v, %v", name, withKey, rep, err)
			}
		}
	}
	// If the whole target does not answer, nothing is called damaged.
	gone := fault.New(older.Clone(), fault.From(40, fmt.Errorf("the drive: %w", syscall.EIO)))
	if err := mirrorTo(source, gone, opts); !errors.Is(err, syscall.EIO) || errors.Is(err, mirror.ErrDamaged) {
		t.Error(err)
	}
}

// newest returns a file that only the source has, if there is one.
func newest(t testing.TB, source, target *memory.Backend, dir string) string {
	t.Helper()
	old, names := repotest.Content(t, target), repotest.FilesIn(t, source, dir)
	for _, name := range names {
		if old[name] == nil {
			return name
		}
	}
	return names[0]
}

// Runs without the key copy what may be incomplete or counterfeit. The next run with the
// key judges all of that, and names what is wrong until it is repaired.
func TestMirrorIsJudgedLater(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	source, target := repotest.New(t, 1, 2, 3), memory.New()
	opts := keyOptions(t, source, true)
	run := func(opts mirror.Options, want error, unjudged bool) *mirror.Report {
		t.Helper()
		rep, err := mirror.Run(ctx, source, target, opts)
		if !errors.Is(err, want) || want == nil && err != nil || rep.Unjudged != unjudged {
			t.Fatalf("%+v, %v", rep, err)
		}
		return rep
	}
	whole := source.Clone()
	lost := removeFiles(t, source, repotest.PacksDir, 1)[0]
	run(oneAtATime, nil, true) // the first mirror of a repository that lacks a pack
	run(oneAtATime, nil, true)
	for range 2 {
		if rep := run(opts, mirror.ErrDamaged, false); !strings.Contains(rep.Damaged[0].Text, lost) {
			t.Errorf("%+v", rep)
		}
	}
	run(oneAtATime, nil, true)
	source.Set(lost, repotest.Content(t, whole)[lost])
	run(opts, nil, false)
	run(oneAtATime, nil, false)

	// Nobody without the key sees a counterfeit that begins as it should.
	fake := repotest.PutNamed(t, source, repotest.SnapshotsDir, append([]byte("snapsn01"), repotest.Noise(1, 900)...))
	run(oneAtATime, nil, false)
	run(opts, mirror.ErrDamaged, false)
	run(opts, mirror.ErrDamaged, false)
	repotest.Remove(t, source, repotest.SnapshotsDir+fake.String())
	run(opts, nil, false)
	if rep := run(opts, nil, false); rep.RemovedFiles != 1 {
		t.Errorf("%+v", rep)
	}
	if err := errors.Join(sameRepository(t, source, target), repotest.Verify(target, 1, 2, 3)); err != nil {
		t.Error(err)
	}
}

// A damaged note, or one that cannot be read, stops no run. What waited for the key is
// judged all the same, even if a run without the key comes first and removes the note.
func TestMirrorOfDamagedNotes(t *testing.T) {
	t.Parallel()
	source, base := repotest.New(t, 1, 2), memory.New()
	opts := keyOptions(t, source, true)
	if err := mirrorTo(source, base, opts); err != nil {
		t.Fatal(err)
	}
	repotest.PutNamed(t, source, repotest.SnapshotsDir, append([]byte("snapsn01"), repotest.Noise(1, 900)...))
	if err := mirrorTo(source, base, oneAtATime); err != nil {
		t.Fatal(err)
	}
	notes := repotest.FilesIn(t, base, "mirrored/")
	if len(notes) < 2 {
		t.Fatal(notes)
	}
	for _, name := range notes {
		for _, first := range [][]mirror.Options{nil, {oneAtATime}, {oneAtATime, oneAtATime}} {
			torn, clone := base.Clone(), base.Clone()
			torn.Set(name, repotest.Content(t, base)[name][:9])
			for _, target := range []backend.Backend{torn, fault.New(clone, fault.Unreadable(name, syscall.EIO))} {
				for _, run := range first {
					if err := mirrorTo(source, target, run); err != nil {
						t.Errorf("%s, %d runs: %v", name, len(first), err)
					}
				}
				for range 2 {
					if err := mirrorTo(source, target, opts); !errors.Is(err, mirror.ErrDamaged) {
						t.Errorf("%s, %d runs: the counterfeit was not noticed: %v", name, len(first), err)
					}
				}
			}
		}
	}
}
