package record

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/store"
)

func FuzzParseSnapshot(f *testing.F) {
	whole, _ := json.Marshal(&Snapshot{Version: 1, Tags: []string{"a"}, Parent: &layout.FileID{1}})
	f.Add(whole)
	findings, _ := json.Marshal(&Snapshot{Version: 1, Findings: []Finding{{Kind: "missing", Consequence: Damage, Count: 2, Names: []string{"HomeDomain/a"}, Text: "2 files are missing"}}})
	f.Add(findings)
	f.Add([]byte(`{"version":1,"findings":[{"kind":"x","count":-1},null]}`))
	f.Add([]byte(`{"version":1,"root":"zz"}`))
	f.Add([]byte(`{"version":2}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseSnapshot(b)
		if err != nil {
			return
		}
		plain, err := json.Marshal(s)
		if err != nil {
			t.Skip() // a time beyond year 9999
		}
		if _, err := parseSnapshot(plain); err != nil {
			t.Fatalf("%s: %v", plain, err)
		}
	})
}

func FuzzOpenSnapshot(f *testing.F) {
	sealer := crypto.NewSealer(crypto.Key{1}, bytes.NewReader(make([]byte, 1<<10)))
	sealed, err := sealer.Seal([]byte(snapshotMagic), []byte(`{"version":1}`), nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sealed)
	f.Add(sealed[:len(sealed)-1])
	f.Add([]byte(snapshotMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := openSnapshot(b, sealer); err == nil && !bytes.Equal(b, sealed) {
			t.Fatal("bytes were accepted that were not sealed")
		}
	})
}

func TestSnapshotOfTheFuture(t *testing.T) {
	if _, err := parseSnapshot([]byte(`{"version":2}`)); !errors.Is(err, store.ErrUnsupported) {
		t.Errorf("got %v", err)
	}
}
