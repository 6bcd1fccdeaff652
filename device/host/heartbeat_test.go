package host

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/snap-backup/snap/device"
	"github.com/snap-backup/snap/device/protocol/backup2"
	"github.com/snap-backup/snap/device/simulator"
	"github.com/snap-backup/snap/device/simulator/lab"
)

// A device ends a Wi-Fi backup if nobody answers its heartbeat for some time. The
// backup in this test takes longer than that time.
func TestHeartbeatKeepsBackupAlive(t *testing.T) {
	t.Parallel()
	const interval = 100 * time.Millisecond
	r := newRigWith(t, lab.Options{Heartbeat: interval})
	r.do("detach 1")
	r.do("wifi 1")
	r.do("fault 1 upload=wait 1500ms")
	if _, err := r.Backup(t.Context(), r.entry(), BackupOptions{}, &heard{}); err != nil {
		t.Fatal(err)
	}
	beats := 0
	for _, e := range r.device.Events() {
		if e.Service == simulator.Heartbeat && e.Kind == "Polo" {
			beats++
		}
	}
	if beats < 5 {
		t.Errorf("%d heartbeats were answered", beats)
	}
	r.noViolations()

	// The device offers no heartbeat service, but expects answers to its heartbeat.
	r.device.Handle(simulator.Heartbeat, nil)
	r.do("fault 1 begin=wait 3s")
	o := &heard{}
	_, err := r.Backup(t.Context(), r.entry(), BackupOptions{}, o)
	if !errors.Is(err, backup2.ErrLinkLost) && !errors.Is(err, device.ErrGone) {
		t.Errorf("without a heartbeat: %v", err)
	}
	if len(o.warnings) > 0 && !strings.Contains(o.warnings[0], "cannot be kept alive") {
		t.Errorf("warnings %q", o.warnings)
	}
}
