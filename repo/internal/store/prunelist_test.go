package store

import "testing"

func FuzzPruneList(f *testing.F) {
	f.Add([]byte(`{"version":1,"packs":[]}`))
	f.Fuzz(func(t *testing.T, b []byte) { parsePruneList(b) })
}
