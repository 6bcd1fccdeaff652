package finding

import (
	"encoding/json"
	"fmt"
	"sync"
	"testing"

	"github.com/snap-backup/snap/repo"
)

func TestLog(t *testing.T) {
	var l Log
	if got := l.Findings(); got == nil || len(got) != 0 || Worst(got) != repo.Remark {
		t.Errorf("empty: %#v", got)
	}
	var group sync.WaitGroup
	for i := range 3 {
		group.Go(func() { l.File(Digest, Name("HomeDomain", fmt.Sprint("f", i), "ab/abcd")) })
		group.Go(func() { l.Remark(Stray, Name("", "", "cd/cdef")) })
	}
	group.Wait()
	if got := Worst(l.Findings()); got != repo.Damage {
		t.Errorf("worst is %v", got)
	}
	l.Note(Changed, repo.Incomplete, "it changed")
	l.Remark(Missing, "a")
	l.File(Missing, "b")
	l.Count(Anomaly, repo.Remark, 4, "odd rows")
	got, err := json.Marshal(l.Findings())
	if err != nil {
		t.Fatal(err)
	}
	const want = `[{"kind":"changed","consequence":"incomplete","text":"it changed"},` +
		`{"kind":"digest","consequence":"damage","count":3,"names":["HomeDomain/f0 (abcd)","HomeDomain/f1 (abcd)","HomeDomain/f2 (abcd)"],"text":"3 files differ from their digests in the manifest, the first is HomeDomain/f0 (abcd)"},` +
		`{"kind":"missing","consequence":"damage","count":1,"names":["b"],"text":"a file in the manifest is missing: b"},` +
		`{"kind":"anomaly","consequence":"remark","count":4,"text":"odd rows"},` +
		`{"kind":"missing","consequence":"remark","count":1,"names":["a"],"text":"a file in the manifest is missing: a"},` +
		`{"kind":"stray","consequence":"remark","count":3,"names":["cd/cdef","cd/cdef","cd/cdef"],"text":"3 entries of the folder were left out, since no device writes them, the first is cd/cdef"}]`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := Worst(l.Findings()); got != repo.Incomplete {
		t.Errorf("worst is %v", got)
	}
}

func TestMerge(t *testing.T) {
	tree := repo.Finding{Kind: Lost, Consequence: repo.Damage, Text: "a part of the list is lost"}
	one := repo.Finding{Kind: Lost, Consequence: repo.Damage, Count: 1, Names: []string{"b"}, Text: "b is lost"}
	more := repo.Finding{Kind: Lost, Consequence: repo.Damage, Count: 5, Names: []string{"a", "b"}, Text: "5 files"}
	got := Merge(Merge(Merge(nil, tree), one), more)
	if len(got) != 2 || got[1].Count != 5 || fmt.Sprint(got[1].Names) != "[a b]" || got[1].Text != "5 files have lost their content in the repository, the first is a" {
		t.Errorf("%+v", got)
	}
	if len(one.Names) != 1 || len(Merge(got, repo.Finding{Kind: Lost, Consequence: repo.Remark, Names: []string{"c"}})) != 3 {
		t.Error("a finding was changed, or merged with another consequence")
	}
}
