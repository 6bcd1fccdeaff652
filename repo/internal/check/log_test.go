package check

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/snap-backup/snap/repo/internal/store"
)

func FuzzParseCheckLog(f *testing.F) {
	f.Add([]byte(`{"version":1,"reads":[]}`))
	f.Add(fmt.Appendf(nil, `{"version":1,"reads":[{"time":"2026-02-01T04:00:00Z","packs":["%064x"]}]}`, 7))
	f.Add([]byte(`{"version":2}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := parseCheckLog(b)
		if err != nil {
			return
		}
		again, err := json.Marshal(l)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parseCheckLog(again); err != nil && !errors.Is(err, store.ErrUnsupported) {
			t.Fatal(err)
		}
	})
}
