package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend/local"
)

func TestSnapHistory(t *testing.T) {
	dir := t.TempDir()
	be, err := local.Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	r, err := repo.Create(t.Context(), be, []byte(secret), crypto.SlotInfo{Kind: crypto.PasswordSlot}, repo.Options{})
	if err != nil {
		t.Fatal(err)
	}
	first := repo.Snapshot{Device: repo.Device{UDID: "udid"}, Complete: true, Tags: []string{label(0)}}
	if first.Time, _ = repo.BackupTime(r.NewWriter(t.Context()).Now()); first.Time.IsZero() {
		t.Fatal("no time")
	}
	lock, err := r.Lock(t.Context(), repo.LockWrite, "test")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.LoadIndex(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.NewWriter(t.Context()).Commit(t.Context(), &first); err != nil {
		t.Fatal(err)
	}
	if err := lock.Release(); err != nil {
		t.Fatal(err)
	}
	// A snapshot of an empty tree stores no pack.
	if err := os.MkdirAll(filepath.Join(dir, "packs"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := snapHistory(t.Context(), dir, 5); err != nil {
		t.Fatal(err)
	}
	list, damaged, err := r.Snapshots(t.Context())
	if err != nil || len(damaged) > 0 || len(list) != 6 {
		t.Fatalf("%d snapshots, %v, %v", len(list), damaged, err)
	}
	for _, s := range list {
		if isFirst := s.ID == first.ID; isFirst == slices.Equal(s.Tags, []string{"history"}) || !isFirst && !s.Time.Before(first.Time) {
			t.Errorf("snapshot %s of %s has tags %v", s.ID.Short(), s.Time, s.Tags)
		}
	}
}

// A tool without a quick way stores the folder again and again.
func TestHistoryByStoring(t *testing.T) {
	b := shellBench(t, shellTool("a"))
	b.conf.days, b.conf.repeat, b.conf.history = 1, 1, 3
	if _, err := b.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"day0", "history0", "history1", "history2"} {
		if found, err := filepath.Glob(filepath.Join(b.conf.dir, "a-0", "repo", name, "*", "Info.plist")); err != nil || len(found) == 0 {
			t.Errorf("nothing in %s: %v", name, err)
		}
	}
}
