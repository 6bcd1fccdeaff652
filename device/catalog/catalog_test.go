package catalog

import (
	"encoding/binary"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/device/blob"
	"github.com/snap-backup/snap/repo/tree"
)

// Each path takes about 120 bytes of memory.
func TestNamesAreSmall(t *testing.T) {
	const count = 200_000
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	n := New(nil)
	now := time.Unix(0, 0)
	var id blob.ID
	rng := rand.New(rand.NewPCG(1, 1))
	for range count {
		for i := range 5 {
			binary.LittleEndian.PutUint32(id[4*i:], rng.Uint32())
		}
		f, err := n.Add(&tree.Content{Size: 5, IDs: make([]chunk.ID, 1)}, 0)
		if err != nil {
			t.Fatal(err)
		}
		n.SetSum(f, Sum{1})
		if err := n.Put("Snapshot/"+id.Path(false), f, now); err != nil {
			t.Fatal(err)
		}
	}
	each := (heap() - before) / count
	t.Logf("%d bytes a name", each)
	if each > 140 {
		t.Errorf("%d bytes a name", each)
	}
	items, err := n.List("Snapshot/ab")
	if err != nil || len(items) < count/256/2 {
		t.Errorf("%d items, %v", len(items), err)
	}
	runtime.KeepAlive(n)
}
