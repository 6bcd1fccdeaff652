// Package keep decides which snapshots of a device a retention policy keeps,
// and says why. It knows times, tags and marks of snapshots, nothing of
// repositories, and changes nothing.
//
// The rules mean what the options of restic's forget of the same names mean:
//
//   - Last keeps the newest snapshots.
//   - Hourly to Yearly keep the newest snapshot of each of the newest periods
//     that have one; a period is one of the calendar, weeks are those of ISO
//     8601. While a rule is not used up, it keeps the oldest snapshot, too.
//   - Within keeps all that are younger than a duration, counted from the newest
//     snapshot; WithinHourly to WithinYearly one of each period that are.
//   - Tags keeps snapshots with certain tags, beside the counts.
//
// What snap adds: pinned snapshots are kept. Incomplete ones do not count, so
// that they push no complete one out: one that is newer than every complete one
// is kept, since it has what no other has, others only for their tags or
// because of Within. If there is no complete one, incomplete ones count. One that
// was complete until the repository lost a part of it is kept where it would be
// if it still were: it pushes nothing out, and nothing pushes it out for that.
package keep

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Unlimited as a number of snapshots keeps all of a rule.
const Unlimited = -1

// Snapshot is what the rules look at.
type Snapshot struct {
	Time     time.Time
	Tags     []string
	Complete bool
	Lost     bool // it is not complete, but was until a part of it was lost
	Pinned   bool
}

// Policy is a set of rules. A snapshot is kept if one of them keeps it. The
// zero value has no rules, and keeps nothing but pinned snapshots.
type Policy struct {
	// How many to keep of each period, or Unlimited.
	Last, Hourly, Daily, Weekly, Monthly, Yearly int

	Within                                                               Duration
	WithinHourly, WithinDaily, WithinWeekly, WithinMonthly, WithinYearly Duration

	// Tags are sets of tags; a snapshot that has all of a set is kept. The set
	// of one empty tag means snapshots without tags.
	Tags [][]string
}

// Empty reports whether a policy has no rules.
func (p *Policy) Empty() bool {
	for _, r := range p.rules() {
		if r.count != 0 || r.within != (Duration{}) {
			return false
		}
	}
	return p.Within == Duration{} && len(p.Tags) == 0
}

// rule keeps the newest snapshot of each period, so many of them or those
// within a duration.
type rule struct {
	name   string
	count  int
	within Duration
	period func(time.Time) string // nil if every snapshot is one of its own
}

func (p *Policy) rules() []rule {
	return []rule{
		{"last", p.Last, Duration{}, nil},
		{"hourly", p.Hourly, Duration{}, hour},
		{"daily", p.Daily, Duration{}, day},
		{"weekly", p.Weekly, Duration{}, week},
		{"monthly", p.Monthly, Duration{}, month},
		{"yearly", p.Yearly, Duration{}, year},
		{"hourly", 0, p.WithinHourly, hour},
		{"daily", 0, p.WithinDaily, day},
		{"weekly", 0, p.WithinWeekly, week},
		{"monthly", 0, p.WithinMonthly, month},
		{"yearly", 0, p.WithinYearly, year},
	}
}

func hour(t time.Time) string  { return t.Format("2006-01-02 15") }
func day(t time.Time) string   { return t.Format("2006-01-02") }
func month(t time.Time) string { return t.Format("2006-01") }
func year(t time.Time) string  { return t.Format("2006") }
func week(t time.Time) string {
	y, w := t.ISOWeek()
	return fmt.Sprint(y, " ", w)
}

// Verdict says what happens to a snapshot.
type Verdict struct {
	Keep    bool
	Reasons []string // why it is kept
}

func (v *Verdict) keep(format string, args ...any) {
	v.Keep = true
	v.Reasons = append(v.Reasons, fmt.Sprintf(format, args...))
}

// Apply judges the snapshots of one device, in any order; the verdicts are in
// the order given. now bounds what counts as the newest snapshot, so that one
// of a clock that was wrong does not make all others old. Periods are those of
// the calendar in zone.
func (p *Policy) Apply(list []Snapshot, now time.Time, zone *time.Location) []Verdict {
	verdicts := make([]Verdict, len(list))
	order := make([]int, len(list)) // newest first
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return list[b].Time.Compare(list[a].Time) })

	var latest time.Time
	for _, i := range order {
		if !list[i].Time.After(now) {
			latest = list[i].Time
			break
		}
	}
	counted := slices.DeleteFunc(slices.Clone(order), func(i int) bool { return !list[i].Complete })
	if len(counted) == 0 {
		counted = order
	}
	for _, i := range order {
		s, v := &list[i], &verdicts[i]
		if s.Pinned {
			v.keep("pinned")
		}
		for _, tags := range p.Tags {
			if hasTags(s.Tags, tags) {
				v.keep("tag %s", strings.Join(tags, ","))
			}
		}
		if p.Within != (Duration{}) && s.Time.After(p.Within.before(latest)) {
			v.keep("within %s", p.Within)
		}
		if !s.Complete && s.Time.After(list[counted[0]].Time) && !p.Empty() {
			v.keep("newer than the last complete one")
		}
	}
	for _, r := range p.rules() {
		r.apply(list, counted, verdicts, latest, zone)
	}
	p.applyLost(list, order, verdicts, latest, zone)
	return verdicts
}

// applyLost keeps what the rules would keep if nothing were lost. Whatever else
// is kept stays so.
func (p *Policy) applyLost(list []Snapshot, order []int, verdicts []Verdict, latest time.Time, zone *time.Location) {
	counted := slices.DeleteFunc(slices.Clone(order), func(i int) bool { return !list[i].Complete && !list[i].Lost })
	whole := make([]Verdict, len(list))
	for _, r := range p.rules() {
		r.apply(list, counted, whole, latest, zone)
	}
	for i := range list {
		if list[i].Lost && !verdicts[i].Keep {
			verdicts[i] = whole[i]
		}
	}
}

// apply runs one rule over the snapshots that count, newest first.
func (r *rule) apply(list []Snapshot, counted []int, verdicts []Verdict, latest time.Time, zone *time.Location) {
	limited := r.within != Duration{}
	if r.count == 0 && !limited {
		return
	}
	left, before := r.count, ""
	for n, i := range counted {
		if limited && !list[i].Time.After(r.within.before(latest)) {
			continue
		}
		if !limited && left == 0 {
			return
		}
		period := fmt.Sprint(n)
		if r.period != nil {
			period = r.period(list[i].Time.In(zone))
		}
		if period == before && n < len(counted)-1 {
			continue
		}
		oldest := ""
		if period == before {
			oldest = "oldest, "
		}
		if limited {
			verdicts[i].keep("%s%s within %s", oldest, r.name, r.within)
		} else {
			verdicts[i].keep("%s%s", oldest, r.name)
			if left != Unlimited {
				left--
			}
		}
		before = period
	}
}

func hasTags(have, want []string) bool {
	if len(want) == 1 && want[0] == "" {
		return len(have) == 0
	}
	for _, tag := range want {
		if !slices.Contains(have, tag) {
			return false
		}
	}
	return true
}
