package verify

import (
	"fmt"
	"testing"

	"github.com/snap-backup/snap/device/simulator/synthetic"
)

// TestSoundBackupsPass verifies undamaged backups of each kind. Nothing must be found.
func TestSoundBackupsPass(t *testing.T) {
	t.Parallel()
	const pw = synthetic.DefaultPassword
	for _, tt := range []struct {
		name       string
		cfg        synthetic.Config
		atImport   string
		later      string
		notChecked int // of a full verification
		digests    bool
	}{
		{"plain", synthetic.Config{}, "", "", 0, true},
		{"compacted databases", synthetic.Config{CompactDBs: true}, "", "", 0, true},
		{"decrypted", encrypting, pw, "", 1, true},
		{"decrypted, with password", encrypting, pw, pw, 0, true},
		{"locked", encrypting, "", "", 1, false},
		{"locked, with password", encrypting, "", pw, 0, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, r, s := imported(t, generated(t, tt.cfg), tt.atImport)
			for _, level := range []Level{Quick, Full} {
				rep := run(t, r, s, Options{Level: level, Unlock: unlock(tt.later)})
				if !rep.Passed || len(rep.Findings) > 0 || len(rep.Losses) > 0 {
					t.Errorf("%s: %+v", level, rep)
				}
				want := tt.notChecked
				if level == Quick {
					want++
				}
				if len(rep.NotChecked) != want {
					t.Errorf("%s: not checked: %q", level, rep.NotChecked)
				}
				if rep.Files != s.Files || rep.Bytes != s.Bytes || (rep.DigestFiles > 10) != tt.digests {
					t.Errorf("%s: %d files, %d bytes, %d with digests", level, rep.Files, rep.Bytes, rep.DigestFiles)
				}
				if level == Full && (rep.ReadFiles != s.Files || rep.ReadBytes != s.Bytes || tt.digests && (rep.Databases < 5 || rep.Plists < 5)) {
					t.Errorf("read %s", fmt.Sprintf("%+v", rep))
				}
			}
		})
	}
}
