package repo

import "testing"

func FuzzLock(f *testing.F) {
	f.Add([]byte(`{"version":1,"kind":"write","seen":["` + FileID{}.String() + `"]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		parsePruneList(b)
		parseLock(b)
	})
}
