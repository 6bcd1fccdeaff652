package record_test

import (
	"context"
	"strings"
	"testing"

	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/repotest"
)

// listHook calls hook before a folder is listed.
type listHook struct {
	backend.Backend
	hook func(prefix string)
}

func (b *listHook) List(ctx context.Context, prefix string, fn func(backend.Info) error) error {
	b.hook(prefix)
	return b.Backend.List(ctx, prefix, fn)
}

// A backup may end at any step of a reader. Every snapshot that the reader finds
// can be restored.
func TestReadersBesideABackup(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	find := map[string]func(r *repo.Repo) (*repo.Snapshot, error){
		"latest": func(r *repo.Repo) (*repo.Snapshot, error) {
			found, _, err := r.FindIndexed(ctx, "latest")
			if err != nil {
				return nil, err
			}
			return found[0], nil
		},
		"all": func(r *repo.Repo) (*repo.Snapshot, error) {
			list, _, err := r.SnapshotsIndexed(ctx)
			if err != nil {
				return nil, err
			}
			return list[len(list)-1], nil
		},
	}
	for name, find := range find {
		for at := 1; ; at++ { // a backup ends before the reader lists a folder for the at-th time
			be := repotest.New(t, 1)
			lists, stored := 0, false
			r, err := repo.Open(ctx, &listHook{be, func(string) {
				if lists++; lists == at {
					stored = true
					if _, err := repotest.StoreDay(ctx, be, 2); err != nil {
						t.Fatal(err)
					}
				}
			}}, repotest.Secret, repotest.SmallPacks(40))
			if err != nil {
				t.Fatal(err)
			}
			s, err := find(r)
			if err != nil {
				t.Fatal(err)
			}
			ended := stored
			f, err := repotest.Restore(ctx, r, s)
			if err == nil {
				err = f.Same(repotest.Day(s.Time.Day()))
			}
			if err != nil {
				t.Errorf("%s, a backup that ended before listing %d: %v", name, at, err)
			}
			if !ended {
				if at < 4 {
					t.Errorf("%s: only %d listings", name, at)
				}
				break
			}
		}
	}
}

// This is why the order matters: if the index is read first, a new snapshot
// looks damaged.
func TestIndexReadBeforeSnapshots(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := repotest.New(t, 1)
	r, err := repotest.Open(ctx, be, repotest.Secret, repotest.SmallPacks(40))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := repotest.StoreDay(ctx, be, 2); err != nil {
		t.Fatal(err)
	}
	s, err := r.FindSnapshot(ctx, "latest")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := repotest.Restore(ctx, r, s); err == nil || !strings.Contains(err.Error(), "in no index") {
		t.Errorf("%v", err)
	}
	if found, _, err := r.FindIndexed(ctx, s.ID.String()); err != nil {
		t.Error(err)
	} else if _, err := repotest.Restore(ctx, r, found[0]); err != nil {
		t.Error(err)
	}
}
