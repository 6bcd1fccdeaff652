package certificate

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/record"
	"github.com/snap-backup/snap/repo/internal/store"
	"github.com/snap-backup/snap/repo/replace"
)

// Forget removes snapshots, as repo.Repo.Forget describes, and then their
// certificates.
func Forget(ctx context.Context, r *store.Store, ids ...layout.FileID) error {
	if err := record.Forget(ctx, r, ids...); err != nil {
		return err
	}
	return Sweep(ctx, r)
}

// Sweep removes the certificates of snapshots that do not exist any more, all but one
// of equal copies, and all but the newest of those that say only that an import found a
// backup unchanged. While a snapshot's record is damaged, it removes nothing, since a
// certificate may be of that snapshot.
func Sweep(ctx context.Context, r *store.Store) error {
	orphans, old, err := useless(ctx, r)
	if err != nil {
		return err
	}
	for _, c := range append(orphans, old...) {
		if err := Delete(ctx, r, layout.CertificatesDir+c.ID.String()); err != nil {
			return err
		}
	}
	return nil
}

// Delete removes a certificate file, if it exists.
func Delete(ctx context.Context, r *store.Store, name string) error {
	if err := replace.Delete(ctx, r.Backend, name); err != nil && !errors.Is(err, backend.ErrNotExist) {
		return fmt.Errorf("remove a certificate: %w", err)
	}
	return nil
}

// Orphans returns the certificates of snapshots that do not exist, and those of which there
// is an equal copy. It returns none
// if a record of a snapshot is damaged, or if other processes change records at the
// same time.
func Orphans(ctx context.Context, r *store.Store) ([]*Certificate, error) {
	orphans, _, err := useless(ctx, r)
	return orphans, err
}

// useless returns the orphans, and the other certificates that Sweep removes.
func useless(ctx context.Context, r *store.Store) (orphans, old []*Certificate, err error) {
	// List certificates first. A snapshot is stored before its certificates, so a
	// later listing has it.
	list, _, err := readAll(ctx, r)
	if err != nil || len(list) == 0 {
		return nil, nil, err
	}
	// In this order, all processes keep the same copy, whatever their clocks say.
	byID := slices.SortedFunc(slices.Values(list), func(a, b *Certificate) int { return slices.Compare(a.ID[:], b.ID[:]) })
	_, again := unique(byID)
	// While another process replaces a record, a listing may have neither the old one
	// nor the new one. If the names before and after are equal, nothing was missed.
	before, err := r.NamesIn(ctx, layout.SnapshotsDir)
	if err != nil {
		return nil, nil, err
	}
	all, err := record.ReadAll(ctx, r)
	if err != nil {
		return nil, nil, err
	}
	after, err := r.NamesIn(ctx, layout.SnapshotsDir)
	if err != nil {
		return nil, nil, err
	}
	slices.Sort(before)
	slices.Sort(after)
	if len(all.Damaged) > 0 || !slices.Equal(before, after) {
		return nil, nil, nil
	}
	for _, c := range list {
		if slices.Contains(again, c) || !slices.ContainsFunc(all.Current, func(s *record.Snapshot) bool { return s.Has(c.Snapshot) }) {
			orphans = append(orphans, c)
		}
	}
	old = slices.DeleteFunc(outdated(list), func(c *Certificate) bool { return slices.Contains(orphans, c) })
	return orphans, old, nil
}

// RemoveDamaged removes certificates that are damaged. A dry run removes nothing.
func RemoveDamaged(ctx context.Context, r *store.Store, dryRun bool) (c store.Cleared, err error) {
	_, damaged, err := List(ctx, r)
	if err != nil {
		return c, err
	}
	for _, err := range damaged {
		d, ok := errors.AsType[*store.DamageError](err)
		if !ok {
			continue // a newer program can use it
		}
		if d.File == layout.CertificatesDir {
			return c, d // a person should say what is to become of it
		}
		if err := c.Clear(ctx, r.Backend, d.File, dryRun, func() error { _, err := Load(ctx, r, d.File); return err }); err != nil {
			return c, err
		}
	}
	return c, nil
}
