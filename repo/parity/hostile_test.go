package parity

import (
	"bytes"
	"context"
	"encoding/hex"
	"runtime"
	"slices"
	"testing"

	"github.com/snap-backup/snap/repo/backend/memory"
)

// forge returns a parity file that an attacker without a key could write: its
// numbers are consistent, and its hashes are zeros.
func forge(percent, shard, parity int, files ...file) []byte {
	h := &Header{percent: percent, shard: shard, parity: parity, files: files}
	for i := range h.files {
		h.files[i].sums = make([]sum, shardCount(h.files[i].size, shard))
	}
	h.sums = make([]sum, h.stripes()*parity)
	return h.encode(nil)
}

// plant stores b as a parity file. Its name is the hash of b, so that it looks
// undamaged.
func plant(t testing.TB, be *memory.Backend, b []byte) string {
	t.Helper()
	hash := hashOf(b)
	name := Dir + hex.EncodeToString(hash[:])
	if err := be.Set(name, b); err != nil {
		t.Fatal(err)
	}
	return name
}

// Heal makes the damaged parity file of a group without files again, and heals other
// groups.
func TestHealWithDamagedEmptyGroup(t *testing.T) {
	be := protectedStore(t)
	want := content(t, be, "packs/")
	lost := ""
	for lost = range want {
		break
	}
	if err := be.Delete(context.Background(), lost); err != nil {
		t.Fatal(err)
	}
	b := forge(5_00, shardSize, 0)
	name := plant(t, be, b)
	damaged := bytes.Clone(b)
	damaged[9] ^= 1
	if err := be.Set(name, damaged); err != nil {
		t.Fatal(err)
	}
	rep := heal(t, be)
	if len(rep.Healed) != 1 || rep.Remade != 1 {
		t.Errorf("%+v", rep)
	}
	if got := content(t, be, "packs/")[lost]; !bytes.Equal(got, want[lost]) {
		t.Error("the lost pack was not restored")
	}
	if got := content(t, be, Dir)[name]; !bytes.Equal(got, b) {
		t.Error("the empty group is still damaged")
	}
}

// Heal skips a header that contradicts a good file, and allocates no memory for the
// group.
func TestHealSkipsContradictions(t *testing.T) {
	be := withConfig(t)
	names := store(t, be, 0, 1, 1000)
	id, err := hex.DecodeString(names[0][len(names[0])-64:])
	if err != nil {
		t.Fatal(err)
	}
	b := forge(5_00, maxShard, maxParity, file{id: [32]byte(id), size: 8 << 20})
	name := plant(t, be, b)
	damaged := bytes.Clone(b)
	damaged[9] ^= 1
	if err := be.Set(name, damaged); err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	rep := heal(t, be)
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 32<<20 {
		t.Errorf("Heal allocated %d MiB", n>>20)
	}
	if !slices.Equal(rep.Skipped, []string{name}) || len(rep.Healed)+len(rep.Unhealed)+rep.Remade > 0 {
		t.Errorf("%+v", rep)
	}
}

// Heal does not make a damaged parity file again if the file asks for more parity
// than any group of this program has.
func TestHealBoundsRemade(t *testing.T) {
	be := withConfig(t)
	const size = maxRemade/maxParity + 1
	names := store(t, be, 0, 1, size)
	id, err := hex.DecodeString(names[0][len(names[0])-64:])
	if err != nil {
		t.Fatal(err)
	}
	b := forge(5_00, maxShard, maxParity, file{id: [32]byte(id), size: size})
	name := plant(t, be, b)
	b[9] ^= 1
	if err := be.Set(name, b); err != nil {
		t.Fatal(err)
	}
	if rep := heal(t, be); !slices.Equal(rep.Skipped, []string{name}) || rep.Remade > 0 {
		t.Errorf("%+v", rep)
	}
}

// Load does not keep the hashes of shards.
func TestLoadKeepsNoSums(t *testing.T) {
	be := withConfig(t)
	for i := range 4 {
		plant(t, be, forge(5_00, minShard, 1, file{id: [32]byte{byte(i)}, size: 16 << 20}))
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	s, err := Load(context.Background(), be)
	if err != nil || len(s.groups) != 4 {
		t.Fatal(s, err)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if n := int64(after.HeapAlloc) - int64(before.HeapAlloc); n > 1<<20 {
		t.Errorf("the set takes %d KiB", n>>10)
	}
	runtime.KeepAlive(s)
}

// One parity file with another percentage does not change the percentage.
func TestPercentIsOfMostBytes(t *testing.T) {
	be := protectedStore(t)
	plant(t, be, forge(100_00, shardSize, 0))
	plant(t, be, forge(100_00, shardSize, 1, file{id: [32]byte{1}, size: 1}))
	s, err := Load(context.Background(), be)
	if err != nil || s.Percent() != 50_00 {
		t.Fatal(s.Percent(), err)
	}
	if rep := refresh(t, be, 0); rep.Made > 0 {
		t.Errorf("%+v", rep)
	}
	if s, err = Load(context.Background(), be); err != nil || s.Percent() != 50_00 {
		t.Error(s.Percent(), err)
	}
}

// A forged group does not replace a good group of the same files: the good group is
// removed only after a new one was made.
func TestForgedGroupReplacesNothing(t *testing.T) {
	ctx := context.Background()
	be := withConfig(t)
	var lengths []int
	for i := range 40 {
		lengths = append(lengths, 1000+i)
	}
	names := store(t, be, 0, 1, lengths...)
	refresh(t, be, 5_00)
	s, err := Load(ctx, be)
	if err != nil || len(s.groups) != 1 {
		t.Fatal(s, err)
	}
	all, err := s.list(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for shard := minShard; ; shard++ {
		b := forge(5_00, shard, 2, slices.Clone(all)...)
		if hash := hashOf(b); Dir+hex.EncodeToString(hash[:]) < s.groups[0].name {
			plant(t, be, b) // it is listed first
			break
		}
	}
	rep := refresh(t, be, 0)
	want := content(t, be, "packs/")
	if err := be.Delete(ctx, names[0]); err != nil {
		t.Fatal(err)
	}
	if healed := heal(t, be); !bytes.Equal(content(t, be, "packs/")[names[0]], want[names[0]]) {
		t.Errorf("%+v; %+v", rep, healed)
	}
	if again := refresh(t, be, 0); again.Made+again.Removed > 0 {
		t.Errorf("again: %+v", again)
	}
}
