package record

import (
	"fmt"
	"slices"
	"time"

	"github.com/snap-backup/snap/repo/internal/layout"
)

// A backup is dated by the clock of a device or another computer, which may be
// wrong. Such a date must not decide which snapshot is the latest.
var earliest = time.Date(2005, 1, 1, 0, 0, 0, 0, time.UTC)

// clockSlack is how far the clock of a device may be ahead of that of the computer
// that stores its backup.
const clockSlack = 10 * time.Minute

// BackupTime returns the time of a backup that was stored at a given time: the first
// of the stated times that is possible, else the time of storing. A time is impossible if
// it is before 2005, or more than 10 minutes after the time of storing. note is a
// sentence without a full stop if the first stated time does not count, otherwise empty.
//
// If the time of storing is before 2005, the computer had no clock, and the first stated
// time that is not before 2005 counts.
func BackupTime(stored time.Time, stated ...time.Time) (t time.Time, note string) {
	wrong := time.Time{}
	for _, t := range stated {
		switch {
		case t.IsZero():
		case !t.Before(earliest) && (stored.Before(earliest) || !t.After(stored.Add(clockSlack))):
			if !wrong.IsZero() {
				note = impossible(wrong) + fmt.Sprintf("; its other date %s counts", minute(t))
			}
			return t, note
		case wrong.IsZero():
			wrong = t
		}
	}
	if wrong.IsZero() {
		return stored, "the backup states no date; the time of storing counts"
	}
	return stored, impossible(wrong) + "; the time of storing counts"
}

func impossible(t time.Time) string {
	return fmt.Sprintf("the backup states the impossible date %s", minute(t))
}

func minute(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

// settleTime corrects the time in a record of a program that stored every time that
// a backup stated.
func (s *Snapshot) settleTime() {
	if s.StoredAt.Before(earliest) {
		return
	}
	t, note := BackupTime(s.StoredAt, s.Time)
	if note != "" {
		s.Time, s.Problems = t, append(s.Problems, note)
	}
}

// aheadSlack is how far a date may be ahead of the clock of this computer. Clocks that
// are set by hand differ by less.
const aheadSlack = 24 * time.Hour

// Ahead reports whether a date is in the future. Then a clock was wrong.
func Ahead(t, now time.Time) bool { return t.After(now.Add(aheadSlack)) }

// dates are what a record says of its times.
type dates struct {
	time, storedAt time.Time
	problems       []string
	byFile         bool // the time of the file counts instead
}

// isAhead reports whether a record has a date in the future.
func (s *Snapshot) isAhead(now time.Time) bool {
	return Ahead(s.StoredAt, now) || Ahead(s.Time, now)
}

// datesOf finds better dates for the snapshots in a list whose date is wrong. Otherwise a
// snapshot with a date in the future would be the latest for years, and one that was
// stored by a computer whose clock stops when it is switched off would be the oldest. The
// time of the record's file can be trusted, unless that is in the future, too. In that
// case the order in which snapshots were stored is used. The result does not depend on
// the order of the list.
//
// If the clock of this computer is behind, all recent snapshots seem to be ahead.
// Nothing is dated anew then, since the files are also ahead, and so are the parents.
func datesOf(list []*Snapshot, now time.Time) {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b *Snapshot) int { return slices.Compare(a.ID[:], b.ID[:]) })
	d := dating{now: now, byID: map[layout.FileID]*Snapshot{}, settled: map[*Snapshot]bool{}}
	for _, s := range list {
		d.byID[s.ID] = s
		d.future = d.future || d.isFuture(s.StoredAt) || d.isFuture(s.Put)
	}
	for _, s := range list {
		for _, id := range s.Former {
			d.known(id, s)
		}
		if s.Original != nil {
			d.known(*s.Original, s)
		}
	}
	for _, s := range list {
		d.settle(s)
	}
	for d.byChildren(list) {
	}
}

// dating finds better dates for the snapshots of a list.
type dating struct {
	now     time.Time
	byID    map[layout.FileID]*Snapshot // by all IDs that they have or had
	settled map[*Snapshot]bool
	future  bool // a record or file is in the future: now may be wrong
}

func (d *dating) isFuture(t time.Time) bool { return Ahead(t, d.now) }

