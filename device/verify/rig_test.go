package verify

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
)

// generated returns the folder of a generated backup.
func generated(t testing.TB, cfg synthetic.Config) string {
	t.Helper()
	dir := t.TempDir()
	cfg.Seed, cfg.StateDir = 3, t.TempDir()
	devices, err := synthetic.Generate(t.Context(), dir, cfg, 1)
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, devices[0].UDID)
}

var encrypting = synthetic.Config{Encryption: synthetic.EncryptAll}

// unlock returns Options.Unlock for a password; nil if it is "".
func unlock(password string) func(context.Context, *mobilesync.Backup) error {
	if password == "" {
		return nil
	}
	return func(ctx context.Context, b *mobilesync.Backup) error {
		_, err := b.Unlock(ctx, []byte(password), nil)
		return err
	}
}

// imported imports a folder into a new repository. password unlocks it unless that is
// "".
func imported(t testing.TB, dir, password string) (*memory.Backend, *repo.Repo, *repo.Snapshot) {
	t.Helper()
	be := memory.New()
	r := repotest.Create(t, be)
	return be, r, importInto(t, r, dir, password)
}

func importInto(t testing.TB, r *repo.Repo, dir, password string) *repo.Snapshot {
	t.Helper()
	b, err := mobilesync.Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if password != "" {
		keys, err := b.Unlock(t.Context(), []byte(password), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer keys.Destroy()
	}
	res, err := ingest.Import(t.Context(), r, b, ingest.Options{AllowIncomplete: true, Workers: 2, Rescan: true})
	if err != nil {
		t.Fatal(err)
	}
	return res.Snapshot
}

func run(t testing.TB, r *repo.Repo, s *repo.Snapshot, opts Options) *Report {
	t.Helper()
	opts.Workers = 2
	rep, err := Verify(t.Context(), r, s, opts)
	if err != nil {
		t.Fatal(err)
	}
	return rep
}

// rows calls fn for all rows of a folder until it returns false.
func rows(t testing.TB, dir, password string, fn func(rec manifest.Record, b *mobilesync.Backup) bool) {
	t.Helper()
	b, err := mobilesync.Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if password != "" {
		keys, err := b.Unlock(t.Context(), []byte(password), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer keys.Destroy()
	}
	records, err := b.Records(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, rec := range records.All() {
		if !fn(rec, b) {
			return
		}
	}
}
