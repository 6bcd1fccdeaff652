package receive

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/simulator/agent"
	"github.com/snap-backup/snap/device/simulator/devicefiles"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend/local"
)

// The test backs up a device with very many files twice. Its Manifest.db, which
// is about 500 MB for 870,000 files, is sent in both directions.
func TestManyFiles(t *testing.T) {
	n := 2_000
	if os.Getenv("SNAP_TEST_HUGE") != "" {
		n = 870_000
	} else if testing.Short() {
		t.Skip("slow")
	}
	ctx := context.Background()
	many, err := devicefiles.NewMany(ctx, t.TempDir(), mobilesync.Device{UDID: "00008110-000A1234567890AB", Name: "Many", ProductType: "iPhone14,5", ProductVersion: "17.6.1"}, n)
	if err != nil {
		t.Fatal(err)
	}
	a, err := agent.New(agent.Options{Content: many, StateDir: t.TempDir(), Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	be, err := local.Create(filepath.Join(t.TempDir(), "repo"))
	if err != nil {
		t.Fatal(err)
	}
	defer be.Close()
	if _, err := repo.Create(ctx, be, []byte("x"), crypto.SlotInfo{Kind: crypto.PasswordSlot}, repo.Options{}); err != nil {
		t.Fatal(err)
	}
	for run := range 2 {
		r, err := repo.Open(ctx, be, []byte("x"), repo.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.LoadIndex(ctx); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		res, err := backUp(t, a, r, Options{SpoolDir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		sent := a.LastRun().Files
		t.Logf("run %d: %d files in the snapshot, %d sent, %v, %d MB from the system for both sides", run, res.Snapshot.Files, sent, time.Since(begin).Round(time.Second), m.Sys>>20)
		if int(res.Snapshot.Files) < n || run > 0 && int(sent) > n/2 || len(a.Violations()) > 0 {
			t.Errorf("run %d: %d files, %d sent, violations %v", run, res.Snapshot.Files, sent, a.Violations())
		}
	}
}
