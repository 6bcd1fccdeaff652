package status

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/snap-backup/snap/internal/words"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
)

// The kinds of copies.
const (
	Mirror = "mirror" // an exact copy, with the same keys
	Copied = "copy"   // a repository of its own with copies of snapshots
)

// Copy is the part of a Report about a mirror, or about another repository with copies of
// the snapshots. No password of it is needed.
type Copy struct {
	Folder  string `json:"folder"`
	Kind    string `json:"kind"` // Mirror or Copied
	Mounted bool   `json:"mounted"`
	// Snapshots is how many records of snapshots it has.
	Snapshots int `json:"snapshots"`
	// Newest is the time of the newest backup that a mirror has. It is not known of
	// another repository.
	Newest time.Time `json:"newest,omitzero"`
	// Missing is how many snapshots of the repository a mirror lacks.
	Missing int `json:"missing"`
	// Updated is when the last record of a snapshot was put, by the clock of the disk.
	Updated time.Time `json:"updated,omitzero"`
	Free    *int64    `json:"free_bytes,omitempty"`
	Full    time.Time `json:"full,omitzero"` // when its disk is full, if it grows as the repository does
	Alarms  []Alarm   `json:"alarms"`
}

// Store is the folder of a repository.
type Store interface {
	backend.Backend
	backend.Freer
}

func (c *Copy) alarm(l Level, format string, args ...any) {
	c.Alarms = append(c.Alarms, Alarm{l, fmt.Sprintf(format, args...)})
}

// Add adds a mirror or a copy to the report. The store is nil if its folder is not there: its
// disk is not mounted, so nothing is known of it, and that is no reason for an alarm. own
// is the store of the repository, and list has its snapshots.
func (rep *Report) Add(ctx context.Context, kind, folder string, be, own Store, list []*repo.Snapshot, rules Rules, now time.Time) error {
	c := Copy{Folder: folder, Kind: kind, Alarms: []Alarm{}}
	if be != nil {
		c.Mounted = true
		if err := c.judge(ctx, be, own, list, rules, now); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			c.alarm(Attention, "it cannot be read: %v", err)
		}
		c.space(ctx, be, rep.Repository.WeekBytes, now)
	}
	rep.Copies = append(rep.Copies, c)
	for _, a := range c.Alarms {
		rep.Level = max(rep.Level, a.Level)
	}
	return ctx.Err()
}

// judge compares what is stored there with the snapshots of the repository.
func (c *Copy) judge(ctx context.Context, be, own Store, list []*repo.Snapshot, rules Rules, now time.Time) error {
	records, err := repo.Records(ctx, be)
	if err != nil {
		return err
	}
	c.Snapshots = len(records)
	for _, put := range records {
		c.Updated = later(c.Updated, put)
	}
	due := rules.MaxAge.Before(now)
	if c.Kind != Mirror {
		var stored time.Time // of the last snapshot of the repository
		for _, s := range list {
			stored = later(stored, s.StoredAt)
		}
		switch {
		case c.Updated.IsZero() && len(list) > 0:
			c.alarm(Attention, "nothing was copied to it yet; \"snap copy --to %s\" does that", c.Folder)
		case c.Updated.Before(due) && c.Updated.Before(stored):
			c.alarm(Attention, "nothing was copied to it for %s; \"snap copy --to %s\" updates it", words.Plural(int(now.Sub(c.Updated)/day), "day"), c.Folder)
		}
		return nil
	}
	if here, err := repo.Fingerprint(ctx, own); err == nil {
		if there, err := repo.Fingerprint(ctx, be); err == nil && here != there {
			c.alarm(Attention, "it is a mirror of another repository")
			return nil
		}
	}
	waits := false // a snapshot has waited for too long
	for _, s := range list {
		// A change of a tag gives a snapshot another ID. Its content was there before.
		has := slices.ContainsFunc(append([]repo.FileID{s.ID, s.FirstID()}, s.Former...), func(id repo.FileID) bool { _, ok := records[id]; return ok })
		if has {
			c.Newest = later(c.Newest, s.Time)
			continue
		}
		c.Missing++
		waits = waits || s.StoredAt.Before(due)
	}
	if waits {
		c.alarm(Attention, "it lacks %s; \"snap mirror %s\" updates it", words.Plural(c.Missing, "snapshot"), c.Folder)
	}
	return nil
}

// space finds out when the disk of a copy is full.
func (c *Copy) space(ctx context.Context, be Store, week int64, now time.Time) {
	free, err := be.Free(ctx)
	if errors.Is(err, errors.ErrUnsupported) {
		return
	}
	if err != nil {
		c.alarm(Attention, "the free space of its disk is not known: %v", err)
		return
	}
	c.Free = &free
	var level Level
	var text string
	if c.Full, level, text = fullAt(free, week, now); level > OK {
		c.alarm(level, "%s", text)
	}
}

// fullAt says when a disk is full that has free bytes left and takes week more each week,
// and how urgent that is. The time is zero if it is far away.
func fullAt(free, week int64, now time.Time) (full time.Time, level Level, text string) {
	if week <= 0 {
		return full, OK, ""
	}
	weeks := float64(free) / float64(week)
	if weeks > 52*20 {
		return full, OK, ""
	}
	left := time.Duration(weeks * float64(7*day))
	switch {
	case left < fullDanger:
		level = Danger
	case left < fullAttention:
		level = Attention
	}
	return now.Add(left).Truncate(time.Second), level, "the disk is full in " + words.Plural(int(left/day), "day")
}
