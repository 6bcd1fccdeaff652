package parity

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/snap-backup/snap/internal/faultpoint"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/crash"
	"github.com/snap-backup/snap/repo/backend/fault"
	"github.com/snap-backup/snap/repo/backend/memory"
)

// store stores random files of these lengths and returns their names.
func store(t testing.TB, be backend.Backend, kind byte, seed uint64, sizes ...int) []string {
	t.Helper()
	rng := rand.NewChaCha8([32]byte{byte(seed)})
	var names []string
	for _, n := range sizes {
		b := make([]byte, n)
		rng.Read(b)
		m := file{kind: kind, id: hashOf(b), size: int64(n)}
		if err := be.Put(context.Background(), m.name(), b); err != nil {
			t.Fatal(err)
		}
		names = append(names, m.name())
	}
	return names
}

func withConfig(t testing.TB) *memory.Backend {
	t.Helper()
	be := memory.New()
	if err := be.Put(context.Background(), "config", []byte("config")); err != nil {
		t.Fatal(err)
	}
	return be
}

func content(t testing.TB, be backend.Backend, dir string) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	if err := be.List(context.Background(), dir, func(f backend.Info) error {
		b, err := backend.ReadAll(context.Background(), be, f.Name, 1<<30)
		all[f.Name] = b
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

func refresh(t testing.TB, be backend.Backend, percent int) *RefreshReport {
	t.Helper()
	rep, err := Refresh(context.Background(), be, RefreshOptions{Percent: percent})
	if err != nil {
		t.Fatal(err)
	}
	return rep
}

func heal(t testing.TB, be backend.Backend) *HealReport {
	t.Helper()
	rep, err := Heal(context.Background(), be, HealOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return rep
}

// sizes are lengths of files, some of them close to a multiple of the shard size.
var sizes = []int{300_000, 300_000, 299_999, shardSize, shardSize + 1, 1, 50, 7 * shardSize, 400_000, 123_456}

// protectedStore returns a store with two groups of the maximum size and two smaller
// ones.
func protectedStore(t testing.TB) *memory.Backend {
	t.Helper()
	be := withConfig(t)
	store(t, be, 0, 1, sizes...)
	store(t, be, 1, 2, 900, 1000, 1100)
	refresh(t, be, 50_00) // groups of four
	return be
}

func TestNoParityWithoutAsking(t *testing.T) {
	t.Parallel()
	be := withConfig(t)
	store(t, be, 0, 1, 1000)
	if rep := refresh(t, be, 0); rep.Made != 0 || len(content(t, be, Dir)) != 0 {
		t.Fatalf("%+v", rep)
	}
	// In a repository without files, Refresh stores only the percentage.
	empty := withConfig(t)
	refresh(t, empty, 5_00)
	store(t, empty, 0, 1, 1000)
	if rep := refresh(t, empty, 0); rep.Made != 1 || rep.Removed != 1 {
		t.Fatalf("%+v", rep)
	}
	if n, err := Remove(context.Background(), empty); n != 1 || err != nil || len(content(t, empty, Dir)) != 0 {
		t.Fatal(n, err)
	}
}

func TestRefresh(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := protectedStore(t)
	s, err := Load(ctx, be)
	if err != nil {
		t.Fatal(err)
	}
	st, err := s.Status(ctx)
	if err != nil || st.Unprotected != 0 || st.Percent != 50 || st.Groups != 4 {
		t.Fatalf("%+v, %v", st, err)
	}
	total := int64(0)
	for _, b := range content(t, be, Dir) {
		total += int64(len(b))
	}
	if total != st.ParityBytes {
		t.Errorf("%d bytes of parity, Status says %d", total, st.ParityBytes)
	}
	if rep := refresh(t, be, 0); rep.Made != 0 || rep.Removed != 0 {
		t.Errorf("again: %+v", rep)
	}
	more := store(t, be, 0, 3, 5000)
	if rep := refresh(t, be, 0); rep.Made != 1 || rep.Removed != 1 {
		t.Errorf("one more: %+v", rep)
	}
	// Before a file is removed, its group is made again.
	if rep, err := Refresh(ctx, be, RefreshOptions{Without: func(n string) bool { return n == more[0] }}); err != nil || rep.Made != 1 || rep.Removed != 1 {
		t.Errorf("one less: %+v, %v", rep, err)
	}
	if err := be.Delete(ctx, more[0]); err != nil {
		t.Fatal(err)
	}
	if rep := refresh(t, be, 0); rep.Made != 0 {
		t.Errorf("after its removal: %+v", rep)
	}
	if rep := refresh(t, be, 25_00); rep.Made == 0 || rep.Kept != 0 {
		t.Errorf("another percentage: %+v", rep)
	}
	if rep := heal(t, be); len(rep.Healed)+len(rep.Unhealed)+rep.Remade > 0 {
		t.Errorf("%+v", rep)
	}
}

// Refresh keeps the group of a lost file and makes no parity of damaged bytes.
func TestRefreshKeepsGroupsThatHeal(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := protectedStore(t)
	want := content(t, be, "packs/")
	names := slices.Sorted(func(yield func(string) bool) {
		for n := range want {
			if !yield(n) {
				return
			}
		}
	})
	if err := be.Delete(ctx, names[0]); err != nil {
		t.Fatal(err)
	}
	b := bytes.Clone(want[names[1]])
	b[len(b)/2] ^= 1
	if err := be.Set(names[1], b); err != nil {
		t.Fatal(err)
	}
	store(t, be, 0, 9, 2000)
	rep, err := Refresh(ctx, be, RefreshOptions{Lost: func(n string) bool { return n == names[0] }})
	if err != nil {
		t.Fatal(err)
	}
	healed := heal(t, be)
	for _, n := range names[:2] {
		if !bytes.Equal(content(t, be, "packs/")[n], want[n]) {
			t.Errorf("%s was not healed: %+v, %+v", n, rep, healed)
		}
	}
}

// Heal restores as many files as a stripe has parity shards, and changes nothing else.
func TestHeal(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	base := protectedStore(t)
	want := content(t, base, "")
	for _, seed := range faultpoint.Choose(t, 60, 20) {
		rng := rand.New(rand.NewPCG(7, uint64(seed)))
		be := base.Clone()
		s, err := Load(ctx, be)
		if err != nil {
			t.Fatal(err)
		}
		damaged := 0
		for _, g := range s.groups {
			victims := rng.Perm(len(g.files))[:rng.IntN(min(g.parity, len(g.files))+1)]
			for _, v := range victims {
				name := g.files[v].name()
				b := bytes.Clone(want[name])
				at := rng.IntN(len(b))
				switch rng.IntN(4) {
				case 0:
					b[at] ^= 1 << rng.IntN(8)
				case 1:
					b = append(b[:at], b[min(len(b), at+1+rng.IntN(len(b))):]...)
				case 2:
					b = append(b, 1)
				default:
					b = nil
				}
				if b == nil && g.files[v].kind == 0 {
					err = be.Delete(ctx, name)
				} else {
					err = be.Set(name, b)
				}
				if err != nil {
					t.Fatal(err)
				}
				damaged++
			}
			if len(victims) < g.parity { // one parity shard may be bad, too
				b := bytes.Clone(want[g.name])
				b[rng.IntN(len(b))] ^= 4
				if err := be.Set(g.name, b); err != nil {
					t.Fatal(err)
				}
			}
		}
		rep := heal(t, be)
		if len(rep.Healed) != damaged || len(rep.Unhealed) > 0 {
			t.Fatalf("seed %d: %d damaged: %+v", seed, damaged, rep)
		}
		got := content(t, be, "")
		for name, b := range want {
			if !bytes.Equal(got[name], b) {
				t.Fatalf("seed %d: %s differs", seed, name)
			}
		}
		if len(got) != len(want) {
			t.Fatalf("seed %d: %d files, want %d", seed, len(got), len(want))
		}
	}
}

// In groups of any size, Heal restores two files, or one file if one more shard of
// each stripe is bad.
func TestFewFilesHeal(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	long := []int{300_000, 250_000, 200_000, 199_999, 70_000}
	for n := 2; n <= len(long); n++ {
		base := withConfig(t)
		store(t, base, 0, 1, long[:n]...)
		refresh(t, base, 5_00)
		want := content(t, base, "packs/")
		names := slices.Sorted(maps.Keys(want))
		damages := map[string]func(be *memory.Backend) error{
			"two lost": func(be *memory.Backend) error { return errors.Join(be.Delete(ctx, names[0]), be.Delete(ctx, names[1])) },
			"one lost, another one bad in each stripe": func(be *memory.Backend) error {
				b := bytes.Clone(want[names[1]])
				for at := 0; at < len(b); at += shardSize {
					b[at] ^= 1
				}
				return errors.Join(be.Delete(ctx, names[0]), be.Set(names[1], b))
			},
			"one lost, each other one bad in one stripe": func(be *memory.Backend) error {
				errs := []error{be.Delete(ctx, names[0])}
				for i, name := range names[1:] {
					if b := bytes.Clone(want[name]); i*shardSize < len(b) {
						b[i*shardSize] ^= 1
						errs = append(errs, be.Set(name, b))
					}
				}
				return errors.Join(errs...)
			},
		}
		for what, damage := range damages {
			be := base.Clone()
			if err := damage(be); err != nil {
				t.Fatal(err)
			}
			if rep := heal(t, be); len(rep.Unhealed) > 0 || len(rep.Healed) == 0 {
				t.Errorf("%d files, %s: %+v", n, what, rep)
			}
			for name, b := range content(t, be, "packs/") {
				if !bytes.Equal(b, want[name]) {
					t.Errorf("%d files, %s: %s differs", n, what, name)
				}
			}
		}
	}
}

func TestHealReportsUnhealed(t *testing.T) {
	t.Parallel()
	be := protectedStore(t)
	before := content(t, be, "packs/")
	for name := range before {
		if err := be.Delete(context.Background(), name); err != nil {
			t.Fatal(err)
		}
	}
	rep := heal(t, be)
	if len(rep.Unhealed) < len(sizes)-4 || len(rep.Healed)+len(rep.Unhealed) != len(sizes) {
		t.Fatalf("%+v", rep)
	}
	// A missing record was forgotten.
	for name := range content(t, be, "snapshots/") {
		if err := be.Delete(context.Background(), name); err != nil {
			t.Fatal(err)
		}
	}
	if heal(t, be); len(content(t, be, "snapshots/")) > 0 {
		t.Error("a forgotten snapshot was restored")
	}
}

// Refresh and Heal may fail or be interrupted at any operation.
func TestSurvivesEveryFault(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	base := protectedStore(t)
	want := content(t, base, "packs/")
	for name, b := range want {
		if len(b) == 300_000 {
			if err := base.Set(name, b[:1000]); err != nil {
				t.Fatal(err)
			}
			break
		}
	}
	store(t, base, 0, 5, 700)
	run := func(be backend.Backend) error {
		if _, err := Refresh(ctx, be, RefreshOptions{Lost: func(n string) bool { return want[n] != nil }}); err != nil {
			return err
		}
		_, err := Heal(ctx, be, HealOptions{})
		return err
	}
	judge := func(be *memory.Backend) error {
		if err := run(be); err != nil {
			return err
		}
		got := content(t, be, "packs/")
		for name, b := range want {
			if !bytes.Equal(got[name], b) {
				return fmt.Errorf("%s differs", name)
			}
		}
		return nil
	}
	steps := fault.New(base.Clone())
	if err := run(steps); err != nil {
		t.Fatal(err)
	}
	for _, n := range faultpoint.Choose(t, steps.Count(), 12) {
		be := base.Clone()
		if err := run(fault.New(be, fault.From(n+1, fault.ErrInjected))); !errors.Is(err, fault.ErrInjected) {
			t.Fatalf("failing from operation %d: %v", n+1, err)
		}
		if err := judge(be); err != nil {
			t.Fatalf("failing from operation %d: %v", n+1, err)
		}
	}
	for _, n := range faultpoint.Choose(t, steps.Count(fault.Put, fault.Delete), 12) {
		p := crash.New(base.Clone(), crash.Plan{At: n + 1, Seed: uint64(n)})
		if err := run(p); !p.Crashed() {
			t.Fatalf("no crash at change %d: %v", n+1, err)
		}
		if err := judge(p.Reboot()); err != nil {
			t.Fatalf("%s: %v", p.Outcome(), err)
		}
	}
}

// mul multiplies in the field of docs/format.md.
func mul(a, b byte) byte {
	p := 0
	for i := range 8 {
		if b>>i&1 == 1 {
			p ^= int(a) << i
		}
	}
	for i := 14; i >= 8; i-- {
		if p>>i&1 == 1 {
			p ^= 0x11d << (i - 8)
		}
	}
	return byte(p)
}

func inverse(a byte) byte {
	for b := 1; ; b++ {
		if mul(a, byte(b)) == 1 {
			return byte(b)
		}
	}
}

// The test vector is computed here as docs/format.md describes it.
func TestVector(t *testing.T) {
	t.Parallel()
	be := withConfig(t)
	files := [][]byte{[]byte(strings.Repeat("first ", 20)), []byte(strings.Repeat("second ", 10)), []byte("third")}
	h := &Header{percent: 50_00, shard: 64, parity: 2}
	for _, b := range files {
		m := file{id: hashOf(b), size: int64(len(b))}
		if err := be.Put(context.Background(), m.name(), b); err != nil {
			t.Fatal(err)
		}
		h.files = append(h.files, m)
	}
	s := &Set{be: be}
	data, bad, err := s.compute(context.Background(), h)
	if err != nil || len(bad) > 0 {
		t.Fatal(bad, err)
	}
	var want []byte
	for stripe := range 2 {
		width := min(64, 120-64*stripe)
		for p := range 2 {
			for col := range width {
				v := byte(0)
				for i, b := range files {
					if at := 64*stripe + col; at < len(b) {
						v ^= mul(inverse(byte(3+p)^byte(i)), b[at])
					}
				}
				want = append(want, v)
			}
		}
	}
	if !bytes.Equal(data, want) {
		t.Errorf("parity\n%x, want\n%x", data, want)
	}
	file := hex.EncodeToString(h.encode(data))
	golden, err := os.ReadFile("testdata/vector.hex")
	if os.Getenv("SNAP_MAKE_VECTOR") != "" {
		err = errors.Join(os.MkdirAll("testdata", 0o755), os.WriteFile("testdata/vector.hex", []byte(file+"\n"), 0o644))
		golden = []byte(file)
	}
	if err != nil || strings.TrimSpace(string(golden)) != file {
		t.Errorf("%v: got\n%s", err, file)
	}
}

func FuzzParseHeader(f *testing.F) {
	s, err := Load(context.Background(), protectedStore(f))
	if err != nil {
		f.Fatal(err)
	}
	for _, g := range s.groups {
		f.Add(g.append(nil))
	}
	f.Add((&Header{shard: shardSize}).append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ParseHeader(b)
		if err != nil {
			return
		}
		if again, err := ParseHeader(h.append(nil)); err != nil || !bytes.Equal(again.append(nil), h.append(nil)) {
			t.Fatal(err)
		}
	})
}

// A parity file of which nothing is left is made again, although its name does not change.
func TestRefreshReplacesEmptyParity(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := withConfig(t)
	store(t, be, 0, 21, 100_000, 90_000)
	if _, err := Refresh(ctx, be, RefreshOptions{Percent: 50_00}); err != nil {
		t.Fatal(err)
	}
	good := content(t, be, Dir)
	for name := range good {
		if err := be.Set(name, nil); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Refresh(ctx, be, RefreshOptions{Percent: 50_00}); err != nil {
		t.Fatal(err)
	}
	s, err := Load(ctx, be)
	if err != nil {
		t.Fatal(err)
	}
	if bad, err := s.Verify(ctx); err != nil || len(bad) > 0 || s.Percent() == 0 && len(s.groups) > 0 {
		t.Errorf("damaged: %v, %v", bad, err)
	}
}

// A pack of which nothing is left is not taken for one that was removed.
func TestRefreshKeepsParityOfEmptyFiles(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := withConfig(t)
	names := store(t, be, 0, 22, 100_000, 90_000)
	if _, err := Refresh(ctx, be, RefreshOptions{Percent: 50_00}); err != nil {
		t.Fatal(err)
	}
	whole := content(t, be, "packs/")[names[0]]
	if err := be.Set(names[0], nil); err != nil {
		t.Fatal(err)
	}
	rep, err := Refresh(ctx, be, RefreshOptions{})
	if err != nil || !slices.Contains(rep.Damaged, names[0]) {
		t.Fatalf("%+v, %v", rep, err)
	}
	if _, err := Heal(ctx, be, HealOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := content(t, be, "packs/")[names[0]]; !bytes.Equal(got, whole) {
		t.Errorf("%d bytes came back", len(got))
	}
}
