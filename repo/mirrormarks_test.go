package repo

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/fault"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/mirror"
)

// A run that did not come to its end, by whatever, must not leave the target
// ready to follow the next loss of the source: the target is the only good copy
// then.
func TestMirrorMarksDoNotCoverLosses(t *testing.T) {
	ctx := context.Background()
	junk := runsDir + strings.Repeat("ab", 32)
	ends := map[string]func(t *testing.T, source, target *memory.Backend){
		"cut off before the last record": func(t *testing.T, source, target *memory.Backend) {
			last := slices.Max(fileNames(t, source, snapshotsDir))
			cut := fault.New(target, fault.On(fault.Put, last, fault.From(1, fault.ErrInjected)))
			if err := mirrorTo(source, cut, oneAtATime); !errors.Is(err, fault.ErrInjected) {
				t.Fatal(err)
			}
		},
		"cut off at its end": func(t *testing.T, source, target *memory.Backend) {
			last, stored := slices.Max(fileNames(t, source, snapshotsDir)), false
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
			if err := judgeClean(target, testSecret, 1, 2, 3); err != nil {
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
			if err := errors.Join(source.Delete(ctx, junk), judgeClean(target, testSecret, 1, 2, 3)); err != nil {
				t.Fatal(err)
			}
		},
	}
	for how, end := range ends {
		for _, withKey := range []bool{true, false} {
			source, target := chainRepo(t, 1, 2, 3), memory.New()
			end(t, source, target)
			if err := mirrorTo(source.Clone(), target.Clone(), oneAtATime); err != nil {
				t.Fatalf("%s: without a loss: %v", how, err)
			}
			removeFiles(t, source, packsDir, 1)
			before := content(t, target)
			if err := mirrorTo(source, target, keyed(source, withKey)); !errors.Is(err, mirror.ErrRefused) {
				t.Errorf("%s, key %v: %v", how, withKey, err)
			}
			if len(content(t, target)) != len(before) {
				t.Errorf("%s, key %v: the target has changed", how, withKey)
			}
		}
	}
}

// With the key, marks that are there do not count.
func TestMirrorAsksInSpiteOfMarks(t *testing.T) {
	source, target := chainRepo(t, 1, 2, 3), memory.New()
	last := slices.Max(fileNames(t, source, indexDir))
	cut := fault.New(target, fault.On(fault.Put, last, fault.From(1, fault.ErrInjected)))
	if err := mirrorTo(source, cut, oneAtATime); !errors.Is(err, fault.ErrInjected) {
		t.Fatal(err)
	}
	removeFiles(t, source, packsDir, 1)
	before := content(t, target)
	if err := mirrorTo(source, target, keyed(source, true)); !errors.Is(err, mirror.ErrRefused) {
		t.Error(err)
	}
	if len(content(t, target)) != len(before) {
		t.Error("the target has changed")
	}
}

// A torn file of the target that was replaced is one that its records need.
func TestMirrorDoesNotMarkWhatItReplaces(t *testing.T) {
	ctx := context.Background()
	source, target := chainRepo(t, 1, 2, 3), memory.New()
	if err := mirrorTo(source, target, oneAtATime); err != nil {
		t.Fatal(err)
	}
	name := fileNames(t, target, packsDir)[0]
	whole := content(t, target)[name]
	if err := errors.Join(target.Delete(ctx, name), target.Put(ctx, name, whole[:len(whole)-7])); err != nil {
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
		t.Fatal("it was not replaced")
	}
	if err := source.Delete(ctx, name); err != nil {
		t.Fatal(err)
	}
	if err := mirrorTo(source, target, oneAtATime); !errors.Is(err, mirror.ErrRefused) {
		t.Error(err)
	}
	if err := judgeClean(target, testSecret, 1, 2, 3); err != nil {
		t.Error(err)
	}
}

// keyed are options with or without what only the key can tell.
func keyed(source backend.Backend, withKey bool) mirror.Options {
	opts := oneAtATime
	if withKey {
		opts.Whole = func(ctx context.Context) error {
			r, err := Open(ctx, source, testSecret, tinyOptions(5))
			if err != nil {
				return err
			}
			return r.Whole(ctx)
		}
	}
	return opts
}
