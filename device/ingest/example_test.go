package ingest_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/device/ingest"
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/simulator/synthetic"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend/memory"
)

// Import a backup folder, here a generated one, into a repository in memory.
func ExampleImport() {
	ctx := context.Background()
	folders, err := os.MkdirTemp("", "snap-example-*")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(folders)
	devices, err := synthetic.Generate(ctx, folders, synthetic.Config{Scale: synthetic.Tiny}, 1)
	if err != nil {
		log.Fatal(err)
	}

	r, err := repo.Create(ctx, memory.New(), []byte("password"), crypto.SlotInfo{Kind: crypto.PasswordSlot}, repo.Options{})
	if err != nil {
		log.Fatal(err)
	}
	lock, err := r.Lock(ctx, repo.LockWrite, "import") // before the index is loaded
	if err != nil {
		log.Fatal(err)
	}
	defer lock.Release()
	if err := r.LoadIndex(ctx); err != nil {
		log.Fatal(err)
	}

	backup, err := mobilesync.Open(ctx, filepath.Join(folders, devices[0].UDID))
	if err != nil {
		log.Fatal(err)
	}
	defer backup.Close()
	result, err := ingest.Import(ctx, r, backup, ingest.Options{Workers: 2})
	if err != nil {
		log.Fatal(err)
	}
	s := result.Snapshot
	fmt.Printf("%s, iOS %s: complete %t, %d files\n", s.Device.Name, s.Device.ProductVersion, s.Complete, result.Files)
	// Output: Anna’s iPhone, iOS 17.6.1: complete true, 150 files
}
