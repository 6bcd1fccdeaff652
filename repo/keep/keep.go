// Package keep decides which snapshots of a device a retention policy keeps, and why.
// The package sees only times, tags and flags of snapshots. It knows nothing of
// repositories and never changes anything.
//
// The rules have the meaning of the options with the same names of restic's forget:
//
//   - Last keeps the newest snapshots.
//   - Hourly to Yearly keep one snapshot, the newest, of each of the newest periods
//     that have any. Periods are calendar periods; weeks are ISO 8601 weeks. If a
//     rule has kept fewer than its number, it also keeps the oldest snapshot.
//   - Within keeps all snapshots younger than a duration, counted back from the
//     newest snapshot. WithinHourly to WithinYearly keep one of each period among
//     these.
//   - Tags keeps snapshots with certain tags, in addition to those that the rules
//     above keep.
//
// snap adds:
//
//   - Pinned snapshots are kept.
//   - Incomplete snapshots do not count, so they never displace complete ones. An
//     incomplete snapshot is kept because of Tags or Within, or if it is newer than
//     all complete ones, since then no complete one has the newest content. If no
//     snapshot is complete, incomplete ones count.
//   - Verified keeps the newest snapshots that passed a drill or a full verify.
//   - The newest snapshot that passed a drill is kept; if there is none, the newest one
//     that passed a full verify. ForgetProven turns this off.
//   - A misdated snapshot is kept and does not count: its place among the others is not
//     known. It would displace each snapshot that comes after it.
//   - The snapshot that was stored last is kept, whatever its date is.
//   - A snapshot that was complete until the repository lost a part of it is judged
//     as if it were still complete, but displaces no other snapshot.
//   - Of complete snapshots with the same time and size, only one counts: they are the same
//     backup, stored twice. An open one is preferred.
//   - Arrival judges by the store's clock instead, and keeps the first snapshot of a period.
package keep

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Unlimited is the number of a rule that keeps one snapshot of every period.
const Unlimited = -1

// Snapshot has the data of a snapshot that the rules need.
type Snapshot struct {
	Time     time.Time
	Tags     []string
	Complete bool
	Open     bool // it is not stored locked
	// Files and Bytes are what the backup folder has.
	Files, Bytes int64
	Lost         bool // it was complete until a part of it was lost
	Pinned       bool
	// Misdated says that Time is wrong, since a clock was.
	Misdated bool
	// LastStored says that it may be the snapshot that was stored last, whatever Time is.
	LastStored bool
	// Arrived is when the store received it, by the store's clock; zero if that is not known.
	Arrived time.Time
	// Verified and Drilled are when it last passed a full verify and a drill; zero if
	// it never did.
	Verified, Drilled time.Time

	unconfirmed bool // see byArrival
}

// proven reports whether a snapshot passed a drill or a full verify.
func (s *Snapshot) proven() bool { return !s.Drilled.IsZero() || !s.Verified.IsZero() }

// Policy is a set of rules. A snapshot is kept if one of them keeps it. The zero value
// has no rules: it keeps only pinned snapshots and the one that ForgetProven describes.
type Policy struct {
	// Last to Yearly are the numbers of snapshots that the rules of these names keep,
	// or Unlimited.
	Last, Hourly, Daily, Weekly, Monthly, Yearly int
	// Verified is how many snapshots that passed a drill or a full verify are kept, or
	// Unlimited.
	Verified int

	Within                                                               Duration
	WithinHourly, WithinDaily, WithinWeekly, WithinMonthly, WithinYearly Duration

	// Tags are sets of tags. A snapshot with all tags of a set is kept. A set of one
	// empty tag means snapshots without tags.
	Tags [][]string

	// Arrival counts snapshots by the time at which they arrived, so that none can displace
	// one that arrived before it; see byArrival.
	Arrival bool

	// Unless ForgetProven is set, the newest snapshot that passed a drill is kept; if
	// there is none, the newest one that passed a full verify.
	ForgetProven bool
}

// Empty reports whether a policy has no rules.
func (p *Policy) Empty() bool {
	for _, r := range p.rules() {
		if r.count != 0 || r.within != (Duration{}) {
			return false
		}
	}
	return p.Within == Duration{} && len(p.Tags) == 0 && p.Verified == 0
}

