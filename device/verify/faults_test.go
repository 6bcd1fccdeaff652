package verify

import (
	"context"
	"fmt"
	"testing"

	"github.com/snap-backup/snap/device/mobilesync/manifest"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
)

// TestSurvivesEveryFailure makes the repository fail at each step of a verification and
// of storing its certificate. The verification fails, too, or has the same outcome as
// without the failure. It never says that the backup is bad.
func TestSurvivesEveryFailure(t *testing.T) {
	t.Parallel()
	for name, encrypted := range map[string]bool{"plain": false, "encrypted": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMade(t, encrypted)
			m.file(bigDB).row = func(r *manifest.Record) { r.Size += 8192 } // so that its first bytes are read
			atImport := ""
			if encrypted {
				atImport = password
			}
			base := memory.New()
			repotest.Create(t, base)
			importInto(t, repotest.MustOpenWith(t, base, repotest.Secret, repotest.SmallPacks(3)), m.write(), atImport)
			var rep *Report
			run := repotest.Run{Base: base, Least: 10, Want: 8, Notices: true, Do: func(be backend.Backend) (err error) {
				rep, err = process(be, atImport)
				return err
			}}
			repotest.EveryFault(t, run, func(be *memory.Backend, err error) error {
				if rep != nil && (!rep.Passed || len(rep.Findings) > 0) {
					return fmt.Errorf("it found %+v", rep.Findings)
				}
				r, err2 := repotest.Open(context.Background(), be, repotest.Secret, repotest.Options(31))
				if err2 != nil {
					return err2
				}
				list, damaged, err2 := r.Certificates(context.Background())
				if err2 != nil || len(damaged) > 0 || err == nil && len(list) != 1 {
					return fmt.Errorf("%d certificates, damaged %v, error %v", len(list), damaged, err2)
				}
				return nil
			})
		})
	}
}

// process acts as a process that opens the repository, verifies its only snapshot, and
// stores the certificate.
func process(be backend.Backend, pw string) (*Report, error) {
	ctx := context.Background()
	r, err := repotest.Open(ctx, be, repotest.Secret, repotest.Options(30))
	if err != nil {
		return nil, err
	}
	list, _, err := r.SnapshotsIndexed(ctx)
	if err != nil {
		return nil, err
	}
	if len(list) != 1 {
		return nil, fmt.Errorf("%d snapshots", len(list))
	}
	rep, err := Verify(ctx, r, list[0], Options{Level: Full, Workers: 2, Unlock: unlock(pw)})
	if err != nil {
		return nil, err
	}
	_, err = r.WriteCertificate(ctx, rep.Certificate(list[0], "", ""))
	return rep, err
}
