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
	f.Add([]byte(unjudgedMagic))
	f.Add(append([]byte(waitingMagic), one...))
	f.Add(append([]byte(namedMagic), one...))
	f.Add(append(append([]byte(keptMagic), one...), 7))
	f.Add(append(append([]byte(keptMagic), one...), 0)) // counted no run
	f.Fuzz(func(t *testing.T, b []byte) {
		magic, ids, counts := parseNote(b)
		if magic == "" {
			if len(ids)+len(counts) > 0 {
				t.Fatal("IDs without a magic")
			}
			return
		}
		set, kept := map[id]bool{}, map[id]int{}
		for i, id := range ids {
			set[id] = true
			if magic == keptMagic {
				kept[id] = counts[i]
			}
		}
		note := listNote(magic, set)
		if magic == keptMagic {
			note = keptNote(kept)
		}
		be := store.New()
		_, err := putNote(context.Background(), be, note)
		if err != nil || len(set) != len(ids) || !bytes.Equal(note, b) {
			t.Fatal(err, len(set), len(ids))
		}
		n, err := readNotes(context.Background(), be)
		if want := len(ids); err != nil || magic != unjudgedMagic && len(n.copied)+len(n.removable)+len(n.indexes)+len(n.kept)+len(n.named)+len(n.waiting) != want {
			t.Fatalf("%d IDs, read %+v, %v", want, n, err)
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
