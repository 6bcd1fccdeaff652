package receive

import (
	"context"
	"testing"

	"github.com/snap-backup/snap/device/simulator/synthetic"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/memory"
)

func checkClean(t testing.TB, be backend.Backend) {
	t.Helper()
	r := mustOpen(t, be, seed(90))
	report, err := r.Check(context.Background(), repo.CheckOptions{ReadData: 1})
	if err != nil || !report.Clean() || len(report.Problems) > 0 {
		t.Errorf("check: %+v, %v", report, err)
	}
}

// On every day, a received backup is stored as an import of the device's folder
// would store it. Later days add only changed content.
func TestDays(t *testing.T) {
	for name, c := range map[string]struct {
		conf     synthetic.Config
		password bool // whether the backup password is known
	}{
		"plain":    {synthetic.Config{Seed: 5}, false},
		"unlocked": {synthetic.Config{Seed: 5, Encryption: synthetic.EncryptAll}, true},
		"locked":   {synthetic.Config{Seed: 5, Encryption: synthetic.EncryptAll}, false},
		"full":     {synthetic.Config{Seed: 5, FullBackupDay: 1, Encryption: synthetic.EncryptAll, EmptyAsZeroBytes: true}, true},
	} {
		t.Run(name, func(t *testing.T) {
			if testing.Short() && name != "full" {
				t.Skip("it is one of several kinds of devices")
			}
			t.Parallel()
			ctx := context.Background()
			s, be := newSeries(t, c.conf), memory.New()
			createRepo(t, be)
			var old map[string]string
			var imported repo.FileID
			days := 3
			if testing.Short() {
				days = 2
			}
			for day := range days {
				s.next()
				r := mustOpen(t, be, seed(10+2*day))
				opts := Options{Encrypted: c.conf.Encryption != synthetic.EncryptNone, Host: "h", Program: "p", SpoolDir: t.TempDir()}
				password := ""
				if c.password {
					password = s.Password(day)
					if err := r.KeepDevicePassword(ctx, s.phone.udid, []byte(password)); err != nil {
						t.Fatal(err)
					}
				}
				s.phone.uploads = 0
				res := mustRun(t, r, s.phone, old, opts)
				old = s.phone.state()
				snap := res.Snapshot
				if parent, err := r.FindSnapshot(ctx, "latest"); day > 0 && (err != nil || parent.ID != snap.ID || snap.Parent == nil || *snap.Parent != imported) {
					t.Errorf("day %d: parent %v, want the import %s", day, snap.Parent, imported.Short())
				}
				if snap.Source.Kind != repo.FromDevice || snap.Host != "h" || snap.Tags[0] != "tag" || snap.Unlocked != c.password ||
					(snap.Parent == nil) != (day == 0) || len(snap.Findings) > 0 || len(res.Problems) > 0 {
					t.Errorf("day %d: %+v, %+v", day, snap, res)
				}
				if (res.Locked != nil) != (opts.Encrypted && !c.password) {
					t.Errorf("day %d: locked: %v", day, res.Locked)
				}
				t.Logf("day %d: %d uploads, %d bytes, stored %d", day, s.phone.uploads, res.Bytes, snap.StoredBytes)
				if day > 0 && name != "full" && s.phone.uploads > len(old)/2 {
					t.Errorf("day %d: %d uploads", day, s.phone.uploads)
				}
				if day > 0 && name != "locked" && snap.StoredBytes > res.Bytes/2+300_000 {
					t.Errorf("day %d: %d bytes received, %d stored", day, res.Bytes, snap.StoredBytes)
				}
				want, err := folderContents(s.phone.dir)
				if err != nil {
					t.Fatal(err)
				}
				r = mustOpen(t, be, seed(11+2*day))
				got, err := snapshotContents(r, snap)
				if err != nil {
					t.Fatal(err)
				}
				if err := sameContents(want, got); err != nil {
					t.Errorf("day %d: %v", day, err)
				}
				imported = sameAsImport(t, r, s.phone, snap, password)
				if list, _, err := r.Unfinished(ctx); err != nil || len(list) > 0 {
					t.Errorf("day %d: unfinished runs are left: %v, %v", day, list, err)
				}
			}
			checkClean(t, be)
		})
	}
}
