package s3

import (
	"testing"
	"time"
)

func TestMadeAt(t *testing.T) {
	t.Parallel()
	modified := time.Date(2026, 12, 1, 3, 0, 0, 0, time.UTC)
	now := modified.AddDate(0, 0, 2)
	for id, want := range map[string]time.Time{
		"01M8QRWKSXT8NYKSN9Y63F7CZM":           time.Date(2026, 12, 1, 3, 3, 5, 277e6, time.UTC), // a real one
		"01m8qrwksxt8nyksn9y63f7czm":           modified,
		"00000000000000000000000000":           modified,
		"7ZZZZZZZZZZZZZZZZZZZZZZZZZ":           modified,
		"ZZZZZZZZZZZZZZZZZZZZZZZZZZ":           modified,
		"01M8QRWKSXT8NYKSN9Y63F7CZU":           modified, // U is no digit
		"null":                                 modified,
		"":                                     modified,
		"3sL4kqtJlcpXroDTDmJ+rmSpXd3dIbrHY":    modified,
		"f8d3c1a2-7f1a-4c5e-9d3a-0a1b2c3d4e5f": modified,
	} {
		if got := madeAt(id, modified, now); !got.Equal(want) {
			t.Errorf("madeAt(%q) = %v, want %v", id, got, want)
		}
	}
}

func FuzzParseProtection(f *testing.F) {
	f.Add([]byte(`{"seconds":2592000,"mode":"governance"}`))
	f.Add([]byte(`{"seconds":-1,"mode":"compliance"}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := parseProtection(data)
		if err != nil {
			return
		}
		if p.Period < minProtection || p.Period > maxProtection {
			t.Errorf("period %v", p.Period)
		}
		if again, err := parseProtection(encodeProtection(p)); again != p || err != nil {
			t.Errorf("%v becomes %v, %v", p, again, err)
		}
	})
}
