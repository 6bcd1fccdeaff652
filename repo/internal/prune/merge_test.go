package prune_test

import (
	"context"
	"testing"

	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
)

// manyDays returns more days than index files may remain, and the options of a prune that
// removes no pack.
func manyDays() (days []int, opts repo.PruneOptions) {
	for day := range 26 {
		days = append(days, day+1)
	}
	return days, repo.PruneOptions{MaxUnused: func(int64) int64 { return 1 << 40 }}
}

// A prune with nothing to remove merges the index files that each backup has added.
func TestPruneMergesIndexFiles(t *testing.T) {
	t.Parallel()
	days, opts := manyDays()
	be := repotest.New(t, days...)
	if err := repotest.Verify(be, days...); err != nil {
		t.Fatal("before: ", err)
	}
	before := len(repotest.FilesIn(t, be, repotest.IndexDir))
	rep, err := repotest.Prune(t.Context(), be, opts)
	if err != nil {
		t.Fatal(err)
	}
	if after := len(repotest.FilesIn(t, be, repotest.IndexDir)); before < len(days) || after != 1 || rep.RemovedPacks > 0 {
		t.Errorf("%d index files before, %d after; %+v", before, after, rep)
	}
	if err := repotest.Verify(be, days...); err != nil {
		t.Error(err)
	}
}

func TestMergeSurvivesEveryCrash(t *testing.T) {
	t.Parallel()
	days, opts := manyDays()
	repotest.EveryCrash(t, repotest.Run{Base: repotest.New(t, days...), Do: func(be backend.Backend) error {
		_, err := repotest.Prune(context.Background(), be, opts)
		return err
	}, Least: 30, Want: 4},
		func(be *memory.Backend) error { return repotest.Verify(be, days...) })
}
