package repo

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

	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/memory"
)

// damageSeed makes the places of damage repeatable; every failure names its
// place anyhow.
const damageSeed = 20260101

// aftermath is what is left of a damaged repository.
type aftermath struct {
	refused error           // by Open
	failed  map[FileID]bool // snapshots that are listed and cannot be restored
	sound   int             // snapshots that came back byte for byte
	report  *CheckReport
}

// assess opens, restores and checks a damaged repository. Wrong bytes, a
// failure that is not called damage, and a report that disagrees with what
// restoring did are errors.
func assess(be backend.Backend) (aftermath, error) {
	ctx := context.Background()
	a := aftermath{failed: map[FileID]bool{}}
	opts := tinyOptions(2)
	opts.Cache = 1 << 10
	r, err := openWith(ctx, be, testSecret, opts)
	if err != nil {
		a.refused = err
		for _, kind := range []error{ErrDamaged, ErrWrongPassword, ErrUnsupported, ErrNotFound} {
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
		got, err := restore(ctx, r, s)
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				return a, fmt.Errorf("restore: not called damage: %w", err)
			}
			a.failed[s.ID] = true
			continue
		}
		if err := sameFiles(got, tinyFiles(s.Time.Day())); err != nil {
			return a, fmt.Errorf("wrong bytes: %w", err)
		}
		a.sound++
	}
	if a.report, err = r.Check(ctx, CheckOptions{ReadData: 1}); err != nil {
		return a, fmt.Errorf("check: %w", err)
	}
	suffering := map[FileID]bool{}
	for _, s := range a.report.Suffering {
		suffering[s.Snapshot] = true
		if !s.Tree && int(s.Files) < len(s.Names) || len(s.Names) == 0 {
			return a, fmt.Errorf("check: %+v names no file or too many", s)
		}
	}
	if !maps.Equal(suffering, a.failed) {
		return a, fmt.Errorf("check says that %d snapshots suffer, restoring failed for %d: %+v", len(suffering), len(a.failed), a.report)
	}
	return a, nil
}

// detected returns an error unless the damage of a file was noticed and named.
func (a aftermath) detected(name string) error {
	if a.refused != nil {
		if !strings.HasPrefix(name, keysDir) && name != configName {
			return fmt.Errorf("the repository cannot be opened: %w", a.refused)
		}
		return nil
	}
	if a.report.Clean() {
		return errors.New("check found nothing")
	}
	if !slices.ContainsFunc(a.report.Problems, func(p Problem) bool { return p.File == name && p.Hint != "" }) {
		return fmt.Errorf("check does not name it: %+v", a.report.Problems)
	}
	return nil
}

// kindOf is the folder of a file.
func kindOf(name string) string {
	dir, _, _ := strings.Cut(name, "/")
	return dir
}

// everyFile calls try with the name and bytes of every file.
func everyFile(t *testing.T, be *memory.Backend, try func(name string, b []byte)) {
	t.Helper()
	all := content(t, be)
	kinds := map[string]int{}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		kinds[kindOf(name)]++
		try(name, all[name])
	}
	for _, kind := range []string{"config", "keys", "packs", "index", "snapshots"} {
		if kinds[kind] == 0 {
			t.Fatalf("no file of kind %s in %v", kind, kinds)
		}
	}
}

// damages returns changed forms of a file.
func damages(rng *rand.Rand, b []byte) map[string][]byte {
	out := map[string][]byte{"emptied": {}, "a byte longer": append(bytes.Clone(b), 0), "a byte shorter": b[:len(b)-1]}
	cut := rng.IntN(len(b))
	out[fmt.Sprintf("cut at %d", cut)] = b[:cut]
	flips := 5
	if testing.Short() {
		flips = 2
	}
	for range flips {
		bit := rng.IntN(8 * len(b))
		flipped := bytes.Clone(b)
		flipped[bit/8] ^= 1 << (bit % 8)
		out[fmt.Sprintf("bit %d flipped", bit)] = flipped
	}
	return out
}

func TestEveryDamageIsFound(t *testing.T) {
	base := tinyRepo(t, 1, 2, 3)
	rng := rand.New(rand.NewPCG(damageSeed, 0))
	everyFile(t, base, func(name string, b []byte) {
		for how, damaged := range damages(rng, b) {
			be := base.Clone()
			if err := be.Set(name, damaged); err != nil {
				t.Fatal(err)
			}
			a, err := assess(be)
			if err == nil {
				err = a.detected(name)
			}
			if err == nil && kindOf(name) == "index" && (a.sound != 3 || len(a.failed) > 0) {
				err = fmt.Errorf("a damaged index file cost %d snapshots", len(a.failed))
			}
			if err == nil && kindOf(name) == "snapshots" && a.sound != 2 {
				err = fmt.Errorf("%d other snapshots came back", a.sound)
			}
			if err != nil {
				t.Fatalf("%s: %s: %v", name, how, err)
			}
		}
	})
}

