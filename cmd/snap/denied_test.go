package main

import (
	"strings"
	"syscall"
	"testing"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend/fault"
	"github.com/snap-backup/snap/repo/backend/memory"
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

// A certificate, a kept backup password or the record of an unfinished backup that may not be
// read stays, too. The repair names it, with what follows, and so does a command that would
// have used it.
func TestDeniedRecordsAreNamed(t *testing.T) {
	p := newDamagePatient(t)
	base := p.stores["repo"]
	for _, tt := range []struct {
		folder, follows string
		commands        []string
	}{
		{"certificates/", "does not count", []string{"snapshots", "show latest", "forget -n --keep-last 1", "copy --to OTHER"}},
		{"secrets/", "no command can use", nil},
		{"runs/", "no backup continues", []string{"prune"}},
		{repotest.LedgerDir, "removes nothing", []string{"prune"}},
		{repotest.SnapshotsDir, "removes nothing", []string{"snapshots", "prune"}},
	} {
		name := inFolder(tt.folder)(t, base)
		p.stores["repo"] = fault.New(base.(*memory.Backend).Clone(), fault.Unreadable(name, syscall.EACCES))
		for _, command := range []string{"repair snapshots --dry-run", "repair snapshots", "repair snapshots --remove-damaged"} {
			code, out := p.run(command)
			if code != exitDamaged || !strings.Contains(out, "DENIED   "+name) || !strings.Contains(out, tt.follows) || strings.Contains(out, "REMOVED") {
				t.Errorf("%s: %s: exit code %d: %s", name, command, code, out)
			}
		}
		for _, command := range tt.commands {
			if code, out := p.run(command); !strings.Contains(out, name) {
				t.Errorf("%s: %s: exit code %d: %s", name, command, code, out)
			}
		}
		if _, err := p.stores["repo"].Stat(t.Context(), name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
