package repo

import (
	"context"
	"fmt"

	"github.com/snap-backup/snap/repo/parity"
)

// RefreshParity makes parity for what has none yet, and anew for groups of which
// packs were removed. percent, in hundredths, changes how much there is; with 0 a
// repository without parity stays so. Call it after storing; the index must have
// been loaded.
func (r *Repo) RefreshParity(ctx context.Context, percent int, progress func(done, total int)) (*parity.RefreshReport, error) {
	if len(r.indexDamage) > 0 {
		if s, err := parity.Load(ctx, r.be); err == nil && percent == 0 && s.Percent() == 0 {
			return &parity.RefreshReport{Damaged: []string{}}, nil // nobody wants parity
		}
		return nil, fmt.Errorf("parity: the index is damaged, so nobody knows which packs are missing; repair it first: %w", r.indexDamage[0])
	}
	missing := map[string]bool{}
	for _, id := range r.missing {
		missing[packName(id)] = true
	}
	return parity.Refresh(ctx, r.be, parity.RefreshOptions{
		Percent: percent, Progress: progress,
		Lost: func(name string) bool { return missing[name] },
	})
}

// RemoveParity removes all parity files, and returns how many there were.
func (r *Repo) RemoveParity(ctx context.Context) (int, error) { return parity.Remove(ctx, r.be) }

// ParityStatus says what parity guards.
func (r *Repo) ParityStatus(ctx context.Context) (*parity.Status, error) {
	s, err := parity.Load(ctx, r.be)
	if err != nil {
		return nil, err
	}
	return s.Status(ctx)
}

// HealFromParity brings back what parity can. The caller holds a lock of kind
// LockExclusive, but for a dry run.
func (r *Repo) HealFromParity(ctx context.Context, opts RepairOptions) (*parity.HealReport, error) {
	if err := r.forRepair(ctx, opts.DryRun); err != nil {
		return nil, err
	}
	return parity.Heal(ctx, r.be, parity.HealOptions{DryRun: opts.DryRun, Progress: func(done, total int) {
		opts.tell("healing from parity", int64(done), int64(total))
	}})
}
