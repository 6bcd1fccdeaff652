package record

import (
	"crypto/rand"
	"encoding/json"
	mrand "math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/store"
)

func TestBackupTime(t *testing.T) {
	t.Parallel()
	day := func(y int, m time.Month, d int) time.Time { return time.Date(y, m, d, 8, 0, 0, 0, time.UTC) }
	now := day(2026, 3, 1)
	none := time.Time{}
	for name, c := range map[string]struct {
		stored time.Time
		stated []time.Time
		want   time.Time
		note   string
	}{
		"possible":                 {now, []time.Time{day(2026, 2, 1)}, day(2026, 2, 1), ""},
		"old":                      {now, []time.Time{day(2009, 2, 1)}, day(2009, 2, 1), ""},
		"no date":                  {now, nil, now, "no date"},
		"zero":                     {now, []time.Time{none}, now, "no date"},
		"lost clock":               {now, []time.Time{day(1970, 1, 1)}, now, "impossible date 1970-01-01 08:00 UTC; the time of storing"},
		"last day before":          {now, []time.Time{day(2004, 12, 31)}, now, "impossible"},
		"first day":                {now, []time.Time{day(2005, 1, 1)}, day(2005, 1, 1), ""},
		"future":                   {now, []time.Time{day(2038, 1, 19)}, now, "impossible date 2038-01-19"},
		"clock a little ahead":     {now, []time.Time{now.Add(10 * time.Minute)}, now.Add(10 * time.Minute), ""},
		"clock ahead":              {now, []time.Time{now.Add(10*time.Minute + 1)}, now, "impossible"},
		"the second is right":      {now, []time.Time{day(2038, 1, 19), none, day(2026, 2, 1)}, day(2026, 2, 1), "impossible date 2038-01-19 08:00 UTC; its other date 2026-02-01"},
		"the first is missing":     {now, []time.Time{none, day(2026, 2, 1)}, day(2026, 2, 1), ""},
		"all wrong":                {now, []time.Time{day(2001, 1, 1), day(2038, 1, 19)}, now, "impossible date 2001-01-01"},
		"computer without a clock": {day(1970, 1, 1), []time.Time{day(2026, 2, 1)}, day(2026, 2, 1), ""},
		"no clock anywhere":        {day(1970, 1, 1), []time.Time{day(1970, 1, 1)}, day(1970, 1, 1), "impossible"},
	} {
		got, note := BackupTime(c.stored, c.stated...)
		if !got.Equal(c.want) || (note == "") != (c.note == "") || !strings.Contains(note, c.note) {
			t.Errorf("%s: %v, %q", name, got, note)
		}
	}
}

// Records of older programs have times as backups stated them.
func TestOldRecordsGetPossibleTimes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		time, stored string
		want         string
		problems     int
	}{
		"right":            {"2026-02-01T08:00:00Z", "2026-03-01T08:00:00Z", "2026-02-01T08:00:00Z", 0},
		"future":           {"2038-01-19T00:00:00Z", "2026-03-01T08:00:00Z", "2026-03-01T08:00:00Z", 1},
		"none":             {"0001-01-01T00:00:00Z", "2026-03-01T08:00:00Z", "2026-03-01T08:00:00Z", 1},
		"both wrong":       {"2038-01-19T00:00:00Z", "1970-01-01T00:00:00Z", "2038-01-19T00:00:00Z", 0},
		"no time of store": {"0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z", 0},
	} {
		s, err := parseSnapshot([]byte(`{"version":1,"time":"` + c.time + `","stored_at":"` + c.stored + `","root":"` + strings.Repeat("00", 32) + `"}`))
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Time.Format(time.RFC3339); got != c.want || len(s.Problems) != c.problems || s.Findings != nil {
			t.Errorf("%s: %s, %q", name, got, s.Problems)
		}
		// A changed label writes the record again; the correction happens once.
		b, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := parseSnapshot(b); err != nil || len(again.Problems) != c.problems || !again.Time.Equal(s.Time) {
			t.Errorf("%s again: %+v, %v", name, again, err)
		}
	}
}

