package record

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/ledger"
	"github.com/snap-backup/snap/repo/internal/store"
)

// Forget removes the records of snapshots, as repo.Repo.Forget describes.
func Forget(ctx context.Context, r *store.Store, ids ...layout.FileID) error {
	// If a record was gone already, list the records again: another process may
	// have just replaced it.
	for range 3 {
		if len(ids) == 0 {
			return nil
		}
		var err error
		if ids, err = forget(ctx, r, ids); err != nil {
			return err
		}
	}
	return nil
}

// forget removes all records of snapshots. It returns the snapshots for which a
// record was gone already.
func forget(ctx context.Context, r *store.Store, ids []layout.FileID) (gone []layout.FileID, err error) {
	all, err := ReadAll(ctx, r)
	if err != nil {
		return nil, err
	}
	// Remove earlier records first. Otherwise one of them would be the snapshot's
	// current record again after an interruption.
	goneBefore := slices.Concat(all.replaced, all.Missing)
	records := slices.Concat(goneBefore, all.Superseded, all.Current)
	var every []layout.FileID
	of := map[layout.FileID]layout.FileID{} // the snapshot of a record, as in ids
	for _, id := range ids {
		remove := []layout.FileID{}
		if meant := meantBy(records, id); meant != nil {
			for _, s := range records {
				// A record of another backup may claim to replace this one.
				if s.FirstID() == meant.FirstID() && s.isSameBackup(meant) {
					remove = append(remove, s.ID)
				}
			}
		}
		if len(remove) == 0 {
			remove = []layout.FileID{id} // its record may be damaged
		}
		for _, record := range remove {
			every, of[record] = append(every, record), id
		}
	}
	l, err := ledger.Read(ctx, r)
	if err == nil {
		err = l.Remove(ctx, r, every)
	}
	if err != nil {
		return nil, fmt.Errorf("forget snapshots: %w", err)
	}
	for _, record := range every {
		err := deleteFiles(ctx, r, record)
		if err != nil && !errors.Is(err, backend.ErrNotExist) {
			return nil, fmt.Errorf("forget snapshot %s: %w", record.Short(), err)
		}
		known := slices.ContainsFunc(goneBefore, func(s *Snapshot) bool { return s.ID == record })
		if id := of[record]; err != nil && !known && !slices.Contains(gone, id) {
			gone = append(gone, id)
		}
	}
	return gone, nil
}

// isSameBackup reports whether two records, one of which claims to replace the other, differ in
// labels only.
func (s *Snapshot) isSameBackup(o *Snapshot) bool {
	return s.Root == o.Root && s.statedTime().Equal(o.statedTime()) && SameDevice(s.Device.UDID, o.Device.UDID)
}

// statedTime returns the time of the backup as the record has it.
func (s *Snapshot) statedTime() time.Time {
	if s.stated != nil {
		return s.stated.time
	}
	return s.Time
}

// meantBy returns the record that has an ID, or else the last one that had it; nil if there is
// none. Whoever has the key can store a record that claims the ID of another one.
func meantBy(records []*Snapshot, id layout.FileID) (found *Snapshot) {
	for _, s := range records {
		if s.ID == id {
			return s
		}
		if s.Has(id) {
			found = s
		}
	}
	return found
}
