package mirror_test

import (
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

	repotest.FlipBit(t, source, repotest.FilesIn(t, source, repotest.SnapshotsDir)[0], 60)
	damaged := memory.New()
	if err := mirrorTo(source, damaged, mirror.Options{}); !errors.Is(err, mirror.ErrDamaged) {
		t.Errorf("got %v", err)
	}
	if files := repotest.FilesIn(t, damaged, repotest.LedgerDir); len(files) > 0 {
		t.Errorf("copied although a record was not: %v", files)
	}
}
