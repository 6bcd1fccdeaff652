package repo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/snap-backup/snap/repo/backend"
)

// Pin says that a snapshot is to stay.
type Pin struct {
	Since  time.Time `json:"since"`
	Reason string    `json:"reason,omitempty"`
}

// Labels are what can be changed of a snapshot.
type Labels struct {
	Tags []string
	Pin  *Pin
	Note string
}

// Labels returns those of a snapshot.
func (s *Snapshot) Labels() Labels { return Labels{slices.Clone(s.Tags), s.Pin, s.Note} }

const (
	// maxLabel bounds each tag, note and reason, and maxTags their number: all
	// of them fit into a record many times.
	maxLabel = 4 << 10
	maxTags  = 64
	// maxFormer bounds the IDs that a record lists of its predecessors.
	maxFormer = 64
)

// origin names the snapshot through all changes of its record.
func (s *Snapshot) origin() FileID {
	if s.Original != nil {
		return *s.Original
	}
	return s.ID
}

// Has reports whether a snapshot has an ID, or had it before it was changed.
func (s *Snapshot) Has(id FileID) bool {
	return s.ID == id || s.origin() == id || slices.Contains(s.Former, id)
}

// ChangeSnapshot gives a snapshot other labels. Since records are never
// changed, that makes a new one with another ID, which lists the earlier ones;
// the old record goes when the new one is durable. A crash in between leaves
// both, of which readers show the newer.
//
// The caller holds a lock: a prune that has just seen the old record forgotten
// must not remove what the new one needs. If somebody else changes or forgets
// the snapshot at the same time, one of the two wins, and the other one fails
// with ErrChanged.
func (r *Repo) ChangeSnapshot(ctx context.Context, s *Snapshot, labels Labels) (*Snapshot, error) {
	if r.guard == nil {
		return nil, errors.New("change a snapshot: the repository is not locked for that")
	}
	if err := labels.check(); err != nil {
		return nil, fmt.Errorf("change snapshot %s: %w", s.ID.Short(), err)
	}
	records, err := r.readRecords(ctx)
	if err != nil {
		return nil, err
	}
	n := r.successor(s)
	n.Tags, n.Pin, n.Note = labels.Tags, labels.Pin, labels.Note
	if err := r.replaceSnapshot(ctx, s, n); err != nil {
		return nil, fmt.Errorf("change snapshot %s: %w", s.ID.Short(), err)
	}
	// What a crash has left of earlier changes.
	for _, old := range records.superseded {
		if old.origin() == s.origin() && old.ID != s.ID {
			if err := r.deleteSnapshot(ctx, old.ID); err != nil && !errors.Is(err, backend.ErrNotExist) {
				return n, err
			}
		}
	}
	return n, nil
}

// successor returns a record that is to replace s, to be changed and stored.
func (r *Repo) successor(s *Snapshot) *Snapshot {
	n := *s
	original := s.origin()
	n.Original = &original
	n.Former = slices.Clone(s.Former)
	if s.ID != original {
		n.Former = append(n.Former, s.ID)
	}
	n.Former = n.Former[max(0, len(n.Former)-maxFormer):]
	now := r.opts.Now().UTC()
	if s.Changed != nil && !now.After(*s.Changed) {
		now = s.Changed.Add(1) // a clock that goes backwards does not bring the old one back
	}
	n.Changed = &now
	return &n
}

// replaceSnapshot stores the record n, then removes that of s.
func (r *Repo) replaceSnapshot(ctx context.Context, s, n *Snapshot) error {
	b, err := r.sealSnapshot(n)
	if err != nil {
		return err
	}
	if err := r.held(ctx); err != nil {
		return err
	}
	if n.ID, err = r.putNamed(ctx, snapshotsDir, b); err != nil {
		return err
	}
	err = r.held(ctx)
	if err == nil {
		err = r.deleteSnapshot(ctx, s.ID)
		if errors.Is(err, backend.ErrNotExist) {
			err = ErrChanged
		}
	}
	if errors.Is(err, ErrLockLost) || errors.Is(err, ErrChanged) {
		_ = r.deleteSnapshot(context.WithoutCancel(ctx), n.ID)
	}
	return err
}

func (r *Repo) deleteSnapshot(ctx context.Context, id FileID) error {
	return r.be.Delete(ctx, snapshotsDir+id.String())
}

func (l *Labels) check() error {
	if len(l.Tags) > maxTags {
		return fmt.Errorf("%d tags, at most %d are kept", len(l.Tags), maxTags)
	}
	long := append([]string{l.Note}, l.Tags...)
	if l.Pin != nil {
		long = append(long, l.Pin.Reason)
	}
	for _, s := range long {
		if len(s) > maxLabel {
			return fmt.Errorf("a text of %d bytes, at most %d are kept", len(s), maxLabel)
		}
	}
	return nil
}

// snapshotRecords are all records of snapshots.
type snapshotRecords struct {
	current    []*Snapshot // oldest backup first
	superseded []*Snapshot // by a newer record of the same snapshot
	damaged    []error
}

// settle splits records into those that count and those that a change has
// replaced and not removed.
func settle(list []*Snapshot) (current, superseded []*Snapshot) {
	newest := map[FileID]*Snapshot{}
	for _, s := range list {
		if o := newest[s.origin()]; o == nil || s.newer(o) {
			newest[s.origin()] = s
		}
	}
	for _, s := range list {
		if newest[s.origin()] == s {
			current = append(current, s)
		} else {
			superseded = append(superseded, s)
		}
	}
	return current, superseded
}

// newer reports whether a record of the same snapshot was made after o.
func (s *Snapshot) newer(o *Snapshot) bool {
	switch {
	case s.Changed == nil || o.Changed == nil:
		return o.Changed == nil && s.Changed != nil
	case !s.Changed.Equal(*o.Changed):
		return s.Changed.After(*o.Changed)
	}
	return slices.Compare(s.ID[:], o.ID[:]) > 0
}
