// Package prune removes data that no snapshot and no unfinished backup needs.
//
// Backups may run at the same time, and a prune can be interrupted at any point:
// the repository always has what snapshots need. A prune never removes a pack that
// a running process may rely on; docs/decisions gives the reasons.
package prune

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/certificate"
	"github.com/snap-backup/snap/repo/internal/indexfile"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/lock"
	"github.com/snap-backup/snap/repo/internal/record"
	"github.com/snap-backup/snap/repo/internal/store"
)

const (
	// batchBytes is how much prune repacks before it removes the old packs. It
	// bounds the additional space that a prune needs.
	batchBytes = 256 << 20
	// maxRounds bounds the rounds of one prune.
	maxRounds = 4
	// blockedAge is how long packs wait until a prune that cannot remove them counts as
	// blocked, even by processes that run.
	blockedAge = 24 * time.Hour
	// defaultAge is the default of Options.Abandoned.
	defaultAge = 14 * 24 * time.Hour
)

// ErrNoSnapshots says that no snapshot is left, so that a prune would remove everything.
var ErrNoSnapshots = errors.New("no snapshot is left, so a prune would remove everything")

// Options say what a prune may do, and what it may leave.
type Options struct {
	// MaxUnused returns how many unused bytes may stay in packs that also hold
	// something in use, given how many bytes are in use. If it is nil, unused bytes may be
	// 5 % of those in use. The commands always set it.
	MaxUnused func(used int64) int64
	// MaxRepack bounds the bytes that are written again; a negative value means no
	// bound.
	MaxRepack int64
	// Abandoned is the age at which the record of an unfinished backup is removed, by
	// the clock of the store; 14 days by default.
	Abandoned time.Duration
	// DryRun changes nothing.
	DryRun bool
	// Forget are snapshots that a dry run treats as forgotten.
	Forget []layout.FileID
	// Reserve makes a reserve at the end if there is none or it has become too
	// small; see store.Store.MakeReserve.
	Reserve bool
	// AllowEmpty also removes data if no snapshot is left. Otherwise Run returns
	// ErrNoSnapshots: if the records were lost, the data is all that a repair could use.
	// While another process stores, perhaps the first backup, Run removes nothing instead.
	AllowEmpty bool
	// Progress, if not nil, is called with the current phase and how far it is.
	Progress func(phase string, done, total int64)
}

// Report says what Run found and did, or would do.
type Report struct {
	Snapshots int   `json:"snapshots"`
	Packs     int   `json:"packs"`
	PackBytes int64 `json:"pack_bytes"`

	UsedBytes   int64 `json:"used_bytes"`   // that snapshots need
	BaseBytes   int64 `json:"base_bytes"`   // the part of UsedBytes that is needed only as bases
	UnusedBytes int64 `json:"unused_bytes"` // that nothing needs

	PacksToRemove int   `json:"remove_packs"` // that hold nothing in use
	BytesToRemove int64 `json:"remove_bytes"`
	PacksToRepack int   `json:"repack_packs"` // that are partly in use, and are repacked
	BytesToRepack int64 `json:"repack_bytes"`
	Rebased       int   `json:"rebased_blocks"` // stored again with other bases or none
	KeptUnused    int64 `json:"kept_unused_bytes"`
	BytesToFree   int64 `json:"free_bytes"` // estimate of how much the repository shrinks

	AbandonedRuns int `json:"abandoned_runs"` // unfinished backups whose records were removed

	// What was done.
	RemovedPacks int   `json:"removed_packs"`
	FreedBytes   int64 `json:"freed_bytes"`
	WrittenBytes int64 `json:"written_bytes"` // of new packs
	// Packs that only a later prune can remove: processes that began before this prune
	// still run, or no snapshot is left and processes may be storing the first one.
	PendingPacks int         `json:"pending_packs"`
	PendingBytes int64       `json:"pending_bytes"`
	Waiting      []lock.Info `json:"waiting"`
	// Blocked says that nothing was removed because of locks in Waiting, and that waiting
	// may not help: either nothing tells whether their processes still run, or packs were
	// retired more than a day ago and still cannot be removed.
	Blocked bool `json:"blocked"`
}

