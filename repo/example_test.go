package repo_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
	"github.com/snap-backup/snap/repo/tree"
)

// Make a repository and open it again. Package local keeps one in a folder.
func ExampleOpen() {
	ctx := context.Background()
	be := memory.New()
	password := []byte("correct horse battery staple")
	if _, err := repo.Create(ctx, be, password, crypto.SlotInfo{Kind: crypto.PasswordSlot}, repo.Options{}); err != nil {
		log.Fatal(err)
	}

	r, err := repo.Open(ctx, be, password, repo.Options{})
	if err != nil {
		log.Fatal(err)
	}
	snapshots, _, err := r.Snapshots(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("format", r.Config().Version, "with", len(snapshots), "snapshots")
	// Output: format 1 with 0 snapshots
}

// Read one file of the newest snapshot.
func ExampleRepo_WriteContent() {
	ctx := context.Background()
	r, err := repo.Open(ctx, twoDays(ctx), repotest.Secret, repo.Options{})
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
	entry, err := r.Find(ctx, s, tree.Key{Path: "Info.plist"})
	if err != nil || entry == nil {
		log.Fatal("no such file: ", err)
	}
	if err := r.WriteContent(ctx, os.Stdout, &entry.Content); err != nil {
		log.Fatal(err)
	}
	// Output: info of day 2
}

// Forget the oldest snapshot and remove what only it needed.
func ExampleRepo_Prune() {
	ctx := context.Background()
	r, err := repo.Open(ctx, twoDays(ctx), repotest.Secret, repo.Options{})
	if err != nil {
		log.Fatal(err)
	}
	lock, err := r.Lock(ctx, repo.LockPrune, "prune") // before the index is loaded
	if err != nil {
		log.Fatal(err)
	}
	defer lock.Release()
	if err := r.LoadIndex(ctx); err != nil {
		log.Fatal(err)
	}

	snapshots, _, err := r.Snapshots(ctx)
	if err != nil {
		log.Fatal(err)
	}
	if err := r.Forget(ctx, snapshots[0].ID); err != nil {
		log.Fatal(err)
	}
	report, err := r.Prune(ctx, repo.PruneOptions{MaxRepack: -1})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("snapshots:", report.Snapshots)
	fmt.Println("freed something:", report.FreedBytes > 0)
	// Output:
	// snapshots: 1
	// freed something: true
}

// twoDays returns a repository with the snapshots of two days.
func twoDays(ctx context.Context) *memory.Backend {
	be := memory.New()
	if _, err := repo.Create(ctx, be, repotest.Secret, repotest.SlotInfo, repotest.Options(1)); err != nil {
		log.Fatal(err)
	}
	for day := 1; day <= 2; day++ {
		if _, err := repotest.StoreDay(ctx, be, day); err != nil {
			log.Fatal(err)
		}
	}
	return be
}
