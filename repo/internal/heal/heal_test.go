package heal_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/snap-backup/snap/internal/faultpoint"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
	"github.com/snap-backup/snap/repo/tree"
)

// healFromMirror heals a repository from a mirror, as the command would.
func healFromMirror(be, from backend.Backend, opts repo.HealOptions) (rep *repo.HealReport, err error) {
	ctx := context.Background()
	err = repotest.Repair(ctx, be, 95, func(r *repo.Repo) (err error) {
		rep, err = r.HealFromMirror(ctx, from, opts)
		return err
	})
	return rep, err
}

// rot damages one file in fifty, and at least one of each kind. It returns their
// names.
func rot(t testing.TB, be *memory.Backend, rng *rand.Rand, kinds ...string) []string {
	t.Helper()
	all := repotest.Content(t, be)
	var chosen []string
	for i, name := range slices.Sorted(maps.Keys(all)) {
		if slices.Contains(kinds, repotest.Folder(name)) && i%50 == 7 {
			chosen = append(chosen, name)
		}
	}
	for _, kind := range kinds {
		in := repotest.FilesIn(t, be, kind+"/")
		if name := in[rng.IntN(len(in))]; !slices.Contains(chosen, name) {
			chosen = append(chosen, name)
		}
	}
	for _, name := range chosen {
		b := bytes.Clone(all[name])
		at := rng.IntN(len(b))
		if rng.IntN(2) == 0 {
			b[at] ^= 1 << rng.IntN(8)
		} else {
			b = append(b[:at], b[min(len(b), at+1+rng.IntN(5000)):]...)
		}
		if err := be.Set(name, b); err != nil {
			t.Fatal(err)
		}
	}
	return chosen
}

// Check finds rotten files of all kinds, and a mirror heals them.
func TestRotHealsFromMirror(t *testing.T) {
	t.Parallel()
	base := repotest.New(t, 1, 2, 3)
	rounds := 30
	if testing.Short() {
		rounds = 6
	}
	for seed := range rounds {
		rng := rand.New(rand.NewPCG(repotest.DamageSeed, uint64(seed)))
		be := base.Clone()
		names := rot(t, be, rng, "packs", "index", "snapshots")
		rep, err := repotest.MustOpen(t, be).Check(context.Background(), repo.CheckOptions{ReadData: 1})
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if !slices.ContainsFunc(rep.Problems, func(p repo.Problem) bool { return p.File == name }) {
				t.Errorf("seed %d: check does not find %s", seed, name)
			}
		}
		healed, err := healFromMirror(be, base, repo.HealOptions{})
		if err == nil {
			err = repotest.Verify(be, 1, 2, 3)
		}
		if err != nil || len(healed.Unhealed) > 0 || len(healed.Damaged) < len(names) {
			t.Fatalf("seed %d: %+v, %v", seed, healed, err)
		}
	}
}

// Without a copy, a repair reports exactly what is lost, and loses no more.
func TestRotRepairedWithoutACopy(t *testing.T) {
	t.Parallel()
	rounds := 20
	if testing.Short() {
		rounds = 4
	}
	base := repotest.New(t, 1, 2, 3)
	for seed := range rounds {
		be := base.Clone()
		rot(t, be, rand.New(rand.NewPCG(repotest.DamageSeed+1, uint64(seed))), "packs", "index")
		lost := repotest.LostFiles(t, be)
		if err := repotest.RepairAll(be); err != nil {
			t.Fatal(err)
		}
		r := repotest.MustOpen(t, be)
		list, _, err := r.Snapshots(context.Background())
		if err != nil || len(list) != 3 {
			t.Fatal(list, err)
		}
		for _, s := range list {
			want := repotest.Day(s.Time.Day())
			got, err := repotest.Restore(context.Background(), r, s)
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			for name, b := range want {
				back, ok := got[name]
				isLost := slices.Contains(lost[s.Time.Day()], name) || s.Lost != nil && len(s.Lost.Nodes) > 0
				if ok && !bytes.Equal(back, b) || !ok && !isLost {
					t.Errorf("seed %d: day %d: %s: there %v, said to be lost: %v", seed, s.Time.Day(), name, ok, lost)
				}
			}
		}
	}
}

