package copy_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
)

// newCopied returns a repository with days 1 to 3, and another one with copies of them.
func newCopied(t testing.TB) (source, target *memory.Backend) {
	t.Helper()
	source, target = repotest.New(t, 1, 2, 3), repotest.NewOther(t)
	rep, err := copyAll(context.Background(), source, target, repo.CopyOptions{})
	if err != nil || rep.Copied != 3 {
		t.Fatalf("%+v, %v", rep, err)
	}
	return source, target
}

// packsOf returns the names of a repository's packs of a kind.
func packsOf(t testing.TB, be backend.Backend, kind pack.Kind) (names []string) {
	t.Helper()
	for _, p := range repotest.MustOpen(t, be).Index().Packs() {
		if p.Kind == kind {
			names = append(names, repotest.PackName(p.ID))
		}
	}
	return names
}

// spoil flips a bit in each block of a pack.
func spoil(t testing.TB, be *memory.Backend, name string) {
	t.Helper()
	x := repotest.MustOpen(t, be).Index()
	for _, p := range x.Packs() {
		if repotest.PackName(p.ID) != name {
			continue
		}
		for _, ref := range p.Blocks {
			_, b := x.Block(ref)
			repotest.Flip(t, be, name, int(b.Offset)+20)
		}
	}
}

// cut removes the end of a file.
func cut(t testing.TB, be *memory.Backend, name string) {
	t.Helper()
	b := repotest.Content(t, be)[name]
	if err := be.Set(name, b[:len(b)/2]); err != nil {
		t.Fatal(err)
	}
}

// gives returns an error unless a repository gives back all snapshots of days 1 to 3, and
// check finds nothing after a repair has removed what is left of damaged files.
func gives(be *memory.Backend) error {
	ctx := context.Background()
	r, err := repotest.Open(ctx, be, repotest.Secret, repotest.SmallPacks(4))
	if err != nil {
		return err
	}
	list, damaged, err := r.Snapshots(ctx)
	if err != nil || len(damaged) > 0 || len(list) != 3 {
		return fmt.Errorf("%d snapshots, %v, %w", len(list), damaged, err)
	}
	for _, s := range list {
		f, err := repotest.Restore(ctx, r, s)
		if err == nil {
			err = f.Same(repotest.Day(s.Time.Day()))
		}
		if err != nil || !s.Complete || s.Lost != nil || len(s.Problems) > 0 {
			return fmt.Errorf("day %d: %+v, %w", s.Time.Day(), s, err)
		}
	}
	repotest.RemoveAllLocks(be)
	if err := repotest.RepairAll(be); err != nil {
		return err
	}
	return repotest.Verify(be, 1, 2, 3)
}

// A copy restores what its target has lost of snapshots that were copied before.
func TestCopyHealsItsTarget(t *testing.T) {
	t.Parallel()
	source, target := newCopied(t)
	remove := func(t testing.TB, be *memory.Backend, name string) { repotest.Remove(t, be, name) }
	for _, c := range []struct {
		name  string
		files []string
		hurt  func(t testing.TB, be *memory.Backend, name string)
	}{
		{"missing content", packsOf(t, target, pack.Content), remove},
		{"missing trees", packsOf(t, target, pack.Metadata), remove},
		{"cut content", packsOf(t, target, pack.Content), cut},
		{"cut trees", packsOf(t, target, pack.Metadata), cut},
		{"spoilt trees", packsOf(t, target, pack.Metadata), spoil},
		{"missing index", repotest.FilesIn(t, target, repotest.IndexDir), remove},
	} {
		if len(c.files) == 0 {
			t.Fatalf("%s: there are none", c.name)
		}
		for _, name := range c.files {
			be := target.Clone()
			c.hurt(t, be, name)
			affected := repotest.CountAffected(t, be)
			before := repotest.Content(t, be)
			dry, err := copyAll(t.Context(), source, be, repo.CopyOptions{DryRun: true})
			if err != nil || dry.Healed < affected || dry.Healed+dry.Present != 3 || len(repotest.Content(t, be)) != len(before) {
				t.Fatalf("%s, %s: %d are affected: dry run: %+v, %v", c.name, name, affected, dry, err)
			}
			rep, err := copyAll(t.Context(), source, be, repo.CopyOptions{})
			if err != nil || rep.Healed < affected || rep.Healed+rep.Present != 3 || rep.NewBytes > dry.NewBytes+20<<10 {
				t.Fatalf("%s, %s: %d are affected: %+v, %v", c.name, name, affected, rep, err)
			}
			if again, err := copyAll(t.Context(), source, be, repo.CopyOptions{}); err != nil || again.Present != 3 || again.StoredBytes > 0 {
				t.Fatalf("%s, %s: again: %+v, %v", c.name, name, again, err)
			}
			if err := gives(be); err != nil {
				t.Errorf("%s, %s: %v", c.name, name, err)
			}
		}
	}
}

