package binread

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/snap-backup/snap/chunk"
)

func TestReadsWhatWasWritten(t *testing.T) {
	id := chunk.ID{1, 2, 3}
	b := []byte{7}
	b = binary.LittleEndian.AppendUint64(b, 1<<60)
	b = binary.AppendUvarint(b, 300)
	b = binary.AppendVarint(b, -300)
	b = append(binary.AppendUvarint(b, 5), "hello"...)
	b = append(b, id[:]...)
	b = append(append(append(b, 2), id[:]...), id[:]...)
	read := func(r *Reader) bool {
		return r.Byte() == 7 && r.Uint64() == 1<<60 && r.Uvarint() == 300 && r.Varint() == -300 && r.String(5) == "hello" && r.ID() == id && len(r.IDs(2)) == 2
	}
	r := NewReader(b)
	if !read(r) || r.End() != nil {
		t.Fatal(r.Err())
	}
	for n := range b {
		if r := NewReader(b[:n]); read(r) || r.Err() == nil {
			t.Errorf("cut at %d: no error", n)
		}
	}
	if r := NewReader(append(b, 0)); !read(r) || r.End() == nil {
		t.Error("a byte too many: no error")
	}
}

func TestLimits(t *testing.T) {
	number := binary.AppendUvarint(nil, 1000)
	for name, do := range map[string]func(r *Reader){
		"up to":   func(r *Reader) { r.UpTo(999, "x") },
		"count":   func(r *Reader) { r.Count(1) },
		"text":    func(r *Reader) { _ = r.String(999) },
		"IDs":     func(r *Reader) { r.IDs(5000) },
		"take":    func(r *Reader) { r.Take(-1) },
		"uvarint": func(r *Reader) { r.Take(len(number)); r.Uvarint() },
	} {
		r := NewReader(number)
		do(r)
		if r.Err() == nil {
			t.Errorf("%s: no error", name)
		}
		first := r.Err()
		r.Fail("another")
		if r.Byte() != 0 || r.Uint64() != 0 || r.Varint() != 0 || r.Err() != first {
			t.Errorf("%s: reads after the first error", name)
		}
	}
	many := append([]byte{3}, bytes.Repeat([]byte{9}, 96)...)
	if r := NewReader(many); r.IDs(2) != nil || r.Err() == nil {
		t.Error("more IDs than allowed")
	}
}
