package check_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
	"github.com/snap-backup/snap/repo/tree"
)

// Tests of faults, crashes and damage rely on repotest.Day: it makes generations of
// deltas of databases, of content that moves, of small files and of tree nodes.
func TestDaysAreStoredAsDeltas(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	r := repotest.MustOpen(t, repotest.New(t, 1, 2, 3))
	list, _, err := r.Snapshots(ctx)
	if err != nil || len(list) != 3 {
		t.Fatal(list, err)
	}
	for _, s := range list[1:] {
		day := s.Time.Day()
		for _, name := range repotest.DeltaFiles {
			e, err := r.Find(ctx, s, tree.Key{Path: name})
			if err != nil || e == nil {
				t.Fatal(name, err)
			}
			deepest := 0
			for _, id := range e.Content.IDs {
				deepest = max(deepest, repotest.Depth(t, r, id))
			}
			if deepest != day-1 {
				t.Errorf("day %d: %s has depth %d", day, name, deepest)
			}
		}
		if d := repotest.Depth(t, r, s.Root); d != day-1 {
			t.Errorf("day %d: the root has depth %d", day, d)
		}
	}
	kinds := map[string]int{}
	for _, p := range r.Index().Packs() {
		c, err := r.InspectPack(ctx, p.ID.String())
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range c.Blocks {
			if b.Encoding == "delta" && len(b.Dict) > 0 {
				kinds[c.Kind]++
			}
		}
	}
	t.Log("delta blocks:", kinds)
	if kinds["content"] < 6 || kinds["metadata"] < 2 {
		t.Errorf("delta blocks: %v", kinds)
	}
}

// affected lists the files and trees that cannot be read without some blocks,
// computed from an undamaged repository.
type affected struct {
	files map[repo.FileID]map[string]bool // paths, by snapshot
	trees map[repo.FileID]bool            // snapshots whose trees are partly lost
}

