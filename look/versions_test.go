package look

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
	"github.com/snap-backup/snap/repo/tree"
)

// storeDay stores a snapshot of files, given as DOMAIN/NAME and content. What follows an @ in
// the content is the time of the file.
func storeDay(t *testing.T, r *repo.Repo, day int, files map[string]string) *repo.Snapshot {
	t.Helper()
	ctx := context.Background()
	w := r.NewWriter(ctx)
	defer w.Close()
	content, b := w.NewContentWriter(), tree.NewBuilder(w.SaveNode, nil)
	var entries []tree.Entry
	for full, text := range files {
		c, err := content.Store(ctx, strings.NewReader(text), nil)
		if err != nil {
			t.Fatal(err)
		}
		domain, name, _ := strings.Cut(full, "/")
		e := tree.Entry{Domain: domain, Name: name, Path: "blob/" + full, Content: c}
		if _, at, ok := strings.Cut(text, "@"); ok {
			sec, err := strconv.ParseInt(at, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			e.ModTime = tree.AtSecond(sec)
		}
		entries = append(entries, e)
	}
	slices.SortFunc(entries, func(a, b tree.Entry) int { return a.Key().Compare(b.Key()) })
	for i := range entries {
		if err := b.Add(ctx, &entries[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := content.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	s := &repo.Snapshot{Time: time.Date(2026, 1, day, 8, 0, 0, 0, time.UTC), Device: repo.Device{UDID: repotest.UDID}, Complete: true}
	var err error
	if s.Root, err = b.Finish(ctx); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(ctx, s); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestVersionsModel compares a Finder with maps, over random days.
func TestVersionsModel(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	r := repotest.Create(t, memory.New())
	files := map[string]string{}
	var days []map[string]string
	var snapshots []*repo.Snapshot
	for day := 1; day <= 8; day++ {
		for range 300 {
			name := fmt.Sprintf("%c/%d/%d.%s", 'A'+rng.IntN(4), rng.IntN(5), rng.IntN(60), []string{"db", "jpg"}[rng.IntN(2)])
			if rng.IntN(4) == 0 {
				delete(files, name)
			} else if day < 4 || rng.IntN(3) == 0 {
				files[name] = fmt.Sprint(rng.IntN(3))
			}
		}
		days = append(days, maps.Clone(files))
		snapshots = append(snapshots, storeDay(t, r, day, files))
	}
	for _, text := range []string{"*", "*.db", "B/**", "B/1/*.jpg", "C", "[AB]/2", "D/3/7.db"} {
		p, err := ParsePatterns([]string{text}, false)
		if err != nil {
			t.Fatal(err)
		}
		f := NewFinder(r, p, time.Time{}, time.Time{})
		want := map[string]string{}
		for i, s := range snapshots {
			v := Open(r, s, nil)
			if err := f.Add(ctx, v, func(err error) { t.Error(err) }); err != nil {
				t.Fatal(err)
			}
			var listed []string
			for file, err := range v.Files(ctx, p) {
				if err != nil {
					t.Fatal(err)
				}
				listed = append(listed, file.FullName())
			}
			describeDay(want, p, days, i)
			var matching []string
			for name := range days[i] {
				if domain, rest, _ := strings.Cut(name, "/"); p.Match(domain, rest, "") {
					matching = append(matching, name)
				}
			}
			slices.Sort(matching)
			if !slices.Equal(listed, matching) {
				t.Fatalf("%q: day %d lists %d files, want %d", text, i, len(listed), len(matching))
			}
		}
		got := map[string]string{}
		for _, v := range f.Versions() {
			for _, one := range v.List {
				got[v.FullName()] += fmt.Sprintf("%s %d-%d;", one.Change, one.First.Time.Day(), one.Last.Time.Day())
			}
		}
		for name := range want {
			want[name] = closeLast(want[name], len(days))
		}
		if !maps.Equal(got, want) {
			for name := range want {
				if got[name] != want[name] {
					t.Errorf("%q: %s: got %q, want %q", text, name, got[name], want[name])
				}
			}
			t.Fatalf("%q: %d files, want %d", text, len(got), len(want))
		}
	}
}

// describeDay adds what happened on a day to the texts of files.
func describeDay(texts map[string]string, p *Patterns, days []map[string]string, i int) {
	names := map[string]bool{}
	for _, day := range days[:i+1] {
		for name := range day {
			names[name] = true
		}
	}
	before := map[string]string{}
	if i > 0 {
		before = days[i-1]
	}
	for name := range names {
		if domain, rest, _ := strings.Cut(name, "/"); !p.Match(domain, rest, "") {
			continue
		}
		now, is := days[i][name]
		old, was := before[name]
		var change Change
		switch {
		case is && !was && texts[name] == "":
			change = Added
		case is && !was:
			change = Back
		case is && now != old:
			change = Changed
		case was && !is:
			change = Gone
		default:
			continue
		}
		texts[name] = closeLast(texts[name], i) + fmt.Sprintf("%s %d-", change, i+1)
	}
}

// closeLast writes the last day of the last version.
func closeLast(text string, day int) string {
	if strings.HasSuffix(text, "-") {
		return fmt.Sprintf("%s%d;", text, day)
	}
	return text
}

// If a part of a file list is lost, its files do not count as gone.
func TestVersionsOfLostLists(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := memory.New()
	r := repotest.Create(t, be)
	files := map[string]string{}
	for i := range 500 {
		files[fmt.Sprintf("D/%d", i)] = "x"
	}
	first := storeDay(t, r, 1, files)
	files["D/new"] = "y"
	files["D/250"] = "z"
	second := storeDay(t, r, 2, files)
	third := storeDay(t, r, 3, files)
	bad := *second
	bad.Root[0] ^= 1
	f := NewFinder(r, nil, time.Time{}, time.Time{})
	lost := 0
	for _, s := range []*repo.Snapshot{first, &bad, third} {
		if err := f.Add(ctx, Open(r, s, nil), func(error) { lost++ }); err != nil {
			t.Fatal(err)
		}
	}
	if lost != 1 {
		t.Errorf("%d lost parts", lost)
	}
	changes := map[Change]int{}
	for _, v := range f.Versions() {
		for _, one := range v.List {
			changes[one.Change]++
		}
	}
	if changes[Added] != 501 || changes[Changed] != 1 || len(changes) != 2 {
		t.Errorf("changes: %v", changes)
	}
}

// The times of files choose them, from the first time on and before the second.
func TestFinderTimes(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	r := repotest.Create(t, memory.New())
	s := storeDay(t, r, 1, map[string]string{"D/a": "x"})
	for _, tt := range []struct {
		from, to time.Time
		want     int
	}{{time.Time{}, time.Time{}, 1}, {time.Unix(1, 0), time.Time{}, 0}, {time.Time{}, time.Unix(0, 0), 0}, {time.Unix(0, 0), time.Unix(1, 0), 1}} {
		f := NewFinder(r, nil, tt.from, tt.to)
		if err := f.Add(ctx, Open(r, s, nil), nil); err != nil {
			t.Fatal(err)
		}
		if n := len(f.Versions()); n != tt.want {
			t.Errorf("%v to %v: %d files", tt.from, tt.to, n)
		}
	}
}

// A file is not gone because its time has left the range, nor added or back because it has
// come into it.
func TestFinderTimesOfChanges(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	r := repotest.Create(t, memory.New())
	var snapshots []*repo.Snapshot
	for i, files := range []map[string]string{
		{"D/changed": "a@10", "D/removed": "x@10", "D/new": "n@30"},
		{"D/changed": "b@20", "D/removed": "x@10", "D/new": "n@30"},
		{"D/changed": "c@10"},
	} {
		snapshots = append(snapshots, storeDay(t, r, i+1, files))
	}
	for _, tt := range []struct {
		from, to int64
		want     string
	}{
		{0, 100, "changed added 1-1, changed changed 2-2, changed changed 3-3, new added 1-2, new gone 3-3, removed added 1-2, removed gone 3-3, "},
		{10, 11, "changed added 1-1, changed changed 3-3, removed added 1-2, removed gone 3-3, "},
		{20, 21, "changed changed 2-2, "},
		{30, 31, "new added 1-2, new gone 3-3, "},
		{40, 50, ""},
	} {
		f := NewFinder(r, nil, time.Unix(tt.from, 0), time.Unix(tt.to, 0))
		for _, s := range snapshots {
			if err := f.Add(ctx, Open(r, s, nil), func(err error) { t.Error(err) }); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 { // Versions changes nothing
			got := ""
			for _, v := range f.Versions() {
				for _, one := range v.List {
					got += fmt.Sprintf("%s %s %d-%d, ", v.Name, one.Change, one.First.Time.Day(), one.Last.Time.Day())
				}
			}
			if got != tt.want {
				t.Errorf("%d to %d: got %s, want %s", tt.from, tt.to, got, tt.want)
			}
		}
	}
}
