package writer_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend/crash"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
	"pgregory.net/rapid"
)

// edit changes a file in one of the ways in which programs change files.
func edit(t *rapid.T, b []byte) []byte {
	b = bytes.Clone(b)
	at := rapid.IntRange(0, len(b)).Draw(t, "at")
	n := rapid.IntRange(0, min(len(b)-at, 20_000)).Draw(t, "length")
	fresh := repotest.Noise(rapid.Uint64Range(0, 1<<15).Draw(t, "bytes"), rapid.SampledFrom([]int{1, 60, 4096, 15_000}).Draw(t, "fresh"))
	switch rapid.SampledFrom([]string{"insert", "delete", "replace", "append", "truncate", "move pages", "zeros"}).Draw(t, "edit") {
	case "insert":
		return slices.Insert(b, at, fresh...)
	case "delete":
		return slices.Delete(b, at, at+n)
	case "replace":
		copy(b[at:], fresh)
	case "append":
		return append(b, fresh...)
	case "truncate":
		return b[:at]
	case "move pages":
		const page = 4096
		from, to := at/page*page, rapid.IntRange(0, len(b)/page).Draw(t, "to")*page
		moved := bytes.Clone(b[from:min(len(b), from+3*page)])
		b = slices.Delete(b, from, from+len(moved))
		return slices.Insert(b, min(to, len(b)), moved...)
	case "zeros":
		clear(b[at : at+n])
	}
	return b
}

// TestEditsOverGenerations stores files that change at random, with crashes in
// between. Every day that was stored can be restored.
func TestEditsOverGenerations(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	deltas := 0
	rapid.Check(t, func(t *rapid.T) {
		be := memory.New()
		if _, err := repo.Create(ctx, be, repotest.Secret, repotest.SlotInfo, repotest.SmallPacks(1)); err != nil {
			t.Fatal(err)
		}
		now := repotest.Files{}
		for i, size := range []int{500, 9_000, rapid.SampledFrom([]int{60_000, 60_000, 700_000}).Draw(t, "text")} {
			now[fmt.Sprintf("text%d", i)] = repotest.Noise(uint64(i), size)
		}
		now["db"] = append([]byte("SQLite format 3\x00"), repotest.Noise(9, rapid.IntRange(0, 200_000).Draw(t, "db"))...)
		stored := map[int]repotest.Files{} // by day
		for day := 1; day <= rapid.IntRange(3, 10).Draw(t, "days"); day++ {
			now = maps.Clone(now)
			for range rapid.IntRange(0, 4).Draw(t, "edits") {
				name := rapid.SampledFrom(slices.Sorted(maps.Keys(now))).Draw(t, "file")
				now[name] = edit(t, now[name])
			}
			if rapid.IntRange(0, 5).Draw(t, "rename") == 0 {
				now[fmt.Sprintf("new%d", day)] = now["text1"]
				delete(now, "text0")
			}
			at := 0 // no crash
			if rapid.IntRange(0, 3).Draw(t, "crash") == 0 {
				at = rapid.IntRange(1, 8).Draw(t, "crash at")
			}
			process := crash.New(be, crash.Plan{At: at, Seed: uint64(day)})
			_, err := repotest.StoreFiles(ctx, process, now, day)
			be = process.Reboot()
			if err != nil && !process.Crashed() {
				t.Fatalf("day %d: %v", day, err)
			}
			stored[day] = now // unless it crashed before the snapshot was stored
			if err == nil {
				if list, _, err := mustOpen(t, be).Snapshots(ctx); err != nil || len(list) == 0 || list[len(list)-1].Time.Day() != day {
					t.Fatalf("day %d was stored and is not there: %v", day, err)
				}
			}
		}
		r := mustOpen(t, be)
		list, damaged, err := r.Snapshots(ctx)
		if err != nil || len(damaged) > 0 {
			t.Fatal(err, damaged)
		}
		for _, s := range list {
			got, err := repotest.Restore(ctx, r, s)
			if err == nil {
				err = got.Same(stored[s.Time.Day()])
			}
			if err != nil {
				t.Fatalf("day %d: %v", s.Time.Day(), err)
			}
		}
		deltas += repotest.CountDeltas(r)
		report, err := r.Check(ctx, repo.CheckOptions{ReadData: 1})
		if err != nil || !report.Clean() || len(report.Problems) > 0 {
			t.Fatalf("check: %+v, %v", report, err)
		}
	})
	t.Logf("%d delta blocks", deltas)
	// If there are few runs, all of them may have few days by chance.
	least := 20
	if testing.Short() {
		least = 1
	}
	if deltas < least && !t.Failed() {
		t.Errorf("only %d delta blocks", deltas)
	}
}

func mustOpen(t *rapid.T, be *memory.Backend) *repo.Repo {
	r, err := repotest.Open(context.Background(), be, repotest.Secret, repotest.SmallPacks(2))
	if err != nil {
		t.Fatal(err)
	}
	return r
}
