package mirror

import (
	"bytes"
	"context"
	"strings"
	"testing"

	store "github.com/snap-backup/snap/repo/backend/memory"
)

func FuzzParseMemory(f *testing.F) {
	one, two := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)
	f.Add([]byte(cameMagic))
	f.Add(append([]byte(cameMagic), one...))
	f.Add(append(append([]byte(looseMagic), one...), two...))
	f.Add(append(append([]byte(cameMagic), two...), one...)) // out of order
	f.Add([]byte("snapsn01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		magic, ids := parseMemory(b)
		if magic == "" {
			if len(ids) > 0 {
				t.Fatal("IDs of no file")
			}
			return
		}
		set := map[id]bool{}
		for _, id := range ids {
			set[id] = true
		}
		be := store.New()
		name, err := putMemory(context.Background(), be, magic, set)
		if err != nil || len(set) != len(ids) {
			t.Fatal(err, len(set), len(ids))
		}
		if info, err := be.Stat(context.Background(), name); err != nil || info.Size != int64(len(b)) {
			t.Fatalf("%d bytes came back as %v, %v", len(b), info, err)
		}
		mem, err := readMemory(context.Background(), be)
		if err != nil || len(mem.came)+len(mem.loose) != len(ids) {
			t.Fatalf("%d IDs, read %d and %d, %v", len(ids), len(mem.came), len(mem.loose), err)
		}
	})
}

func TestHashOf(t *testing.T) {
	id := strings.Repeat("ab", 32)
	for name, want := range map[string]bool{
		"keys/" + id: true, "packs/ab/" + id: true, "index/" + id: true,
		"packs/cd/" + id: false, "packs/" + id: false, "keys/" + strings.ToUpper(id): false,
		"keys/" + id[2:]: false, "keys/x" + id[1:]: false, "config": false, "keys/": false, "": false,
	} {
		if _, ok := hashOf(name); ok != want {
			t.Errorf("%q: %v, want %v", name, ok, want)
		}
	}
}
