package lock

import (
	"testing"

	"github.com/snap-backup/snap/repo/internal/layout"
)

func FuzzLock(f *testing.F) {
	f.Add([]byte(`{"version":1,"kind":"write","seen":["` + layout.FileID{}.String() + `"]}`))
	f.Fuzz(func(t *testing.T, b []byte) { parseLock(b) })
}
