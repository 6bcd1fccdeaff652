package record

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/ledger"
	"github.com/snap-backup/snap/repo/internal/store"
)

// Pin says that a snapshot must not be forgotten.
type Pin struct {
	Since  time.Time `json:"since"`
	Reason string    `json:"reason,omitempty"`
}

// Labels are the parts of a snapshot that can be changed.
type Labels struct {
	Tags []string
	Pin  *Pin
	Note string
}

// Labels returns a snapshot's labels.
func (s *Snapshot) Labels() Labels { return Labels{slices.Clone(s.Tags), s.Pin, s.Note} }

const (
	// MaxLabel bounds the length of each tag, note and reason in bytes, and MaxTags
	// the number of tags. So all of them fit easily into a record.
	MaxLabel = 4 << 10
	MaxTags  = 64
	// MaxFormer bounds how many former IDs a record lists.
	MaxFormer = 64
)

// FirstID returns the ID under which the snapshot was first stored. It stays the
// same when labels change.
func (s *Snapshot) FirstID() layout.FileID {
	if s.Original != nil {
		return *s.Original
	}
	return s.ID
}

// Has reports whether a snapshot has an ID, or had it before a change.
func (s *Snapshot) Has(id layout.FileID) bool {
	return s.ID == id || s.FirstID() == id || slices.Contains(s.Former, id)
}

// ChangeLabels gives a snapshot other labels, as repo.Repo.ChangeSnapshot
// describes.
func ChangeLabels(ctx context.Context, r *store.Store, s *Snapshot, labels Labels) (*Snapshot, error) {
	if r.Guard == nil {
		return nil, errors.New("change a snapshot: this process holds no lock")
	}
	if err := labels.check(s.Tags); err != nil {
		return nil, fmt.Errorf("change snapshot %s: %w", s.ID.Short(), err)
	}
	records, err := ReadAll(ctx, r)
	if err != nil {
		return nil, err
	}
	n := Successor(r, s)
	n.Tags, n.Pin, n.Note = labels.Tags, labels.Pin, labels.Note
	if err := Replace(ctx, r, s, n); err != nil {
		return nil, fmt.Errorf("change snapshot %s: %w", s.ID.Short(), err)
	}
	// Remove records that earlier, interrupted changes have left.
	for _, old := range records.Superseded {
		if old.FirstID() == s.FirstID() && old.ID != s.ID {
			if err := Delete(ctx, r, old.ID); err != nil && !errors.Is(err, backend.ErrNotExist) {
				return n, err
			}
		}
	}
	return n, nil
}

// Successor returns a record that replaces s. The caller changes and stores it.
func Successor(r *store.Store, s *Snapshot) *Snapshot {
	n := *s
	original := s.FirstID()
	n.Original = &original
	n.Former = slices.Clone(s.Former)
	if s.ID != original {
		n.Former = append(n.Former, s.ID)
	}
	n.Former = n.Former[max(0, len(n.Former)-MaxFormer):]
	now := r.Options.Now().UTC()
	if s.Changed != nil && !now.After(*s.Changed) {
		now = s.Changed.Add(1) // newer than s, even if the clock went backwards
	}
	n.Changed, n.Put = &now, time.Time{}
	return &n
}

// Replace stores the record n, then removes the record of s.
func Replace(ctx context.Context, r *store.Store, s, n *Snapshot) error {
	b, err := Seal(r, n)
	if err != nil {
		return err
	}
	if err := ledger.MustList(ctx, r); err != nil {
		return err
	}
	if err := r.CheckLock(ctx); err != nil {
		return err
	}
	if n.ID, err = r.PutNamed(ctx, layout.SnapshotsDir, b); err != nil {
		return err
	}
	err = r.CheckLock(ctx)
	if err == nil {
		err = enterReplaced(ctx, r, s.ID, b)
	}
	if err == nil {
		err = deleteFiles(ctx, r, s.ID)
		if errors.Is(err, backend.ErrNotExist) {
			err = store.ErrChanged
		}
	}
	if errors.Is(err, store.ErrLockLost) || errors.Is(err, store.ErrChanged) {
		Withdraw(ctx, r, n.ID)
	}
	return err
}

