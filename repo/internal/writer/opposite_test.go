package writer_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/snap-backup/snap/internal/faultpoint"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
)

func versionFiles(v int) repotest.Files {
	b := repotest.Noise(77, 100<<10)
	copy(b[1000*v:], fmt.Sprintf("version %d", v))
	return repotest.Files{"f": b}
}

// TestWritersInOppositeOrder lets two writers store the same versions of a file at
// the same time, in opposite order. So one writer stores a version as a delta to
// the next version, and the other stores the next one as a delta to this version.
// Everything can be restored, whichever copies are used.
func TestWritersInOppositeOrder(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for _, round := range faultpoint.Choose(t, 40, 8) {
		be := memory.New()
		if _, err := repo.Create(ctx, be, repotest.Secret, repotest.SlotInfo, repotest.Options(byte(round))); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for i, order := range [][]int{{1, 2, 3}, {3, 2, 1}} {
			r, err := repotest.Open(ctx, be, repotest.Secret, repotest.Options(byte(round*2+i+1)))
			if err != nil {
				t.Fatal(err)
			}
			wg.Go(func() {
				var parent *repo.Snapshot
				for _, v := range order {
					s, err := repotest.StoreAfter(ctx, r, versionFiles(v), v, parent)
					if err != nil {
						t.Error(err)
						return
					}
					parent = s
				}
			})
		}
		wg.Wait()
		r := repotest.MustOpen(t, be)
		list, _, err := r.Snapshots(ctx)
		if err != nil || len(list) != 6 {
			t.Fatal(len(list), err)
		}
		for _, s := range list {
			got, err := repotest.Restore(ctx, r, s)
			if err == nil {
				err = got.Same(versionFiles(s.Time.Day()))
			}
			if err != nil {
				t.Fatalf("round %d: version %d: %v", round, s.Time.Day(), err)
			}
		}
		report, err := r.Check(ctx, repo.CheckOptions{ReadData: 1})
		if err != nil || !report.Clean() {
			t.Fatalf("round %d: check: %+v, %v", round, report, err)
		}
	}
}

// TestScatteredChangesAreFast stores a database in which more than half of
// all places change every day. There are very many paths down its chains. The
// search for older versions of a chunk must not follow all of these paths.
func TestScatteredChangesAreFast(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	r := repotest.Create(t, memory.New())
	rng := rand.New(rand.NewPCG(5, 6))
	db := repotest.NewDiary(512).DB
	var parent *repo.Snapshot
	for day := range 25 {
		for at := 0; at+repotest.DiaryPage < len(db); at += 16 * repotest.DiaryPage {
			if rng.IntN(10) < 6 {
				copy(db[at+64+rng.IntN(3000):], fmt.Sprintf("row of day %d", day))
			}
		}
		begin := time.Now()
		s, err := repotest.StoreAfter(ctx, r, repotest.Files{"db": append([]byte(nil), db...)}, day, parent)
		if err != nil {
			t.Fatal(err)
		}
		// It takes 40 ms on an idle machine; an exponential search never ended.
		if took := time.Since(begin); took > 5*time.Minute {
			t.Fatalf("day %d took %v", day, took)
		}
		parent = s
	}
}
