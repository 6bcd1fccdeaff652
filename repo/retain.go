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

// Reasons not to forget a snapshot; test with errors.Is.
var (
	// ErrLastSnapshot says that a device would lose its last complete snapshot, or
	// its last one if none is complete.
	ErrLastSnapshot = errors.New("a device would lose its last snapshot")
	// ErrPinned says that a snapshot is pinned.
	ErrPinned = errors.New("pinned snapshots are not forgotten")
)

// Retention is what will happen to the snapshots of one device.
type Retention struct {
	UDID      string
	Device    string
	Snapshots []Decision // oldest backup first
}

// Decision is what will happen to a snapshot, and why.
type Decision struct {
	Snapshot *Snapshot
	Keep     bool
	Reasons  []string // to keep it
}

// Retain applies a policy to snapshots, device by device in the order of their
// names. Days, weeks and other periods follow the calendar in zone.
func Retain(list []*Snapshot, policy *keep.Policy, now time.Time, zone *time.Location) []Retention {
	var out []Retention
	for _, snapshots := range record.ByDevice(list) {
		candidates := make([]keep.Snapshot, len(snapshots))
		for i, s := range snapshots {
			candidates[i] = keep.Snapshot{
				Time: s.Time, Tags: s.Tags, Complete: s.Complete, Pinned: s.Pin != nil,
				Lost: !s.Complete && s.Lost != nil && s.Lost.Complete,
			}
		}
		r := newRetention(snapshots)
		for i, v := range policy.Apply(candidates, now, zone) {
			r.Snapshots = append(r.Snapshots, Decision{snapshots[i], v.Keep, v.Reasons})
		}
		out = append(out, r)
	}
	return out
}

// RetainNone decides to forget all of the snapshots.
func RetainNone(list []*Snapshot) []Retention {
	var out []Retention
	for _, snapshots := range record.ByDevice(list) {
		r := newRetention(snapshots)
		for _, s := range snapshots {
			r.Snapshots = append(r.Snapshots, Decision{Snapshot: s})
		}
		out = append(out, r)
	}
	return out
}

func newRetention(snapshots []*Snapshot) Retention {
	d := snapshots[len(snapshots)-1].Device
	return Retention{UDID: d.UDID, Device: d.Name}
}

// Forgotten returns the snapshots that are not kept.
func Forgotten(list []Retention) []*Snapshot {
	var out []*Snapshot
	for _, r := range list {
		for _, d := range r.Snapshots {
			if !d.Keep {
				out = append(out, d.Snapshot)
			}
		}
	}
	return out
}

// CheckRetention returns an error for every pinned snapshot that would be forgotten,
// and for every device that would lose its last complete snapshot, or its last one if
// none is complete. all are the snapshots of the repository.
func CheckRetention(all []*Snapshot, list []Retention) error {
	var errs []error
	forgotten := map[layout.FileID]bool{}
	for _, s := range Forgotten(list) {
		forgotten[s.ID] = true
		if s.Pin != nil {
			errs = append(errs, fmt.Errorf("snapshot %s of %q: %w", s.ID.Short(), s.Device.Name, ErrPinned))
		}
	}
	for _, snapshots := range record.ByDevice(all) {
		var last *Snapshot // the last to be forgotten; incomplete ones count only if none is complete
		left, complete := 0, slices.ContainsFunc(snapshots, func(s *Snapshot) bool { return s.Complete })
		for _, s := range snapshots {
			switch {
			case complete && !s.Complete:
			case forgotten[s.ID]:
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