// A snapshot of a computer whose clock was years ahead gets the date of its file or, if
// that is in the future, too, a place beside its parent or child.
func TestDatesAhead(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC)
	day := func(n int) time.Time { return now.AddDate(0, 0, n-10) } // of March
	wrong := now.AddDate(4, 0, 0)
	id := func(n int) layout.FileID { return layout.FileID{byte(n)} }
	snap := func(n, parent int, stored, put time.Time) *Snapshot {
		s := &Snapshot{Version: SnapshotVersion, ID: id(n), Time: stored, StoredAt: stored, Put: put}
		if parent > 0 {
			p := id(parent)
			s.Parent = &p
		}
		return s
	}
	for name, c := range map[string]struct {
		list []*Snapshot
		want []time.Time
	}{
		"by its file":   {[]*Snapshot{snap(1, 0, day(1), day(1)), snap(2, 1, wrong, day(2))}, []time.Time{day(1), day(2)}},
		"by its parent": {[]*Snapshot{snap(1, 0, day(1), day(1)), snap(2, 1, wrong, wrong)}, []time.Time{day(1), day(1).Add(1)}},
		"by its child": {[]*Snapshot{snap(2, 0, wrong, wrong), snap(3, 2, day(3), day(3)), snap(4, 2, day(4), day(4))},
			[]time.Time{day(3).Add(-1), day(3), day(4)}},
		"no evidence":          {[]*Snapshot{snap(1, 0, day(1), day(1)), snap(2, 0, wrong, time.Time{})}, []time.Time{day(1), wrong}},
		"a little ahead":       {[]*Snapshot{snap(1, 0, day(1), day(1)), snap(2, 1, now.Add(23*time.Hour), day(2))}, []time.Time{day(1), now.Add(23 * time.Hour)}},
		"this clock is behind": {[]*Snapshot{snap(1, 0, wrong, wrong), snap(2, 1, wrong.Add(1), wrong)}, []time.Time{wrong, wrong.Add(1)}},
		"behind":               {[]*Snapshot{snap(1, 0, day(1), day(1)), snap(2, 1, day(-2000), day(2))}, []time.Time{day(1), day(2)}},
		"behind, and its parent ahead": {[]*Snapshot{snap(1, 0, day(1), day(1)), snap(2, 1, wrong, wrong), snap(3, 2, day(-2000), day(3))},
			[]time.Time{day(1), day(1).Add(1), day(3)}},
		"the parent was ahead":  {[]*Snapshot{snap(1, 0, day(5), day(1)), snap(2, 1, day(2), day(2))}, []time.Time{day(5), day(2)}},
		"the file has no clock": {[]*Snapshot{snap(1, 0, day(1), day(1)), snap(2, 1, wrong, time.Unix(0, 0))}, []time.Time{day(1), day(1).Add(1)}},
	} {
		var stated []Snapshot
		for _, s := range c.list {
			stated = append(stated, *s)
		}
		datesOf(c.list, now)
		for i, s := range c.list {
			if !s.Time.Equal(c.want[i]) || !s.StoredAt.Equal(c.want[i]) {
				t.Errorf("%s: snapshot %d is of %v, stored at %v", name, i, s.Time, s.StoredAt)
			}
			wrong := stated[i].StoredAt.After(day(12)) || stated[i].StoredAt.Before(day(-300)) && c.want[i].After(day(-300))
			if s.Misdated != wrong || (len(s.Problems) > 0) != (!s.StoredAt.Equal(stated[i].StoredAt)) {
				t.Errorf("%s: snapshot %d: misdated %v, problems %q", name, i, s.Misdated, s.Problems)
			}
			// A change of its labels stores what the record said.
			sealer := crypto.NewSealer(crypto.Key{}, rand.Reader)
			b, err := Seal(&store.Store{SnapshotSealer: sealer}, s)
			if err != nil {
				t.Fatal(err)
			}
			back, err := openSnapshot(b, sealer)
			if err != nil || !back.StoredAt.Equal(stated[i].StoredAt) || !back.Time.Equal(stated[i].Time) || len(back.Problems) > 0 {
				t.Errorf("%s: snapshot %d is stored with %v, %q, %v", name, i, back.StoredAt, back.Problems, err)
			}
		}
	}
}

// The snapshot that was stored last is found whatever the clocks say.
func TestLastStored(t *testing.T) {
	t.Parallel()
	date := func(n int) time.Time { return time.Date(2026, 1, n, 0, 0, 0, 0, time.UTC) }
	behind := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	type snap struct {
		parent       int
		time, stored time.Time
	}
	for name, c := range map[string]struct {
		list []snap // from 1, in the order of storing
		want int
	}{
		"right":                           {[]snap{{0, date(1), date(1)}, {1, date(2), date(2)}, {2, date(3), date(3)}}, 3},
		"the last clock is behind":        {[]snap{{0, date(1), date(1)}, {1, date(2), date(2)}, {2, behind, behind}}, 3},
		"two in a row are behind":         {[]snap{{0, date(1), date(1)}, {1, behind, behind}, {2, behind.Add(1), behind.Add(1)}}, 3},
		"an earlier clock was behind":     {[]snap{{0, date(1), date(1)}, {1, behind, behind}, {1, date(3), date(3)}}, 3},
		"an earlier clock was ahead":      {[]snap{{0, date(1), date(1)}, {1, date(20), date(20)}, {2, date(3), date(3)}, {2, date(4), date(4)}}, 4},
		"ahead, and named by one only":    {[]snap{{0, date(1), date(1)}, {1, date(20), date(20)}, {2, date(3), date(3)}, {3, date(4), date(4)}}, 4},
		"an archive, stored last":         {[]snap{{0, date(5), date(5)}, {1, date(6), date(6)}, {2, date(1), date(7)}}, 2},
		"parents that name each other":    {[]snap{{2, date(5), date(4)}, {1, date(6), date(5)}}, 2},
		"a date that the device put back": {[]snap{{0, date(5), date(5)}, {1, date(4), date(6)}}, 1},
	} {
		var list []*Snapshot
		for i, s := range c.list {
			n := &Snapshot{ID: layout.FileID{byte(i + 1)}, Time: s.time, StoredAt: s.stored}
			if s.parent > 0 {
				n.Parent = &layout.FileID{byte(s.parent)}
			}
			list = append(list, n)
		}
		slices.SortFunc(list, func(a, b *Snapshot) int { return a.Time.Compare(b.Time) })
		got, err := FindIn(list, "latest")
		if err != nil || int(got.ID[0]) != c.want {
			t.Errorf("%s: the latest is %d, want %d, %v", name, got.ID[0], c.want, err)
		}
		last := LastStored(list)
		if want := len(c.list); len(last) != 1 || int(last[0].ID[0]) != want && c.want == want {
			t.Errorf("%s: stored last is %d", name, last[0].ID[0])
		}
		// The times of the files are the second witness.
		for _, s := range list {
			s.Put = date(int(s.ID[0]))
		}
		if last := LastStored(list); !slices.ContainsFunc(last, func(s *Snapshot) bool { return int(s.ID[0]) == len(c.list) }) {
			t.Errorf("%s: the files do not tell which was stored last", name)
		}
	}
}

