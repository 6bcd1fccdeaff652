package ingest

import (
	"fmt"
	"path/filepath"
	"sync"
	"testing"

	"github.com/snap-backup/snap/device/mobilesync/foldertest"
	"github.com/snap-backup/snap/device/simulator/synthetic"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend/local"
)

// Two processes import backups of two devices into one repository at the same
// time, on several days.
func TestTwoImportsAtOnce(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	be, err := local.Create(filepath.Join(t.TempDir(), "repo"))
	if err != nil {
		t.Fatal(err)
	}
	defer be.Close()
	createRepo(t, be)
	series, err := synthetic.New(synthetic.Config{Seed: 5, Devices: 2, Scale: synthetic.Tiny, StateDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer series.Close()
	folders := t.TempDir()
	contents := map[repo.FileID]foldertest.Contents{}
	for day := range 2 {
		if err := series.Next(ctx, folders); err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var wg sync.WaitGroup
		for i, d := range series.Devices() {
			wg.Go(func() {
				r, err := openRepo(be, seed(10*day+i+5))
				if err != nil {
					t.Error(err)
					return
				}
				dir := filepath.Join(folders, d.UDID)
				res, err := importDir(r, dir, Options{Workers: 2})
				if err != nil {
					t.Error(err)
					return
				}
				want := foldertest.MustRead(t, dir)
				mu.Lock()
				defer mu.Unlock()
				contents[res.Snapshot.ID] = want
			})
		}
		wg.Wait()
	}
	r := mustOpen(t, be, seed(90))
	list, damaged, err := r.Snapshots(ctx)
	if err != nil || len(damaged) > 0 || len(list) != 4 {
		t.Fatalf("%d snapshots, damaged %v: %v", len(list), damaged, err)
	}
	for _, s := range list {
		got, err := readBack(r, s)
		if err == nil {
			err = contents[s.ID].Diff(got)
		}
		if err != nil {
			t.Error(fmt.Errorf("snapshot %s: %w", s.ID.Short(), err))
		}
	}
	report, err := r.Check(ctx, repo.CheckOptions{ReadData: 1})
	if err != nil || !report.Clean() || len(report.Problems) > 0 {
		t.Errorf("check: %+v, %v", report, err)
	}
}