// rule keeps the newest snapshot of each of count periods or, if within is set, of each
// period within this duration.
type rule struct {
	name   string
	count  int
	within Duration
	period func(time.Time) string // nil if each snapshot is a period
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

// Verdict says whether a snapshot is kept.
type Verdict struct {
	Keep    bool
	Reasons []string // why it is kept
	// Spared says that no rule keeps it. It is kept since no rule may remove it: its date
	// is wrong, or it was stored last.
	Spared bool
}

func (v *Verdict) keep(format string, args ...any) {
	v.Keep = true
	v.Reasons = append(v.Reasons, fmt.Sprintf(format, args...))
}

// Apply judges the snapshots of one device, which may be in any order. Of those with the
// same time, the last in the list counts as the newest. The verdicts are in the same order.
// Durations count back from the newest snapshot that is not later than now. So one snapshot with a wrong clock does not make all others old. Periods
// are calendar periods in zone.
func (p *Policy) Apply(list []Snapshot, now time.Time, zone *time.Location) []Verdict {
	if p.Arrival {
		list = byArrival(list, now)
	}
	verdicts := make([]Verdict, len(list))
	order := make([]int, len(list)) // newest first
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Or(list[b].Time.Compare(list[a].Time), b-a) })

	var latest time.Time
	for _, i := range order {
		if !list[i].Time.After(now) && !list[i].Misdated {
			latest = list[i].Time
			break
		}
	}
	again := make([]bool, len(list))
	if !p.Arrival { // whoever knows a backup can store one of the same date and size
		again = storedAgain(list, order)
	}
	counted := slices.DeleteFunc(countedOf(list, order), func(i int) bool { return again[i] })
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
		if p.Within != (Duration{}) && !again[i] && s.Time.After(p.Within.Before(latest)) {
			v.keep("within %s", p.Within)
		}
		if !s.Complete && len(counted) > 0 && s.Time.After(list[counted[0]].Time) && !p.Empty() {
			v.keep("newer than the last complete one")
		}
	}
	for _, r := range p.rules() {
		r.apply(list, p.representing(&r, list, counted, latest, zone), verdicts, latest, zone)
	}
	p.applyProven(list, order, verdicts)
	p.applyLost(list, slices.DeleteFunc(order, func(i int) bool { return again[i] }), verdicts, latest, zone)
	p.applyClocks(list, verdicts)
	return verdicts
}

// applyClocks spares misdated snapshots and the one that was stored last.
func (p *Policy) applyClocks(list []Snapshot, verdicts []Verdict) {
	if p.Empty() {
		return
	}
	for i, s := range list {
		v := &verdicts[i]
		switch kept := v.Keep; {
		case s.unconfirmed:
			v.keep("did not arrive when it is dated")
			v.Spared = !kept
		case s.Misdated:
			v.keep("its date is wrong")
			v.Spared = !kept
		case s.LastStored && !kept:
			v.keep("stored last")
			v.Spared = true
		}
	}
}

// storedAgain reports for each snapshot whether another one of the same backup counts in
// its place. order is newest first.
func storedAgain(list []Snapshot, order []int) []bool {
	again := make([]bool, len(list))
	type backup struct{ time, files, bytes int64 }
	chosen := map[backup]int{}
	for _, i := range order {
		s := &list[i]
		if !s.Complete || s.Misdated {
			continue
		}
		b := backup{s.Time.UnixNano(), s.Files, s.Bytes}
		switch at, found := chosen[b]; {
		case !found:
			chosen[b] = i
		case s.Open && !list[at].Open:
			again[at], chosen[b] = true, i
		default:
			again[i] = true
		}
	}
	return again
}

// countedOf returns the snapshots that rules with numbers count: the complete ones, or
// all if none is complete. Misdated ones never count.
func countedOf(list []Snapshot, order []int) []int {
	dated := slices.DeleteFunc(slices.Clone(order), func(i int) bool { return list[i].Misdated })
	counted := slices.DeleteFunc(slices.Clone(dated), func(i int) bool { return !list[i].Complete })
	if len(counted) == 0 {
		return dated
	}
	return counted
}

// applyProven keeps snapshots that passed a drill or a full verify.
func (p *Policy) applyProven(list []Snapshot, order []int, verdicts []Verdict) {
	left, lastDrilled, lastVerified := p.Verified, -1, -1
	for _, i := range order {
		s := &list[i]
		if s.proven() && left != 0 {
			verdicts[i].keep("verified")
			if left != Unlimited {
				left--
			}
		}
		if lastDrilled < 0 && !s.Drilled.IsZero() {
			lastDrilled = i
		}
		if lastVerified < 0 && !s.Verified.IsZero() {
			lastVerified = i
		}
	}
	switch {
	case p.ForgetProven:
	case lastDrilled >= 0:
		verdicts[lastDrilled].keep("last drilled")
	case lastVerified >= 0:
		verdicts[lastVerified].keep("last verified")
	}
}

// applyLost judges snapshots that have lost a part as if they were complete, and keeps
// those that the rules would keep then.
func (p *Policy) applyLost(list []Snapshot, order []int, verdicts []Verdict, latest time.Time, zone *time.Location) {
	counted := slices.DeleteFunc(slices.Clone(order), func(i int) bool { return list[i].Misdated || !list[i].Complete && !list[i].Lost })
	asComplete := make([]Verdict, len(list))
	for _, r := range p.rules() {
		r.apply(list, p.representing(&r, list, counted, latest, zone), asComplete, latest, zone)
	}
	for i := range list {
		if list[i].Lost && !verdicts[i].Keep {
			verdicts[i] = asComplete[i]
		}
	}
}

// apply applies one rule to the counted snapshots, newest first.
func (r *rule) apply(list []Snapshot, counted []int, verdicts []Verdict, latest time.Time, zone *time.Location) {
	limited := r.within != Duration{}
	if r.count == 0 && !limited {
		return
	}
	left, before := r.count, ""
	for n, i := range counted {
		if limited && !list[i].Time.After(r.within.Before(latest)) {
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
