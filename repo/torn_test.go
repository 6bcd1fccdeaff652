package repo_test

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/repotest"
)

// Every operation that changes a repository may fail or die at any step, even on
// a disk that leaves torn files. Nothing is lost, check names the torn files and
// no others, and the next run succeeds.
func TestEveryJobSurvivesEverything(t *testing.T) {
	t.Parallel()
	for _, j := range repotest.Jobs(t) {
		t.Run(j.Name, func(t *testing.T) {
			t.Parallel()
			j.Survives(t, 2)
		})
	}
}

// Files that no snapshot needs can be damaged, too. Then no snapshot is affected.
// Check names those damaged files that contain something of value.
func TestRotOfEveryRecord(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	base := loadGoldenFrom(t, recordsDir)
	named := map[string]int{}
	all := repotest.Content(t, base)
	rng := rand.New(rand.NewPCG(repotest.DamageSeed, 3))
	for _, name := range slices.Sorted(maps.Keys(all)) {
		kind := repotest.Folder(name)
		if slices.Contains([]string{"config", "keys", "packs", "index", "snapshots"}, kind) {
			continue // other tests damage these
		}
		damaged := repotest.Damages(rng, all[name])
		damaged["gone"] = nil
		for how, b := range damaged {
			be := base.Clone()
			repotest.Remove(t, be, name)
			if how != "gone" {
				if err := be.Set(name, bytes.Clone(b)); err != nil {
					t.Fatal(err)
				}
			}
			r := openRecords(t, be)
			rep, err := r.Check(ctx, repo.CheckOptions{ReadData: 1, DryRun: true})
			if err != nil || len(rep.Affected) > 0 {
				t.Fatalf("%s %s: %+v, %v", name, how, rep, err)
			}
			if slices.ContainsFunc(rep.Problems, func(p repo.Problem) bool { return p.File == name }) {
				named[kind]++
			} else if how != "gone" && slices.Contains([]string{"secrets", "runs", "parity", "healing"}, kind) {
				t.Errorf("%s %s: check does not name it", name, how)
			}
			// A prune loses nothing, whether it fails or not.
			err = func() error {
				l, err := r.Lock(ctx, repo.LockPrune, "prune")
				if err != nil {
					return err
				}
				_, err = r.Prune(ctx, repotest.NoWaste)
				return errors.Join(err, l.Release())
			}()
			if err != nil && !errors.Is(err, repo.ErrDamaged) && !errors.Is(err, repo.ErrLocked) {
				t.Errorf("%s %s: prune: %v", name, how, err)
			}
			list, bad, err := openRecords(t, be).Snapshots(ctx)
			if err != nil || len(bad) > 0 || len(list) != 3 {
				t.Fatalf("%s %s: after a prune %d snapshots, %v, %v", name, how, len(list), bad, err)
			}
			for _, s := range list {
				f, err := repotest.Restore(ctx, openRecords(t, be), s)
				if err == nil {
					err = f.Same(recordFiles(s.Time.Day()))
				}
				if err != nil {
					t.Errorf("%s %s: after a prune, day %d: %v", name, how, s.Time.Day(), err)
				}
			}
		}
	}
	t.Logf("check names %v", named)
}
