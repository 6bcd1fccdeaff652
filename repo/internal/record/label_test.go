package record_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/snap-backup/snap/internal/process"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/fault"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/internal/record"
	"github.com/snap-backup/snap/repo/repotest"
)

// relabel changes the labels of a day's snapshot, as another process would. The lock
// names a process that does not run. So if relabel is killed, others see that the
// lock is stale.
func relabel(be backend.Backend, day int, labels repo.Labels) (*repo.Snapshot, error) {
	ctx := context.Background()
	o := repotest.SmallPacks(byte(60 + len(labels.Note)))
	dead := process.Current()
	dead.Started += "0"
	o.Owner, o.Refresh = &dead, -1
	r, err := repo.Open(ctx, be, repotest.Secret, o)
	if err != nil {
		return nil, err
	}
	l, err := r.Lock(ctx, repo.LockWrite, "tag")
	if err != nil {
		return nil, err
	}
	s, err := repotest.FindDay(ctx, r, day)
	if err == nil {
		s, err = r.ChangeSnapshot(ctx, s, labels)
	}
	return s, errors.Join(err, l.Release())
}

func TestChangeSnapshot(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := repotest.New(t, 1, 2)
	r := repotest.MustOpen(t, be)
	before, err := repotest.FindDay(ctx, r, 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.ChangeSnapshot(ctx, before, repo.Labels{}); err == nil {
		t.Error("labels were changed without a lock")
	}
	first, err := relabel(be, 1, repo.Labels{Tags: []string{"a"}, Note: "n", Pin: &repo.Pin{Reason: "why", Since: time.Unix(5, 0).UTC()}})
	if err != nil {
		t.Fatal(err)
	}
	second, err := relabel(be, 1, repo.Labels{Tags: []string{"b"}, Note: "no"})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(repotest.Content(t, be)); second.ID == first.ID || first.ID == before.ID || n == 0 {
		t.Fatal("the ID did not change")
	}
	// The snapshot is found by any ID that it has had. Except for its labels and IDs,
	// it is unchanged.
	for _, id := range []repo.FileID{before.ID, first.ID, second.ID} {
		found, err := r.SnapshotByID(ctx, id)
		if err != nil || found.ID != second.ID || !found.Has(id) {
			t.Fatalf("%s: %v, %v", id.Short(), found, err)
		}
		if found, err = r.FindSnapshot(ctx, strings.ToUpper(id.String()[:12])); err != nil || found.ID != second.ID {
			t.Fatalf("%s: %v, %v", id.Short(), found, err)
		}
		want := *before
		want.Put = found.Put
		want.ID, want.Tags, want.Note = second.ID, []string{"b"}, "no"
		want.Original, want.Former, want.Changed = &before.ID, []repo.FileID{first.ID}, second.Changed
		if !reflect.DeepEqual(*found, want) {
			t.Errorf("got  %+v\nwant %+v", *found, want)
		}
	}
	if _, err := r.SnapshotByID(ctx, repo.FileID{1}); !errors.Is(err, repo.ErrNoSnapshot) {
		t.Errorf("an unknown ID: %v", err)
	}
	if err := repotest.Verify(be, 1, 2); err != nil {
		t.Error(err)
	}
	// The snapshot can be forgotten by its first ID, too.
	if err := r.Forget(ctx, before.ID); err != nil {
		t.Fatal(err)
	}
	if err := repotest.Verify(be, 2); err != nil {
		t.Error(err)
	}
}

func TestLabelsAreBounded(t *testing.T) {
	t.Parallel()
	be := repotest.New(t, 1)
	long := strings.Repeat("x", record.MaxLabel+1)
	for _, l := range []repo.Labels{{Note: long}, {Tags: []string{long}}, {Pin: &repo.Pin{Reason: long}}, {Tags: make([]string, record.MaxTags+1)}} {
		if _, err := relabel(be, 1, l); err == nil {
			t.Error("labels that are too long were accepted")
		}
	}
	most := repo.Labels{Note: long[1:], Pin: &repo.Pin{Reason: long[1:]}}
	for i := range record.MaxTags {
		most.Tags = append(most.Tags, fmt.Sprintf("%02d", i)+long[3:])
	}
	changes := record.MaxFormer + 3
	if testing.Short() {
		changes = 3
	}
	for range changes {
		if _, err := relabel(be, 1, most); err != nil {
			t.Fatal(err)
		}
	}
	if err := repotest.Verify(be, 1); err != nil {
		t.Error(err)
	}
}

func TestTags(t *testing.T) {
	t.Parallel()
	for _, tag := range []string{"before-update", "vor dem Update", "äöü", "漢字", "👍", strings.Repeat("x", record.MaxLabel)} {
		if err := record.CheckTag(tag); err != nil {
			t.Errorf("%q: %v", tag, err)
		}
	}
	for _, tag := range []string{"", ",", "a,b", " ", " a", "a ", "a\nb", "a\x00", "a\x9b", "\u0085", "\u202e", "\xff", strings.Repeat("x", record.MaxLabel+1)} {
		if err := record.CheckTag(tag); !errors.Is(err, record.ErrTag) {
			t.Errorf("%q: %v", tag, err)
		}
	}
}

// TestOldTagsStay checks that the labels of a snapshot with a tag that is not
// allowed any more can be changed.
func TestOldTagsStay(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := repotest.New(t, 1)
	r, err := repo.Open(ctx, be, repotest.Secret, repotest.SmallPacks(4))
	if err != nil {
		t.Fatal(err)
	}
	l, err := r.Lock(ctx, repo.LockWrite, "test")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Release()
	list, _, err := r.Snapshots(ctx)
	if err != nil {
		t.Fatal(err)
	}
	s := list[0]
	s.Tags = []string{"a,b", "c"} // as if the record had them
	now, err := r.ChangeSnapshot(ctx, s, repo.Labels{Tags: []string{"a,b"}, Note: "new"})
	if err != nil || !slices.Equal(now.Tags, []string{"a,b"}) {
		t.Errorf("got %v, %v", now, err)
	}
	if _, err := r.ChangeSnapshot(ctx, now, repo.Labels{Tags: []string{"a,b", "c,d"}}); !errors.Is(err, repo.ErrTag) {
		t.Errorf("a new tag with a comma: %v", err)
	}
}

// judgeLabels returns an error unless day 1 is there once, with the old or the
// new labels, and the next change leaves one record.
func judgeLabels(be *memory.Backend, runErr error) error {
	ctx := context.Background()
	v, err := repotest.Examine(be, repotest.Secret)
	if err != nil {
		return err
	}
	if !slices.Equal(v.Days, []int{1, 2}) || len(v.Damaged) > 0 || !v.Report.Clean() || len(v.Report.Problems) > 0 {
		return fmt.Errorf("snapshots %v, damage %v, check %+v", v.Days, v.Damaged, v.Report)
	}
	r, err := repo.Open(ctx, be, repotest.Secret, repotest.SmallPacks(4))
	if err != nil {
		return err
	}
	s, err := repotest.FindDay(ctx, r, 1)
	if err != nil {
		return err
	}
	if s.Note != "new" && runErr == nil {
		return errors.New("the run reported success, but nothing has changed")
	}
	if s.Note != "new" && s.Note != "old" {
		return fmt.Errorf("note %q", s.Note)
	}
	if s, err = relabel(be, 1, repo.Labels{Note: "newer"}); err != nil {
		return fmt.Errorf("next change: %w", err)
	}
	records := 0
	err = be.List(ctx, repotest.SnapshotsDir, func(backend.Info) error { records++; return nil })
	if err != nil || records != 2 {
		return fmt.Errorf("%d records, %v", records, err)
	}
	// When the snapshot is forgotten, no other record of it becomes visible.
	if err := r.Forget(ctx, s.ID); err != nil {
		return err
	}
	return repotest.Verify(be, 2)
}

// labelled returns a repository of two days. The labels of the first one were
// changed once.
func labelled(t *testing.T) *memory.Backend {
	be := repotest.New(t, 1, 2)
	if _, err := relabel(be, 1, repo.Labels{Note: "old"}); err != nil {
		t.Fatal(err)
	}
	return be
}

func TestChangeSurvivesEveryFault(t *testing.T) {
	t.Parallel()
	repotest.EveryFault(t, repotest.Run{Base: labelled(t), Do: func(be backend.Backend) error { _, err := relabel(be, 1, repo.Labels{Note: "new"}); return err }, Least: 8, Want: 12},

		judgeLabels)

}

func TestChangeSurvivesEveryCrash(t *testing.T) {
	t.Parallel()
	repotest.EveryCrash(t, repotest.Run{Base: labelled(t), Do: func(be backend.Backend) error { _, err := relabel(be, 1, repo.Labels{Note: "new"}); return err }, Least: 3, Want: 8},
		func(be *memory.Backend) error { return judgeLabels(be, errors.New("crashed")) })
}

// An interrupted change leaves two records of a snapshot. When the snapshot is
// forgotten, the older record does not become visible, even if the forget is
// interrupted.
func TestForgetOfTwoRecords(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := labelled(t)
	old := repotest.Content(t, be)
	if _, err := relabel(be, 1, repo.Labels{Note: "new"}); err != nil {
		t.Fatal(err)
	}
	for name, b := range old {
		if strings.HasPrefix(name, repotest.SnapshotsDir) {
			if err := be.Put(ctx, name, b); err != nil && !errors.Is(err, backend.ErrExist) {
				t.Fatal(err)
			}
		}
	}
	r := repotest.MustOpen(t, be)
	report, err := r.Check(ctx, repo.CheckOptions{})
	if err != nil || report.Snapshots != 2 || len(report.Unreferenced) != 1 {
		t.Fatalf("check: %+v, %v", report, err)
	}
	repotest.EveryFault(t, repotest.Run{Base: be, Do: func(be backend.Backend) error { return repotest.Forget(ctx, be, 1) }, Least: 3, Want: 12},
		func(be *memory.Backend, err error) error {
			r := repotest.MustOpen(t, be)
			s, serr := repotest.FindDay(ctx, r, 1)
			if errors.Is(serr, repo.ErrNoSnapshot) {
				return nil
			}
			if serr != nil || s.Note != "new" || err == nil {
				return fmt.Errorf("%v, %v (run: %v)", s, serr, err)
			}
			return nil
		})
}

// If two changes are made at the same time, one wins. A change does not bring
// back a snapshot that is forgotten at the same time.
func TestChangeBesideOthers(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for name, other := range map[string]func(be backend.Backend) error{
		"another change": func(be backend.Backend) error { _, err := relabel(be, 1, repo.Labels{Note: "other"}); return err },
		"forget":         func(be backend.Backend) error { return repotest.Forget(ctx, be, 1) },
	} {
		run := repotest.Run{Base: labelled(t), Want: 8, Do: func(be backend.Backend) error { _, err := relabel(be, 1, repo.Labels{Note: "new"}); return err }}
		for _, at := range run.Steps(t) {
			be := run.Base.Clone()
			var otherErr error
			hooked := fault.New(be, func(c fault.Call) fault.Action {
				if c.N == at {
					otherErr = other(be)
				}
				return fault.Action{}
			})
			_, err := relabel(hooked, 1, repo.Labels{Note: "new"})
			r := repotest.MustOpen(t, be)
			s, serr := repotest.FindDay(ctx, r, 1)
			switch {
			case otherErr != nil && !errors.Is(otherErr, repo.ErrChanged):
				t.Errorf("%s at %d: %v", name, at, otherErr)
			case err != nil && !errors.Is(err, repo.ErrChanged) && !errors.Is(err, repo.ErrNoSnapshot) && !errors.Is(err, repo.ErrLockLost):
				t.Errorf("%s at %d: the change: %v", name, at, err)
			case name == "forget" && serr == nil:
				t.Errorf("%s at %d: the snapshot is back: %+v (%v)", name, at, s, err)
			case name != "forget" && serr != nil:
				t.Errorf("%s at %d: the snapshot is gone: %v, %v", name, at, err, otherErr)
			}
		}
	}
}