// marked returns a target that has lost a pack, and whose snapshots were repaired: their
// records say which files are lost. One of them has labels.
func marked(t testing.TB, target *memory.Backend, kind pack.Kind) (be *memory.Backend, labels repo.Labels) {
	t.Helper()
	for _, name := range packsOf(t, target, kind) {
		be = target.Clone()
		repotest.Remove(t, be, name)
		if repotest.LostFiles(t, be)[1] != nil {
			break
		}
	}
	if err := repotest.RepairAll(be); err != nil {
		t.Fatal(err)
	}
	labels = repo.Labels{Tags: []string{"away"}, Note: "of the target", Pin: &repo.Pin{Reason: "the last one"}}
	err := repotest.Repair(t.Context(), be, 94, func(r *repo.Repo) error {
		s, err := repotest.FindDay(t.Context(), r, 1)
		if err == nil && s.Lost == nil {
			err = errors.New("day 1 is not marked")
		}
		if err == nil {
			_, err = r.ChangeSnapshot(t.Context(), s, labels)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return be, labels
}

// A record that lists files as lost is replaced by the good one. Its labels stay.
func TestCopyReplacesMarkedRecords(t *testing.T) {
	t.Parallel()
	source, target := newCopied(t)
	for _, kind := range []pack.Kind{pack.Content, pack.Metadata} {
		first, err := repotest.FindDay(t.Context(), repotest.MustOpen(t, target), 1)
		if err != nil {
			t.Fatal(err)
		}
		be, labels := marked(t, target, kind)
		rep, err := copyAll(t.Context(), source, be, repo.CopyOptions{})
		if err != nil || rep.Healed == 0 || rep.Healed+rep.Present != 3 {
			t.Fatalf("%+v, %v", rep, err)
		}
		s, err := repotest.FindDay(t.Context(), repotest.MustOpen(t, be), 1)
		if err != nil {
			t.Fatal(err)
		}
		if s.FirstID() != first.ID || s.ID != *rep.Snapshots[0].Copy || s.Root != first.Root || s.Files != first.Files || s.Bytes != first.Bytes ||
			!reflect.DeepEqual(s.CopiedFrom, first.CopiedFrom) || !slices.Equal(s.Tags, labels.Tags) || s.Note != labels.Note || s.Pin == nil || s.Pin.Reason != labels.Pin.Reason {
			t.Errorf("%+v\nreplaces %+v", s, first)
		}
		if err := repotest.Verify(be, 1, 2, 3); err != nil {
			t.Error(err)
		}
	}
}

// hurt returns a target with a marked snapshot, missing content, and a missing tree.
func hurt(t testing.TB, target *memory.Backend) *memory.Backend {
	be, _ := marked(t, target, pack.Content)
	repotest.Remove(t, be, slices.Max(packsOf(t, be, pack.Content)), slices.Min(packsOf(t, be, pack.Metadata)))
	return be
}

func TestHealingSurvivesEveryFault(t *testing.T) {
	t.Parallel()
	source, target := newCopied(t)
	base := hurt(t, target)
	run := repotest.Run{Base: base, Least: 15, Want: 4, Do: func(be backend.Backend) error {
		_, err := copyAll(context.Background(), source, be, repo.CopyOptions{})
		return err
	}}
	judge := func(be *memory.Backend) error {
		repotest.RemoveAllLocks(be)
		if _, err := copyAll(context.Background(), source, be, repo.CopyOptions{}); err != nil {
			return fmt.Errorf("next run: %w", err)
		}
		if _, err := repotest.Prune(context.Background(), be, repo.PruneOptions{}); err != nil {
			return fmt.Errorf("prune: %w", err)
		}
		return gives(be)
	}
	repotest.EveryFault(t, run, func(be *memory.Backend, _ error) error { return judge(be) })
	repotest.EveryCrash(t, run, judge)
	run.Least = 5
	repotest.EveryFault(t, repotest.Run{Base: source, Least: 15, Want: 4, Do: func(from backend.Backend) error {
		be := base.Clone()
		_, err := copyAll(context.Background(), from, be, repo.CopyOptions{})
		if jerr := judge(be); jerr != nil {
			t.Errorf("the source has failed: %v", jerr)
		}
		return err
	}}, func(*memory.Backend, error) error { return nil })
}

// Two processes may heal the same snapshots at the same time.
func TestHealAtTheSameTime(t *testing.T) {
	t.Parallel()
	source, target := newCopied(t)
	base := hurt(t, target)
	sizes, err := repotest.PutSizes(base, func(be backend.Backend) error {
		_, err := copyAll(t.Context(), source, be, repo.CopyOptions{})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for at := range len(sizes) {
		be := base.Clone()
		puts := 0
		rep, err := copyAll(t.Context(), source, &putHook{be, func(string) {
			if puts++; puts == at+1 {
				if rep, err := copyBeside(t.Context(), source, be, 60); err != nil || rep.Incomplete+rep.Damaged > 0 {
					t.Errorf("put %d: %+v, %v", at, rep, err)
				}
			}
		}, func(string) {}}, repo.CopyOptions{})
		if err != nil || rep.Healed+rep.Present != 3 {
			t.Fatalf("put %d: %+v, %v", at, rep, err)
		}
		if err := gives(be); err != nil {
			t.Errorf("put %d: %v", at, err)
		}
	}
}

// What neither repository has is named. All else is healed.
func TestCopyNamesWhatBothLack(t *testing.T) {
	t.Parallel()
	source, target := newCopied(t)
	incomplete := 0
	for _, name := range packsOf(t, source, pack.Content) {
		from, be := source.Clone(), target.Clone()
		spoil(t, from, name)
		lost := repotest.LostFiles(t, from)
		repotest.Remove(t, be, packsOf(t, be, pack.Content)...)
		rep, err := copyAll(t.Context(), from, be, repo.CopyOptions{})
		if errors.Is(err, repo.ErrDamaged) != (len(lost) > 0) || rep.Incomplete != len(lost) || rep.Healed+rep.Incomplete != 3 {
			t.Fatalf("%v are lost: %+v, %v", lost, rep, err)
		}
		for _, s := range rep.Snapshots {
			if (s.Outcome == repo.CopyIncomplete) != (s.Text != "") || s.Copy == nil {
				t.Errorf("%+v", s)
			}
		}
		incomplete += rep.Incomplete
		// The trees are there, and so is everything else.
		if got := repotest.LostFiles(t, be); !sameNames(got, lost) {
			t.Errorf("the target lacks %v, the source %v", got, lost)
		}
		// A repair of the source marks the same files. Then no more can be done.
		if err := repotest.RepairAll(from); err != nil {
			t.Fatal(err)
		}
		if rep, err = copyAll(t.Context(), from, be, repo.CopyOptions{}); rep.Incomplete != len(lost) || errors.Is(err, repo.ErrDamaged) != (len(lost) > 0) {
			t.Errorf("after a repair of the source: %+v, %v", rep, err)
		}
		if err := repotest.RepairAll(be); err != nil {
			t.Fatal(err)
		}
		if rep, err = copyAll(t.Context(), from, be, repo.CopyOptions{}); err != nil || rep.Present != 3 {
			t.Errorf("after a repair of both: %+v, %v", rep, err)
		}
	}
	if incomplete == 0 {
		t.Error("no damage did any harm")
	}
}

func sameNames(a, b map[int][]string) bool {
	return fmt.Sprint(a) == fmt.Sprint(b)
}

// A snapshot that another process has stored in the target just now is not incomplete
// because the index was loaded earlier.
func TestCopyLoadsTheIndexAgain(t *testing.T) {
	t.Parallel()
	source, target := repotest.New(t, 1, 2, 3), repotest.NewOther(t)
	from, to := repotest.MustOpen(t, source), repotest.MustOpen(t, target)
	if err := to.LoadIndex(t.Context()); err != nil {
		t.Fatal(err)
	}
	if rep, err := copyBeside(t.Context(), source, target, 60); err != nil || rep.Copied != 3 {
		t.Fatalf("%+v, %v", rep, err)
	}
	list, _, err := from.Snapshots(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	rep, err := from.CopyTo(t.Context(), to, list, repo.CopyOptions{})
	if err != nil || rep.Present != 3 || rep.StoredBytes > 0 {
		t.Errorf("%+v, %v", rep, err)
	}
}

// A source cannot put another snapshot in the place of one that the target has, even if
// the target has lost files of it.
func TestCopyReplacesOnlyTheSameSnapshot(t *testing.T) {
	t.Parallel()
	_, target := newCopied(t)
	be, _ := marked(t, target, pack.Content)
	s, err := repotest.FindDay(t.Context(), repotest.MustOpen(t, be), 1)
	if err != nil {
		t.Fatal(err)
	}
	hostile := memory.New()
	if _, err := repo.Create(t.Context(), hostile, repotest.Secret, repotest.SlotInfo, repotest.SmallPacks(97)); err != nil {
		t.Fatal(err)
	}
	r := repotest.MustOpen(t, hostile)
	for name, f := range map[string]repotest.Files{"other files": {"aa/other": []byte("other")}, "a file changed": changed(repotest.Day(1))} {
		forged := &repo.Snapshot{Time: s.Time, Device: s.Device, CopiedFrom: s.CopiedFrom, Complete: true}
		if err := repotest.StoreSnapshot(t.Context(), r, f, forged, nil); err != nil {
			t.Fatal(err)
		}
		rep, err := copyAll(t.Context(), hostile, be, repo.CopyOptions{})
		if !errors.Is(err, repo.ErrDamaged) || rep.Incomplete+rep.Damaged != 1 {
			t.Errorf("%s: %+v, %v", name, rep, err)
		}
		now, err := repotest.FindDay(t.Context(), repotest.MustOpen(t, be), 1)
		if err != nil || now.ID != s.ID {
			t.Errorf("%s: %+v replaces %+v, %v", name, now, s, err)
		}
		if err := r.Forget(t.Context(), forged.ID); err != nil {
			t.Fatal(err)
		}
	}
}

// changed changes a byte of a file.
func changed(f repotest.Files) repotest.Files {
	out := repotest.Files{}
	for name, b := range f {
		out[name] = b
	}
	name := slices.MinFunc(slices.Collect(func(yield func(string) bool) {
		for name, b := range f {
			if len(b) > 0 && !yield(name) {
				return
			}
		}
	}), strings.Compare)
	out[name] = bytes.Clone(f[name])
	out[name][0] ^= 1
	return out
}

// BenchmarkCopyPresent copies 30 snapshots that are all in the target.
func BenchmarkCopyPresent(b *testing.B) {
	var days []int
	for day := range 30 {
		days = append(days, day+1)
	}
	source, target := repotest.New(b, days...), repotest.NewOther(b)
	if _, err := copyAll(b.Context(), source, target, repo.CopyOptions{}); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if rep, err := copyAll(b.Context(), source, target, repo.CopyOptions{}); err != nil || rep.Present != 30 {
			b.Fatalf("%+v, %v", rep, err)
		}
	}
}
