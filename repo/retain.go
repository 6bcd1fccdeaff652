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
	// ErrLastSnapshot says that a device would lose its last complete snapshot, its
	// last one if none is complete, or the last one that passed a drill or a full
	// verify.
	ErrLastSnapshot = errors.New("a device would lose its last snapshot")
	// ErrLastProven is the ErrLastSnapshot that says that a device would lose its last
	// snapshot that passed a drill or a full verify. It may have others.
	ErrLastProven error = lastProven{}
	// ErrPinned says that a snapshot is pinned.
	ErrPinned = errors.New("pinned snapshots are not forgotten")
)

type lastProven struct{}

func (lastProven) Error() string {
	return "the device would lose the only snapshot that was proven to be good"
}
func (lastProven) Is(target error) bool { return target == ErrLastSnapshot }

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
	// Spared says that no rule keeps it, and that none may remove it: its date is wrong, or
	// it was stored last.
	Spared bool
}

// sparesOnly reports whether rules remove snapshots of a device and keep none.
func (r *Retention) sparesOnly() bool {
	return slices.ContainsFunc(r.Snapshots, func(d Decision) bool { return !d.Keep }) &&
		!slices.ContainsFunc(r.Snapshots, func(d Decision) bool { return d.Keep && !d.Spared })
}

// Retain applies a policy to the snapshots in list, device by device in the order of
// their names. all are the snapshots of the repository: of these, the one of each device
// that was stored last is kept, whatever its date is. The result does not depend on the order
// of the lists. Days, weeks and other periods follow the calendar in zone. The certificates say
// which snapshots passed a drill or a full verify. A snapshot counts as incomplete
// if it failed a verify or drill and has not passed since; see Refuted.
func Retain(all, list []*Snapshot, certificates []*Certificate, policy *keep.Policy, now time.Time, zone *time.Location) []Retention {
	var out []Retention
	for _, snapshots := range record.ByDevice(list) {
		slices.SortFunc(snapshots, record.Compare)
		candidates := make([]keep.Snapshot, len(snapshots))
		for i, s := range snapshots {
			candidates[i] = keep.Snapshot{
				Time: s.Time, Tags: s.Tags, Complete: s.Complete && Refuted(certificates, s) == nil, Pinned: s.Pin != nil,
				Misdated: s.Misdated, Open: s.Unlocked || !s.Encrypted, Files: s.Files, Bytes: s.Bytes,
				Lost: !s.Complete && s.Lost != nil && s.Lost.WasComplete,
			}
			if s.Changed == nil { // the file of a snapshot whose labels were changed is younger
				candidates[i].Arrived = s.Put
			}
			candidates[i].Verified, candidates[i].Drilled = LastPassed(certificates, s)
		}
		ofDevice := func(s *Snapshot) bool { return SameDevice(s.Device.UDID, snapshots[0].Device.UDID) }
		for _, last := range record.LastStored(slices.DeleteFunc(slices.Clone(all), func(s *Snapshot) bool { return !ofDevice(s) })) {
			if i := slices.Index(snapshots, last); i >= 0 {
				candidates[i].LastStored = true
			}
		}
		r := newRetention(snapshots)
		for i, v := range policy.Apply(candidates, now, zone) {
			r.Snapshots = append(r.Snapshots, Decision{snapshots[i], v.Keep, v.Reasons, v.Spared})
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
// none is complete. The same holds for the last one that passed a drill or, if none
// did, a full verify. Snapshots that are only spared do not count if rules remove
// everything else of the device. all are the snapshots of the repository.
func CheckRetention(all []*Snapshot, certificates []*Certificate, list []Retention) error {
	var errs []error
	forgotten := map[layout.FileID]bool{}
	for _, r := range list {
		for _, d := range r.Snapshots {
			forgotten[d.Snapshot.ID] = d.Spared && r.sparesOnly()
		}
	}
	for _, s := range Forgotten(list) {
		forgotten[s.ID] = true
		if s.Pin != nil {
			errs = append(errs, fmt.Errorf("snapshot %s of %q: %w", s.ID.Short(), s.Device.Name, ErrPinned))
		}
	}
	for _, snapshots := range record.ByDevice(all) {
		// Of each list, only the first rule that fits any snapshot of the device
		// applies.
		for _, rules := range [][]lastRule{
			{
				{"complete snapshot of %q", ErrLastSnapshot, func(s *Snapshot) bool { return s.Complete && Refuted(certificates, s) == nil }},
				{"snapshot of %q", ErrLastSnapshot, func(*Snapshot) bool { return true }},
			},
			{
				{"snapshot of %q that passed a drill", ErrLastProven, func(s *Snapshot) bool { _, drilled := LastPassed(certificates, s); return !drilled.IsZero() }},
				{"snapshot of %q that passed a full verify", ErrLastProven, func(s *Snapshot) bool { verified, _ := LastPassed(certificates, s); return !verified.IsZero() }},
			},
		} {
			if err := checkLast(snapshots, forgotten, rules); err != nil {
				errs = append(errs, err)
				break
			}
		}
	}
	return errors.Join(errs...)
}

// lastRule says that a device must keep one of the snapshots that fit.
type lastRule struct {
	what string // with %q for the name of the device
	err  error
	fits func(s *Snapshot) bool
}

// checkLast applies the first rule that fits any of a device's snapshots. It returns an
// error if all snapshots that fit would be forgotten.
func checkLast(snapshots []*Snapshot, forgotten map[layout.FileID]bool, rules []lastRule) error {
	for _, rule := range rules {
		fitting := slices.DeleteFunc(slices.Clone(snapshots), func(s *Snapshot) bool { return !rule.fits(s) })
		if len(fitting) == 0 {
			continue
		}
		if slices.ContainsFunc(fitting, func(s *Snapshot) bool { return !forgotten[s.ID] }) {
			return nil
		}
		last := fitting[len(fitting)-1]
		return fmt.Errorf("snapshot %s of %s is the last %s: %w",
			last.ID.Short(), last.Time.Local().Format(time.DateOnly), fmt.Sprintf(rule.what, last.Device.Name), rule.err)
	}
	return nil
}