// Records of older programs do not say what was known when they were stored. Their parents
// tell, also by way of other misdated ones, in whatever order the list is.
func TestDatesOfAnyOrder(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC)
	behind := now.AddDate(-6, 0, 0)
	make8 := func() []*Snapshot {
		var list []*Snapshot
		for n := range 8 {
			stored := now.AddDate(0, 0, n-8)
			s := &Snapshot{ID: layout.FileID{byte(n + 1)}, Put: stored, StoredAt: stored}
			if n > 0 {
				s.Parent = &layout.FileID{byte(n)}
			}
			if n >= 3 {
				s.StoredAt = behind.AddDate(0, 0, n)
			}
			if n == 5 {
				s.Put = s.StoredAt // the store's clock was behind, too
			}
			if n == 6 {
				s.Changed = &now // its file tells nothing
			}
			s.Time = s.StoredAt
			list = append(list, s)
		}
		return list
	}
	var first string
	for range 50 {
		list := make8()
		mrand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		datesOf(list, now)
		slices.SortFunc(list, func(a, b *Snapshot) int { return slices.Compare(a.ID[:], b.ID[:]) })
		var got strings.Builder
		for n, s := range list {
			if s.Misdated != (n >= 3) || s.StoredAt.Year() != 2026 {
				t.Errorf("snapshot %d: misdated %v, %v", n, s.Misdated, s.StoredAt)
			}
			got.WriteString(s.StoredAt.String() + s.Time.String() + "\n")
		}
		if first == "" {
			first = got.String()
		}
		if got.String() != first {
			t.Fatalf("the dates depend on the order:\n%s\n%s", first, got.String())
		}
	}
}

// What was known when a snapshot was stored is known when its parent is gone.
func TestNotBefore(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC)
	day := func(n int) time.Time { return now.AddDate(0, 0, n-10) }
	behind := now.AddDate(-6, 0, 0)
	for name, c := range map[string]struct {
		stored, put, notBefore time.Time
		now                    time.Time
		misdated               bool
		want                   time.Time
	}{
		"right":                        {day(3), day(3), day(2), now, false, day(3)},
		"nothing is known":             {behind, day(3), time.Time{}, now, false, behind},
		"an hour behind":               {day(2).Add(-time.Hour), day(2), day(2), now, false, day(2).Add(-time.Hour)},
		"by the file":                  {behind, day(3), day(2), now, true, day(3)},
		"the file is behind, too":      {behind, behind, day(2), now, true, day(2)},
		"ahead":                        {now.AddDate(4, 0, 0), now.AddDate(4, 0, 0), day(2), now, true, day(2)},
		"this clock is behind":         {behind, day(3), day(2), behind.AddDate(0, 0, 1), true, behind},
		"known by a clock, ahead":      {day(3), day(3), now.AddDate(4, 0, 0), now, false, day(3)},
		"ahead, and the file is right": {now.AddDate(4, 0, 0), day(3), day(2), now, true, day(3)},
	} {
		s := &Snapshot{Time: c.stored, StoredAt: c.stored, Put: c.put, NotBefore: c.notBefore}
		datesOf([]*Snapshot{s}, c.now)
		if s.Misdated != c.misdated || !s.StoredAt.Equal(c.want) {
			t.Errorf("%s: misdated %v, stored at %v", name, s.Misdated, s.StoredAt)
		}
		if at, ok := s.Future(); ok && !at.After(c.now) {
			t.Errorf("%s: %v is in the future", name, at)
		}
	}
}
