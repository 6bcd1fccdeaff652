package mirror_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/snap-backup/snap/repo/backend/fault"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/mirror"
	"github.com/snap-backup/snap/repo/repotest"
)

// A run copies the files of the ledger last, the newest first: whenever it is interrupted, the
// target has all records that its ledger knows and that were not removed. If it cannot copy a
// record, it copies none of these files.
func TestMirrorCopiesTheLedgerLast(t *testing.T) {
	t.Parallel()
	source := repotest.New(t, 1, 2)
	repotest.RemoveLedger(t, source)
	now := time.Unix(1e9, 0)
	source.SetClock(func() time.Time { now = now.Add(time.Minute); return now })
	var want []string
	for _, text := range []string{"oldest", "older", "newest"} {
		id := repotest.PutNamed(t, source, repotest.LedgerDir, []byte("snaple01"+text))
		want = slices.Insert(want, 0, repotest.LedgerDir+id.String())
	}
	var put []string
	target := fault.New(memory.New(), func(c fault.Call) fault.Action {
		if c.Op == fault.Put {
			put = append(put, c.Name)
		}
		return fault.Action{}
	})
	if err := mirrorTo(source, target, mirror.Options{}); err != nil {
		t.Fatal(err)
	}
	copied := slices.DeleteFunc(slices.Clone(put), func(name string) bool { return strings.HasPrefix(name, "mirrored/") })
	if got := copied[max(0, len(copied)-len(want)):]; !slices.Equal(got, want) {
		t.Errorf("at the end of %v: %v, want %v", put, got, want)
	}

	repotest.Flip(t, source, repotest.FilesIn(t, source, repotest.SnapshotsDir)[0], 60)
	damaged := memory.New()
	if err := mirrorTo(source, damaged, mirror.Options{}); !errors.Is(err, mirror.ErrDamaged) {
		t.Errorf("got %v", err)
	}
	if files := repotest.FilesIn(t, damaged, repotest.LedgerDir); len(files) > 0 {
		t.Errorf("copied although a record was not: %v", files)
	}
}

// If the source has lost records, runs with the key say so and remove nothing, also with
// AcceptRemovals: neither the records nor packs that only they need. They still copy the
// ledger, so that the mirror can store the records again. Once the source has them
// again, the mirror follows.
func TestMirrorOfLostRecords(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	base := repotest.New(t, 1, 2, 3)
	copied := memory.New()
	if err := mirrorTo(base, copied, keyOptions(t, base, true)); err != nil {
		t.Fatal(err)
	}
	want := repotest.Content(t, copied)
	names := repotest.FilesIn(t, base, repotest.SnapshotsDir)
	for lost := 1; lost <= len(names); lost++ {
		source, target := base.Clone(), copied.Clone()
		repotest.Remove(t, source, names[:lost]...)
		for _, accept := range []bool{false, false, true, false} {
			opts := keyOptions(t, source, true)
			opts.AcceptRemovals = accept
			rep, err := mirror.Run(ctx, source, target, opts)
			if !errors.Is(err, mirror.ErrDamaged) || len(rep.Damaged) != lost || len(rep.Better) != lost {
				t.Fatalf("%d lost: %+v, %v", lost, rep, err)
			}
			got := repotest.Content(t, target)
			for name := range want {
				if got[name] == nil && !strings.HasPrefix(name, "mirrored/") {
					t.Fatalf("%d lost: the mirror has lost %s", lost, name)
				}
			}
		}
		rep, err := mirror.Check(ctx, source, target, keyOptions(t, source, true))
		if err != nil || len(rep.SourceDamaged) != lost {
			t.Errorf("%d lost: check: %+v, %v", lost, rep, err)
		}
		fresh := memory.New()
		if err := mirrorTo(source, fresh, keyOptions(t, source, true)); !errors.Is(err, mirror.ErrDamaged) {
			t.Errorf("%d lost: %v", lost, err)
		}
		if err := repotest.RepairSnapshots(fresh); err != nil {
			t.Fatal(err)
		}
		if err := repotest.Verify(fresh, 1, 2, 3); err != nil {
			t.Errorf("%d lost: a mirror that never had the records: %v", lost, err)
		}
		if err := repotest.RepairSnapshots(source); err != nil {
			t.Fatal(err)
		}
		if err := mirrorTo(source, target, keyOptions(t, source, true)); err != nil {
			t.Error(err)
		}
		if err := sameRepository(t, source, target); err != nil {
			t.Error(err)
		}
	}
}

// The source has lost a record, the ledger, and a pack. An index file still lists the pack, so
// no prune has removed it. Runs with the key say so and remove nothing, whichever pack it is.
func TestMirrorOfLostPacks(t *testing.T) {
	t.Parallel()
	base := repotest.New(t, 1, 2, 3)
	copied := memory.New()
	if err := mirrorTo(base, copied, keyOptions(t, base, true)); err != nil {
		t.Fatal(err)
	}
	r := repotest.MustOpen(t, base)
	s, err := repotest.FindDay(context.Background(), r, 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, pack := range repotest.FilesIn(t, base, repotest.PacksDir) {
		source, target := base.Clone(), copied.Clone()
		repotest.Remove(t, source, pack, repotest.SnapshotsDir+s.ID.String())
		repotest.RemoveLedger(t, source)
		for _, accept := range []bool{false, false, true} {
			opts := keyOptions(t, source, true)
			opts.AcceptRemovals = accept
			if err := mirrorTo(source, target, opts); !errors.Is(err, mirror.ErrDamaged) || !strings.Contains(err.Error(), "nothing was removed") {
				t.Fatalf("without %s: %v", pack, err)
			}
		}
		if err := repotest.Verify(target, 1, 2, 3); err != nil {
			t.Errorf("without %s: %v", pack, err)
		}
	}
}
