package stored

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/snap-backup/snap/device/ingest"
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/manifest"
	"github.com/snap-backup/snap/device/simulator/synthetic"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
	"github.com/snap-backup/snap/repo/tree"
)

// imported imports a generated backup. It unlocks the backup first if password is not
// empty.
func imported(t *testing.T, cfg synthetic.Config, legacy bool, password string) (*repo.Repo, *repo.Snapshot) {
	t.Helper()
	ctx := context.Background()
	dir := t.TempDir()
	cfg.Seed, cfg.StateDir = 3, t.TempDir()
	var udid string
	if legacy {
		device, err := synthetic.GenerateLegacy(ctx, dir, cfg)
		if err != nil {
			t.Fatal(err)
		}
		udid = device.UDID
	} else {
		devices, err := synthetic.Generate(ctx, dir, cfg, 1)
		if err != nil {
			t.Fatal(err)
		}
		udid = devices[0].UDID
	}
	b, err := mobilesync.Open(ctx, filepath.Join(dir, udid))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if password != "" {
		keys, err := b.Unlock(ctx, []byte(password), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer keys.Destroy()
	}
	r := repotest.Create(t, memory.New())
	res, err := ingest.Import(ctx, r, b, ingest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return r, res.Snapshot
}

// TestEveryFileHasItsRow opens snapshots of each kind of backup. Every blob must have
// the row that lists it, and every such row a blob.
func TestEveryFileHasItsRow(t *testing.T) {
	t.Parallel()
	encrypted := synthetic.Config{Encryption: synthetic.EncryptAll}
	tests := []struct {
		name     string
		cfg      synthetic.Config
		legacy   bool
		password string // unlocks the backup for the import
		later    string // unlocks the snapshot
		readable bool
		state    State // of files with content
	}{
		{"plain", synthetic.Config{}, false, "", "", true, Plain},
		{"decrypted", encrypted, false, synthetic.DefaultPassword, "", true, Decrypted},
		{"decrypted, unlocked again", encrypted, false, synthetic.DefaultPassword, synthetic.DefaultPassword, true, Decrypted},
		{"locked", encrypted, false, "", "", false, Encrypted},
		{"locked, unlocked later", encrypted, false, "", synthetic.DefaultPassword, true, Encrypted},
		{"iOS 9", synthetic.Config{}, true, "", "", true, Plain},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ctx := context.Background()
			r, s := imported(t, tt.cfg, tt.legacy, tt.password)
			b, err := Open(ctx, r, s)
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			if tt.later != "" {
				keys, err := b.Unlock(ctx, []byte(tt.later), nil)
				if err != nil {
					t.Fatal(err)
				}
				defer keys.Destroy()
			}
			if problems, err := b.Problems(ctx); err != nil || len(problems) > 0 && !tt.legacy {
				t.Errorf("problems: %v, %v", problems, err)
			}
			if b.Readable() != tt.readable {
				t.Fatalf("readable: %v", b.Readable())
			}
			var records *manifest.Records
			listed := map[int]bool{}
			if b.Readable() {
				if records, err = b.Records(ctx); err != nil {
					t.Fatal(err)
				}
				for i := range records.Len() {
					if records.ListsFile(i) {
						listed[i] = true
					}
				}
			}
			rows, blobs := len(listed), 0
			err = b.Walk(ctx, records, func(f File) error {
				var rec *manifest.Record
				if f.Row >= 0 {
					row := records.At(f.Row)
					rec = &row
					if f.Entry.Domain != "" && (rec.Domain != f.Entry.Domain || rec.RelativePath != f.Entry.Name) {
						t.Errorf("%s/%s has the row of %s/%s", f.Entry.Domain, f.Entry.Name, rec.Domain, rec.RelativePath)
					}
					delete(listed, f.Row)
				}
				if f.Entry.Kind == tree.File && b.isBlob(f.Entry.Path) {
					blobs++
					if state := b.State(f.Entry, rec); state != tt.state && f.Entry.Content.Size > 0 {
						t.Errorf("%s: state %d", f.Entry.Path, state)
					}
				}
				return nil
			})
			if err != nil || len(listed) > 0 || blobs < 5 || tt.readable && blobs != rows {
				t.Errorf("%d blobs; %d of %d rows have no blob: %v", blobs, len(listed), rows, err)
			}
		})
	}
}
