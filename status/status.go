// Package status judges whether devices are backed up, from what a repository holds.
//
// It needs no device and no memory of earlier runs, so any computer that can open the
// repository comes to the same judgement about it. What it says about copies on other disks
// depends on which disks are connected.
package status

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/snap-backup/snap/internal/words"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/keep"
)

// Level says how urgent something is.
type Level int

// The levels. A report has the greatest level of its alarms.
const (
	OK        Level = iota
	Attention       // somebody should do something
	Danger          // a backup may be lost or useless
)

var levelNames = []string{"ok", "attention", "danger"}

func (l Level) String() string { return levelNames[l] }

// MarshalText returns the name of the level.
func (l Level) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// Alarm is a reason for a level.
type Alarm struct {
	Level Level  `json:"level"`
	Text  string `json:"text"` // a sentence without a full stop
}

// Rules say when to raise an alarm.
type Rules struct {
	// MaxAge is how old the newest backup of a device may be without an alarm. Four times
	// this age is a danger.
	MaxAge keep.Duration
	// Expected are the devices that somebody has given a name. Each must have a backup.
	Expected []Expected
}

// of returns the name that somebody has given a device.
func (r *Rules) of(udid string) Expected {
	i := slices.IndexFunc(r.Expected, func(e Expected) bool { return repo.SameDevice(udid, e.UDID) })
	if i < 0 {
		return Expected{}
	}
	return r.Expected[i]
}

// Expected is a device that must have a backup, unless it is retired.
type Expected struct {
	Alias, UDID string
	Retired     bool // its newest backup may have any age
}

// DefaultRules are the rules of snap status without flags.
var DefaultRules = Rules{MaxAge: keep.Duration{Days: 7}}

const day = 24 * time.Hour

// Times before the disk is full that are a reason for an alarm, at the rate of the last
// weeks.
const (
	fullAttention = 30 * day
	fullDanger    = 7 * day
)

// Report is a judgement of a repository.
type Report struct {
	Level      Level      `json:"level"`
	Devices    []Device   `json:"devices"`
	Repository Repository `json:"repository"`
	Copies     []Copy     `json:"copies,omitempty"` // see Add
}

// Device is the part of a Report about one device.
type Device struct {
	UDID      string      `json:"udid"`
	Name      string      `json:"name"`
	Alias     string      `json:"alias,omitempty"`
	Retired   bool        `json:"retired,omitempty"` // such devices are the last ones
	Model     string      `json:"product_type"`
	Snapshots int         `json:"snapshots"`
	Newest    repo.FileID `json:"newest,omitzero"`
	Time      time.Time   `json:"time,omitzero"` // of the newest backup; zero if there is none
	Stored    time.Time   `json:"stored_at,omitzero"`
	Looked    time.Time   `json:"looked_at,omitzero"` // when an import last found nothing new
	Age       float64     `json:"age_days"`
	Verified  time.Time   `json:"verified,omitzero"` // when the last of its snapshots passed a full verify
	Drilled   time.Time   `json:"drilled,omitzero"`
	Alarms    []Alarm     `json:"alarms"`
}

// Repository is the part of a Report about the repository.
type Repository struct {
	Snapshots   int       `json:"snapshots"`
	StoredBytes int64     `json:"stored_bytes"`
	WeekBytes   int64     `json:"week_bytes"` // what a week adds
	Free        *int64    `json:"free_bytes,omitempty"`
	Full        time.Time `json:"full,omitzero"` // when the disk is full at this rate
	Read        time.Time `json:"read,omitzero"` // when all packs were last read by a check
	Unread      int       `json:"unread_packs"`  // packs that no check has read
	Alarms      []Alarm   `json:"alarms"`
}

// Judge judges a repository whose index was loaded. unread has an error for each record
// that is missing or could not be read.
func Judge(ctx context.Context, r *repo.Repo, list []*repo.Snapshot, unread []error, rules Rules, now time.Time) (*Report, error) {
	certificates, unusable, err := r.Certificates(ctx)
	if err != nil {
		return nil, err
	}
	st, err := r.Stats(ctx, list)
	if err != nil {
		return nil, err
	}
	rep := &Report{Devices: []Device{}, Repository: Repository{Snapshots: len(list), StoredBytes: st.StoredBytes, WeekBytes: weekBytes(list, now), Alarms: []Alarm{}}}
	for _, own := range repo.ByDevice(list) {
		rep.Devices = append(rep.Devices, judgeDevice(own, certificates, rules, now))
	}
	rep.expect(rules.Expected)
	slices.SortStableFunc(rep.Devices, func(a, b Device) int {
		if a.Retired != b.Retired {
			if a.Retired {
				return 1
			}
			return -1
		}
		return words.Compare(cmp.Or(a.Name, a.Alias), cmp.Or(b.Name, b.Alias))
	})
	if err := rep.Repository.judge(ctx, r, list, unread, now); err != nil {
		return nil, err
	}
	for _, err := range unusable {
		rep.Repository.alarm(Attention, "%v", err)
	}
	alarms := rep.Repository.Alarms
	for _, d := range rep.Devices {
		alarms = slices.Concat(alarms, d.Alarms)
	}
	for _, a := range alarms {
		rep.Level = max(rep.Level, a.Level)
	}
	return rep, nil
}

