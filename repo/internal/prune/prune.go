// Package prune frees what no snapshot and no unfinished backup needs.
//
// Backups may go on meanwhile, and it can be interrupted anywhere: what snapshots
// need is always there. It never removes a pack that a running process may rely
// on; docs/decisions says why that holds.
package prune

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/lock"
	"github.com/snap-backup/snap/repo/internal/record"
	"github.com/snap-backup/snap/repo/internal/store"
)

const (
	// roundBytes is how much prune rewrites before it removes what it has
	// replaced: so much more room it takes at most while it works.
	roundBytes = 256 << 20
	// maxRounds bounds the rounds of one prune.
	maxRounds = 4
	// Packs below a part of the usual size are worth putting together when
	// there are many of them.
	smallPack  = 8 // of the usual size, as a divisor
	manyPacks  = 32
	defaultAge = 14 * 24 * time.Hour
)

// Options say what Prune may leave and do.
type Options struct {
	// MaxUnused returns how many unused bytes may stay in packs that are in use,
	// given how many bytes are in use. Nil allows 5 % of these. The commands always
	// set it.
	MaxUnused func(used int64) int64
	// MaxRepack bounds the bytes that are written anew; negative for no bound.
	MaxRepack int64
	// Abandoned is the age from which a device backup that was interrupted counts as
	// given up; 14 days by default.
	Abandoned time.Duration
	// DryRun changes nothing.
	DryRun bool
	// Forget are snapshots that a dry run takes for forgotten.
	Forget []layout.FileID
	// Reserve makes a new reserve at the end, if there is none or it has become
	// too small. See MakeReserve.
	Reserve bool
	// Progress, if not nil, is told what is being done, and how far it is.
	Progress func(phase string, done, total int64)
}

// Report says what Prune has found and done, or would do.
type Report struct {
	Snapshots int   `json:"snapshots"`
	Packs     int   `json:"packs"`
	PackBytes int64 `json:"pack_bytes"`

	UsedBytes   int64 `json:"used_bytes"`   // that snapshots need
	BaseBytes   int64 `json:"base_bytes"`   // of these, needed only to decode others
	UnusedBytes int64 `json:"unused_bytes"` // that nothing needs

	RemovePacks int   `json:"remove_packs"` // that hold nothing in use
	RemoveBytes int64 `json:"remove_bytes"`
	RepackPacks int   `json:"repack_packs"` // to be written anew without waste
	RepackBytes int64 `json:"repack_bytes"`
	Rebased     int   `json:"rebased_blocks"` // stored anew, as a difference to something else or to nothing
	KeptUnused  int64 `json:"kept_unused_bytes"`
	FreeBytes   int64 `json:"free_bytes"` // the repository shrinks by this, as far as can be told before

	AbandonedRuns int `json:"abandoned_runs"` // unfinished backups that were given up

	// What was done.
	RemovedPacks int   `json:"removed_packs"`
	FreedBytes   int64 `json:"freed_bytes"`
	WrittenBytes int64 `json:"written_bytes"`
	// Packs that go with the next prune, since others are at work that began
	// before this one.
	PendingPacks int         `json:"pending_packs"`
	PendingBytes int64       `json:"pending_bytes"`
	Waiting      []lock.Info `json:"waiting"`
}

// pruner is one Run.
type pruner struct {
	r      *store.Store
	opts   Options
	report Report
	// rebased says that a rebase was tried. It is tried once.
	rebased bool
}