// Missing files are restored from a mirror if anything needs them.
func TestMissingFilesHealFromMirror(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	base := repotest.New(t, 1, 2, 3)
	for name, gone := range map[string]func(name string) bool{
		"a pack":        func(name string) bool { return name == repotest.FilesIn(t, base, repotest.PacksDir)[2] },
		"all packs":     func(name string) bool { return repotest.Folder(name) == "packs" },
		"the index":     func(name string) bool { return repotest.Folder(name) == "index" },
		"packs & index": func(name string) bool { return repotest.Folder(name) == "index" || repotest.Folder(name) == "packs" },
	} {
		be := base.Clone()
		for _, n := range slices.Sorted(maps.Keys(repotest.Content(t, be))) {
			if gone(n) {
				repotest.Remove(t, be, n)
			}
		}
		dry := repotest.Content(t, be)
		r, err := repo.Open(ctx, be, repotest.Secret, repotest.SmallPacks(90))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.HealFromMirror(ctx, base, repo.HealOptions{Options: repo.RepairOptions{DryRun: true}}); err != nil {
			t.Fatal(err)
		}
		if !maps.EqualFunc(dry, repotest.Content(t, be), bytes.Equal) {
			t.Fatalf("%s: a dry run changed something", name)
		}
		rep, err := healFromMirror(be, base, repo.HealOptions{})
		if err == nil {
			err = repotest.Verify(be, 1, 2, 3)
		}
		if err != nil || rep.MissingChunks > 0 {
			t.Fatalf("%s: %+v, %v", name, rep, err)
		}
	}
}