// Every byte of the small files, since they are small.
func TestEveryByteOfConfigCounts(t *testing.T) {
	ctx := context.Background()
	base := tinyRepo(t, 1)
	r := open(t, base)
	file := content(t, base)[configName]
	for i := range file {
		for bit := range 8 {
			be := base.Clone()
			flipped := bytes.Clone(file)
			flipped[i] ^= 1 << bit
			if err := be.Set(configName, flipped); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(ctx, be, testSecret, tinyOptions(1)); !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrUnsupported) {
				t.Fatalf("bit %d of byte %d (%q): open: got %v", bit, i, flipped[i], err)
			}
			// A program that has it open notices, too.
			r.be = be
			c := &checker{r: r}
			if err := c.keys(ctx); err != nil || c.report.Clean() || c.report.Problems[0].File != configName {
				t.Fatalf("bit %d of byte %d: check: %v, %+v", bit, i, err, c.report)
			}
		}
	}
}

func TestEveryDeletionIsFound(t *testing.T) {
	ctx := context.Background()
	base := tinyRepo(t, 1, 2, 3)
	everyFile(t, base, func(name string, _ []byte) {
		be := base.Clone()
		if err := be.Delete(ctx, name); err != nil {
			t.Fatal(err)
		}
		a, err := assess(be)
		switch {
		case err != nil:
		case kindOf(name) == "snapshots":
			// Nothing refers to a snapshot: its absence is no damage, and costs
			// the others nothing.
			if a.sound != 2 || !a.report.Clean() {
				err = fmt.Errorf("%d snapshots, %+v", a.sound, a.report)
			}
		case kindOf(name) == "index":
			// The name of what is not there cannot be known.
			err = a.detected(indexDir)
		default:
			err = a.detected(name)
		}
		if err != nil {
			t.Errorf("%s deleted: %v", name, err)
		}
	})
}

// Files that took each other's place, or lie under a second name, are found:
// a name stands for its bytes.
func TestSwappedFilesAreFound(t *testing.T) {
	base := tinyRepo(t, 1, 2)
	if _, err := open(t, base).AddKey(context.Background(), otherSecret, testInfo); err != nil {
		t.Fatal(err)
	}
	all := content(t, base)
	names := slices.Sorted(maps.Keys(all))
	rng := rand.New(rand.NewPCG(damageSeed, 1))
	for _, name := range names {
		if name == configName {
			continue
		}
		for range 2 {
			other := names[rng.IntN(len(names))]
			if other == name || other == configName {
				continue
			}
			for how, b := range map[string][]byte{"swapped with": all[name], "overwritten with": all[other]} {
				be := base.Clone()
				if err := errors.Join(be.Set(name, all[other]), be.Set(other, b)); err != nil {
					t.Fatal(err)
				}
				a, err := assess(be)
				if err == nil && (a.refused == nil || kindOf(other) != "keys") {
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

// Files that are not the repository's are noted and do no harm.
func TestForeignFiles(t *testing.T) {
	be := tinyRepo(t, 1)
	for _, name := range []string{"snapshots/readme.txt", "index/x/y", "packs/00/no-pack", "packs/stray", "keys/note", "readme"} {
		if err := be.Set(name, []byte("not ours")); err != nil {
			t.Fatal(err)
		}
	}
	a, err := assess(be)
	if err != nil || a.refused != nil || a.sound != 1 || len(a.report.Suffering) > 0 || len(a.report.Leftovers) < 4 {
		t.Errorf("%+v, %v", a, err)
	}
}

// A pack that something is in use of keeps its waste, and what that was a
// difference to may be gone. Check does not call it damage, unless something is
// lost.
func TestWasteWithoutADictionaryIsNoDamage(t *testing.T) {
	ctx := context.Background()
	be := memory.New()
	r := create(t, be)
	useful, waste := noise(1, 900), noise(2, 900)
	putPack(t, r, be, pack.Content, raw(useful), delta(r, waste, noise(3, 900)))
	if err := r.LoadIndex(ctx); err != nil {
		t.Fatal(err)
	}
	before := len(content(t, be))
	if s := storeAfter(t, r, files{"useful": useful}, 1, nil); s.NewBytes > 900 {
		t.Fatalf("%d bytes were stored anew, in %d files", s.NewBytes, len(content(t, be))-before)
	}
	for _, part := range []float64{0, 0.5, 1} {
		report, err := open(t, be).Check(ctx, CheckOptions{ReadData: part})
		if err != nil || !report.Clean() || len(report.Problems) > 0 {
			t.Errorf("check of %v: %+v, %v", part, report, err)
		}
	}
	// When a pack is missing, that may be where the dictionary was.
	other := putPack(t, r, be, pack.Content, raw(noise(4, 900)))
	if err := be.Delete(ctx, other); err != nil {
		t.Fatal(err)
	}
	report, err := open(t, be).Check(ctx, CheckOptions{ReadData: 1})
	if err != nil || report.Clean() || len(report.Problems) != 2 {
		t.Errorf("with a pack missing: %+v, %v", report, err)
	}
}
