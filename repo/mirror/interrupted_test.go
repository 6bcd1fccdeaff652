package mirror_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/fault"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/mirror"
	"github.com/snap-backup/snap/repo/repotest"
)

// If the source loses files after an interrupted run, the target must keep them, since
// it has the only good copies.
func TestMirrorNotesDoNotCoverLosses(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	junk := repotest.RunsDir + strings.Repeat("ab", 32)
	ends := map[string]func(t *testing.T, source, target *memory.Backend){
		"interrupted before the last record": func(t *testing.T, source, target *memory.Backend) {
			last := slices.Max(repotest.FilesIn(t, source, repotest.SnapshotsDir))
			cut := fault.New(target, fault.On(fault.Put, last, fault.From(1, fault.ErrInjected)))
			if err := mirrorTo(source, cut, oneAtATime); !errors.Is(err, fault.ErrInjected) {
				t.Fatal(err)
			}
		},
		"interrupted at its end": func(t *testing.T, source, target *memory.Backend) {
			last, stored := slices.Max(repotest.FilesIn(t, source, repotest.SnapshotsDir)), false
			cut := fault.New(target, func(c fault.Call) fault.Action {
				if stored {
					return fault.Action{Before: fault.ErrInjected}
				}
				stored = c.Op == fault.Put && c.Name == last
				return fault.Action{}
			})
			if err := mirrorTo(source, cut, oneAtATime); !errors.Is(err, fault.ErrInjected) {
				t.Fatal(err)
			}
			if err := repotest.Verify(target, 1, 2, 3); err != nil {
				t.Fatal(err)
			}
		},
		"a damaged record": func(t *testing.T, source, target *memory.Backend) {
			if err := source.Put(ctx, junk, []byte("rotten")); err != nil {
				t.Fatal(err)
			}
			if err := mirrorTo(source, target, oneAtATime); !errors.Is(err, mirror.ErrDamaged) {
				t.Fatal(err)
			}
			if err := errors.Join(source.Delete(ctx, junk), repotest.Verify(target, 1, 2, 3)); err != nil {
				t.Fatal(err)
			}
		},
	}
	for how, end := range ends {
		for _, withKey := range []bool{true, false} {
			source, target := repotest.New(t, 1, 2, 3), memory.New()
			end(t, source, target)
			if err := mirrorTo(source.Clone(), target.Clone(), oneAtATime); err != nil {
				t.Fatalf("%s: without a loss: %v", how, err)
			}
			removeFiles(t, source, repotest.PacksDir, 1)
			before := repotest.Content(t, target)
			err := mirrorTo(source, target, keyOptions(t, source, withKey))
			if withKey {
				// The judge says that all snapshots can be listed, since the target has the pack.
				if err := errors.Join(wantDamaged(err), repotest.Verify(target, 1, 2, 3)); err != nil {
					t.Errorf("%s, with the key: %v", how, err)
				}
				continue
			}
			if !errors.Is(err, mirror.ErrRefused) {
				t.Errorf("%s: %v", how, err)
			}
			if len(repotest.Content(t, target)) != len(before) {
				t.Errorf("%s: the target has changed", how)
			}
		}
	}
}

func wantDamaged(err error) error {
	if errors.Is(err, mirror.ErrDamaged) {
		return nil
	}
	return fmt.Errorf("%w, want %w", err, mirror.ErrDamaged)
}

// With the key, a run checks the snapshots of the source, whatever the notes of the
// target say.
func TestMirrorAsksDespiteNotes(t *testing.T) {
	t.Parallel()
	source, target := repotest.New(t, 1, 2, 3), memory.New()
	last := slices.Max(repotest.FilesIn(t, source, repotest.IndexDir))
	cut := fault.New(target, fault.On(fault.Put, last, fault.From(1, fault.ErrInjected)))
	if err := mirrorTo(source, cut, oneAtATime); !errors.Is(err, fault.ErrInjected) {
		t.Fatal(err)
	}
	removeFiles(t, source, repotest.PacksDir, 1)
	if err := errors.Join(wantDamaged(mirrorTo(source, target, keyOptions(t, source, true))), repotest.Verify(target, 1, 2, 3)); err != nil {
		t.Error(err)
	}
}

