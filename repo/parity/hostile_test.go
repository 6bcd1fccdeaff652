package parity

import (
	"bytes"
	"context"
	"encoding/hex"
	"testing"

	"github.com/snap-backup/snap/repo/backend/memory"
)

// forged is a parity file as somebody without a key could write it: all its
// numbers fit each other, and its hashes are of nothing.
func forged(percent, segment, parity int, members ...member) []byte {
	h := &Header{percent: percent, segment: segment, parity: parity, members: members}
	for i := range h.members {
		h.members[i].sums = make([]sum, segments(h.members[i].size, segment))
	}
	h.sums = make([]sum, h.rows()*parity)
	return h.encode(nil)
}

// plant stores a parity file under the name that it has if it is whole.
func plant(t testing.TB, be *memory.Backend, b []byte) string {
	t.Helper()
	hash := hashOf(b)
	name := Dir + hex.EncodeToString(hash[:])
	if err := be.Set(name, b); err != nil {
		t.Fatal(err)
	}
	return name
}

// A group without files whose file is damaged is made anew, and does not keep
// others from being healed.
func TestHealWithDamagedEmptyGroup(t *testing.T) {
	be := usual(t)
	want := content(t, be, "packs/")
	lost := ""
	for lost = range want {
		break
	}
	if err := be.Delete(context.Background(), lost); err != nil {
		t.Fatal(err)
	}
	b := forged(5_00, SegmentSize, 0)
	name := plant(t, be, b)
	rotten := bytes.Clone(b)
	rotten[9] ^= 1
	if err := be.Set(name, rotten); err != nil {
		t.Fatal(err)
	}
	rep := heal(t, be)
	if len(rep.Healed) != 1 || rep.Remade != 1 {
		t.Errorf("%+v", rep)
	}
	if got := content(t, be, "packs/")[lost]; !bytes.Equal(got, want[lost]) {
		t.Error("the lost pack did not come back")
	}
	if got := content(t, be, Dir)[name]; !bytes.Equal(got, b) {
		t.Error("the empty group is still damaged")
	}
}
