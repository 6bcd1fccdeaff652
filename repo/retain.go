package repo

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/record"
	"github.com/snap-backup/snap/repo/keep"
)

// Why a snapshot is not forgotten; test with errors.Is.
var (
	// ErrLastSnapshot says that a device would have no complete snapshot any
	// more.
	ErrLastSnapshot = errors.New("a device would lose its last snapshot")
	// ErrPinned says that a snapshot is pinned.
	ErrPinned = errors.New("pinned snapshots are not forgotten")
)

// Retention is what is to happen to the snapshots of one device.
type Retention struct {
	UDID      string
	Device    string
	Snapshots []Decision // oldest backup first
}

// Decision is what is to happen to a snapshot, and why.
type Decision struct {
	Snapshot *record.Snapshot
	Keep     bool
	Reasons  []string // to keep it
}

// Retain judges snapshots by a policy, device by device in the order of their
// names. Periods are those of the calendar in zone.
func Retain(list []*record.Snapshot, policy *keep.Policy, now time.Time, zone *time.Location) []Retention {
	var out []Retention
	for _, mine := range record.ByDevice(list) {
		judged := make([]keep.Snapshot, len(mine))
		for i, s := range mine {
			judged[i] = keep.Snapshot{
				Time: s.Time, Tags: s.Tags, Complete: s.Complete, Pinned: s.Pin != nil,
				Lost: !s.Complete && s.Lost != nil && s.Lost.Complete,
			}
		}
		r := newRetention(mine)
		for i, v := range policy.Apply(judged, now, zone) {
			r.Snapshots = append(r.Snapshots, Decision{mine[i], v.Keep, v.Reasons})
		}
		out = append(out, r)
	}
	return out
}

// RetainNone has all of the snapshots forgotten.
func RetainNone(list []*record.Snapshot) []Retention {
	var out []Retention
	for _, mine := range record.ByDevice(list) {
		r := newRetention(mine)
		for _, s := range mine {
			r.Snapshots = append(r.Snapshots, Decision{Snapshot: s})
		}
		out = append(out, r)
	}
	return out
}

func newRetention(mine []*record.Snapshot) Retention {
	d := mine[len(mine)-1].Device
	return Retention{UDID: d.UDID, Device: d.Name}
}

// Forgotten returns the snapshots that are not kept.
func Forgotten(list []Retention) []*record.Snapshot {
	var out []*record.Snapshot
	for _, r := range list {
		for _, d := range r.Snapshots {
			if !d.Keep {
				out = append(out, d.Snapshot)
			}
		}
	}
	return out
}

// CheckRetention returns what speaks against forgetting: a pinned snapshot, or
// a device of which no complete snapshot would be left; if it never had one,
// none at all. all are the snapshots of the repository.
func CheckRetention(all []*record.Snapshot, list []Retention) error {
	var errs []error
	going := map[layout.FileID]bool{}
	for _, s := range Forgotten(list) {
		going[s.ID] = true
		if s.Pin != nil {
			errs = append(errs, fmt.Errorf("snapshot %s of %q: %w", s.ID.Short(), s.Device.Name, ErrPinned))
		}
	}
	for _, mine := range record.ByDevice(all) {
		var last *record.Snapshot // that counts and goes
		left, complete := 0, slices.ContainsFunc(mine, func(s *record.Snapshot) bool { return s.Complete })
		for _, s := range mine {
			switch {
			case complete && !s.Complete:
			case going[s.ID]:
				last = s
			default:
				left++
			}
		}
		if last == nil || left > 0 {
			continue
		}
		what := "complete snapshot"
		if !complete {
			what = "snapshot"
		}
		errs = append(errs, fmt.Errorf("snapshot %s of %s is the last %s of %q: %w",
			last.ID.Short(), last.Time.Local().Format(time.DateOnly), what, last.Device.Name, ErrLastSnapshot))
	}
	return errors.Join(errs...)
}
