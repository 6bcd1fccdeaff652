package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/tree"
)

// healTiny is one run of a program that heals from an exact copy.
func healTiny(be, from backend.Backend, opts HealOptions) (rep *HealReport, err error) {
	ctx := context.Background()
	err = repairTiny(ctx, be, 95, func(r *Repo) (err error) {
		rep, err = r.HealFromMirror(ctx, from, opts)
		return err
	})
	return rep, err
}

// rot flips or drops bytes of one file in fifty, and of one of every kind that
// is given. It returns the names.
func rot(t testing.TB, be *memory.Backend, rng *rand.Rand, kinds ...string) []string {
	t.Helper()
	all := content(t, be)
	var chosen []string
	for i, name := range slices.Sorted(maps.Keys(all)) {
		if slices.Contains(kinds, kindOf(name)) && i%50 == 7 {
			chosen = append(chosen, name)
		}
	}
	for _, kind := range kinds {
		in := filesIn(t, be, kind+"/")
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

// Bits rot in all kinds of files: check finds every one, and an exact copy
// brings everything back.
func TestRotHealsFromMirror(t *testing.T) {
	base := chainRepo(t, 1, 2, 3)
	rounds := 30
	if testing.Short() {
		rounds = 6
	}
	for seed := range rounds {
		rng := rand.New(rand.NewPCG(damageSeed, uint64(seed)))
		be := base.Clone()
		names := rot(t, be, rng, "packs", "index", "snapshots")
		rep, err := open(t, be).Check(context.Background(), CheckOptions{ReadData: 1})
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if !slices.ContainsFunc(rep.Problems, func(p Problem) bool { return p.File == name }) {
				t.Errorf("seed %d: check does not find %s", seed, name)
			}
		}
		healed, err := healTiny(be, base, HealOptions{})
		if err == nil {
			err = judgeClean(be, testSecret, 1, 2, 3)
		}
		if err != nil || len(healed.Unhealed) > 0 || len(healed.Damaged) < len(names) {
			t.Fatalf("seed %d: %+v, %v", seed, healed, err)
		}
	}
}

// Without a copy, repairing says exactly what is lost, and loses no more.
func TestRotWithoutACopy(t *testing.T) {
	rounds := 20
	if testing.Short() {
		rounds = 4
	}
	base := chainRepo(t, 1, 2, 3)
	for seed := range rounds {
		be := base.Clone()
		rot(t, be, rand.New(rand.NewPCG(damageSeed+1, uint64(seed))), "packs", "index")
		lost := lostFiles(t, be)
		if err := repairAll(be); err != nil {
			t.Fatal(err)
		}
		r := open(t, be)
		list, _, err := r.Snapshots(context.Background())
		if err != nil || len(list) != 3 {
			t.Fatal(list, err)
		}
		for _, s := range list {
			want := tinyFiles(s.Time.Day())
			got, err := restore(context.Background(), r, s)
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

// Files that are gone come back, too: as far as anything needs them.
func TestMissingFilesHealFromMirror(t *testing.T) {
	ctx := context.Background()
	base := chainRepo(t, 1, 2, 3)
	for name, gone := range map[string]func(name string) bool{
		"a pack":        func(name string) bool { return name == filesIn(t, base, packsDir)[2] },
		"all packs":     func(name string) bool { return kindOf(name) == "packs" },
		"the index":     func(name string) bool { return kindOf(name) == "index" },
		"packs & index": func(name string) bool { return kindOf(name) == "index" || kindOf(name) == "packs" },
	} {
		be := base.Clone()
		for _, n := range slices.Sorted(maps.Keys(content(t, be))) {
			if gone(n) {
				removeAll(t, be, n)
			}
		}
		dry := content(t, be)
		r, err := Open(ctx, be, testSecret, tinyOptions(90))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.HealFromMirror(ctx, base, HealOptions{RepairOptions: RepairOptions{DryRun: true}}); err != nil {
			t.Fatal(err)
		}
		if !maps.EqualFunc(dry, content(t, be), bytes.Equal) {
			t.Fatalf("%s: a dry run changed something", name)
		}
		rep, err := healTiny(be, base, HealOptions{})
		if err == nil {
			err = judgeClean(be, testSecret, 1, 2, 3)
		}
		if err != nil || rep.MissingChunks > 0 {
			t.Fatalf("%s: %+v, %v", name, rep, err)
		}
	}
}

// What was repaired without a copy is whole again when one turns up.
func TestMirrorAfterRepair(t *testing.T) {
	base := chainRepo(t, 1, 2, 3)
	be := base.Clone()
	for _, name := range filesIn(t, be, packsDir) {
		flipBit(t, be, name, len(content(t, be)[name])/3)
	}
	if err := repairAll(be); err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	list, _, err := open(t, be).Snapshots(ctx)
	if err != nil || list[2].Lost == nil {
		t.Fatal(list, err)
	}
	if _, err := healTiny(be, base, HealOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := repairSnapshots(be); err != nil {
		t.Fatal(err)
	}
	if err := judgeClean(be, testSecret, 1, 2, 3); err != nil {
		t.Fatal(err)
	}
}

// Snapshots that the copy has and this repository has not are told, and come
// only if that is asked for. Nothing comes from another repository.
func TestSnapshotsFromMirror(t *testing.T) {
	ctx := context.Background()
	base := chainRepo(t, 1, 2, 3)
	be := base.Clone()
	if err := forgetTiny(ctx, be, 2); err != nil {
		t.Fatal(err)
	}
	if _, err := pruneTiny(ctx, be, everything); err != nil {
		t.Fatal(err)
	}
	rep, err := healTiny(be, base, HealOptions{})
	if err != nil || len(rep.Elsewhere) != 1 || len(rep.Fetched) != 0 {
		t.Fatalf("%+v, %v", rep, err)
	}
	if err := judgeClean(be, testSecret, 1, 3); err != nil {
		t.Fatal(err)
	}
	if rep, err = healTiny(be, base, HealOptions{Snapshots: true}); err != nil {
		t.Fatalf("%+v, %v", rep, err)
	}
	if err := judgeClean(be, testSecret, 1, 2, 3); err != nil {
		t.Fatal(err)
	}
	other := memory.New()
	o := tinyOptions(44)
	if _, err := Create(ctx, other, testSecret, testInfo, o); err != nil {
		t.Fatal(err)
	}
	if _, err := healTiny(be, other, HealOptions{}); !errors.Is(err, ErrOtherRepository) {
		t.Fatal(err)
	}
}

func TestHealSurvivesEverything(t *testing.T) {
	good := chainRepo(t, 1, 2)
	be := good.Clone()
	rot(t, be, rand.New(rand.NewPCG(damageSeed, 9)), "packs", "index", "snapshots")
	removeAll(t, be, filesIn(t, be, packsDir)[1])
	heal := func(be backend.Backend) error { _, err := healTiny(be, good, HealOptions{}); return err }
	eachRepair(t, be, 30, heal, func(be *memory.Backend) error { return judgeClean(be, testSecret, 1, 2) })
	// The copy fails.
	everyOperation(t, 10, good, func(from backend.Backend) error { _, err := healTiny(be.Clone(), from, HealOptions{}); return err },
		func(from *memory.Backend, _ error) error {
			if !maps.EqualFunc(content(t, from), content(t, good), bytes.Equal) {
				return errors.New("the copy was changed")
			}
			return nil
		})
}

// wholeFiles is what can be given back of every snapshot that is listed, by day.
func wholeFiles(be *memory.Backend) (map[int]files, error) {
	ctx := context.Background()
	r, err := openWith(ctx, be, testSecret, tinyOptions(2))
	if err != nil {
		return nil, err
	}
	list, _, err := r.Snapshots(ctx)
	if err != nil {
		return nil, err
	}
	whole := map[int]files{}
	for _, s := range list {
		f := files{}
		err := r.Walk(ctx, s, "", func(e *tree.Entry) error {
			var b bytes.Buffer
			err := r.WriteContent(ctx, &b, &e.Content)
			if err == nil {
				f[e.Path] = b.Bytes()
			} else if !errors.Is(err, ErrDamaged) {
				return err
			}
			return nil
		})
		if err != nil && !errors.Is(err, ErrDamaged) {
			return nil, err
		}
		whole[s.Time.Day()] = f
	}
	return whole, nil
}

// notLost wants everything that could be given back before.
func notLost(be *memory.Backend, before map[int]files) error {
	now, err := wholeFiles(be)
	if err != nil {
		return err
	}
	for day, f := range before {
		for name, b := range f {
			if got, ok := now[day][name]; !ok || !bytes.Equal(got, b) {
				return fmt.Errorf("day %d: %s could be given back before", day, name)
			}
		}
	}
	return nil
}

// A disk that lies about flushing may tear what comes from another copy: nothing
// more is lost, also if the copy never comes back, check names no file that was
// sound, and with the copy the next run brings back everything.
func TestHealSurvivesTornFiles(t *testing.T) {
	ctx := context.Background()
	step := sampled(t, 5)
	if os.Getenv("SNAP_TEST_HUGE") != "" {
		step = eachOne
	}
	good := chainRepo(t, 1, 2)
	spoilt := good.Clone()
	rot(t, spoilt, rand.New(rand.NewPCG(damageSeed, 9)), "packs", "index", "snapshots")
	removeAll(t, spoilt, filesIn(t, spoilt, packsDir)[1])
	forgotten := good.Clone()
	removeAll(t, forgotten, filesIn(t, forgotten, snapshotsDir)[0])
	if _, err := pruneTiny(ctx, forgotten, everything); err != nil {
		t.Fatal(err)
	}
	content, _ := harmed(t, 1, 2)
	other := otherKeys(t, 1, 2)
	mirror := func(opts HealOptions) func(r *Repo) error {
		return func(r *Repo) error { _, err := r.HealFromMirror(ctx, good, opts); return err }
	}
	for _, h := range []struct {
		name string
		base *memory.Backend
		heal func(r *Repo) error
		keep bool // damaged files of the base are left to a prune
	}{
		{"a copy", spoilt, mirror(HealOptions{}), false},
		{"snapshots of a copy", forgotten, mirror(HealOptions{Snapshots: true}), false},
		{"other keys", content, func(r *Repo) error {
			from, err := openWith(ctx, other, otherSecret, tinyOptions(97))
			if err == nil {
				_, err = r.HealFromContent(ctx, from, RepairOptions{})
			}
			return err
		}, true},
	} {
		t.Run(strings.ReplaceAll(h.name, " ", "_"), func(t *testing.T) {
			seed, torn := byte(100), 0
			heal := func(be backend.Backend) error {
				seed++ // two runs never make a file of the same bytes
				return repairTiny(ctx, be, seed, h.heal)
			}
			before, err := wholeFiles(h.base)
			if err != nil {
				t.Fatal(err)
			}
			old := misnamed(t, h.base)
			someCrashes(t, step, true, 0, h.base, heal, func(be *memory.Backend) error {
				bad := misnamed(t, be)
				torn += len(bad)
				removeAllLocks(be)
				alone := be.Clone()
				if err := repairIndex(alone); err != nil {
					return fmt.Errorf("without the copy: %w", err)
				}
				if err := notLost(alone, before); err != nil {
					return fmt.Errorf("without the copy: %w", err)
				}
				if err := heal(be); err != nil {
					return fmt.Errorf("next run: %w", err)
				}
				v, err := judge(be, testSecret)
				if err != nil || len(v.damaged) > 0 || !slices.Equal(v.days, []int{1, 2}) || len(v.report.Suffering) > 0 {
					return fmt.Errorf("days %v, damaged %v, %w", v.days, v.damaged, err)
				}
				for _, p := range v.report.Problems {
					if !slices.Contains(bad, p.File) && !(h.keep && slices.Contains(old, p.File)) {
						return fmt.Errorf("check names %+v, torn are %v", p, bad)
					}
				}
				return nil
			})
			if torn == 0 && !testing.Short() {
				t.Error("nothing was ever torn")
			}
		})
	}
}

// otherKeys is a repository of its own that holds the same days.
func otherKeys(t testing.TB, days ...int) *memory.Backend {
	t.Helper()
	ctx := context.Background()
	be := memory.New()
	o := tinyOptions(45)
	o.PackSize = 64 << 10
	if _, err := Create(ctx, be, otherSecret, testInfo, o); err != nil {
		t.Fatal(err)
	}
	for _, day := range days {
		r, err := openWith(ctx, be, otherSecret, tinyOptions(byte(50+day)))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := store(ctx, r, tinyFiles(day), day); err != nil {
			t.Fatal(err)
		}
	}
	return be
}

func healContent(be, from backend.Backend) (rep *ContentReport, err error) {
	ctx := context.Background()
	err = repairTiny(ctx, be, 96, func(r *Repo) error {
		other, err := openWith(ctx, from, otherSecret, tinyOptions(97))
		if err != nil {
			return err
		}
		rep, err = r.HealFromContent(ctx, other, RepairOptions{})
		return err
	})
	return rep, err
}

// Content comes back from a repository with other keys that holds the same
// backups, also if it cuts them differently.
func TestHealFromOtherKeys(t *testing.T) {
	be, lost := harmed(t, 1, 2, 3)
	from := otherKeys(t, 1, 2, 3)
	before := content(t, from)
	rep, err := healContent(be, from)
	if err != nil || rep.FoundChunks != rep.MissingChunks || rep.FoundChunks == 0 {
		t.Fatalf("%+v, %v (lost %v)", rep, err, lost)
	}
	if v, err := judge(be, testSecret); err != nil || len(v.report.Suffering) > 0 || !v.report.Clean() {
		t.Fatalf("%v: %+v", err, v.report)
	}
	if !maps.EqualFunc(content(t, from), before, bytes.Equal) {
		t.Error("the other repository was changed")
	}
	// After a prune nothing is left of the damage.
	if _, err := pruneTiny(context.Background(), be, everything); err != nil {
		t.Fatal(err)
	}
	if err := judgeClean(be, testSecret, 1, 2, 3); err != nil {
		t.Fatal(err)
	}
}

func TestHealFromOtherKeysSurvivesEverything(t *testing.T) {
	be, _ := harmed(t, 1, 2)
	from := otherKeys(t, 1, 2)
	eachRepair(t, be, 30, func(be backend.Backend) error { _, err := healContent(be, from); return err },
		func(be *memory.Backend) error {
			v, err := judge(be, testSecret)
			if err == nil && !v.report.Clean() {
				err = fmt.Errorf("%+v", v.report)
			}
			return err
		})
}

// guarded is a store with parity of a half.
func guarded(t testing.TB, days ...int) *memory.Backend {
	t.Helper()
	be := chainRepo(t, days...)
	if _, err := open(t, be).RefreshParity(context.Background(), 50_00, nil); err != nil {
		t.Fatal(err)
	}
	return be
}

// Without any copy parity brings back one rotten file of each group, and the
// index is made anew.
func TestRotHealsFromParity(t *testing.T) {
	ctx := context.Background()
	base := guarded(t, 1, 2, 3)
	rounds := 20
	if testing.Short() {
		rounds = 4
	}
	for seed := range rounds {
		be := base.Clone()
		rng := rand.New(rand.NewPCG(damageSeed+2, uint64(seed)))
		rot(t, be, rng, "index")
		for _, kind := range []string{packsDir, snapshotsDir} {
			in := filesIn(t, be, kind)
			flipBit(t, be, in[rng.IntN(len(in))], rng.IntN(1<<20))
		}
		rep, err := open(t, be).Check(ctx, CheckOptions{ReadData: 1})
		if err != nil || rep.Clean() || rep.Parity == nil || rep.Parity.Unprotected != 0 {
			t.Fatalf("%+v, %v", rep, err)
		}
		err = repairTiny(ctx, be, 98, func(r *Repo) error {
			healed, err := r.HealFromParity(ctx, RepairOptions{})
			if err == nil && len(healed.Healed) != 2 {
				err = fmt.Errorf("%+v", healed)
			}
			return err
		})
		if err == nil {
			err = repairIndex(be)
		}
		if err == nil {
			err = judgeClean(be, testSecret, 1, 2, 3)
		}
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

// Whatever happens to one file of a group, parity brings it back byte for byte,
// and after it all snapshots.
func TestEveryFileHealsFromParity(t *testing.T) {
	ctx := context.Background()
	base := guarded(t, 1, 2, 3)
	all := content(t, base)
	rng := rand.New(rand.NewPCG(damageSeed+4, 0))
	names := append(filesIn(t, base, packsDir), filesIn(t, base, snapshotsDir)...)
	for i, name := range names {
		if testing.Short() && i%4 != 0 {
			continue
		}
		whole := all[name]
		at := rng.IntN(len(whole))
		until := min(len(whole), at+1+rng.IntN(5000))
		zeros := bytes.Clone(whole)
		clear(zeros[at:])
		for how, b := range map[string][]byte{
			"gone": nil, "emptied": {}, "cut": whole[:at], "zeros": zeros,
			"bytes dropped": slices.Concat(whole[:at], whole[until:]),
			"bytes added":   slices.Concat(whole[:at], noise(5, 100), whole[at:]),
		} {
			if bytes.Equal(b, whole) || how == "gone" && kindOf(name) == "snapshots" {
				continue // a record that is gone looks like one that was forgotten
			}
			be := base.Clone()
			removeAll(t, be, name)
			if how != "gone" {
				if err := be.Set(name, b); err != nil {
					t.Fatal(err)
				}
			}
			if rep, err := open(t, be).Check(ctx, CheckOptions{ReadData: 1, DryRun: true}); err != nil || rep.Clean() && kindOf(name) == "packs" {
				t.Errorf("%s %s: check finds nothing, %v", name, how, err)
			}
			err := repairTiny(ctx, be, 94, func(r *Repo) error { _, err := r.HealFromParity(ctx, RepairOptions{}); return err })
			if err != nil {
				t.Errorf("%s %s: %v", name, how, err)
			} else if !bytes.Equal(content(t, be)[name], whole) {
				t.Errorf("%s %s: it did not come back", name, how)
			} else if err := judgeClean(be, testSecret, 1, 2, 3); err != nil {
				t.Errorf("%s %s: %v", name, how, err)
			}
		}
	}
}

// Prune keeps parity true: what remains is guarded, and what went does not come
// back.
func TestPruneKeepsParity(t *testing.T) {
	ctx := context.Background()
	be := guarded(t, 1, 2, 3)
	if err := forgetTiny(ctx, be, 1, 2); err != nil {
		t.Fatal(err)
	}
	if _, err := pruneTiny(ctx, be, everything); err != nil {
		t.Fatal(err)
	}
	st, err := open(t, be).ParityStatus(ctx)
	if err != nil || st.Unprotected != 0 || len(st.Missing) != 0 || st.Groups == 0 {
		t.Fatalf("%+v, %v", st, err)
	}
	packs := filesIn(t, be, packsDir)
	removeAll(t, be, packs[0])
	heal := func(be backend.Backend) error {
		return repairTiny(ctx, be, 99, func(r *Repo) error { _, err := r.HealFromParity(ctx, RepairOptions{}); return err })
	}
	eachRepair(t, be, 10, heal, func(be *memory.Backend) error {
		if got := filesIn(t, be, packsDir); !slices.Equal(got, packs) {
			return fmt.Errorf("packs %v, want %v", got, packs)
		}
		return judgeClean(be, testSecret, 3)
	})
}
