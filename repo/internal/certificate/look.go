package certificate

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/record"
	"github.com/snap-backup/snap/repo/internal/store"
)

// maxRecent bounds how many certificates Recent reads.
const maxRecent = 64

// isLook reports whether a certificate only says that an import found nothing new.
func isLook(c *Certificate) bool { return c.Kind == Import && c.Level == Unchanged }

// LastLook returns when an import last found the backup of a snapshot unchanged; zero if
// none did.
func LastLook(list []*Certificate, s *record.Snapshot) (t time.Time) {
	for _, c := range Of(list, s) {
		if isLook(c) && !c.undated && c.Time.After(t) {
			t = c.Time
		}
	}
	return t
}

// Recent reads the certificates that were stored last. It passes over those that it cannot
// use, and returns none if the store does not tell when they were stored.
func Recent(ctx context.Context, r *store.Store) (list []*Certificate, err error) {
	var files []backend.Info
	err = store.List(ctx, r.Backend, layout.CertificatesDir, func(f backend.Info) error {
		if !f.Modified.IsZero() {
			files = append(files, f)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(files, func(a, b backend.Info) int {
		if c := b.Modified.Compare(a.Modified); c != 0 {
			return c
		}
		return strings.Compare(a.Name, b.Name)
	})
	for _, f := range files[:min(len(files), maxRecent)] {
		c, err := Load(ctx, r, f.Name)
		switch {
		case errors.Is(err, backend.ErrNotExist), errors.Is(err, store.ErrDamaged), errors.Is(err, store.ErrUnsupported):
		case err != nil:
			return nil, err
		default:
			list = append(list, c)
		}
	}
	return list, nil
}

// outdated returns the certificates that say only that an import found nothing new, except
// the newest of each snapshot.
func outdated(list []*Certificate) (old []*Certificate) {
	newest := map[layout.FileID]*Certificate{}
	for _, c := range list { // oldest first
		if !isLook(c) {
			continue
		}
		if before := newest[c.Snapshot]; before != nil {
			old = append(old, before)
		}
		newest[c.Snapshot] = c
	}
	return old
}
