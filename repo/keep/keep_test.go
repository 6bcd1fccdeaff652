package keep

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func at(t testing.TB, text string) time.Time {
	t.Helper()
	for _, layout := range []string{"2006-01-02", "2006-01-02 15:04"} {
		if v, err := time.ParseInLocation(layout, text, time.UTC); err == nil {
			return v
		}
	}
	t.Fatalf("time %q", text)
	return time.Time{}
}

// series parses a list of snapshots, oldest first. Each is a time, followed by ! if the
// snapshot is incomplete, ? if it has lost a part, * if it is pinned, v if it was
// verified, d if it was drilled, L if it is locked, B if it has another size, and # before
// its tags.
func series(t testing.TB, text string) ([]Snapshot, []string) {
	t.Helper()
	var list []Snapshot
	var names []string
	for field := range strings.SplitSeq(text, ", ") {
		s := Snapshot{Complete: true, Open: !strings.Contains(field, "L")}
		name, tags, tagged := strings.Cut(field, "#")
		if tagged {
			s.Tags = strings.Split(tags, "+")
		}
		s.Complete = !strings.ContainsAny(name, "!?")
		s.Lost = strings.Contains(name, "?")
		s.Pinned = strings.Contains(name, "*")
		s.Bytes = int64(strings.Count(name, "B"))
		if strings.Contains(name, "v") {
			s.Verified = time.Unix(1, 0)
		}
		if strings.Contains(name, "d") {
			s.Drilled = time.Unix(1, 0)
		}
		s.Time = at(t, strings.Trim(name, "!?*vdLB"))
		if name = strings.Trim(name, "!?*vd"); slices.Contains(names, name) {
			name += " again"
		}
		list, names = append(list, s), append(names, name)
	}
	return list, names
}

const sundays = "2014-09-07, 2014-09-14, 2014-09-21, 2014-09-28, 2014-10-05, 2014-10-12, 2014-10-19, 2014-10-26, " +
	"2014-11-02, 2014-11-09, 2014-11-16, 2014-11-23, 2014-11-30"

