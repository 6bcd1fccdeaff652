package receive

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"testing"

	"github.com/snap-backup/snap/device/simulator/synthetic"
	"github.com/snap-backup/snap/internal/process"
	"github.com/snap-backup/snap/repo/backend/memory"
)

// A process is killed during its first backup. If the repository has a record of
// that backup, the next backup finds the received files in the spool. Otherwise the
// next backup removes the spool.
func TestKilledBeforeTheFirstCheckpoint(t *testing.T) {
	ctx := context.Background()
	t.Parallel()
	device, base := firstDay(t, synthetic.EncryptAll), memory.New()
	r := createRepo(t, base)
	if err := r.KeepDevicePassword(ctx, device.udid, []byte(synthetic.DefaultPassword)); err != nil {
		t.Fatal(err)
	}
	self := process.Current()
	dead := self
	dead.Started += "1"
	for _, c := range []struct {
		step  string
		n     int
		known bool
	}{{"file", 3, false}, {"file", 115, true}, {"manifests", 1, true}} {
		be := base.Clone()
		opts := Options{UDID: device.udid, Encrypted: true, SpoolDir: t.TempDir(), Owner: &dead}
		p := newPhone(device.dir)
		p.step = breakAt(c.step, c.n)
		n, err := New(ctx, mustOpen(t, be, seed(4)), opts)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.backup(ctx, n, nil); !errors.Is(err, errCable) {
			t.Fatal(err)
		}
		files, bytes := n.files, n.bytes
		n.mu.Lock()
		n.release() // killed
		n.mu.Unlock()
		opts.Owner = &self
		next, err := New(ctx, mustOpen(t, be, seed(5)), opts)
		if err != nil {
			t.Fatal(err)
		}
		got := next.Resumed()
		t.Logf("%s %d: killed with %d files of %d bytes, resumed %+v", c.step, c.n, files, bytes, got)
		left, err := filepath.Glob(filepath.Join(opts.SpoolDir, "*"))
		if err != nil || len(left) != 1 || !slices.Contains(left, next.spool.Dir()) {
			t.Errorf("%s %d: spools are left: %v, %v", c.step, c.n, left, err)
		}
		if c.known != (got.Files > 0) || c.known && got.Bytes < bytes-2*256<<10 {
			t.Errorf("%s %d: killed with %d bytes, resumed %+v", c.step, c.n, bytes, got)
		}
		if err := next.Close(ctx); err != nil {
			t.Fatal(err)
		}
		p.step = nil
		res, err := run(mustOpen(t, be, seed(6)), p, nil, opts)
		if err != nil {
			t.Fatal(err)
		}
		want, err := folderContents(p.dir)
		if err != nil {
			t.Fatal(err)
		}
		have, err := snapshotContents(mustOpen(t, be, seed(7)), res.Snapshot)
		if err == nil {
			err = sameContents(want, have)
		}
		if err != nil {
			t.Error(err)
		}
	}
}