// pruner is one Run.
type pruner struct {
	r      *store.Store
	opts   Options
	report Report
	// rebased says that this prune has tried a rebase. It tries only one.
	rebased bool
	spared  spared
	written map[pack.ID]bool // packs that this prune has written
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
	p := &pruner{r: r, opts: opts, report: Report{Waiting: []lock.Info{}}, written: map[pack.ID]bool{}}
	if opts.DryRun {
		_, err := p.makePlan(ctx)
		return &p.report, err
	}
	if !lock.Holds(r, lock.Prune) {
		return nil, errors.New("prune: this process holds no prune lock")
	}
	err := p.prune(ctx)
	if err != nil && errors.Is(r.CheckLock(ctx), store.ErrLockLost) && !errors.Is(err, store.ErrLockLost) {
		// Another prune has run at the same time. It may have removed the missing
		// chunks.
		err = fmt.Errorf("prune: %w; then this prune failed: %v", store.ErrLockLost, err)
	}
	return &p.report, err
}

func (p *pruner) prune(ctx context.Context) error {
	p.r.UseReserve()
	if err := p.abandon(ctx); err != nil {
		return err
	}
	if err := certificate.Sweep(ctx, p.r); err != nil {
		return err
	}
	// Bound the rounds: each may find more to do, since other processes store data
	// meanwhile.
	for range maxRounds {
		o, err := p.runRound(ctx)
		if err != nil {
			return err
		}
		if o != again {
			break
		}
	}
	if err := indexfile.Merge(ctx, p.r); err != nil && !backend.IsNoSpace(err) {
		return err
	}
	if p.opts.Reserve {
		if err := p.r.MakeReserve(ctx); err != nil && !backend.IsNoSpace(err) {
			return err
		}
	}
	return p.countPending(ctx)
}

// outcome says how a prune continues after a step.
type outcome int

const (
	// finished: the plan still holds, and there is nothing more to free.
	finished outcome = iota
	// again: another round is needed. Either the index was loaded again, so the
	// plan does not hold any more, or there may be more to free now.
	again
	// waiting: other processes may rely on packs on prune lists. The next prune
	// removes them.
	waiting
)

// outcome returns the outcome of a step. another says that another round is needed.
func (p *pruner) outcome(another bool) outcome {
	switch {
	case len(p.report.Waiting) > 0:
		return waiting
	case another:
		return again
	}
	return finished
}

// runRound makes a plan and carries it out as far as possible.
func (p *pruner) runRound(ctx context.Context) (outcome, error) {
	plan, err := p.makePlan(ctx)
	if err != nil {
		return finished, err
	}
	// First remove packs that need no repacking. That frees space on a full disk.
	if o, err := p.removeDead(ctx, plan); err != nil || o != finished {
		return o, err
	}
	if !p.rebased {
		p.rebased = true
		if err := p.planRebase(ctx, plan); err != nil {
			return finished, err
		}
		if plan.rebase != nil {
			return p.rewriteRebased(ctx, plan)
		}
	}
	return p.rewrite(ctx, plan.u, plan.repack, nil, batchBytes)
}

// abandon removes the records of unfinished backups that are too old.
func (p *pruner) abandon(ctx context.Context) error {
	runs, _, err := record.ListUnfinished(ctx, p.r)
	if err != nil {
		return err
	}
	for _, u := range runs {
		if !p.isAbandoned(u) {
			continue
		}
		if err := record.RemoveUnfinished(ctx, p.r, u); err != nil {
			return err
		}
		p.report.AbandonedRuns++
	}
	return nil
}

// isAbandoned reports whether an unfinished backup is too old to be continued. Records
// of a password change never are: the next backup of the device needs them.
func (p *pruner) isAbandoned(u *record.Unfinished) bool {
	return u.Kind == record.UnfinishedBackup && lock.Age(p.r, u.Put) > p.opts.Abandoned
}

// countPending counts the packs that could not be removed yet, and finds out whether locks
// block the prune.
func (p *pruner) countPending(ctx context.Context) error {
	lists, err := p.r.PruneLists(ctx)
	if err != nil {
		return err
	}
	p.report.PendingPacks, p.report.PendingBytes = p.spared.packs, p.spared.bytes
	for _, l := range p.spared.locks {
		if !slices.ContainsFunc(p.report.Waiting, func(w lock.Info) bool { return w.ID == l.ID }) {
			p.report.Waiting = append(p.report.Waiting, l)
		}
	}
	blocked := slices.ContainsFunc(p.report.Waiting, func(l lock.Info) bool { return l.State == lock.Unknown || l.State == lock.Bad })
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
		list, err := p.r.Backend.Stat(ctx, layout.PrunesDir+l.ID.String())
		if err != nil && !errors.Is(err, backend.ErrNotExist) {
			return err
		}
		blocked = blocked || lock.Age(p.r, list.Modified) > blockedAge
	}
	p.report.Blocked = blocked && len(p.report.Waiting) > 0 && p.report.PendingPacks > 0 && p.report.FreedBytes == 0
	return nil
}
