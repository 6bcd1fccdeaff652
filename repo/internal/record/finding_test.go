package record_test

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
)

// storeFindings stores a snapshot with findings and reads it again.
func storeFindings(t testing.TB, findings []repo.Finding) *repo.Snapshot {
	t.Helper()
	ctx := context.Background()
	r := repotest.Create(t, memory.New())
	w := r.NewWriter(ctx)
	defer w.Close()
	s := &repo.Snapshot{Device: repo.Device{UDID: "udid"}, Findings: findings}
	if err := w.Commit(ctx, s); err != nil {
		t.Fatal(err)
	}
	got, err := r.LoadSnapshot(ctx, s.ID)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestFindingsAreStored(t *testing.T) {
	t.Parallel()
	want := []repo.Finding{
		{Kind: "stray", Consequence: repo.Remark, Count: 2, Names: []string{"Icon\r", "desktop.ini"}, Text: "2 files are no part of the backup"},
		{Kind: "nested", Consequence: repo.Remark, Text: "another backup is inside"},
	}
	if got := storeFindings(t, want); !reflect.DeepEqual(got.Findings, want) || got.Damaged() {
		t.Errorf("got %+v", got)
	}
	for consequence, damaged := range map[repo.Consequence]bool{repo.Remark: false, repo.Incomplete: false, repo.Damage: true, "unknown": true} {
		s := repo.Snapshot{Findings: []repo.Finding{{Consequence: repo.Remark}, {Consequence: consequence}}}
		if s.Damaged() != damaged {
			t.Errorf("%s: damaged is %v", consequence, s.Damaged())
		}
	}
}

// A record has few names, whatever a backup contains. The counts stay.
func TestManyFindingsFit(t *testing.T) {
	t.Parallel()
	names := func(n, length int) (list []string) {
		for i := range n {
			list = append(list, strings.Repeat("<", length)+fmt.Sprint(i))
		}
		return list
	}
	for name, c := range map[string]struct {
		findings, names, length int
		kept                    int
	}{
		"few":        {3, 20, 30, 20},
		"many":       {3, 100000, 30, 20},
		"long":       {1, 30, 8000, 20},
		"many kinds": {40, 30, 3000, 1},
		"too much":   {100, 30, 4000, 0},
	} {
		var findings []repo.Finding
		for range c.findings {
			findings = append(findings, repo.Finding{Kind: "missing", Consequence: repo.Damage, Count: int64(c.names), Names: names(c.names, c.length), Text: "text"})
		}
		got := storeFindings(t, findings)
		if len(got.Findings) != c.findings {
			t.Fatalf("%s: %d findings", name, len(got.Findings))
		}
		for _, f := range got.Findings {
			if f.Count != int64(c.names) || len(f.Names) != c.kept {
				t.Errorf("%s: %d names, count %d", name, len(f.Names), f.Count)
			}
		}
		if more := repo.MoreNames(findings); more != (c.names > repo.MaxFindingNames) {
			t.Errorf("%s: more names: %v", name, more)
		}
	}
}
