package main

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
)

// An import that finds nothing new leaves a note, so that status can tell a device that
// makes no backups from backups that nobody imports.
func TestStatusTellsWhoLooked(t *testing.T) {
	p := newPatient(t)
	t.Setenv("SNAP_PASSWORD", "pw")
	be, _ := p.stores["repo"].(*memory.Backend)
	if _, err := repo.Create(t.Context(), be, []byte("pw"), crypto.SlotInfo{Kind: crypto.PasswordSlot}, p.options()); err != nil {
		t.Fatal(err)
	}
	p.must("generate -q --scale tiny --devices 1 DAY")
	p.must("import -q DAY")
	at := time.Duration(0)
	p.jump = func(now time.Time) time.Time { return now.Add(at) }
	certificates := func() int {
		return len(repotest.FilesIn(t, be, repotest.CertificatesDir))
	}
	says := func(want, not string) {
		t.Helper()
		if _, out := p.run("status"); !regexp.MustCompile(want).MatchString(out) || not != "" && strings.Contains(out, not) {
			t.Errorf("want %q in\n%s", want, out)
		}
	}
	const nobody = "days old; nothing was imported or backed up since\n"
	says(nobody, "last import")

	at = 9 * 24 * time.Hour
	says(nobody, "last import")
	p.must("import -q DAY")
	at += 3 * time.Hour
	says("days old; an import [0-9] hours ago found no newer one\n", nobody)
	says("     last import: [0-9] hours ago, unchanged\n", "")
	if _, out := p.run("show latest"); !strings.Contains(out, "\nunchanged     until the import of 20") {
		t.Errorf("show: %s", out)
	}

	// Imports each hour leave one note in half a day.
	for range 5 {
		p.must("import -q DAY")
	}
	if n := certificates(); n != 1 {
		t.Errorf("%d certificates after imports each hour", n)
	}
	for range 2 {
		at += 24 * time.Hour
		p.must("import -q DAY")
	}
	if n := certificates(); n != 3 {
		t.Errorf("%d certificates after three days", n)
	}
	p.must("check")
	p.must("prune -q")
	if n := certificates(); n != 1 {
		t.Errorf("%d certificates after a prune", n)
	}
	says("days old; an import [0-9] hours ago found no newer one\n", nobody)

	// If the clock was wrong once, later imports leave notes all the same.
	at += 10 * 365 * 24 * time.Hour
	p.must("import -q DAY")
	at -= 10 * 365 * 24 * time.Hour
	at += 24 * time.Hour
	p.must("import -q DAY")
	if n := certificates(); n != 3 {
		t.Errorf("%d certificates after the clock was wrong", n)
	}
}