// expect adds the devices that have no backup. A retired one needs none.
func (rep *Report) expect(expected []Expected) {
	for _, e := range expected {
		if e.Retired || slices.ContainsFunc(rep.Devices, func(d Device) bool { return repo.SameDevice(d.UDID, e.UDID) }) {
			continue
		}
		rep.Devices = append(rep.Devices, Device{UDID: e.UDID, Alias: e.Alias, Alarms: []Alarm{{Attention, "there is no backup of this device"}}})
	}
}

// judgeDevice judges a device by its snapshots, of which the last one is the newest.
func judgeDevice(own []*repo.Snapshot, certificates []*repo.Certificate, rules Rules, now time.Time) Device {
	s := own[len(own)-1]
	age := now.Sub(s.Time)
	expected := rules.of(s.Device.UDID)
	d := Device{
		Alias: expected.Alias, Retired: expected.Retired,
		UDID: s.Device.UDID, Name: s.Device.Name, Model: s.Device.ProductType, Snapshots: len(own),
		Newest: s.ID, Time: s.Time, Stored: s.StoredAt, Age: age.Hours() / 24, Alarms: []Alarm{},
	}
	alarm := func(l Level, format string, args ...any) {
		d.Alarms = append(d.Alarms, Alarm{l, fmt.Sprintf(format, args...)})
	}
	for _, o := range own {
		verified, drilled := repo.LastPassed(certificates, o)
		d.Verified, d.Drilled = later(d.Verified, verified), later(d.Drilled, drilled)
		d.Looked = later(d.Looked, repo.LastLook(certificates, o))
	}
	if !d.Looked.After(s.StoredAt) {
		d.Looked = time.Time{}
	}
	due := rules.MaxAge.Before(now)
	longDue := due
	for range 3 {
		longDue = rules.MaxAge.Before(longDue)
	}
	if s.Time.Before(due) && !d.Retired {
		level := Attention
		if s.Time.Before(longDue) {
			level = Danger
		}
		// Who must do something: the device, which makes no backups, or who imports them.
		why := "nothing was imported or backed up since"
		if !d.Looked.IsZero() {
			why = fmt.Sprintf("an import %s found no newer one", words.Ago(now.Sub(d.Looked)))
		}
		alarm(level, "the newest backup is %s old; %s", words.Plural(int(age/day), "day"), why)
	}
	switch {
	case s.Lost != nil:
		alarm(Danger, "the repository has lost files of the newest snapshot (%s)", s.ID.Short())
	case s.Damaged():
		alarm(Danger, "files of the newest snapshot (%s) were missing or damaged when it was stored", s.ID.Short())
	case !s.Complete:
		alarm(Attention, "the newest snapshot (%s) is incomplete", s.ID.Short())
	}
	if c := repo.Refuted(certificates, s); c != nil {
		alarm(Danger, "the newest snapshot (%s) did not pass a %s", s.ID.Short(), c.Kind)
	}
	if s.Encrypted && !s.Unlocked {
		alarm(Attention, "the newest snapshot (%s) is stored locked: it can be restored only with the backup password of the device", s.ID.Short())
	}
	return d
}

func (x *Repository) alarm(l Level, format string, args ...any) {
	x.Alarms = append(x.Alarms, Alarm{l, fmt.Sprintf(format, args...)})
}

// judge judges the repository itself.
func (x *Repository) judge(ctx context.Context, r *repo.Repo, list []*repo.Snapshot, unread []error, now time.Time) error {
	for _, err := range slices.Concat(unread, r.IndexDamage(list...)) {
		x.alarm(Danger, "%v", err)
	}
	if len(list) == 0 {
		x.alarm(Attention, "there are no snapshots")
	}
	var err error
	if x.Read, x.Unread, err = r.LastRead(ctx); err != nil {
		return err
	}
	free, err := r.Free(ctx)
	if errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	if err != nil {
		x.alarm(Attention, "the free space of the disk is not known: %v", err)
		return ctx.Err()
	}
	x.Free = &free
	var level Level
	var text string
	if x.Full, level, text = fullAt(free, x.WeekBytes, now); level > OK {
		x.alarm(level, "%s", text)
	}
	return nil
}

// weekBytes returns what a week adds to a repository: the mean of the last four weeks, or
// of the time since the first snapshot. The first snapshot of each device does not count,
// since it stores everything once.
func weekBytes(list []*repo.Snapshot, now time.Time) int64 {
	const window = 28 * day
	sum, since := int64(0), now
	for _, own := range repo.ByDevice(list) {
		first := slices.MinFunc(own, func(a, b *repo.Snapshot) int { return a.StoredAt.Compare(b.StoredAt) })
		if first.StoredAt.Before(since) {
			since = first.StoredAt
		}
		for _, s := range own {
			if s != first && now.Sub(s.StoredAt) < window {
				sum += s.StoredBytes
			}
		}
	}
	span := max(min(now.Sub(since), window), 7*day)
	return int64(float64(sum) * float64(7*day) / float64(span))
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
