package record

import (
	"strings"
	"testing"
)

func FuzzParseUnfinished(f *testing.F) {
	f.Add([]byte(`{"version":1,"kind":"backup","run":"0102","udid":"u","started":"2026-01-01T00:00:00Z","saved":"2026-01-01T00:00:00Z","parts":["` + strings.Repeat("ab", 32) + `"],"removed":["Snapshot/aa/aa"],"files":1,"bytes":3}`))
	f.Add([]byte(`{"version":2}`))
	f.Add([]byte(`{"version":1,"parts":["x"]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		u, err := parseUnfinished(b)
		if err == nil && (u.Version != 1 || len(u.Parts) > maxParts) {
			t.Errorf("%+v", u)
		}
	})
}
