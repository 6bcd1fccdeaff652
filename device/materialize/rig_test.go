package materialize

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/snap-backup/snap/device/ingest"
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/simulator/synthetic"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
)

// seed is the seed of a process's randomness. Each process of a test has another one.
type seed byte

// mustOpen opens a repository. Its packs are small, so that there are several.
func mustOpen(t testing.TB, be backend.Backend, n seed) *repo.Repo {
	t.Helper()
	return repotest.MustOpenWith(t, be, repotest.Secret, repotest.SmallPacks(byte(n)))
}

// mustImport imports a folder, with its backup password unless that is "".
func mustImport(t testing.TB, r *repo.Repo, dir, password string) *repo.Snapshot {
	t.Helper()
	ctx := context.Background()
	b, err := mobilesync.Open(ctx, dir)
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
	res, err := ingest.Import(ctx, r, b, ingest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return res.Snapshot
}

// encrypted returns a snapshot of a generated encrypted backup.
func encrypted(t testing.TB, password string) (*repo.Repo, *repo.Snapshot) {
	t.Helper()
	dir := t.TempDir()
	devices, err := synthetic.Generate(context.Background(), dir, synthetic.Config{Seed: 3, Encryption: synthetic.EncryptAll, StateDir: t.TempDir()}, 1)
	if err != nil {
		t.Fatal(err)
	}
	r := repotest.Create(t, memory.New())
	return r, mustImport(t, r, filepath.Join(dir, devices[0].UDID), password)
}