// ErrTag says that a text cannot be a tag.
var ErrTag = errors.New("not a tag")

// CheckTag returns ErrTag if a text must not become a tag of a snapshot. A tag with a
// comma could not be named by a rule that keeps tags, since a comma separates tags there.
func CheckTag(tag string) error {
	switch {
	case tag == "":
		return fmt.Errorf("%w: it is empty", ErrTag)
	case strings.Contains(tag, ","):
		return fmt.Errorf("%w: it contains a comma; give each tag by itself", ErrTag)
	case !utf8.ValidString(tag) || strings.ContainsFunc(tag, isUnseen):
		return fmt.Errorf("%w: it contains a character that cannot be seen", ErrTag)
	case strings.TrimSpace(tag) != tag:
		return fmt.Errorf("%w: it begins or ends with a space", ErrTag)
	case len(tag) > MaxLabel:
		return fmt.Errorf("%w: it has %d bytes; at most %d are allowed", ErrTag, len(tag), MaxLabel)
	}
	return nil
}

// isUnseen reports whether nobody can see a character: controls, and those that change
// the direction of text.
func isUnseen(r rune) bool { return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) }

// check returns an error if labels must not be stored. Tags that the snapshot has
// already may stay whatever they are: earlier versions checked fewer of them.
func (l *Labels) check(had []string) error {
	if len(l.Tags) > MaxTags {
		return fmt.Errorf("%d tags; at most %d are allowed", len(l.Tags), MaxTags)
	}
	for _, tag := range l.Tags {
		if slices.Contains(had, tag) {
			continue
		}
		if err := CheckTag(tag); err != nil {
			return fmt.Errorf("%q: %w", tag, err)
		}
	}
	texts := []string{l.Note}
	if l.Pin != nil {
		texts = append(texts, l.Pin.Reason)
	}
	for _, s := range texts {
		if len(s) > MaxLabel {
			return fmt.Errorf("a text of %d bytes; at most %d are allowed", len(s), MaxLabel)
		}
	}
	return nil
}

// Snapshots are all records of snapshots.
type Snapshots struct {
	Current    []*Snapshot // oldest backup first
	Superseded []*Snapshot // by a newer record of the same snapshot
	// Missing are records that are gone although nobody has removed them, read from the
	// ledger.
	Missing []*Snapshot
	// Damaged has an error for each record that is damaged or missing.
	Damaged []error
	// LedgerDamage has an error for each file of the ledger that cannot be used: it may
	// know of records that are gone.
	LedgerDamage []error

	replaced []*Snapshot // gone, and known only to the ledger: see findMissing
}

// splitSuperseded separates the current records from those that a newer record
// supersedes.
func splitSuperseded(list []*Snapshot) (current, superseded []*Snapshot) {
	newest := map[layout.FileID]*Snapshot{}
	for _, s := range list {
		if o := newest[s.FirstID()]; o == nil || s.isNewer(o) {
			newest[s.FirstID()] = s
		}
	}
	for _, s := range list {
		if newest[s.FirstID()] == s {
			current = append(current, s)
		} else {
			superseded = append(superseded, s)
		}
	}
	return current, superseded
}

// isNewer reports whether s was made after o, a record of the same snapshot.
func (s *Snapshot) isNewer(o *Snapshot) bool {
	switch {
	case slices.Contains(s.Former, o.ID), slices.Contains(o.Former, s.ID):
		return slices.Contains(s.Former, o.ID) // whatever the clocks say
	case s.Changed == nil || o.Changed == nil:
		return o.Changed == nil && s.Changed != nil
	case !s.Changed.Equal(*o.Changed):
		return s.Changed.After(*o.Changed)
	}
	return slices.Compare(s.ID[:], o.ID[:]) > 0
}
