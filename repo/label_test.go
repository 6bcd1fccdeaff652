package repo

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
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/memory"
)

// relabel is one run of a program that gives a day other labels. If it is
// killed, others can tell.
func relabel(be backend.Backend, day int, labels Labels) (*Snapshot, error) {
	ctx := context.Background()
	o := tinyOptions(byte(60 + len(labels.Note)))
	dead := process.Current()
	dead.Started += "0"
	o.Owner, o.Refresh = &dead, -1
	r, err := Open(ctx, be, testSecret, o)
	if err != nil {
		return nil, err
	}
	l, err := r.Lock(ctx, LockWrite, "tag")
	if err != nil {
		return nil, err
	}
	s, err := dayOf(ctx, r, day)
	if err == nil {
		s, err = r.ChangeSnapshot(ctx, s, labels)
	}
	return s, errors.Join(err, l.Release())
}

func dayOf(ctx context.Context, r *Repo, day int) (*Snapshot, error) {
	list, _, err := r.Snapshots(ctx)
	if err != nil {
		return nil, err
	}
	for _, s := range list {
		if s.Time.Day() == day {
			return s, nil
		}
	}
	return nil, fmt.Errorf("day %d: %w", day, ErrNoSnapshot)
}

func TestChangeSnapshot(t *testing.T) {
	ctx := context.Background()
	be := tinyRepo(t, 1, 2)
	r := open(t, be)
	before, err := dayOf(ctx, r, 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.ChangeSnapshot(ctx, before, Labels{}); err == nil {
		t.Error("a change without a lock")
	}
	first, err := relabel(be, 1, Labels{Tags: []string{"a"}, Note: "n", Pin: &Pin{Reason: "why", Since: time.Unix(5, 0).UTC()}})
	if err != nil {
		t.Fatal(err)
	}
	second, err := relabel(be, 1, Labels{Tags: []string{"b"}, Note: "no"})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(content(t, be)); second.ID == first.ID || first.ID == before.ID || n == 0 {
		t.Fatal("the ID stays the same")
	}
	// By whatever ID it had, it is found, and is what it was otherwise.
	for _, id := range []FileID{before.ID, first.ID, second.ID} {
		found, err := r.SnapshotByID(ctx, id)
		if err != nil || found.ID != second.ID || !found.Has(id) {
			t.Fatalf("%s: %v, %v", id.Short(), found, err)
		}
		if found, err = r.FindSnapshot(ctx, strings.ToUpper(id.String()[:12])); err != nil || found.ID != second.ID {
			t.Fatalf("%s: %v, %v", id.Short(), found, err)
		}
		want := *before
		want.ID, want.Tags, want.Note = second.ID, []string{"b"}, "no"
		want.Original, want.Former, want.Changed = &before.ID, []FileID{first.ID}, second.Changed
		if !reflect.DeepEqual(*found, want) {
			t.Errorf("got  %+v\nwant %+v", *found, want)
		}
	}
	if _, err := r.SnapshotByID(ctx, FileID{1}); !errors.Is(err, ErrNoSnapshot) {
		t.Errorf("an ID that nobody had: %v", err)
	}
	if err := judgeClean(be, testSecret, 1, 2); err != nil {
		t.Error(err)
	}
	// It is forgotten by its first ID, too.
	if err := r.Forget(ctx, before.ID); err != nil {
		t.Fatal(err)
	}
	if err := judgeClean(be, testSecret, 2); err != nil {
		t.Error(err)
	}
}

func TestLabelsAreBounded(t *testing.T) {
	be := tinyRepo(t, 1)
	long := strings.Repeat("x", maxLabel+1)
	for _, l := range []Labels{{Note: long}, {Tags: []string{long}}, {Pin: &Pin{Reason: long}}, {Tags: make([]string, maxTags+1)}} {
		if _, err := relabel(be, 1, l); err == nil {
			t.Error("too long labels are taken")
		}
	}
	most := Labels{Note: long[1:], Pin: &Pin{Reason: long[1:]}}
	for range maxTags {
		most.Tags = append(most.Tags, long[1:])
	}
	for range maxFormer + 3 {
		if _, err := relabel(be, 1, most); err != nil {
			t.Fatal(err)
		}
	}
	if err := judgeClean(be, testSecret, 1); err != nil {
		t.Error(err)
	}
}

// judgeLabels wants day 1 once, as it was or as it was to become, and that the
// next change leaves one record.
func judgeLabels(be *memory.Backend, runErr error) error {
	ctx := context.Background()
	v, err := judge(be, testSecret)
	if err != nil {
		return err
	}
	if !slices.Equal(v.days, []int{1, 2}) || len(v.damaged) > 0 || !v.report.Clean() || len(v.report.Problems) > 0 {
		return fmt.Errorf("snapshots %v, damage %v, check %+v", v.days, v.damaged, v.report)
	}
	r, err := Open(ctx, be, testSecret, tinyOptions(4))
	if err != nil {
		return err
	}
	s, err := dayOf(ctx, r, 1)
	if err != nil {
		return err
	}
	if s.Note != "new" && runErr == nil {
		return errors.New("the run reported success, but nothing has changed")
	}
	if s.Note != "new" && s.Note != "old" {
		return fmt.Errorf("note %q", s.Note)
	}
	if s, err = relabel(be, 1, Labels{Note: "newer"}); err != nil {
		return fmt.Errorf("next change: %w", err)
	}
	records := 0
	err = be.List(ctx, snapshotsDir, func(backend.Info) error { records++; return nil })
	if err != nil || records != 2 {
		return fmt.Errorf("%d records, %v", records, err)
	}
	// Nothing of it comes back when it is forgotten.
	if err := r.Forget(ctx, s.ID); err != nil {
		return err
	}
	return judgeClean(be, testSecret, 2)
}

// labelled is a store of two days, of which the first has been changed once.
func labelled(t *testing.T) *memory.Backend {
	be := tinyRepo(t, 1, 2)
	if _, err := relabel(be, 1, Labels{Note: "old"}); err != nil {
		t.Fatal(err)
	}
	return be
}

func TestChangeSurvivesEveryFault(t *testing.T) {
	everyOperation(t, 8, labelled(t),
		func(be backend.Backend) error { _, err := relabel(be, 1, Labels{Note: "new"}); return err },
		judgeLabels)
}

func TestChangeSurvivesEveryCrash(t *testing.T) {
	everyCrash(t, false, 3, labelled(t),
		func(be backend.Backend) error { _, err := relabel(be, 1, Labels{Note: "new"}); return err },
		func(be *memory.Backend) error { return judgeLabels(be, errors.New("crashed")) })
}

// A snapshot that was changed and not cleaned up does not come back when it is
// forgotten, wherever that stops.
func TestForgetOfTwoRecords(t *testing.T) {
	ctx := context.Background()
	be := labelled(t)
	old := content(t, be)
	if _, err := relabel(be, 1, Labels{Note: "new"}); err != nil {
		t.Fatal(err)
	}
	for name, b := range old {
		if strings.HasPrefix(name, snapshotsDir) {
			if err := be.Put(ctx, name, b); err != nil && !errors.Is(err, backend.ErrExist) {
				t.Fatal(err)
			}
		}
	}
	r := open(t, be)
	report, err := r.Check(ctx, CheckOptions{})
	if err != nil || report.Snapshots != 2 || len(report.Leftovers) != 1 {
		t.Fatalf("check: %+v, %v", report, err)
	}
	everyOperation(t, 3, be,
		func(be backend.Backend) error { return forgetTiny(ctx, be, 1) },
		func(be *memory.Backend, err error) error {
			r := open(t, be)
			s, serr := dayOf(ctx, r, 1)
			if errors.Is(serr, ErrNoSnapshot) {
				return nil
			}
			if serr != nil || s.Note != "new" || err == nil {
				return fmt.Errorf("%v, %v (run: %v)", s, serr, err)
			}
			return nil
		})
}

// Of two changes at the same time one wins; a change does not bring back what
// somebody forgets meanwhile.
func TestChangeBesideOthers(t *testing.T) {
	ctx := context.Background()
	for name, other := range map[string]func(be backend.Backend) error{
		"another change": func(be backend.Backend) error { _, err := relabel(be, 1, Labels{Note: "other"}); return err },
		"forget":         func(be backend.Backend) error { return forgetTiny(ctx, be, 1) },
	} {
		for at := 1; ; at++ {
			be := labelled(t)
			var otherErr error
			hooked := &hookBackend{Backend: be, at: at, hook: func() { otherErr = other(be) }}
			_, err := relabel(hooked, 1, Labels{Note: "new"})
			if hooked.n < at {
				break
			}
			r := open(t, be)
			s, serr := dayOf(ctx, r, 1)
			switch {
			case otherErr != nil && !errors.Is(otherErr, ErrChanged):
				t.Errorf("%s at %d: %v", name, at, otherErr)
			case err != nil && !errors.Is(err, ErrChanged) && !errors.Is(err, ErrNoSnapshot) && !errors.Is(err, ErrLockLost):
				t.Errorf("%s at %d: the change: %v", name, at, err)
			case name == "forget" && serr == nil:
				t.Errorf("%s at %d: it is there again: %+v (%v)", name, at, s, err)
			case name != "forget" && serr != nil:
				t.Errorf("%s at %d: it is gone: %v, %v", name, at, err, otherErr)
			}
		}
	}
}