// Snapshots that were repaired without a copy become complete again when a
// mirror turns up.
func TestMirrorAfterRepair(t *testing.T) {
	t.Parallel()
	base := repotest.New(t, 1, 2, 3)
	be := base.Clone()
	for _, name := range repotest.FilesIn(t, be, repotest.PacksDir) {
		repotest.Flip(t, be, name, len(repotest.Content(t, be)[name])/3)
	}
	if err := repotest.RepairAll(be); err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	list, _, err := repotest.MustOpen(t, be).Snapshots(ctx)
	if err != nil || list[2].Lost == nil {
		t.Fatal(list, err)
	}
	if _, err := healFromMirror(be, base, repo.HealOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := repotest.RepairSnapshots(be); err != nil {
		t.Fatal(err)
	}
	if err := repotest.Verify(be, 1, 2, 3); err != nil {
		t.Fatal(err)
	}
}

// Snapshots that only the mirror has are reported, and fetched only on request.
// Nothing is fetched from another repository.
func TestSnapshotsFromMirror(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	base := repotest.New(t, 1, 2, 3)
	be := base.Clone()
	if err := repotest.Forget(ctx, be, 2); err != nil {
		t.Fatal(err)
	}
	if _, err := repotest.Prune(ctx, be, repotest.NoWaste); err != nil {
		t.Fatal(err)
	}
	rep, err := healFromMirror(be, base, repo.HealOptions{})
	if err != nil || len(rep.Elsewhere) != 1 || len(rep.Fetched) != 0 {
		t.Fatalf("%+v, %v", rep, err)
	}
	if err := repotest.Verify(be, 1, 3); err != nil {
		t.Fatal(err)
	}
	if rep, err = healFromMirror(be, base, repo.HealOptions{Snapshots: true}); err != nil {
		t.Fatalf("%+v, %v", rep, err)
	}
	if err := repotest.Verify(be, 1, 2, 3); err != nil {
		t.Fatal(err)
	}
	other := memory.New()
	o := repotest.SmallPacks(44)
	if _, err := repo.Create(ctx, other, repotest.Secret, repotest.SlotInfo, o); err != nil {
		t.Fatal(err)
	}
	if _, err := healFromMirror(be, other, repo.HealOptions{}); !errors.Is(err, repo.ErrOtherRepository) {
		t.Fatal(err)
	}
}

// Junk has replaced all files of the ledger, each under its own hash, and a record is lost.
// The files that the mirror has under other names bring it back, also if the mirror has lost
// the record, too. A dry run says that the junk is damaged.
func TestLedgerFromMirror(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	base := repotest.New(t, 1, 2, 3)
	for what, from := range map[string]*memory.Backend{"the record": base, "only its entry": base.Clone()} {
		be := base.Clone()
		s, err := repotest.FindDay(ctx, repotest.MustOpen(t, be), 2)
		if err != nil {
			t.Fatal(err)
		}
		record := repotest.SnapshotsDir + s.ID.String()
		repotest.Remove(t, be, record)
		if what == "only its entry" {
			repotest.Remove(t, from, record)
		}
		repotest.RemoveLedger(t, be)
		junk := "ledger/" + repotest.PutNamed(t, be, "ledger/", append([]byte("snaple01"), repotest.Noise(1, 900)...)).String()
		rep, err := healFromMirror(be, from, repo.HealOptions{Options: repo.RepairOptions{DryRun: true}})
		if err != nil || !slices.Contains(rep.Damaged, junk) || !slices.Contains(rep.Ledger, junk) || len(rep.Fetched) == 0 {
			t.Fatalf("%s: dry run: %+v, %v", what, rep, err)
		}
		rep, err = healFromMirror(be, from, repo.HealOptions{})
		if err != nil || !slices.Contains(rep.FromLedger, record) || !slices.Equal(rep.Ledger, []string{junk}) {
			t.Fatalf("%s: %+v, %v", what, rep, err)
		}
		if err := repotest.Verify(be, 1, 2, 3); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// A pack that a repair without a copy has removed from the index is fetched once, and is
// in use again: check does not call it a leftover, and a prune keeps it.
func TestFetchedPackIsInUse(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	base := repotest.New(t, 1, 2)
	be := base.Clone()
	name := repotest.FilesIn(t, be, repotest.PacksDir)[0]
	repotest.Flip(t, be, name, len(repotest.Content(t, be)[name])/3)
	err := repotest.Repair(ctx, be, 94, func(r *repo.Repo) error { _, err := r.RepairPacks(ctx, repo.RepairOptions{}); return err })
	if err != nil {
		t.Fatal(err)
	}
	healed, err := healFromMirror(be, base, repo.HealOptions{})
	if err != nil || !slices.Equal(healed.Fetched, []string{name}) {
		t.Fatalf("%+v, %v", healed, err)
	}
	rep, err := repotest.MustOpen(t, be).Check(ctx, repo.CheckOptions{ReadData: 1})
	if err != nil || !rep.Clean() || slices.Contains(rep.Unreferenced, name) {
		t.Fatalf("%+v, %v", rep, err)
	}
	if _, err := repotest.Prune(ctx, be, repotest.NoWaste); err != nil {
		t.Fatal(err)
	}
	if err := repotest.Verify(be, 1, 2); err != nil {
		t.Fatal(err)
	}
}

func TestHealSurvivesEverything(t *testing.T) {
	t.Parallel()
	good := repotest.New(t, 1, 2)
	be := good.Clone()
	rot(t, be, rand.New(rand.NewPCG(repotest.DamageSeed, 9)), "packs", "index", "snapshots")
	repotest.Remove(t, be, repotest.FilesIn(t, be, repotest.PacksDir)[1])
	heal := func(be backend.Backend) error { _, err := healFromMirror(be, good, repo.HealOptions{}); return err }
	repotest.EveryRepair(t, be, 30, heal, func(be *memory.Backend) error { return repotest.Verify(be, 1, 2) })
	// Let the copy fail.
	repotest.EveryFault(t, repotest.Run{Base: good, Do: func(from backend.Backend) error {
		_, err := healFromMirror(be.Clone(), from, repo.HealOptions{})
		return err
	}, Least: 10, Want: 12},
		func(from *memory.Backend, _ error) error {
			if !maps.EqualFunc(repotest.Content(t, from), repotest.Content(t, good), bytes.Equal) {
				return errors.New("the copy was changed")
			}
			return nil
		})
}

// restorable returns the files of each snapshot that can be restored, by day.
func restorable(be *memory.Backend) (map[int]repotest.Files, error) {
	ctx := context.Background()
	r, err := repotest.Open(ctx, be, repotest.Secret, repotest.SmallPacks(2))
	if err != nil {
		return nil, err
	}
	list, _, err := r.Snapshots(ctx)
	if err != nil {
		return nil, err
	}
	whole := map[int]repotest.Files{}
	for _, s := range list {
		f := repotest.Files{}
		err := r.Walk(ctx, s, "", func(e *tree.Entry) error {
			var b bytes.Buffer
			err := r.WriteContent(ctx, &b, &e.Content)
			if err == nil {
				f[e.Path] = b.Bytes()
			} else if !errors.Is(err, repo.ErrDamaged) {
				return err
			}
			return nil
		})
		if err != nil && !errors.Is(err, repo.ErrDamaged) {
			return nil, err
		}
		whole[s.Time.Day()] = f
	}
	return whole, nil
}

// stillRestorable returns an error unless everything in before can still be restored.
func stillRestorable(be *memory.Backend, before map[int]repotest.Files) error {
	now, err := restorable(be)
	if err != nil {
		return err
	}
	for day, f := range before {
		for name, b := range f {
			if got, ok := now[day][name]; !ok || !bytes.Equal(got, b) {
				return fmt.Errorf("day %d: %s could be restored before", day, name)
			}
		}
	}
	return nil
}

// A disk may tear files that come from another copy. Nothing else is lost, even if
// the copy is never available again. Check names no intact file, and with the copy
// the next run heals everything.
func TestHealSurvivesTornFiles(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	good := repotest.New(t, 1, 2)
	spoilt := good.Clone()
	rot(t, spoilt, rand.New(rand.NewPCG(repotest.DamageSeed, 9)), "packs", "index", "snapshots")
	repotest.Remove(t, spoilt, repotest.FilesIn(t, spoilt, repotest.PacksDir)[1])
	forgotten := good.Clone()
	if err := repotest.ForgetDays(ctx, repotest.MustOpen(t, forgotten), 1); err != nil {
		t.Fatal(err)
	}
	if _, err := repotest.Prune(ctx, forgotten, repotest.NoWaste); err != nil {
		t.Fatal(err)
	}
	content, _ := repotest.NewDamaged(t, 1, 2)
	other := repotest.NewForeign(t, 1, 2)
	mirror := func(opts repo.HealOptions) func(r *repo.Repo) error {
		return func(r *repo.Repo) error { _, err := r.HealFromMirror(ctx, good, opts); return err }
	}
	for _, h := range []struct {
		name string
		base *memory.Backend
		heal func(r *repo.Repo) error
		keep bool // damaged files of the base stay until a prune removes them
	}{
		{"a copy", spoilt, mirror(repo.HealOptions{}), false},
		{"snapshots of a copy", forgotten, mirror(repo.HealOptions{Snapshots: true}), false},
		{"other keys", content, func(r *repo.Repo) error {
			from, err := repotest.Open(ctx, other, repotest.OtherSecret, repotest.SmallPacks(97))
			if err == nil {
				_, err = r.HealFromContent(ctx, from, repo.RepairOptions{})
			}
			return err
		}, true},
	} {
		t.Run(strings.ReplaceAll(h.name, " ", "_"), func(t *testing.T) {
			seed, torn := byte(100), 0
			heal := func(be backend.Backend) error {
				seed++ // so that two runs never make a file of the same bytes
				return repotest.Repair(ctx, be, seed, h.heal)
			}
			before, err := restorable(h.base)
			if err != nil {
				t.Fatal(err)
			}
			old := repotest.DamagedFiles(t, h.base)
			repotest.EveryTear(t, repotest.Run{Base: h.base, Do: heal, Want: 8}, func(be *memory.Backend) error {
				bad := repotest.DamagedFiles(t, be)
				torn += len(bad)
				repotest.RemoveAllLocks(be)
				alone := be.Clone()
				if err := repotest.RepairIndex(alone); err != nil {
					return fmt.Errorf("without the copy: %w", err)
				}
				if err := stillRestorable(alone, before); err != nil {
					return fmt.Errorf("without the copy: %w", err)
				}
				if err := heal(be); err != nil {
					return fmt.Errorf("next run: %w", err)
				}
				v, err := repotest.Examine(be, repotest.Secret)
				if err != nil || len(v.Damaged) > 0 || !slices.Equal(v.Days, []int{1, 2}) || len(v.Report.Affected) > 0 {
					return fmt.Errorf("days %v, damaged %v, error %v", v.Days, v.Damaged, err)
				}
				for _, p := range v.Report.Problems {
					if !slices.Contains(bad, p.File) && !(h.keep && slices.Contains(old, p.File)) {
						return fmt.Errorf("check reports %+v; the torn files are %v", p, bad)
					}
				}
				return nil
			})
			if torn == 0 && faultpoint.All() {
				t.Error("nothing was ever torn")
			}
		})
	}
}

func healContent(be, from backend.Backend) (rep *repo.ContentReport, err error) {
	ctx := context.Background()
	err = repotest.Repair(ctx, be, 96, func(r *repo.Repo) error {
		other, err := repotest.Open(ctx, from, repotest.OtherSecret, repotest.SmallPacks(97))
		if err != nil {
			return err
		}
		rep, err = r.HealFromContent(ctx, other, repo.RepairOptions{})
		return err
	})
	return rep, err
}

// Content is healed from a repository with other keys that holds the same
// backups, even if it cuts them differently.
func TestHealFromOtherKeys(t *testing.T) {
	t.Parallel()
	be, lost := repotest.NewDamaged(t, 1, 2, 3)
	from := repotest.NewForeign(t, 1, 2, 3)
	before := repotest.Content(t, from)
	rep, err := healContent(be, from)
	if err != nil || rep.FoundChunks != rep.MissingChunks || rep.FoundChunks == 0 {
		t.Fatalf("%+v, %v (lost %v)", rep, err, lost)
	}
	if v, err := repotest.Examine(be, repotest.Secret); err != nil || len(v.Report.Affected) > 0 || !v.Report.Clean() {
		t.Fatalf("%v: %+v", err, v.Report)
	}
	if !maps.EqualFunc(repotest.Content(t, from), before, bytes.Equal) {
		t.Error("the other repository was changed")
	}
	// A prune removes the remaining damaged files.
	if _, err := repotest.Prune(context.Background(), be, repotest.NoWaste); err != nil {
		t.Fatal(err)
	}
	if err := repotest.Verify(be, 1, 2, 3); err != nil {
		t.Fatal(err)
	}
}

// A film is healed however each of the repositories has cut it: by content, as all films
// once were, or at fixed places.
func TestHealMediaFromOtherKeys(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	film := repotest.Noise(1, 5<<20)
	copy(film, "\x00\x00\x00\x14ftypqt  ")
	noMagic := bytes.Clone(film)
	noMagic[4] = 0
	for _, byContent := range []bool{false, true} {
		be, from := memory.New(), memory.New()
		r := repotest.Create(t, be)
		var before *repo.Snapshot
		if byContent { // a film is cut like its earlier version
			before = repotest.MustStoreAfter(t, r, repotest.Files{"film": noMagic}, 1, nil)
		}
		repotest.MustStoreAfter(t, r, repotest.Files{"film": film}, 2, before)
		if _, err := repo.Create(ctx, from, repotest.OtherSecret, repotest.SlotInfo, repotest.SmallPacks(95)); err != nil {
			t.Fatal(err)
		}
		other, err := repotest.Open(ctx, from, repotest.OtherSecret, repotest.SmallPacks(94))
		if err != nil {
			t.Fatal(err)
		}
		var otherBefore *repo.Snapshot
		if !byContent {
			otherBefore = repotest.MustStoreAfter(t, other, repotest.Files{"film": noMagic}, 1, nil)
		}
		repotest.MustStoreAfter(t, other, repotest.Files{"film": film}, 2, otherBefore)
		for _, name := range repotest.FilesIn(t, be, repotest.PacksDir) {
			if b, err := backend.ReadAll(ctx, be, name, 128<<20); err == nil && len(b) > 100<<10 { // a pack of content
				repotest.Remove(t, be, name)
			}
		}
		rep, err := healContent(be, from)
		// The version without magic has a first chunk that the other repository lacks.
		if err != nil || rep.MissingChunks < 4 || rep.MissingChunks-rep.FoundChunks > 1 {
			t.Fatalf("cut by content %v: %+v, %v", byContent, rep, err)
		}
		s, err := repotest.FindDay(ctx, repotest.MustOpen(t, be), 2)
		if err != nil {
			t.Fatal(err)
		}
		got, err := repotest.Restore(ctx, repotest.MustOpen(t, be), s)
		if err == nil {
			err = got.Same(repotest.Files{"film": film})
		}
		if err != nil {
			t.Errorf("cut by content %v: %v", byContent, err)
		}
	}
}

func TestHealFromOtherKeysSurvivesEverything(t *testing.T) {
	t.Parallel()
	be, _ := repotest.NewDamaged(t, 1, 2)
	from := repotest.NewForeign(t, 1, 2)
	repotest.EveryRepair(t, be, 30, func(be backend.Backend) error { _, err := healContent(be, from); return err },
		func(be *memory.Backend) error {
			v, err := repotest.Examine(be, repotest.Secret)
			if err == nil && !v.Report.Clean() {
				err = fmt.Errorf("%+v", v.Report)
			}
			return err
		})
}

// withParity returns a repository with 50% parity.
func withParity(t testing.TB, days ...int) *memory.Backend {
	t.Helper()
	be := repotest.New(t, days...)
	if _, err := repotest.MustOpen(t, be).RefreshParity(context.Background(), 50_00, nil); err != nil {
		t.Fatal(err)
	}
	return be
}

// Without a copy, parity heals one rotten file of each group, and the index is
// rebuilt.
func TestRotHealsFromParity(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	base := withParity(t, 1, 2, 3)
	rounds := 20
	if testing.Short() {
		rounds = 4
	}
	for seed := range rounds {
		be := base.Clone()
		rng := rand.New(rand.NewPCG(repotest.DamageSeed+2, uint64(seed)))
		rot(t, be, rng, "index")
		for _, kind := range []string{repotest.PacksDir, repotest.SnapshotsDir} {
			in := repotest.FilesIn(t, be, kind)
			repotest.Flip(t, be, in[rng.IntN(len(in))], rng.IntN(1<<20))
		}
		rep, err := repotest.MustOpen(t, be).Check(ctx, repo.CheckOptions{ReadData: 1})
		if err != nil || rep.Clean() || rep.Parity == nil || rep.Parity.Unprotected != 0 {
			t.Fatalf("%+v, %v", rep, err)
		}
		err = repotest.Repair(ctx, be, 98, func(r *repo.Repo) error {
			healed, err := r.HealFromParity(ctx, repo.RepairOptions{})
			if err == nil && len(healed.Healed) != 2 {
				err = fmt.Errorf("%+v", healed)
			}
			return err
		})
		if err == nil {
			err = repotest.RepairIndex(be)
		}
		if err == nil {
			err = repotest.Verify(be, 1, 2, 3)
		}
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

// Whatever happens to one file of a group, parity restores it byte for byte, and
// with it all snapshots.
func TestEveryFileHealsFromParity(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	base := withParity(t, 1, 2, 3)
	all := repotest.Content(t, base)
	rng := rand.New(rand.NewPCG(repotest.DamageSeed+4, 0))
	names := append(repotest.FilesIn(t, base, repotest.PacksDir), repotest.FilesIn(t, base, repotest.SnapshotsDir)...)
	for _, i := range faultpoint.Choose(t, len(names), 12) {
		name := names[i]
		whole := all[name]
		at := rng.IntN(len(whole))
		until := min(len(whole), at+1+rng.IntN(5000))
		zeros := bytes.Clone(whole)
		clear(zeros[at:])
		for how, b := range map[string][]byte{
			"gone": nil, "emptied": {}, "cut": whole[:at], "zeros": zeros,
			"bytes dropped": slices.Concat(whole[:at], whole[until:]),
			"bytes added":   slices.Concat(whole[:at], repotest.Noise(5, 100), whole[at:]),
		} {
			if bytes.Equal(b, whole) || how == "gone" && repotest.Folder(name) == "snapshots" {
				continue // a record that is gone looks like one that was forgotten
			}
			be := base.Clone()
			repotest.Remove(t, be, name)
			if how != "gone" {
				if err := be.Set(name, b); err != nil {
					t.Fatal(err)
				}
			}
			if rep, err := repotest.MustOpen(t, be).Check(ctx, repo.CheckOptions{ReadData: 1, DryRun: true}); err != nil || rep.Clean() && repotest.Folder(name) == "packs" {
				t.Errorf("%s %s: check finds nothing, %v", name, how, err)
			}
			err := repotest.Repair(ctx, be, 94, func(r *repo.Repo) error { _, err := r.HealFromParity(ctx, repo.RepairOptions{}); return err })
			if err != nil {
				t.Errorf("%s %s: %v", name, how, err)
			} else if !bytes.Equal(repotest.Content(t, be)[name], whole) {
				t.Errorf("%s %s: it was not restored", name, how)
			} else if err := repotest.Verify(be, 1, 2, 3); err != nil {
				t.Errorf("%s %s: %v", name, how, err)
			}
		}
	}
}

// Prune keeps parity up to date: what remains is protected, and what was removed
// is not restored.
func TestPruneKeepsParity(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := withParity(t, 1, 2, 3)
	if err := repotest.Forget(ctx, be, 1, 2); err != nil {
		t.Fatal(err)
	}
	if _, err := repotest.Prune(ctx, be, repotest.NoWaste); err != nil {
		t.Fatal(err)
	}
	st, err := repotest.MustOpen(t, be).ParityStatus(ctx)
	if err != nil || st.Unprotected != 0 || len(st.Missing) != 0 || st.Groups == 0 {
		t.Fatalf("%+v, %v", st, err)
	}
	packs := repotest.FilesIn(t, be, repotest.PacksDir)
	repotest.Remove(t, be, packs[0])
	heal := func(be backend.Backend) error {
		return repotest.Repair(ctx, be, 99, func(r *repo.Repo) error { _, err := r.HealFromParity(ctx, repo.RepairOptions{}); return err })
	}
	repotest.EveryRepair(t, be, 10, heal, func(be *memory.Backend) error {
		if got := repotest.FilesIn(t, be, repotest.PacksDir); !slices.Equal(got, packs) {
			return fmt.Errorf("packs %v, want %v", got, packs)
		}
		return repotest.Verify(be, 3)
	})
}
