package ingest

import (
	"context"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/snap-backup/snap/device/materialize"
	"github.com/snap-backup/snap/device/mobilesync/foldertest"
	"github.com/snap-backup/snap/device/simulator/synthetic"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend/local"
	"github.com/snap-backup/snap/repo/repotest"
)

// TestLargePasswordChange changes the backup password of a device of 3 GB:
// every file gets a new key and new bytes. The day must add hardly more than the
// same day without the change. The test needs 15 GB of disk and some
// minutes:
//
//	SNAP_TEST_HUGE=1 go test -run TestLargePasswordChange -timeout 1h -v ./device/ingest
func TestLargePasswordChange(t *testing.T) {
	if os.Getenv("SNAP_TEST_HUGE") == "" || testing.Short() {
		t.Skip("SNAP_TEST_HUGE is not set")
	}
	same := largeDays(t, synthetic.Config{Seed: 1, Scale: synthetic.Large, Encryption: synthetic.EncryptAll}, false)
	changed := largeDays(t, synthetic.Config{
		Seed: 1, Scale: synthetic.Large, Encryption: synthetic.EncryptAll, PasswordChangeDay: 1, NewPassword: "another",
	}, true)
	more := changed.Snapshot.StoredBytes - same.Snapshot.StoredBytes
	t.Logf("the change added %d bytes, %.3f %% of the backup", more, 100*float64(more)/float64(changed.Bytes))
	if more > changed.Bytes/100 || len(changed.Raw) > 0 {
		t.Errorf("the change of the password added %d bytes to a backup of %d, raw files %v", more, changed.Bytes, changed.Raw)
	}
}

// largeDays imports two days of a large device and returns the result of the
// second import. If compare is true, it materializes the second snapshot and
// compares it with the folder.
func largeDays(t *testing.T, conf synthetic.Config, compare bool) *Result {
	t.Helper()
	ctx := context.Background()
	conf.StateDir = t.TempDir()
	series, err := synthetic.New(conf)
	if err != nil {
		t.Fatal(err)
	}
	defer series.Close()
	be, err := local.Create(filepath.Join(t.TempDir(), "repo"))
	if err != nil {
		t.Fatal(err)
	}
	defer be.Close()
	opts := repo.Options{Cost: repotest.CheapCost}
	if _, err := repo.Create(ctx, be, repotest.Secret, repotest.SlotInfo, opts); err != nil {
		t.Fatal(err)
	}
	reopen := func() *repo.Repo {
		r, err := repo.Open(ctx, be, repotest.Secret, opts)
		if err == nil {
			err = r.LoadIndex(ctx)
		}
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	dir := t.TempDir()
	folder := filepath.Join(dir, series.Devices()[0].UDID)
	var last *Result
	for day := range 2 {
		if err := series.Next(ctx, dir); err != nil {
			t.Fatal(err)
		}
		resetPeak()
		begin := time.Now()
		last = importUnlocked(t, reopen(), folder, series.Password(day), Options{Workers: 2})
		t.Logf("day %d: %d files, %d bytes; read %d, %d bytes; %d files stored decrypted, raw files %v; added %d bytes, %.2f %%; %v, peak %d MiB",
			day, last.Files, last.Bytes, last.ReadFiles, last.ReadBytes, last.Decrypted, last.Raw,
			last.Snapshot.StoredBytes, 100*float64(last.Snapshot.StoredBytes)/float64(last.Bytes), time.Since(begin).Round(time.Second), peak()>>20)
	}
	if !compare {
		return last
	}
	resetPeak()
	begin := time.Now()
	out, err := materialize.Write(ctx, reopen(), last.Snapshot, t.TempDir(), materialize.Options{Workers: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("materialized in %v, peak %d MiB", time.Since(begin).Round(time.Second), peak()>>20)
	if err := sameTree(folder, out.Dir); err != nil {
		t.Error(err)
	}
	return last
}

// sameTree compares two folders a file at a time.
func sameTree(a, b string) error {
	want, err := foldertest.Read(a)
	if err != nil {
		return err
	}
	got, err := foldertest.Read(b)
	if err != nil {
		return err
	}
	return want.Diff(got)
}

// resetPeak resets the peak of resident memory. peak returns the peak in bytes,
// or 0 if the system does not say. The peak includes the databases of the
// series.
func resetPeak() {
	debug.FreeOSMemory()
	_ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0)
}

func peak() int64 {
	b, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			n, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return n << 10
		}
	}
	return 0
}
