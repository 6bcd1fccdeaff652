package keep

import "time"

// arrivalSlack is how much the time of a backup and that of its arrival may differ. A
// backup takes hours, and a laptop may be offline for some more.
const arrivalSlack = 24 * time.Hour

// byArrival returns the snapshots as a policy with Arrival sees them. Whoever may add
// snapshots can say anything in them, except when they arrived. So this is the only thing that
// makes a snapshot displace another one:
//
//   - It counts by the time at which it arrived. Of each period, the first one stays.
//   - If this time is unknown, or not that of the backup, the snapshot may be an old backup
//     that was imported or copied late. It is kept and does not count, as if it were misdated.
//   - One that is not complete, or was refuted by a certificate, is judged as if it had been
//     complete before it lost a part: others that say that they are complete do not displace it.
//   - Two backups of the same date and size are not the same one.
func byArrival(list []Snapshot, now time.Time) []Snapshot {
	out := make([]Snapshot, len(list))
	for i, s := range list {
		off := s.Arrived.Sub(s.Time).Abs()
		if s.Arrived.IsZero() || s.Arrived.After(now.Add(arrivalSlack)) || off > arrivalSlack {
			s.unconfirmed, s.Misdated = true, true
		}
		if !s.Misdated {
			s.Time = s.Arrived
		}
		s.Lost = !s.Complete
		out[i] = s
	}
	return out
}

// Lasting reports whether a policy has a rule under which snapshots stay for days, however
// many others are added.
func (p *Policy) Lasting() bool {
	for _, r := range p.rules() {
		if r.within != (Duration{}) || r.count != 0 && r.name != "last" && r.name != "hourly" || r.count == Unlimited {
			return true
		}
	}
	return p.Within != Duration{}
}

// representing returns the snapshots among which a rule chooses, newest first. With Arrival, of
// each period only the first one can be chosen. Otherwise all can.
func (p *Policy) representing(r *rule, list []Snapshot, counted []int, latest time.Time, zone *time.Location) []int {
	if !p.Arrival || r.period == nil {
		return counted
	}
	var first []int
	before := ""
	for _, i := range counted {
		if r.within != (Duration{}) && !list[i].Time.After(r.within.Before(latest)) {
			break
		}
		period := r.period(list[i].Time.In(zone))
		if period == before {
			first = first[:len(first)-1]
		}
		first, before = append(first, i), period
	}
	return first
}