func TestApply(t *testing.T) {
	within := func(s string) Duration {
		d, err := ParseDuration(s)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	for name, c := range map[string]struct {
		series, keep string
		Policy
	}{
		// The examples of restic's manual.
		"a count counts snapshots, not days":       {sundays, "2014-11-09, 2014-11-16, 2014-11-23, 2014-11-30", Policy{Daily: 4}},
		"a month of Sundays":                       {sundays, "2014-09-28, 2014-10-26, 2014-11-16, 2014-11-23, 2014-11-30", Policy{Weekly: 3, Monthly: 3}},
		"a rule with counts left keeps the oldest": {sundays, "2014-09-07, 2014-11-30", Policy{Yearly: 3}},
		"a rule without counts left does not":      {sundays, "2014-11-30", Policy{Yearly: 1}},
		"unlimited":                                {sundays, sundays, Policy{Last: Unlimited}},
		"one of every month":                       {sundays, "2014-09-07, 2014-09-28, 2014-10-26, 2014-11-30", Policy{Monthly: Unlimited}},
		"within, from the newest":                  {sundays, "2014-11-16, 2014-11-23, 2014-11-30", Policy{Within: within("15d")}},
		"within 14 days is less than 14 days":      {sundays, "2014-11-23, 2014-11-30", Policy{Within: within("14d")}},
		"one of each month within":                 {sundays, "2014-10-26, 2014-11-30", Policy{WithinMonthly: within("2m")}},

		"the newest of a period": {"2026-01-05 06:00, 2026-01-05 23:59, 2026-01-06 00:01, 2026-01-06 12:00", "2026-01-05 23:59, 2026-01-06 12:00", Policy{Daily: 2}},
		"ISO weeks":              {"2025-12-28, 2025-12-29, 2025-12-31, 2026-01-01, 2026-01-05", "2025-12-28, 2026-01-01, 2026-01-05", Policy{Weekly: 3}},
		"hours":                  {"2026-01-05 06:00, 2026-01-05 06:59, 2026-01-05 07:00", "2026-01-05 06:59, 2026-01-05 07:00", Policy{Hourly: 2}},
		"a clock that was wrong": {"2026-01-01, 2026-01-05, 2099-01-01", "2026-01-05, 2099-01-01", Policy{Within: within("2d")}},
		"tags":                   {"2026-01-01#a+b, 2026-01-02#a, 2026-01-03, 2026-01-04#c", "2026-01-01, 2026-01-03, 2026-01-04", Policy{Last: 1, Tags: [][]string{{"a", "b"}, {""}}}},

		// Rules that restic does not have.
		"pinned":                                       {"2026-01-01*, 2026-01-02, 2026-01-03", "2026-01-01, 2026-01-03", Policy{Last: 1}},
		"incomplete ones do not count":                 {"2026-01-01, 2026-01-02, 2026-01-03!, 2026-01-04", "2026-01-02, 2026-01-04", Policy{Last: 2}},
		"an incomplete one at the end stays":           {"2026-01-01, 2026-01-02!, 2026-01-03, 2026-01-04!", "2026-01-03, 2026-01-04", Policy{Last: 1}},
		"incomplete, within and tagged":                {"2026-01-01!#x, 2026-01-02!, 2026-01-03!, 2026-01-04", "2026-01-01, 2026-01-03, 2026-01-04", Policy{Within: within("2d"), Tags: [][]string{{"x"}}}},
		"only incomplete ones":                         {"2026-01-01!, 2026-01-02!, 2026-01-03!", "2026-01-02, 2026-01-03", Policy{Last: 2}},
		"one that lost a part stays by the rules":      {"2026-01-01?, 2026-01-02?, 2026-01-03?, 2026-01-04", "2026-01-02, 2026-01-03, 2026-01-04", Policy{Last: 3}},
		"one that lost a part displaces nothing":       {"2026-01-01, 2026-01-02, 2026-01-03?, 2026-01-04?", "2026-01-01, 2026-01-02, 2026-01-03, 2026-01-04", Policy{Last: 2}},
		"one that lost a part keeps no incomplete one": {"2026-01-01?, 2026-01-02!, 2026-01-03", "2026-01-01, 2026-01-03", Policy{Daily: 2}},
		"the last drilled one":                         {"2026-01-01d, 2026-01-02d, 2026-01-03v, 2026-01-04", "2026-01-02, 2026-01-04", Policy{Last: 1}},
		"the last verified one, without a drill":       {"2026-01-01v, 2026-01-02v, 2026-01-03", "2026-01-02, 2026-01-03", Policy{Last: 1}},
		"the last proven one is given up":              {"2026-01-01d, 2026-01-02v, 2026-01-03", "2026-01-03", Policy{Last: 1, ForgetProven: true}},
		"the newest proven ones":                       {"2026-01-01v, 2026-01-02d, 2026-01-03, 2026-01-04v, 2026-01-05vd, 2026-01-06", "2026-01-02, 2026-01-04, 2026-01-05", Policy{Verified: 3}},
		"all proven ones":                              {"2026-01-01v, 2026-01-02d, 2026-01-03", "2026-01-01, 2026-01-02", Policy{Verified: Unlimited}},
		"one of a backup stored twice":                 {"2026-01-01, 2026-01-02, 2026-01-03L, 2026-01-03", "2026-01-02, 2026-01-03", Policy{Last: 2}},
		"the open one, with any rule":                  {"2026-01-01, 2026-01-01L", "2026-01-01", Policy{Last: 5, Daily: 5, Within: within("1y")}},
		"another size is another backup":               {"2026-01-01, 2026-01-01B, 2026-01-02", "2026-01-01, 2026-01-01B, 2026-01-02", Policy{Last: 5}},
		"also in the middle":                           {"2026-01-01L, 2026-01-01, 2026-01-02", "2026-01-01, 2026-01-02", Policy{Last: 5}},
		"a locked one that is pinned, tagged, proven":  {"2026-01-01, 2026-01-01*L", "2026-01-01, 2026-01-01*L", Policy{Last: 1}},
		"an incomplete one is another backup":          {"2026-01-01!, 2026-01-01L", "2026-01-01L", Policy{Last: 2}},
		"one that lost a part beside the same backup":  {"2026-01-01?, 2026-01-01L, 2026-01-02", "2026-01-01, 2026-01-01L, 2026-01-02", Policy{Last: 3}},
		"no rules": {"2026-01-01, 2026-01-02*, 2026-01-03!", "2026-01-02", Policy{}},
	} {
		list, names := series(t, c.series)
		for range 2 {
			var kept []string
			for i, v := range c.Apply(list, at(t, "2027-01-01"), time.UTC) {
				if v.Keep {
					kept = append(kept, names[i])
				}
				if v.Keep != (len(v.Reasons) > 0) {
					t.Errorf("%s: %s: kept %v for %q", name, names[i], v.Keep, v.Reasons)
				}
			}
			slices.Sort(kept)
			if got := strings.Join(kept, ", "); got != c.keep {
				t.Errorf("%s: kept %s, want %s", name, got, c.keep)
			}
			slices.Reverse(list) // the order does not matter
			slices.Reverse(names)
		}
	}
}

func TestReasons(t *testing.T) {
	list, _ := series(t, "2026-01-01*#a, 2026-01-02, 2026-01-03!")
	list[1].Verified, list[0].Drilled = time.Unix(1, 0), time.Unix(1, 0)
	p := Policy{Last: 1, Verified: 1, Yearly: 2, Within: Duration{Days: 30}, Tags: [][]string{{"a"}}}
	var got []string
	for _, v := range p.Apply(list, at(t, "2027-01-01"), time.UTC) {
		got = append(got, strings.Join(v.Reasons, "; "))
	}
	want := []string{"pinned; tag a; within 30d; oldest, yearly; last drilled", "within 30d; last; yearly; verified", "within 30d; newer than the last complete one"}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// Days depend on the time zone.
func TestZone(t *testing.T) {
	list, _ := series(t, "2026-01-05 22:30, 2026-01-05 23:30, 2026-01-06 00:30")
	p := Policy{Daily: 1}
	kept := func(zone *time.Location) (n int) {
		q := Policy{Daily: 5}
		for _, v := range q.Apply(list, at(t, "2027-01-01"), zone) {
			if v.Keep {
				n++
			}
		}
		return n
	}
	if !p.Apply(list, at(t, "2027-01-01"), time.UTC)[2].Keep {
		t.Error("the newest is not kept")
	}
	// In UTC: the newest of the 6th, the newest of the 5th, and the oldest.
	if got := kept(time.UTC); got != 3 {
		t.Errorf("UTC: %d", got)
	}
	// One hour east, the last two are on the same day.
	if got := kept(time.FixedZone("", 3600)); got != 2 {
		t.Errorf("an hour east: %d", got)
	}
}

func TestEmpty(t *testing.T) {
	if p := (Policy{}); !p.Empty() {
		t.Error("a policy without rules is not empty")
	}
	for _, p := range []Policy{{Last: 1}, {Yearly: Unlimited}, {Within: Duration{Hours: 1}}, {WithinDaily: Duration{Years: 1}}, {Tags: [][]string{{"a"}}}, {Verified: 1}} {
		if p.Empty() {
			t.Errorf("%+v is empty", p)
		}
	}
}

func TestParseDuration(t *testing.T) {
	for text, want := range map[string]string{"1y6m": "1y6m", "2y5m7d3h": "2y5m7d3h", "12h": "12h", "7d1y": "1y7d", "0d": "0h"} {
		if d, err := ParseDuration(text); err != nil || d.String() != want {
			t.Errorf("%q: %v, %v", text, d, err)
		}
	}
	for _, text := range []string{"", "5", "d", "-1d", "1d2d", "1w", "1d ", "10000y", "99999999999999999999d", "1.5d", "٣d"} {
		if d, err := ParseDuration(text); err == nil {
			t.Errorf("%q: %v", text, d)
		}
	}
}

func FuzzParseDuration(f *testing.F) {
	for _, s := range []string{"1y6m", "30d", "12h", "0h", "", "1d1d", "9999y9999m9999d9999h"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := ParseDuration(s)
		if err != nil {
			return
		}
		again, err := ParseDuration(d.String())
		if err != nil || again != d {
			t.Errorf("%q: %v, again %v, %v", s, d, again, err)
		}
		if now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC); d.Before(now).After(now) {
			t.Errorf("%q is in the future", s)
		}
	})
}

