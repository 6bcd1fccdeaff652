package main

import (
	"strings"
	"testing"
	"time"
)

func TestProgressLine(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	const mib = 1 << 20
	p := &progress{}
	for _, step := range []struct {
		seconds int
		meter   meter
		want    string
	}{
		{0, meter{phase: "reading manifest"}, "reading manifest"},
		{11, meter{phase: "reading manifest"}, "reading manifest, for 11s"},
		{12, meter{phase: "reading files", totalFiles: 4000, totalBytes: 400 * mib}, "reading files   0%, 0 B of 400.0 MiB, 0 of 4,000 files"},
		{22, meter{phase: "reading files", files: 1000, totalFiles: 4000, bytes: 100 * mib, totalBytes: 400 * mib},
			"reading files  25%, 100.0 MiB of 400.0 MiB, ETA 30s, 10.0 MiB/s, 1,000 of 4,000 files"},
		// The speed is that of the last seconds, not the average.
		{32, meter{phase: "reading files", files: 1001, totalFiles: 4000, bytes: 110 * mib, totalBytes: 400 * mib},
			"reading files  27%, 110.0 MiB of 400.0 MiB, ETA 4m50s, 1.0 MiB/s, 1,001 of 4,000 files"},
		{42, meter{phase: "reading files", files: 1001, totalFiles: 4000, bytes: 110 * mib, totalBytes: 400 * mib},
			"reading files  27%, 110.0 MiB of 400.0 MiB, 0 B/s, 1,001 of 4,000 files"},
		// Nothing is left to count: no percentage, no time left.
		{50, meter{phase: "reading files", files: 4000, totalFiles: 4000, bytes: 400 * mib, totalBytes: 400 * mib}, "reading files, 400.0 MiB, 4,000 files"},
		{51, meter{phase: "finishing", files: 4000, totalFiles: 4000, bytes: 400 * mib, totalBytes: 400 * mib}, "finishing"},
		{71, meter{phase: "finishing", files: 4000, totalFiles: 4000, bytes: 400 * mib, totalBytes: 400 * mib}, "finishing, for 20s"},
		// An unknown total.
		{80, meter{phase: "receiving", percent: 7, files: 1, bytes: mib}, "receiving   7%, 1.0 MiB, 1 file"},
		{85, meter{phase: "receiving", percent: 9, files: 3, bytes: 11 * mib}, "receiving   9%, 11.0 MiB, 2.0 MiB/s, 3 files"},
	} {
		if got := p.line(step.meter, start.Add(time.Duration(step.seconds)*time.Second)); got != step.want {
			t.Errorf("after %d s:\ngot  %q\nwant %q", step.seconds, got, step.want)
		}
	}
}

// The time left is visible on a terminal of 80 columns, also beside a long name.
func TestTimeLeftIsVisible(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	p := &progress{}
	m := meter{phase: "reading files", totalFiles: 400_000, totalBytes: 256 << 30}
	p.line(m, start)
	m.files, m.bytes = 100_000, 128<<30
	line := strings.Repeat("x", 20) + ": " + p.line(m, start.Add(10*time.Minute))
	if shown := fit(line, 79); !strings.Contains(shown, "ETA 10m00s") {
		t.Errorf("got %q", shown)
	}
}

func TestTimeLeft(t *testing.T) {
	for seconds, want := range map[float64]string{0: "0s", 59.9: "59s", 61: "1m00s", 3599: "59m50s", 3600: "1h00m", 7500: "2h05m", 1e6: "11d", 1e30: "100d"} {
		if got := timeLeft(seconds); got != want {
			t.Errorf("timeLeft(%v) = %q, want %q", seconds, got, want)
		}
	}
}
