package materialize_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/snap-backup/snap/device/materialize"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
)

// Write the newest snapshot as a backup folder, and read it back.
func ExampleWrite() {
	ctx := context.Background()
	be := memory.New()
	if _, err := repo.Create(ctx, be, repotest.Secret, repotest.SlotInfo, repotest.Options(1)); err != nil {
		log.Fatal(err)
	}
	if _, err := repotest.StoreDay(ctx, be, 1); err != nil {
		log.Fatal(err)
	}
	target, err := os.MkdirTemp("", "snap-example-*")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(target)

	r, err := repo.Open(ctx, be, repotest.Secret, repo.Options{})
	if err != nil {
		log.Fatal(err)
	}
	if err := r.LoadIndex(ctx); err != nil {
		log.Fatal(err)
	}
	s, err := r.FindSnapshot(ctx, "latest")
	if err != nil {
		log.Fatal(err)
	}
	result, err := materialize.Write(ctx, r, s, target, materialize.Options{Verify: true, Workers: 2})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(result.Files, "files, read back:", result.Verified)
	// Output: 20 files, read back: true
}