// A run that replaces a torn file of the target must not note it as removable, since
// the target needs it.
func TestMirrorMakesNoNoteOfReplacedFiles(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	source, target := repotest.New(t, 1, 2, 3), memory.New()
	if err := mirrorTo(source, target, oneAtATime); err != nil {
		t.Fatal(err)
	}
	name := repotest.FilesIn(t, target, repotest.PacksDir)[0]
	content := repotest.Content(t, target)[name]
	if err := errors.Join(target.Delete(ctx, name), target.Put(ctx, name, content[:len(content)-7])); err != nil {
		t.Fatal(err)
	}
	replaced := false
	cut := fault.New(target, func(c fault.Call) fault.Action {
		if replaced {
			return fault.Action{Before: fault.ErrInjected}
		}
		replaced = replaced || c.Op == fault.Put && c.Name == name
		return fault.Action{}
	})
	_ = mirrorTo(source, cut, oneAtATime)
	if !replaced {
		t.Fatal("the torn file was not replaced")
	}
	if err := source.Delete(ctx, name); err != nil {
		t.Fatal(err)
	}
	if err := mirrorTo(source, target, oneAtATime); !errors.Is(err, mirror.ErrRefused) {
		t.Error(err)
	}
	if err := repotest.Verify(target, 1, 2, 3); err != nil {
		t.Error(err)
	}
}

// keyOptions returns options, with the judge that has the key if withKey is set.
func keyOptions(t testing.TB, source backend.Backend, withKey bool) mirror.Options {
	t.Helper()
	opts := oneAtATime
	if withKey {
		opts.Judge = repotest.MustOpenWith(t, source, repotest.Secret, repotest.SmallPacks(5)).MirrorJudge()
	}
	return opts
}

// Without the key, the notes of an interrupted run do not make the next run
// remove packs that the source has lost. The next run does remove packs that a
// prune of the source has removed.
func TestMirrorWithoutKeyAfterAnInterruption(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	stages := map[string]func(todo func(dir string) []string) string{
		"before the index":   func(todo func(string) []string) string { return slices.Min(todo(repotest.IndexDir)) },
		"in the index":       func(todo func(string) []string) string { return slices.Max(todo(repotest.IndexDir)) },
		"before the records": func(todo func(string) []string) string { return slices.Min(todo(repotest.SnapshotsDir)) },
	}
	for stage, name := range stages {
		for _, hadSnapshot := range []bool{true, false} { // whether the target had a snapshot before the run
			source, target := repotest.New(t, 1), memory.New()
			if hadSnapshot {
				if err := mirrorTo(source, target, oneAtATime); err != nil {
					t.Fatal(err)
				}
			}
			for _, day := range []int{2, 3} {
				if _, err := repotest.StoreDay(ctx, source, day); err != nil {
					t.Fatal(err)
				}
			}
			old := repotest.Content(t, target)
			isNew := func(name string) bool { return old[name] == nil }
			at := name(func(dir string) []string {
				return slices.DeleteFunc(repotest.FilesIn(t, source, dir), func(name string) bool { return !isNew(name) })
			})
			cut := fault.New(target, fault.On(fault.Put, at, fault.From(1, fault.ErrInjected)))
			if err := mirrorTo(source, cut, oneAtATime); !errors.Is(err, fault.ErrInjected) {
				t.Fatalf("%s: %v", stage, err)
			}
			lossy, added := source.Clone(), repotest.FilesIn(t, target, repotest.PacksDir)
			added = slices.DeleteFunc(added, func(name string) bool { return !isNew(name) })
			if err := lossy.Delete(ctx, added[0]); err != nil {
				t.Fatal(err)
			}
			before := target.Clone()
			if err := mirrorTo(lossy, target, oneAtATime); !errors.Is(err, mirror.ErrRefused) {
				t.Errorf("%s, %v: after a loss: %v", stage, hadSnapshot, err)
			}
			if len(repotest.Content(t, target)) != len(repotest.Content(t, before)) {
				t.Errorf("%s, %v: the target has changed", stage, hadSnapshot)
			}
			if _, err := repotest.Prune(ctx, source, repotest.NoWaste, 2); err != nil {
				t.Fatal(err)
			}
			if err := mirrorTo(source, before, oneAtATime); err != nil {
				t.Errorf("%s, %v: after a prune: %v", stage, hadSnapshot, err)
			}
			if err := repotest.Verify(before, 1, 3); err != nil {
				t.Errorf("%s, %v: %v", stage, hadSnapshot, err)
			}
		}
	}
}

