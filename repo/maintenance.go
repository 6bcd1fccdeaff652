package repo

import (
	"context"

	"github.com/snap-backup/snap/repo/internal/check"
	"github.com/snap-backup/snap/repo/internal/copy"
	"github.com/snap-backup/snap/repo/internal/prune"
	"github.com/snap-backup/snap/repo/internal/usage"
)

// PruneOptions say what Prune may leave and do.
type PruneOptions = prune.Options

// PruneReport says what Prune has found and done, or would do.
type PruneReport = prune.Report

// Prune frees what no snapshot and no unfinished backup needs. The caller holds
// a lock of kind LockPrune, but for a dry run. Backups may go on meanwhile. It
// can be stopped at any point; the next one goes on.
//
// It refuses a repository that has lost something a snapshot needs, with an
// ErrDamaged: what is left may be what a repair needs.
func (r *Repo) Prune(ctx context.Context, opts PruneOptions) (*PruneReport, error) {
	return prune.Run(ctx, r.store, opts)
}

// CheckOptions say how thorough Check is.
type CheckOptions = check.Options

// CheckReport is the result of Check.
type CheckReport = check.Report

// Problem is one thing that Check found.
type Problem = check.Problem

// Suffering is a snapshot that cannot be given back whole.
type Suffering = check.Suffering

// Check verifies the repository: config, keys and device passwords, index files, that packs are
// there with the sizes that the index says, that every chunk of every snapshot
// can be found, and, as far as ReadData says, that packs hold what they should.
// Damage is in the report; an error means that checking itself failed. The
// index is loaded anew.
func (r *Repo) Check(ctx context.Context, opts CheckOptions) (*CheckReport, error) {
	return check.Run(ctx, r.store, opts)
}

// CheckComplete returns nil if everything is there that the snapshots and unfinished
// runs need: every chunk is in the index, and every pack that the index lists is
// there. It reads the trees of all snapshots, no content, and loads the index.
func (r *Repo) CheckComplete(ctx context.Context) error {
	return usage.CheckComplete(ctx, r.store)
}

// CopyOptions are what CopyTo takes beside snapshots.
type CopyOptions = copy.Options

// CopyReport says what CopyTo has done.
type CopyReport = copy.Report

// CopiedSnapshot is one snapshot of a CopyReport.
type CopiedSnapshot = copy.Snapshot

// The outcomes of copying a snapshot.
const (
	CopyDone    = copy.Done
	CopyPresent = copy.Present // the target had it already
	CopyDamaged = copy.Damaged // it cannot be read, and was left out
)

// CopyTo stores snapshots in another repository, whose keys and chunk IDs are
// its own, and which gets only what it lacks. Every chunk is decoded and compared
// with its ID on the way; what was encoded stays so where the target has the
// chunks of its dictionary. Chunks stay as they were cut.
//
// A snapshot that was copied before is not copied again, nor is one that somebody
// else copies meanwhile. One that cannot be read
// is left out and reported; the error is then ErrDamaged, and all others were
// copied. Both indexes must have been loaded, under a read lock here and a write
// lock there. The report is there with an error, too.
func (r *Repo) CopyTo(ctx context.Context, to *Repo, list []*Snapshot, opts CopyOptions) (*CopyReport, error) {
	return copy.Run(ctx, r.store, to.store, list, opts)
}
