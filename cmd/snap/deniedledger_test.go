package main

import (
	"strings"
	"syscall"
	"testing"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend/fault"
	"github.com/snap-backup/snap/repo/repotest"
)

// A file of the ledger that may not be read stays. The repair names it, since prune refuses.
func TestDeniedLedgerIsNamed(t *testing.T) {
	t.Setenv("SNAP_PASSWORD", "pw")
	p := newPatient(t)
	be := p.stores["repo"]
	if _, err := repo.Create(t.Context(), be, []byte("pw"), crypto.SlotInfo{Kind: crypto.PasswordSlot}, p.options()); err != nil {
		t.Fatal(err)
	}
	p.must("import -q " + strings.ToUpper(p.backup(1)))
	name := repotest.FilesIn(t, be, repotest.LedgerDir)[0]
	p.stores["repo"] = fault.New(be, fault.Unreadable(name, syscall.EACCES))
	for _, command := range []string{"prune", "repair snapshots"} {
		if code, out := p.run(command); code != exitDamaged || !strings.Contains(out, name) {
			t.Errorf("%s: exit code %d: %s", command, code, out)
		}
	}
	p.stores["repo"] = be
	p.must("prune")
}
