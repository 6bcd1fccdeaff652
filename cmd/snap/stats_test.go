package main

import (
	"reflect"
	"testing"
	"time"

	"github.com/snap-backup/snap/repo"
)

func TestAppOf(t *testing.T) {
	for domain, want := range map[string]string{
		"AppDomain-com.example.app":                 "com.example.app",
		"AppDomainGroup-group.com.example.app":      "com.example.app",
		"AppDomainGroup-243LU875E5.com.example.app": "243LU875E5.com.example.app",
		"AppDomainPlugin-com.example.app.widget":    "com.example.app.widget",
		"AppDomain-":                                "AppDomain-",
		"HomeDomain":                                "HomeDomain",
		"":                                          "-",
	} {
		if got := appOf(domain); got != want {
			t.Errorf("%q: %q, want %q", domain, got, want)
		}
	}
}

func TestGrow(t *testing.T) {
	var list []*repo.Snapshot
	for _, text := range []string{"2026-02-01T00:30:00Z", "2026-01-31T23:30:00Z", "2026-01-26T12:00:00Z"} {
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, &repo.Snapshot{StoredAt: at, StoredBytes: 10, NewBytes: 100})
	}
	for _, c := range []struct {
		period string
		zone   int
		want   []growth
	}{
		{"day", 0, []growth{{"2026-01-26", 1, 100, 10, 10}, {"2026-01-31", 1, 100, 10, 20}, {"2026-02-01", 1, 100, 10, 30}}},
		{"day", 3600, []growth{{"2026-01-26", 1, 100, 10, 10}, {"2026-02-01", 2, 200, 20, 30}}},
		{"week", 0, []growth{{"2026-01-26", 3, 300, 30, 30}}},
		{"month", 0, []growth{{"2026-01-01", 2, 200, 20, 20}, {"2026-02-01", 1, 100, 10, 30}}},
	} {
		if got := grow(list, periods[c.period], time.FixedZone("", c.zone)); !reflect.DeepEqual(got, c.want) {
			t.Errorf("by %s: %+v, want %+v", c.period, got, c.want)
		}
	}
}

func TestBar(t *testing.T) {
	for part, want := range map[int64]string{0: "", 1: "▏", 400: "████████████", 1000: "██████████████████████████████", 417: "████████████▌"} {
		if got := bar(part, 1000); got != want {
			t.Errorf("%d of 1000: %q, want %q", part, got, want)
		}
	}
}

func TestParseSizes(t *testing.T) {
	for text, want := range map[string]int64{"0": 0, "100": 100, "5K": 5120, "1.5M": 1572864, "2GiB": 2 << 30, "3gb": 3 << 30, "1T": 1 << 40} {
		if got, err := parseSize(text); err != nil || got != want {
			t.Errorf("%q: %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "M", "-1", "NaN", "Inf", "1X", "9999999999T", "1 M"} {
		if got, err := parseSize(text); err == nil {
			t.Errorf("%q: %d", text, got)
		}
	}
	for text, want := range map[string]int64{"5%": 52, "0%": 0, "50%": 1000, "0": 0, "7K": 7168, "unlimited": 1<<63 - 1} {
		if f, err := parseMaxUnused(text); err != nil || f(1000) != want {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzParseSize(f *testing.F) {
	for _, s := range []string{"0", "100", "1.5M", "2GiB", "5%", "unlimited", "-1", "NaN", "1e400T"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := parseSize(s); err == nil && n < 0 {
			t.Errorf("%q: %d bytes", s, n)
		}
		limit, err := parseMaxUnused(s)
		if err == nil && (limit(0) < 0 || limit(1<<40) < 0) {
			t.Errorf("%q: %d, %d", s, limit(0), limit(1<<40))
		}
	})
}
