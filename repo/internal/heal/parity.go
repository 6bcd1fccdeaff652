package heal

import (
	"context"
	"fmt"

	"github.com/snap-backup/snap/repo/internal/access"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/repair"
	"github.com/snap-backup/snap/repo/internal/store"
	"github.com/snap-backup/snap/repo/parity"
)

// RefreshParity updates parity, as repo.Repo.RefreshParity describes.
func RefreshParity(ctx context.Context, r *store.Store, percent int, progress func(done, total int)) (*parity.RefreshReport, error) {
	if len(r.DamagedIndex) > 0 {
		if s, err := parity.Load(ctx, r.Backend); err == nil && percent == 0 && s.Percent() == 0 {
			return &parity.RefreshReport{Damaged: []string{}}, nil // parity is not in use
		}
		return nil, fmt.Errorf("parity: the index is damaged, so it is not known which packs are missing; run `snap repair index` first: %w", r.DamagedIndex[0])
	}
	missing := map[string]bool{}
	for _, id := range r.Missing {
		missing[layout.PackName(id)] = true
	}
	return parity.Refresh(ctx, r.Backend, parity.RefreshOptions{
		Percent: percent, Progress: progress,
		Lost: func(name string) bool { return missing[name] },
	})
}

// RemoveParity removes all parity files and returns their number.
func RemoveParity(ctx context.Context, r *store.Store) (int, error) {
	return parity.Remove(ctx, r.Backend)
}

// ParityStatus says what parity protects.
func ParityStatus(ctx context.Context, r *store.Store) (*parity.Status, error) {
	s, err := parity.Load(ctx, r.Backend)
	if err != nil {
		return nil, err
	}
	return s.Status(ctx)
}

// FromParity rebuilds damaged and missing files from parity, as
// repo.Repo.HealFromParity describes.
func FromParity(ctx context.Context, r *store.Store, opts repair.Options) (*parity.HealReport, error) {
	aside, err := repair.Begin(ctx, r, opts.DryRun)
	if err != nil {
		return nil, err
	}
	rep, err := parity.Heal(ctx, r.Backend, parity.HealOptions{DryRun: opts.DryRun, Progress: func(done, total int) {
		opts.Tell("healing from parity", int64(done), int64(total))
	}})
	if err != nil {
		return nil, err
	}
	rep.Aside = append(aside, rep.Aside...)
	config, err := access.RepairConfig(ctx, r, opts.DryRun)
	if err == nil && config.Damage != "" {
		rep.Healed = append(rep.Healed, layout.ConfigName)
	}
	return rep, err
}