func (d *dating) known(id layout.FileID, s *Snapshot) {
	if d.byID[id] == nil {
		d.byID[id] = s
	}
}

// settle finds the earliest time at which a snapshot can have been stored, and dates the
// snapshot if its own date is wrong. Its ancestors come first.
func (d *dating) settle(s *Snapshot) {
	// Ancestors are collected first: there may be thousands.
	var line []*Snapshot
	for o := s; o != nil && !d.settled[o]; o = d.parent(o) {
		d.settled[o] = true
		line = append(line, o)
	}
	for _, s := range slices.Backward(line) {
		// If only NotBefore is in the future, the clock of this computer is right. Then
		// NotBefore comes from an earlier snapshot, since forgotten, that was stored by a
		// computer whose clock was ahead, and is ignored.
		if d.future || !d.isFuture(s.NotBefore) {
			s.floor = s.NotBefore
		}
		if p := d.parent(s); p != nil {
			s.floor = later(s.floor, next(p.proof()))
		}
		switch {
		case s.isAhead(d.now):
			s.ahead = true
			if s.dateByFile(d.now); s.stated == nil && !s.floor.IsZero() && !d.isFuture(s.floor) {
				s.date(s.floor, "it is dated by the snapshot before it")
			}
		case s.StoredAt.Before(s.floor.Add(-aheadSlack)):
			d.behind(s)
		}
	}
}

func (d *dating) parent(s *Snapshot) *Snapshot {
	if s.Parent == nil {
		return nil
	}
	return d.byID[*s.Parent]
}

// behind dates a snapshot of a computer whose clock was behind: the date of the record is
// earlier than the snapshot can have been stored.
func (d *dating) behind(s *Snapshot) {
	s.Misdated = true
	// The backup itself may have the right date, by the clock of another computer.
	same := s.StoredAt.Sub(s.Time).Abs() < aheadSlack
	switch {
	// The file of a snapshot whose labels were changed is younger than the snapshot.
	case s.Changed == nil && !s.Put.Before(s.floor) && !d.isFuture(s.Put):
		s.date(s.Put.UTC(), "the time of its file counts")
	case !d.isFuture(s.floor):
		s.date(s.floor, "it is dated by the snapshot before it")
	default:
		return
	}
	if same {
		s.Time = s.StoredAt
	}
}

// byChildren dates snapshots that are ahead, and have no better evidence, by their
// children. It reports whether it has dated any: then call it again, since a snapshot
// with a new date can date its own parent.
func (d *dating) byChildren(list []*Snapshot) bool {
	first := map[*Snapshot]*Snapshot{}
	for _, o := range list {
		if o.Misdated && o.stated == nil {
			continue
		}
		if p := d.parent(o); p != nil && p.ahead && p.stated == nil && (first[p] == nil || o.StoredAt.Before(first[p].StoredAt)) {
			first[p] = o
		}
	}
	for s, child := range first {
		at := child.StoredAt
		if child.Time.Before(at) && at.Sub(child.Time) < aheadSlack {
			at = child.Time
		}
		s.date(at.Add(-1), "it is dated by the snapshot after it")
	}
	return len(first) > 0
}

// proof returns a time before which a snapshot was certainly not stored; zero if none is
// known. A misdated snapshot proves nothing by its own date, nor by the time of its file,
// which may be that of a copy. For such a snapshot, proof returns what earlier snapshots
// prove.
func (s *Snapshot) proof() time.Time {
	if s.Misdated {
		return s.floor
	}
	t := s.StoredAt
	if !s.Put.Before(earliest) && s.Put.Before(t) {
		t = s.Put // the clock of the computer may have been ahead
	}
	return later(t, s.floor)
}

// Follow notes in a new snapshot that it is stored after those in a list, as far as they
// are of its device. So a wrong date is still known to be wrong when those snapshots are
// gone.
func (s *Snapshot) Follow(list []*Snapshot) {
	var proven, stated time.Time
	for _, o := range list {
		if !SameDevice(o.Device.UDID, s.Device.UDID) {
			continue
		}
		proven = later(proven, o.proof())
		if o.ahead && o.stated == nil {
			stated = later(stated, o.StoredAt)
		}
	}
	if proven.IsZero() {
		// All are ahead of this clock, and nothing tells which one is wrong.
		proven = stated
	}
	s.NotBefore = next(proven)
}