// A run is interrupted while it copies packs, then the source loses a pack that was
// copied and one that was not. Without the key, the next run must keep the only good
// copy, although the notes of the interrupted run list both.
func TestMirrorWithoutKeyAfterAnInterruptionInThePacks(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for _, hadSnapshot := range []bool{true, false} {
		source, target := repotest.New(t, 1), memory.New()
		if hadSnapshot {
			if err := mirrorTo(source, target, oneAtATime); err != nil {
				t.Fatal(err)
			}
		}
		for _, day := range []int{2, 3} {
			if _, err := repotest.StoreDay(ctx, source, day); err != nil {
				t.Fatal(err)
			}
		}
		old := repotest.Content(t, target)
		added := slices.DeleteFunc(repotest.FilesIn(t, source, repotest.PacksDir), func(name string) bool { return old[name] != nil })
		if len(added) < 3 {
			t.Fatalf("only %d new packs", len(added))
		}
		cut := fault.New(target, fault.On(fault.Put, slices.Max(added), fault.From(1, fault.ErrInjected)))
		if err := mirrorTo(source, cut, oneAtATime); !errors.Is(err, fault.ErrInjected) {
			t.Fatal(err)
		}
		lossy := source.Clone()
		for _, name := range []string{slices.Min(added), slices.Max(added)} {
			if err := lossy.Delete(ctx, name); err != nil {
				t.Fatal(err)
			}
		}
		before := target.Clone()
		if err := mirrorTo(lossy, target, oneAtATime); !errors.Is(err, mirror.ErrRefused) {
			t.Errorf("after a loss: %v", err)
		}
		if len(repotest.Content(t, target)) != len(repotest.Content(t, before)) {
			t.Error("the target has changed")
		}
		if _, err := repotest.Prune(ctx, source, repotest.NoWaste, 2); err != nil {
			t.Fatal(err)
		}
		if err := mirrorTo(source, before, oneAtATime); err != nil {
			t.Errorf("after a prune: %v", err)
		}
		if err := repotest.Verify(before, 1, 3); err != nil {
			t.Error(err)
		}
	}
}

// An interrupted run may leave two lists of copied snapshots. The next run
// must merge them.
func TestMirrorRemembersAfterAnInterruption(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for _, first := range []bool{true, false} {
		source, target := repotest.New(t, 1), memory.New()
		if err := mirrorTo(source, target, oneAtATime); err != nil {
			t.Fatal(err)
		}
		if _, err := repotest.StoreDay(ctx, source, 2); err != nil {
			t.Fatal(err)
		}
		before := target.Clone()
		if err := mirrorTo(source, target, oneAtATime); err != nil {
			t.Fatal(err)
		}
		// Put back the list that the run replaced. List shows it first or last.
		lists := copyNotes(t, before)
		if err := target.Put(ctx, lists[0], repotest.Content(t, before)[lists[0]]); err != nil {
			t.Fatal(err)
		}
		both := copyNotes(t, target)
		if len(both) != 2 {
			t.Fatalf("%d lists", len(both))
		}
		be := backend.Backend(target)
		if !first {
			be = &reverseList{target}
		}
		if err := mirrorTo(source, be, oneAtATime); err != nil {
			t.Fatal(err)
		}
		if n := len(copyNotes(t, target)); n != 1 {
			t.Errorf("%d lists remain", n)
		}
		// Both added snapshots were copied from the source, so both may be removed.
		if _, err := repotest.StoreDay(ctx, source, 3); err != nil {
			t.Fatal(err)
		}
		if _, err := repotest.Prune(ctx, source, repotest.NoWaste, 2); err != nil {
			t.Fatal(err)
		}
		if err := mirrorTo(source, target, oneAtATime); err != nil {
			t.Error(err)
		}
		if err := errors.Join(followExactly(t, source, target), repotest.Verify(target, 1, 3)); err != nil {
			t.Error(err)
		}
	}
}

// copyNotes returns the notes of what was copied.
func copyNotes(t testing.TB, be *memory.Backend) []string {
	t.Helper()
	return slices.DeleteFunc(repotest.FilesIn(t, be, "mirrored/"), func(name string) bool {
		return !bytes.HasPrefix(repotest.Content(t, be)[name], []byte("snapmi01"))
	})
}

// reverseList is a store that lists files in reverse order.
type reverseList struct{ backend.Backend }

func (b *reverseList) List(ctx context.Context, dir string, fn func(backend.Info) error) error {
	var all []backend.Info
	if err := b.Backend.List(ctx, dir, func(f backend.Info) error { all = append(all, f); return nil }); err != nil {
		return err
	}
	for _, f := range slices.Backward(all) {
		if err := fn(f); err != nil {
			return err
		}
	}
	return nil
}
