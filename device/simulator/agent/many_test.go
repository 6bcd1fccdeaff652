package agent

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/simulator/devicefiles"
)

func TestMany(t *testing.T) {
	t.Parallel()
	n := 2000
	if testing.Short() {
		n = 300
	}
	if os.Getenv("SNAP_TEST_HUGE") != "" {
		n = 870_000
	}
	dir := t.TempDir()
	many, err := devicefiles.NewMany(t.Context(), dir, mobilesync.Device{UDID: "00008110-00000000000870AA", ProductVersion: "18.2"}, n)
	if err != nil {
		t.Fatal(err)
	}
	d, h := &device{t: t, next: 1}, newHost(t)
	if d.Agent, err = New(Options{Content: many, StateDir: dir, Patience: 10 * time.Minute}); err != nil {
		t.Fatal(err)
	}
	h.patience = 10 * time.Minute
	run := d.mustRequest(h, 0, "Backup")
	if run.Files != n || !run.Full {
		t.Errorf("%+v", run)
	}
	if again := d.mustRequest(h, 0, "Backup"); again.Files != 0 || again.Kept != n {
		t.Errorf("%+v", again)
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	t.Logf("%d files: Manifest.db has %d MB, %d MB of memory from the system, host included", n, len(h.files[d.ownPath("Manifest.db")])>>20, m.Sys>>20)
	d.noViolations()
	if n > 10_000 {
		return // it takes too long to write so many files
	}
	dir = d.writeBackup(h)
	if err := os.Remove(filepath.Join(dir, mobilesync.InfoPlist)); err != nil { // writeBackup copied it from another device
		t.Fatal(err)
	}
	differences, err := devicefiles.Verify(t.Context(), many, dir, nil)
	differences = slices.DeleteFunc(differences, func(s string) bool { return strings.HasPrefix(s, mobilesync.InfoPlist) })
	if err != nil || len(differences) > 0 {
		t.Errorf("%q, %v", differences, err)
	}
}
