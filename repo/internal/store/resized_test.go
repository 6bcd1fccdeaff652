package store_test

import (
	"context"
	"strings"
	"testing"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/repotest"
)

// TestContentOfCutPacksIsStoredAgain cuts the end off each content pack. Nothing new
// relies on them, so storing the same content again repairs all snapshots that have it.
func TestContentOfCutPacksIsStoredAgain(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := repotest.New(t, 1)
	cut := map[string]bool{}
	for _, p := range repotest.MustOpen(t, be).Index().Packs() {
		name := repotest.PackName(p.ID)
		b, err := backend.ReadAll(ctx, be, name, 1<<30)
		if p.Kind == 0 && err == nil {
			err = be.Set(name, b[:len(b)/3])
			cut[name] = true
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	r := repotest.MustOpen(t, be)
	for name := range cut {
		named := 0
		for _, err := range r.IndexDamage() {
			if strings.Contains(err.Error(), name) {
				named++
			}
		}
		if named != 1 {
			t.Errorf("%s is named %d times: %v", name, named, r.IndexDamage())
		}
	}
	if _, err := repotest.Store(ctx, r, repotest.Day(1), 2); err != nil {
		t.Fatal(err)
	}
	r = repotest.MustOpen(t, be)
	list, _, err := r.Snapshots(ctx)
	if err != nil || len(list) != 2 || len(cut) == 0 {
		t.Fatal(list, cut, err)
	}
	for _, s := range list {
		got, err := repotest.Restore(ctx, r, s)
		if err == nil {
			err = got.Same(repotest.Day(1))
		}
		if err != nil {
			t.Errorf("snapshot of day %d: %v", s.Time.Day(), err)
		}
	}
}
