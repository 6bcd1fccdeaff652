package check_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/snap-backup/snap/internal/faultpoint"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
)

// aftermath is the state of a damaged repository.
type aftermath struct {
	refused error                // the error of Open
	failed  map[repo.FileID]bool // snapshots that are listed and cannot be restored
	sound   int                  // snapshots that came back byte for byte
	report  *repo.CheckReport
}

// assess opens, restores and checks a damaged repository. It returns an error
// for wrong bytes, for a failure that is not ErrDamaged, and for a report that
// disagrees with what restoring did.
func assess(be backend.Backend) (aftermath, error) {
	ctx := context.Background()
	a := aftermath{failed: map[repo.FileID]bool{}}
	opts := repotest.SmallPacks(2)
	opts.Cache = 1 << 10
	r, err := repotest.Open(ctx, be, repotest.Secret, opts)
	if err != nil {
		a.refused = err
		for _, kind := range []error{repo.ErrDamaged, repo.ErrWrongPassword, repo.ErrUnsupported, repo.ErrNotFound} {
			if errors.Is(err, kind) {
				return a, nil
			}
		}
		return a, fmt.Errorf("open: %w", err)
	}
	list, _, err := r.Snapshots(ctx)
	if err != nil {
		return a, err
	}
	for _, s := range list {
		got, err := repotest.Restore(ctx, r, s)
		if err != nil {
			if !errors.Is(err, repo.ErrDamaged) {
				return a, fmt.Errorf("restore: not called damage: %w", err)
			}
			a.failed[s.ID] = true
			continue
		}
		if err := got.Same(repotest.Day(s.Time.Day())); err != nil {
			return a, fmt.Errorf("wrong bytes: %w", err)
		}
		a.sound++
	}
	if a.report, err = r.Check(ctx, repo.CheckOptions{ReadData: 1}); err != nil {
		return a, fmt.Errorf("check: %w", err)
	}
	// A check that decodes only a sample finds the same.
	sampled, err := r.Check(ctx, repo.CheckOptions{ReadData: 1, Sample: true})
	if err != nil {
		return a, fmt.Errorf("check of a sample: %w", err)
	}
	if !reflect.DeepEqual(sampled.Problems, a.report.Problems) || !reflect.DeepEqual(sampled.Affected, a.report.Affected) || sampled.ReadPacks != a.report.ReadPacks {
		return a, fmt.Errorf("check of a sample: %+v\ncheck of all: %+v", sampled, a.report)
	}
	reported := map[repo.FileID]bool{}
	for _, s := range a.report.Affected {
		reported[s.Snapshot] = true
		if !s.Tree && int(s.Files) < len(s.Names) || len(s.Names) == 0 {
			return a, fmt.Errorf("check: %+v names no file or too many", s)
		}
	}
	if !maps.Equal(reported, a.failed) {
		return a, fmt.Errorf("check says that %d snapshots are affected, restoring failed for %d: %+v", len(reported), len(a.failed), a.report)
	}
	return a, nil
}

// detected returns an error unless the damage of a file was reported by name.
func (a aftermath) detected(name string) error {
	if a.refused != nil {
		if !strings.HasPrefix(name, repotest.KeysDir) && name != repotest.ConfigName {
			return fmt.Errorf("the repository cannot be opened: %w", a.refused)
		}
		return nil
	}
	if a.report.Clean() {
		return errors.New("check found nothing")
	}
	if !slices.ContainsFunc(a.report.Problems, func(p repo.Problem) bool { return p.File == name && p.Hint != "" }) {
		return fmt.Errorf("check does not name it: %+v", a.report.Problems)
	}
	return nil
}

// everyFile calls try with the name and bytes of every file.
func everyFile(t *testing.T, be *memory.Backend, try func(name string, b []byte)) {
	t.Helper()
	all := repotest.Content(t, be)
	kinds := map[string]int{}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		kinds[repotest.Folder(name)]++
		try(name, all[name])
	}
	for _, kind := range []string{"config", "keys", "packs", "index", "snapshots"} {
		if kinds[kind] == 0 {
			t.Fatalf("no file of kind %s in %v", kind, kinds)
		}
	}
}

func TestEveryDamageIsFound(t *testing.T) {
	t.Parallel()
	base := repotest.New(t, 1, 2, 3)
	rng := rand.New(rand.NewPCG(repotest.DamageSeed, 0))
	everyFile(t, base, func(name string, b []byte) {
		for how, damaged := range repotest.Damages(rng, b) {
			be := base.Clone()
			if err := be.Set(name, damaged); err != nil {
				t.Fatal(err)
			}
			a, err := assess(be)
			if err == nil {
				err = a.detected(name)
			}
			if err == nil && repotest.Folder(name) == "index" && (a.sound != 3 || len(a.failed) > 0) {
				err = fmt.Errorf("a damaged index file cost %d snapshots", len(a.failed))
			}
			if err == nil && repotest.Folder(name) == "snapshots" && a.sound != 2 {
				err = fmt.Errorf("%d other snapshots were restored", a.sound)
			}
			if err != nil {
				t.Fatalf("%s: %s: %v", name, how, err)
			}
		}
	})
}

