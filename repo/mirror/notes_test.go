package mirror

import (
	"bytes"
	"context"
	"strings"
	"testing"

	store "github.com/snap-backup/snap/repo/backend/memory"
)

func FuzzParseNote(f *testing.F) {
	one, two := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)
	f.Add([]byte(copiedMagic))
	f.Add(append([]byte(copiedMagic), one...))
	f.Add(append(append([]byte(removableMagic), one...), two...))
	f.Add(append(append([]byte(copiedMagic), two...), one...)) // out of order
	f.Add([]byte("snapsn01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		magic, ids := parseNote(b)
		if magic == "" {
			if len(ids) > 0 {
				t.Fatal("IDs without a magic")
			}
			return
		}
		set := map[id]bool{}
		for _, id := range ids {
			set[id] = true
		}
		be := store.New()
		name, err := putNote(context.Background(), be, magic, set)
		if err != nil || len(set) != len(ids) {
			t.Fatal(err, len(set), len(ids))
		}
		if info, err := be.Stat(context.Background(), name); err != nil || info.Size != int64(len(b)) {
			t.Fatalf("%d bytes were stored as %v, %v", len(b), info, err)
		}
		n, err := readNotes(context.Background(), be)
		if err != nil || len(n.copied)+len(n.removable) != len(ids) {
			t.Fatalf("%d IDs, read %d and %d, %v", len(ids), len(n.copied), len(n.removable), err)
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
