package repo_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
)

// testFiles returns the files of a day: mostly small texts, 1.5 MB of noise, a
// database, and an empty file. Most files are the same on other days.
func testFiles(day int) repotest.Files {
	f := repotest.Files{"Info.plist": fmt.Appendf(nil, "info of day %d", day), "empty": nil}
	for i := range 40 {
		version := 0
		if i%7 == day%7 {
			version = day
		}
		f[fmt.Sprintf("%02x/small%d", i, i)] = bytes.Repeat(fmt.Appendf(nil, "file %d version %d. ", i, version), 20+i*10)
	}
	noise := make([]byte, 1500<<10)
	rand.NewChaCha8([32]byte{9}).Read(noise)
	f["aa/photo"] = noise
	db := append([]byte("SQLite format 3\x00"), bytes.Repeat([]byte("a page of a database. "), 20_000)...)
	copy(db[200_000:], fmt.Appendf(nil, "row of day %d", day))
	f["bb/database"] = db
	return f
}

func mustStore(t testing.TB, r *repo.Repo, day int) *repo.Snapshot {
	t.Helper()
	s, err := repotest.Store(context.Background(), r, testFiles(day), day)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// verify fails the test unless exactly these days can be restored and check
// finds nothing.
func verify(t testing.TB, be backend.Backend, days ...int) {
	t.Helper()
	ctx := context.Background()
	r := repotest.MustOpen(t, be)
	list, damaged, err := r.Snapshots(ctx)
	if err != nil || len(damaged) > 0 {
		t.Fatal(err, damaged)
	}
	got := []int{}
	for _, s := range list {
		day := s.Time.Day()
		got = append(got, day)
		f, err := repotest.Restore(ctx, r, s)
		if err == nil {
			err = f.Same(testFiles(day))
		}
		if err != nil {
			t.Fatalf("day %d: %v", day, err)
		}
	}
	if !slices.Equal(got, days) {
		t.Fatalf("snapshots of days %v, want %v", got, days)
	}
	report, err := r.Check(ctx, repo.CheckOptions{ReadData: 1})
	if err != nil || !report.Clean() || len(report.Problems) > 0 {
		t.Fatalf("check: %+v, %v", report, err)
	}
}

func TestStoreAndRestore(t *testing.T) {
	t.Parallel()
	be := memory.New()
	r := repotest.Create(t, be)
	first := mustStore(t, r, 1)
	second := mustStore(t, r, 2)
	third := mustStore(t, repotest.MustOpen(t, be), 3)
	if second.StoredBytes > first.StoredBytes/3 || third.StoredBytes > first.StoredBytes/3 {
		t.Errorf("days cost %d, %d and %d bytes: nothing was deduplicated", first.StoredBytes, second.StoredBytes, third.StoredBytes)
	}
	verify(t, be, 1, 2, 3)
}

func TestSameContentCostsNothing(t *testing.T) {
	t.Parallel()
	be := memory.New()
	r := repotest.Create(t, be)
	mustStore(t, r, 1)
	if again := mustStore(t, repotest.MustOpen(t, be), 1); again.NewChunks != 0 || again.StoredBytes != 0 {
		t.Errorf("the same day again: %d chunks, %d bytes", again.NewChunks, again.StoredBytes)
	}
}

func TestWrongPassword(t *testing.T) {
	t.Parallel()
	be := memory.New()
	repotest.Create(t, be)
	if _, err := repo.Open(context.Background(), be, []byte("wrong"), repotest.Options(1)); !errors.Is(err, repo.ErrWrongPassword) {
		t.Errorf("got %v", err)
	}
	if _, err := repo.Open(context.Background(), memory.New(), repotest.Secret, repotest.Options(1)); !errors.Is(err, repo.ErrNotFound) {
		t.Errorf("no repository: got %v", err)
	}
	if _, err := repo.Create(context.Background(), be, repotest.Secret, repotest.SlotInfo, repotest.Options(1)); !errors.Is(err, repo.ErrExists) {
		t.Errorf("create twice: got %v", err)
	}
}