// A flipped bit of config is noticed when a repository is opened: its copy is used, and
// without a copy opening fails. A check finds the flipped bit, too, if the repository was
// opened before. Without a key, the copy shows that config is damaged.
func TestEveryBitOfConfigMatters(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := repotest.New(t)
	r := repotest.MustOpen(t, be)
	file := repotest.Content(t, be)[repotest.ConfigName]
	for _, bit := range faultpoint.Choose(t, 8*len(file), 200) {
		flipped := bytes.Clone(file)
		flipped[bit/8] ^= 1 << (bit % 8)
		if err := be.Set(repotest.ConfigName, flipped); err != nil {
			t.Fatal(err)
		}
		without := be.Clone()
		repotest.Remove(t, without, repotest.FilesIn(t, without, "configs/")...)
		if _, err := repo.Open(ctx, without, repotest.Secret, repotest.SmallPacks(1)); !errors.Is(err, repo.ErrDamaged) && !errors.Is(err, repo.ErrUnsupported) {
			t.Fatalf("bit %d flipped (%q): open without a copy: got %v", bit, flipped[bit/8], err)
		}
		if o, err := repo.Open(ctx, be, repotest.Secret, repotest.SmallPacks(1)); err != nil || o.ConfigDamage() == nil {
			t.Fatalf("bit %d flipped (%q): open: got %v", bit, flipped[bit/8], err)
		}
		if j, err := repo.JudgeConfig(ctx, be); err != nil || j.State == repo.ConfigGood || j.State == repo.ConfigDamaged && !bytes.Equal(j.Bytes, file) {
			t.Fatalf("bit %d flipped (%q): judged %+v, %v", bit, flipped[bit/8], j, err)
		}
		report, err := r.Check(ctx, repo.CheckOptions{DryRun: true})
		if err != nil || report.Clean() || report.Problems[0].File != repotest.ConfigName {
			t.Fatalf("bit %d flipped: check: %v, %+v", bit, err, report)
		}
	}
}

func TestEveryDeletionIsFound(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	base := repotest.New(t, 1, 2, 3)
	everyFile(t, base, func(name string, _ []byte) {
		be := base.Clone()
		if err := be.Delete(ctx, name); err != nil {
			t.Fatal(err)
		}
		a, err := assess(be)
		switch {
		case err != nil:
		case repotest.Folder(name) == "snapshots":
			// The ledger knows it. Other snapshots are not affected.
			if err = a.detected(name); a.sound != 2 {
				err = errors.Join(err, fmt.Errorf("%d snapshots, %+v", a.sound, a.report))
			}
		case repotest.Folder(name) == "ledger":
			// All records are there, and the next backup enters them again.
			if a.sound != 3 || !a.report.Clean() {
				err = fmt.Errorf("%d snapshots, %+v", a.sound, a.report)
			}
		case repotest.Folder(name) == "index":
			// Nothing records the name of an index file, so check names the folder.
			err = a.detected(repotest.IndexDir)
		default:
			err = a.detected(name)
		}
		if err != nil {
			t.Errorf("%s deleted: %v", name, err)
		}
	})
}

// Check finds files that were swapped or have the bytes of another file, because
// names are hashes.
func TestSwappedFilesAreFound(t *testing.T) {
	t.Parallel()
	base := repotest.New(t, 1, 2)
	if _, err := repotest.MustOpen(t, base).AddKey(context.Background(), repotest.OtherSecret, repotest.SlotInfo); err != nil {
		t.Fatal(err)
	}
	all := repotest.Content(t, base)
	names := slices.Sorted(maps.Keys(all))
	rng := rand.New(rand.NewPCG(repotest.DamageSeed, 1))
	for _, name := range names {
		if name == repotest.ConfigName {
			continue
		}
		for range 2 {
			other := names[rng.IntN(len(names))]
			if other == name || other == repotest.ConfigName {
				continue
			}
			for how, b := range map[string][]byte{"swapped with": all[name], "overwritten with": all[other]} {
				be := base.Clone()
				if err := errors.Join(be.Set(name, all[other]), be.Set(other, b)); err != nil {
					t.Fatal(err)
				}
				a, err := assess(be)
				if err == nil && (a.refused == nil || repotest.Folder(other) != "keys") {
					err = a.detected(name)
				}
				if err == nil && how == "swapped with" && a.refused == nil {
					err = a.detected(other)
				}
				if err != nil {
					t.Fatalf("%s %s %s: %v", name, how, other, err)
				}
			}
		}
	}
}

// Files that do not belong to a repository are reported and do no harm.
func TestForeignFiles(t *testing.T) {
	t.Parallel()
	be := repotest.New(t, 1)
	for _, name := range []string{"snapshots/readme.txt", "index/x/y", "packs/00/no-pack", "packs/stray", "keys/note", "readme"} {
		if err := be.Set(name, []byte("not ours")); err != nil {
			t.Fatal(err)
		}
	}
	a, err := assess(be)
	if err != nil || a.refused != nil || a.sound != 1 || len(a.report.Affected) > 0 || len(a.report.Unreferenced) < 4 {
		t.Errorf("%+v, %v", a, err)
	}
}