// A snapshot of a clock that was wrong is kept and displaces no other one. Neither does a
// clock that was behind cost the snapshot that was stored last.
func TestWrongClocks(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC)
	at := func(y, d int) Snapshot {
		return Snapshot{Time: time.Date(y, 1, d, 0, 0, 0, 0, time.UTC), Complete: true}
	}
	ahead, behind, unfinished := at(2030, 1), at(2020, 1), at(2026, 4)
	ahead.Misdated = true
	behind.LastStored = true
	unfinished.Complete = false
	list := []Snapshot{behind, at(2026, 1), at(2026, 2), at(2026, 3), unfinished, ahead}
	for name, c := range map[string]struct {
		policy Policy
		list   []Snapshot
		want   []bool
	}{
		"the last":        {Policy{Last: 1}, list, []bool{true, false, false, true, true, true}},
		"daily":           {Policy{Daily: 2}, list, []bool{true, false, true, true, true, true}},
		"within":          {Policy{Within: Duration{Days: 2}}, list, []bool{true, false, false, true, true, true}},
		"by tag":          {Policy{Tags: [][]string{{"x"}}}, list[:4], []bool{true, false, false, false}}, // and the caller refuses that
		"by tag, no date": {Policy{Tags: [][]string{{"x"}}}, []Snapshot{at(2026, 1), ahead}, []bool{false, true}},
		"within, beside one that a copied file dates": {Policy{Within: Duration{Days: 2}}, []Snapshot{at(2026, 1), at(2026, 2), {Time: now, Complete: true, Misdated: true}}, []bool{true, true, true}},
		"all misdated":  {Policy{Last: 1}, []Snapshot{ahead, ahead}, []bool{true, true}},
		"no policy":     {Policy{}, list, make([]bool, 6)},
		"no other good": {Policy{Last: 1}, []Snapshot{unfinished, ahead}, []bool{true, true}},
	} {
		for i, v := range c.policy.Apply(c.list, now, time.UTC) {
			if v.Keep != c.want[i] {
				t.Errorf("%s: snapshot %d: %+v", name, i, v)
			}
			if byRule := strings.HasPrefix(name, "by tag"); byRule && v.Spared != v.Keep {
				t.Errorf("%s: snapshot %d: %+v; no rule keeps it", name, i, v)
			}
		}
	}
}

// Of snapshots with the same time, the last one counts as the newest.
func TestTies(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC)
	same := Snapshot{Time: now, Complete: true}
	for name, p := range map[string]Policy{"last": {Last: 1}, "daily": {Daily: 1}, "within": {WithinDaily: Duration{Days: 1}}} {
		v := p.Apply([]Snapshot{same, same, same}, now, time.UTC)
		if !v[2].Keep || v[1].Keep {
			t.Errorf("%s: got %+v", name, v)
		}
	}
}