// findAffected finds the deltas that need bad blocks, and the files and trees of each
// snapshot that need a bad block or one of these deltas.
func findAffected(t testing.TB, r *repo.Repo, bad map[index.BlockRef]bool) affected {
	t.Helper()
	bad = maps.Clone(bad)
	in := func(id chunk.ID) bool { loc, _ := r.Index().Lookup(id); return bad[loc.Block] }
	for grown := true; grown; {
		grown = false
		for _, p := range r.Index().Packs() {
			for _, ref := range p.Blocks {
				if _, dict := r.Index().Dependencies(ref); !bad[ref] && slices.ContainsFunc(dict, in) {
					bad[ref], grown = true, true
				}
			}
		}
	}
	ctx := context.Background()
	d := affected{map[repo.FileID]map[string]bool{}, map[repo.FileID]bool{}}
	list, _, err := r.Snapshots(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range list {
		d.files[s.ID] = map[string]bool{}
		var below func(id chunk.ID)
		below = func(id chunk.ID) {
			if in(id) {
				d.trees[s.ID] = true
				return
			}
			n, err := tree.LoadNode(ctx, r.Chunk, id)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range n.Children {
				below(c.ID)
			}
			for _, e := range n.Entries {
				if slices.ContainsFunc(e.Content.IDs, in) {
					d.files[s.ID][e.Path] = true
				}
			}
		}
		below(s.Root)
	}
	return d
}

// judgeTraced returns an error unless exactly the files and trees in want are lost,
// according to both check and restore, and both name only the given file as the
// cause.
func judgeTraced(be *memory.Backend, want affected, file string) error {
	ctx := context.Background()
	r, err := repotest.Open(ctx, be, repotest.Secret, repotest.SmallPacks(2))
	if err != nil {
		return err
	}
	list, _, err := r.Snapshots(ctx)
	if err != nil {
		return err
	}
	for _, s := range list {
		sound := repotest.Day(s.Time.Day())
		err := r.Walk(ctx, s, "", func(e *tree.Entry) error {
			var b bytes.Buffer
			err := r.WriteContent(ctx, &b, &e.Content)
			switch lost := want.files[s.ID][e.Path]; {
			case err == nil && lost:
				return fmt.Errorf("%s was read, although it needs damaged data", e.Path)
			case err == nil && !bytes.Equal(b.Bytes(), sound[e.Path]):
				return fmt.Errorf("%s: wrong bytes", e.Path)
			case err != nil && !lost:
				return fmt.Errorf("%s was not read, although it needs no damaged data: %v", e.Path, err)
			}
			return judgeNamed(err, file)
		})
		if want.trees[s.ID] {
			if err == nil {
				return fmt.Errorf("day %d: all of the tree was read", s.Time.Day())
			}
			err = judgeNamed(err, file)
		}
		if err != nil {
			return fmt.Errorf("day %d: %w", s.Time.Day(), err)
		}
	}
	report, err := r.Check(ctx, repo.CheckOptions{ReadData: 1})
	if err != nil {
		return err
	}
	if len(report.Problems) == 0 {
		return errors.New("check found nothing")
	}
	for _, p := range report.Problems {
		if p.File != file {
			return fmt.Errorf("check blames %s: %s", p.File, p.Text)
		}
	}
	reported := map[repo.FileID]bool{}
	for _, s := range report.Affected {
		reported[s.Snapshot] = true
		if s.Tree != want.trees[s.Snapshot] {
			return fmt.Errorf("check says of snapshot %s: %+v", s.Snapshot.Short(), s)
		}
		if lost := slices.Sorted(maps.Keys(want.files[s.Snapshot])); !s.Tree && !slices.Equal(lost, s.Names) {
			return fmt.Errorf("check names %v, lost are %v", s.Names, lost)
		}
	}
	for id, lost := range want.files {
		if (len(lost) > 0 || want.trees[id]) != reported[id] {
			return fmt.Errorf("check says %v of snapshot %s, lost are %v", reported[id], id.Short(), lost)
		}
	}
	return nil
}

// judgeNamed returns an error unless err is nil or names the damaged file.
func judgeNamed(err error, file string) error {
	if err == nil {
		return nil
	}
	var d *repo.DamageError
	if !errors.As(err, &d) || d.File != file {
		return fmt.Errorf("%s is damaged, but the error does not name it: %w", file, err)
	}
	return nil
}

// TestDamagedBasesAreTraced damages every block of every pack, truncates every
// pack and empties it. Check names all files that need the damaged data, directly or
// as a base of deltas, and no others.
func TestDamagedBasesAreTraced(t *testing.T) {
	t.Parallel()
	base := repotest.New(t, 1, 2, 3, 4)
	r := repotest.MustOpen(t, base)
	all := repotest.Content(t, base)
	indirect := 0
	for _, p := range r.Index().Packs() {
		name := repotest.PackName(p.ID)
		try := func(how string, file []byte, bad map[index.BlockRef]bool) {
			t.Helper()
			be := base.Clone()
			if err := be.Set(name, file); err != nil {
				t.Fatal(err)
			}
			want := findAffected(t, r, bad)
			if err := judgeTraced(be, want, name); err != nil {
				t.Fatalf("%s pack %s: %s: %v", p.Kind, name, how, err)
			}
			lost := 0
			for _, files := range want.files {
				if len(files) > 0 {
					lost++
				}
			}
			if lost > 1 && p.Kind == pack.Content {
				indirect++
			}
		}
		whole := map[index.BlockRef]bool{}
		for i, ref := range p.Blocks {
			_, b := r.Index().Block(ref)
			whole[ref] = true
			flipped := bytes.Clone(all[name])
			flipped[int(b.Offset)+int(b.Stored)*(i%3)/3] ^= 1 << (i % 8)
			flipped[int(b.Offset)+int(b.Stored)*(i%3)/3+9] ^= 1
			try(fmt.Sprintf("bits flipped in block %d", i), flipped, map[index.BlockRef]bool{ref: true})
		}
		last := p.Blocks[len(p.Blocks)-1]
		_, b := r.Index().Block(last)
		try("cut in the last block", all[name][:b.Offset+b.Stored-1], map[index.BlockRef]bool{last: true})
		try("emptied", nil, whole)
	}
	if indirect < 10 {
		t.Errorf("only %d damages cost more than one snapshot", indirect)
	}
}

// TestMissingBasesAreTraced removes packs. Their chunks are then unknown, so a
// backup stores them again. Check names the pack and all that is lost.
func TestMissingBasesAreTraced(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	base := repotest.New(t, 1, 2, 3, 4)
	r := repotest.MustOpen(t, base)
	for _, p := range r.Index().Packs() {
		name := repotest.PackName(p.ID)
		be := base.Clone()
		if err := be.Delete(ctx, name); err != nil {
			t.Fatal(err)
		}
		bad := map[index.BlockRef]bool{}
		for _, ref := range p.Blocks {
			bad[ref] = true
		}
		want := findAffected(t, r, bad)
		if err := judgeTraced(be, want, name); err != nil {
			t.Fatalf("%s pack %s: %v", p.Kind, name, err)
		}
		// Storing the last day again makes its snapshot complete.
		if _, err := repotest.StoreDay(ctx, be, 4); err != nil {
			t.Fatal(err)
		}
		healed := repotest.MustOpen(t, be)
		list, _, err := healed.Snapshots(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range list {
			got, err := repotest.Restore(ctx, healed, s)
			if err == nil {
				err = got.Same(repotest.Day(s.Time.Day()))
			}
			if s.Time.Day() == 4 && err != nil {
				t.Fatalf("%s pack %s: stored again, and not healed: %v", p.Kind, name, err)
			}
		}
	}
}

// If several packs are missing, check does not blame packs that are there.
func TestSeveralMissingBases(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	base := repotest.New(t, 1, 2, 3)
	packs := repotest.MustOpen(t, base).Index().Packs()
	for i := range packs {
		be := base.Clone()
		gone := []string{repotest.PackName(packs[i].ID), repotest.PackName(packs[(i+1)%len(packs)].ID), repotest.PackName(packs[(i+3)%len(packs)].ID)}
		for _, name := range gone {
			if err := be.Delete(ctx, name); err != nil {
				t.Fatal(err)
			}
		}
		a, err := assess(be)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range a.report.Problems {
			if !slices.Contains(gone, p.File) {
				t.Fatalf("missing are %v, check blames %+v", gone, p)
			}
		}
		for _, name := range gone {
			if err := a.detected(name); err != nil {
				t.Fatal(err)
			}
		}
	}
}
