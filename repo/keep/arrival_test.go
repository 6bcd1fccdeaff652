package keep

import (
	"math/rand/v2"
	"testing"
	"time"
)

// Whoever may add snapshots in one hour, and say in them whatever is useful, removes no more
// than one honest snapshot in this hour does.
func TestArrivalIsAllThatCounts(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 300 {
		var real []Snapshot
		day := at(t, "2026-01-01 22:00")
		for range 1 + rng.IntN(60) {
			day = day.AddDate(0, 0, rng.IntN(4))
			s := Snapshot{
				Complete: rng.IntN(4) > 0, Open: true, Files: 10, Bytes: int64(rng.IntN(3)), Lost: rng.IntN(20) == 0, Pinned: rng.IntN(20) == 0,
				Time: day, Arrived: day.Add(time.Duration(rng.IntN(100)) * time.Second),
			}
			if rng.IntN(8) == 0 { // an archive
				s.Time = s.Time.AddDate(0, 0, -30)
			}
			real = append(real, s)
		}
		attacked := day.AddDate(0, 0, rng.IntN(3)).Add(12 * time.Hour)
		forged := make([]Snapshot, rng.IntN(40))
		for i := range forged {
			f := real[rng.IntN(len(real))]
			f.Arrived, f.Pinned, f.Complete = attacked.Add(time.Duration(rng.IntN(60))*time.Minute), false, rng.IntN(3) > 0
			f.Verified, f.Misdated, f.LastStored = attacked, rng.IntN(3) == 0, rng.IntN(3) == 0
			switch rng.IntN(4) {
			case 0:
				f.Time = f.Time.Add(time.Duration(rng.IntN(200)-100) * time.Hour)
			case 1:
				f.Time = f.Arrived.Add(time.Duration(rng.IntN(60)-30) * time.Hour)
			case 2:
				f.Time = f.Arrived.AddDate(rng.IntN(4)-2, 0, 0)
			}
			forged[i] = f
		}
		policy := Policy{
			Daily: rng.IntN(8), Weekly: rng.IntN(3), Monthly: rng.IntN(4), Yearly: rng.IntN(3), Within: Duration{Days: rng.IntN(10)},
			WithinWeekly: Duration{Days: rng.IntN(40)}, Arrival: true,
		}
		honest := Snapshot{Complete: true, Open: true, Time: attacked, Arrived: attacked}
		now := attacked.Add(2 * time.Hour)
		want := policy.Apply(append([]Snapshot{honest}, real...), now, time.UTC)[1:]
		forged = append(forged, honest) // the newest one, from which durations count
		got := policy.Apply(append(forged, real...), now, time.UTC)[len(forged):]
		for i, s := range real {
			if want[i].Keep && !got[i].Keep {
				t.Fatalf("seed %d: the snapshot of %v is removed, which %v would keep", seed, s.Time, want[i].Reasons)
			}
		}
	}
}

func TestArrival(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		times, arrivals string
		keep            string
	}{
		"the first of a period":         {"2026-01-05 06:00, 2026-01-05 23:00, 2026-01-06 01:00, 2026-01-06 12:00", "", "yn yn"},
		"an archive stays":              {"2025-01-05, 2026-01-05, 2026-01-06", "2026-01-07, 2026-01-05, 2026-01-06", "yyy"},
		"a date in the future":          {"2026-01-05, 2026-01-06, 2027-01-01", "2026-01-05, 2026-01-06, 2026-01-06", "yyy"},
		"within a day of its arrival":   {"2026-01-05 06:00, 2026-01-05 23:00, 2026-01-06", "2026-01-05 07:00, 2026-01-05 01:00, 2026-01-06 12:00", "ny y"},
		"twins are not the same backup": {"2026-01-05, 2026-01-05, 2026-01-06", "2026-01-05 02:00, 2026-01-05 23:59, 2026-01-06", "yn y"},
	} {
		list, _ := series(t, c.times)
		arrivals := list
		if c.arrivals != "" {
			arrivals, _ = series(t, c.arrivals)
		}
		want := ""
		for _, r := range c.keep {
			if r != ' ' {
				want += string(r)
			}
		}
		for i := range list {
			list[i].Arrived = arrivals[i].Time
		}
		got := ""
		for _, v := range (&Policy{Daily: 2, Arrival: true}).Apply(list, at(t, "2026-02-01"), time.UTC) {
			got += map[bool]string{true: "y", false: "n"}[v.Keep]
		}
		if got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	if (&Policy{Last: 3, Hourly: 9}).Lasting() || !(&Policy{Last: 3, Daily: 1}).Lasting() || !(&Policy{Within: Duration{Days: 1}}).Lasting() {
		t.Error("wrong policies last")
	}
}