// Transfer returns a record of the same backup for another repository, where it will be
// stored after the snapshots in a list. If s has a wrong date, the copy has the estimated
// date, since the evidence for the estimate stays behind. The copy says so: it is still
// misdated.
func (s *Snapshot) Transfer(list []*Snapshot) Snapshot {
	n := *s
	n.Put = time.Time{}
	if s.stated != nil {
		n.stated, n.ahead, n.Estimated = nil, false, true
	}
	n.Follow(append(slices.Clone(list), s))
	return n
}

// next returns the time after t, so that the times of snapshots are in the order in which
// these were stored.
func next(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return t.Add(1).UTC()
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// dateByFile dates a snapshot that is ahead by its file, if that is possible.
func (s *Snapshot) dateByFile(now time.Time) {
	s.Misdated = true
	if !s.Put.Before(earliest) && !Ahead(s.Put, now) {
		s.date(s.Put.UTC(), "the time of its file counts")
		s.stated.byFile = true
	}
}

// date sets the time at which a snapshot was stored.
func (s *Snapshot) date(stored time.Time, why string) {
	s.stated = &dates{time: s.Time, storedAt: s.StoredAt, problems: s.Problems}
	note := fmt.Sprintf("the snapshot was stored by a computer whose clock said %s; %s", minute(s.StoredAt), why)
	s.StoredAt, s.Problems = stored, append(slices.Clone(s.Problems), note)
	if s.Time.After(stored.Add(clockSlack)) {
		s.Time = stored
	}
}

// Future returns when a snapshot was stored, as its record says, if that is in the future
// and the time of its file does not refute it. Then the clock of this computer may be the
// wrong one.
func (s *Snapshot) Future() (stored time.Time, ok bool) {
	switch {
	case !s.ahead:
		return stored, false
	case s.stated == nil:
		return s.StoredAt, true
	}
	return s.stated.storedAt, !s.stated.byFile
}

// lastStored follows from a snapshot, which seems to be the latest of a list, to the one
// that was stored last. If another snapshot names the current one as its parent, but was
// stored before it according to the clocks, a clock was wrong, and lastStored goes on to
// that snapshot. A backup that is older, but was stored later, such as an archive, does
// not count.
func lastStored(list []*Snapshot, s *Snapshot) *Snapshot {
	for range list {
		var next *Snapshot
		for _, o := range list {
			if o.Parent != nil && s.Has(*o.Parent) && o.StoredAt.Before(s.StoredAt) && (next == nil || o.StoredAt.After(next.StoredAt)) {
				next = o
			}
		}
		if next == nil {
			return s
		}
		s = next
		// Go on to the backups that followed. Their dates may be right again, and earlier
		// than that of the snapshot where the search began.
		for _, o := range list {
			if o.Parent != nil && s.Has(*o.Parent) && o.Time.After(s.Time) && !o.StoredAt.Before(s.StoredAt) {
				s = o
			}
		}
	}
	return s
}

// LastStored returns the candidates for the snapshot of a device that was stored last,
// judged by the clocks of the computers that stored them and the order in which they name
// their parents, by the times of their files, and by NotBefore.
func LastStored(list []*Snapshot) []*Snapshot {
	list = slices.SortedFunc(slices.Values(list), Compare)
	var byClock, byFile, byOrder *Snapshot
	for _, s := range list {
		if byClock == nil || !s.StoredAt.Before(byClock.StoredAt) {
			byClock = s
		}
		// The file of a snapshot whose labels were changed is younger than the snapshot.
		if s.Changed == nil && !s.Put.IsZero() && (byFile == nil || s.Put.After(byFile.Put)) {
			byFile = s
		}
		// A NotBefore that settle has ignored does not count here either.
		if !s.NotBefore.IsZero() && !s.floor.Before(s.NotBefore) && (byOrder == nil || s.NotBefore.After(byOrder.NotBefore)) {
			byOrder = s
		}
	}
	if byClock == nil {
		return nil
	}
	out := []*Snapshot{lastStored(list, byClock)}
	if byFile != nil && !slices.Contains(out, byFile) {
		out = append(out, byFile)
	}
	if byOrder != nil && !slices.Contains(out, byOrder) {
		out = append(out, byOrder)
	}
	return out
}