// A pack keeps its unused blocks as long as something in it is in use. The
// dictionaries of these blocks may be gone. Check does not report that as damage
// unless something is lost.
func TestUnusedDeltaWithoutItsBaseIsNoDamage(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := memory.New()
	r := repotest.Create(t, be)
	useful, waste := repotest.Noise(1, 900), repotest.Noise(2, 900)
	repotest.PutPack(t, r, be, pack.Content, repotest.Raw(useful), repotest.Delta(r, waste, repotest.Noise(3, 900)))
	if err := r.LoadIndex(ctx); err != nil {
		t.Fatal(err)
	}
	before := len(repotest.Content(t, be))
	if s := repotest.MustStoreAfter(t, r, repotest.Files{"useful": useful}, 1, nil); s.NewBytes > 900 {
		t.Fatalf("%d bytes were stored again, in %d files", s.NewBytes, len(repotest.Content(t, be))-before)
	}
	for _, part := range []float64{0, 0.5, 1} {
		report, err := repotest.MustOpen(t, be).Check(ctx, repo.CheckOptions{ReadData: part})
		if err != nil || !report.Clean() || len(report.Problems) > 0 {
			t.Errorf("check of %v: %+v, %v", part, report, err)
		}
	}
	// If a pack is missing, the dictionary may have been in it.
	other := repotest.PutPack(t, r, be, pack.Content, repotest.Raw(repotest.Noise(4, 900)))
	if err := be.Delete(ctx, other); err != nil {
		t.Fatal(err)
	}
	report, err := repotest.MustOpen(t, be).Check(ctx, repo.CheckOptions{ReadData: 1})
	if err != nil || report.Clean() || len(report.Problems) != 2 {
		t.Errorf("with a pack missing: %+v, %v", report, err)
	}
}

// A parity file that is junk, which a repair cannot make again, is named with the command
// that does away with it.
func TestJunkInParity(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := repotest.New(t, 1)
	r := repotest.MustOpen(t, be)
	for _, percent := range []int{0, 500} {
		if percent > 0 {
			if _, err := r.RefreshParity(ctx, percent, nil); err != nil {
				t.Fatal(err)
			}
		}
		repotest.PutNamed(t, be, "parity/", []byte("junk"))
		rep, err := r.Check(ctx, repo.CheckOptions{DryRun: true})
		if err != nil || len(rep.Problems) != 1 || strings.Contains(rep.Problems[0].Hint, "snap repair") || !strings.Contains(rep.Problems[0].Hint, "`snap parity") {
			t.Fatalf("%d: %+v, %v", percent, rep, err)
		}
		if percent > 0 {
			_, err = r.RefreshParity(ctx, 0, nil)
		} else {
			_, err = r.RemoveParity(ctx)
		}
		if err != nil {
			t.Fatal(err)
		}
		if rep, err := r.Check(ctx, repo.CheckOptions{DryRun: true}); err != nil || len(rep.Problems) != 0 {
			t.Errorf("%d: still there: %+v, %v", percent, rep, err)
		}
	}
}

// If a record is missing, check also says whether its content is lost: a repair without a
// copy would then store it as incomplete.
func TestMissingRecordOfLostContent(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	base := repotest.New(t, 1, 2)
	s, err := repotest.FindDay(ctx, repotest.MustOpen(t, base), 2)
	if err != nil {
		t.Fatal(err)
	}
	record := repotest.SnapshotsDir + s.ID.String()
	repotest.Remove(t, base, record)
	lost := 0
	for _, pack := range append([]string{""}, repotest.FilesIn(t, base, repotest.PacksDir)...) {
		be := base.Clone()
		if pack != "" {
			repotest.Remove(t, be, pack)
		}
		rep, err := repotest.MustOpen(t, be).Check(ctx, repo.CheckOptions{})
		if err != nil {
			t.Fatal(err)
		}
		said := slices.ContainsFunc(rep.Affected, func(a repo.AffectedSnapshot) bool { return a.Snapshot == s.ID })
		at := slices.IndexFunc(rep.Problems, func(p repo.Problem) bool { return p.File == record })
		if at < 0 || strings.Contains(rep.Problems[at].Hint, "nothing else is lost") == said {
			t.Fatalf("without %q: %+v", pack, rep)
		}
		if err := repotest.RepairSnapshots(be); err != nil {
			t.Fatal(err)
		}
		back, err := repotest.FindDay(ctx, repotest.MustOpen(t, be), 2)
		if err != nil || (back.Lost != nil) != said {
			t.Errorf("without %q: check says that content is lost: %v, and the repair: %+v, %v", pack, said, back.Lost, err)
		}
		if said {
			lost++
		}
	}
	if lost == 0 {
		t.Error("no pack was needed")
	}
}