// Run prunes a repository, as repo.Repo.Prune describes.
func Run(ctx context.Context, r *store.Store, opts Options) (*Report, error) {
	if opts.MaxUnused == nil {
		opts.MaxUnused = func(used int64) int64 { return used / 20 }
	}
	if opts.Abandoned == 0 {
		opts.Abandoned = defaultAge
	}
	if opts.Progress == nil {
		opts.Progress = func(string, int64, int64) {}
	}
	p := &pruner{r: r, opts: opts, report: Report{Waiting: []lock.Info{}}}
	if opts.DryRun {
		_, err := p.look(ctx)
		return &p.report, err
	}
	if !lock.Holds(r, lock.Prune) {
		return nil, errors.New("prune: the repository is not locked for that")
	}
	err := p.prune(ctx)
	if err != nil && errors.Is(r.CheckLock(ctx), store.ErrLockLost) && !errors.Is(err, store.ErrLockLost) {
		// Another prune has gone on meanwhile. What looks like damage is its work.
		err = fmt.Errorf("prune: %w, after which it failed: %v", store.ErrLockLost, err)
	}
	return &p.report, err
}

func (p *pruner) prune(ctx context.Context) error {
	p.r.UseReserve()
	if err := p.abandon(ctx); err != nil {
		return err
	}
	// Others may store meanwhile, and each round sees what they have added. So the
	// number of rounds is bounded.
	for range maxRounds {
		o, err := p.round(ctx)
		if err != nil {
			return err
		}
		if o != again {
			break
		}
	}
	if p.opts.Reserve {
		if err := p.r.MakeReserve(ctx); err != nil && !backend.IsNoSpace(err) {
			return err
		}
	}
	return p.pending(ctx)
}

// outcome says what is left to do after a step of a prune.
type outcome int

const (
	// finished: what was looked up still holds, and there is nothing more to free.
	finished outcome = iota
	// again: another round is needed. The index was loaded anew, so that what was
	// looked up does not hold any more, or there may be more to free now.
	again
	// waiting: packs were announced that other processes may rely on. The next
	// prune removes them.
	waiting
)

// outcome returns that of a step after which another round is needed or not.
func (p *pruner) outcome(another bool) outcome {
	switch {
	case len(p.report.Waiting) > 0:
		return waiting
	case another:
		return again
	}
	return finished
}

// round looks at the repository and frees what it can.
func (p *pruner) round(ctx context.Context) (outcome, error) {
	plan, err := p.look(ctx)
	if err != nil {
		return finished, err
	}
	// First what goes without anything being written: that makes room on a full
	// disk.
	if o, err := p.removeDead(ctx, plan); err != nil || o != finished {
		return o, err
	}
	if !p.rebased {
		p.rebased = true
		if err := p.rebase(ctx, plan); err != nil {
			return finished, err
		}
		if plan.rebase != nil {
			return p.rewriteRebased(ctx, plan)
		}
	}
	return p.rewrite(ctx, plan.u, plan.repack, nil, roundBytes)
}

// abandon removes the records of unfinished backups that nobody will go on
// with.
func (p *pruner) abandon(ctx context.Context) error {
	runs, _, err := record.ListUnfinished(ctx, p.r)
	if err != nil {
		return err
	}
	for _, u := range runs {
		if !p.given(u) {
			continue
		}
		if err := record.RemoveUnfinished(ctx, p.r, u); err != nil {
			return err
		}
		p.report.AbandonedRuns++
	}
	return nil
}

// given reports whether an unfinished backup was given up. A changed password
// is kept: the next backup of the device needs it, whenever that is.
func (p *pruner) given(u *record.Unfinished) bool {
	return u.Kind == record.UnfinishedBackup && p.r.Options.Now().Sub(u.Saved) > p.opts.Abandoned
}

// pending counts what was announced and could not be removed yet.
func (p *pruner) pending(ctx context.Context) error {
	lists, err := p.r.PruneLists(ctx)
	if err != nil {
		return err
	}
	for _, l := range lists {
		for _, id := range l.Packs {
			info, err := p.r.Backend.Stat(ctx, layout.PackName(pack.ID(id)))
			if errors.Is(err, backend.ErrNotExist) {
				continue
			}
			if err != nil {
				return err
			}
			p.report.PendingPacks++
			p.report.PendingBytes += info.Size
		}
	}
	return nil
}
