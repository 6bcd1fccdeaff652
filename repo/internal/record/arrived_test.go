package record_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend/fault"
	"github.com/snap-backup/snap/repo/repotest"
)

// If the change that pins a snapshot was interrupted, the record that arrived first is still
// there. It counts as pinned, and has the tags of both.
func TestArrivedKeepsThePinOfAnInterruptedChange(t *testing.T) {
	t.Parallel()
	be := repotest.New(t, 1, 2)
	first, err := relabel(be, 1, repo.Labels{Tags: []string{"a", "b"}})
	if err != nil {
		t.Fatal(err)
	}
	store := fault.New(be, fault.On(fault.Delete, repotest.SnapshotsDir, fault.From(1, fault.ErrInjected)))
	if _, err := relabel(store, 1, repo.Labels{Tags: []string{"b", "c"}, Pin: &repo.Pin{Reason: "why"}}); !errors.Is(err, fault.ErrInjected) {
		t.Fatal(err)
	}
	list, damaged, err := repotest.MustOpen(t, be).ArrivedSnapshots(t.Context())
	if err != nil || len(damaged) > 0 || len(list) != 2 || list[0].ID != first.ID {
		t.Fatal(list, damaged, err)
	}
	if s := list[0]; s.Pin == nil || s.Pin.Reason != "why" || !slices.Equal(s.Tags, []string{"a", "b", "c"}) {
		t.Errorf("pin %v, tags %v", s.Pin, s.Tags)
	}
	if s := list[1]; s.Pin != nil || len(s.Tags) > 0 {
		t.Errorf("the other snapshot has pin %v, tags %v", s.Pin, s.Tags)
	}
}
