package agent

import (
	"os"
	"path/filepath"
	"testing"
)

func TestFullAndIncremental(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, password string }{{"plain", ""}, {"encrypted", "secret"}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			d, h := newDevice(t, Options{Password: c.password}), newHost(t)
			first := d.mustRequest(h, 0, "Backup")
			if !first.Full || first.Files < 100 || first.Moved != first.Files+2 || first.Rounds != 1 {
				t.Errorf("first run: %+v", first)
			}
			d.checkSame(h, c.password)

			again := d.mustRequest(h, 0, "Backup")
			if again.Full || again.Files != 0 || again.Kept != first.Files {
				t.Errorf("run without changes: %+v", again)
			}
			d.checkSame(h, c.password)

			for range 2 {
				d.SetContent(d.nextDay())
				next := d.mustRequest(h, 0, "Backup")
				if next.Full || next.Files == 0 || next.Files*2 > first.Files || next.Bytes*2 > first.Bytes {
					t.Errorf("next day: %+v", next)
				}
				d.checkSame(h, c.password)
			}
			d.noViolations()

			if c.password == "" {
				// The sent manifest must be equal to the manifest of the content.
				want, err := os.ReadFile(filepath.Join(d.today(), "Manifest.db"))
				if got := h.files[d.ownPath("Manifest.db")]; err != nil || string(got) != string(want) {
					t.Errorf("Manifest.db has %d bytes, want %d: %v", len(got), len(want), err)
				}
			}
		})
	}
}
