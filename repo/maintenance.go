package repo

import (
	"context"

	"github.com/snap-backup/snap/repo/internal/check"
	"github.com/snap-backup/snap/repo/internal/copy"
	"github.com/snap-backup/snap/repo/internal/prove"
	"github.com/snap-backup/snap/repo/internal/prune"
	"github.com/snap-backup/snap/repo/mirror"
)

// PruneOptions say what Prune may do, and what it may leave.
type PruneOptions = prune.Options

// PruneReport says what Prune found and did, or would do.
type PruneReport = prune.Report

// ErrNoSnapshots says that no snapshot is left, so that a prune would remove everything.
var ErrNoSnapshots = prune.ErrNoSnapshots

// Prune removes data that no snapshot and no unfinished backup needs. Backups may
// run at the same time. An interrupted prune is continued by the next one.
//
// Prune fails with ErrDamaged if a snapshot needs something that is lost, since a
// repair may need the remaining files.
//
// It fails with ErrNoSnapshots if no snapshot is left, unless the options allow that.
//
// The caller holds a lock of kind LockPrune, except for a dry run.
func (r *Repo) Prune(ctx context.Context, opts PruneOptions) (*PruneReport, error) {
	return prune.Run(ctx, r.store, opts)
}

// CheckOptions say how thorough Check is.
type CheckOptions = check.Options

// CheckReport is the result of Check.
type CheckReport = check.Report

// Problem is one thing that Check found.
type Problem = check.Problem

// AffectedSnapshot is a snapshot that cannot be restored completely.
type AffectedSnapshot = check.Affected

// Check verifies config, keys, kept passwords and index files. It checks that every
// pack exists with the size in the index, and that every chunk of every snapshot is
// in the index. The options say which part of the packs it reads and verifies.
//
// The report lists damage; an error means that the check itself failed. Check
// loads the index.
func (r *Repo) Check(ctx context.Context, opts CheckOptions) (*CheckReport, error) {
	return check.Run(ctx, r.store, opts)
}

// MirrorJudge returns a judge that has the keys of this repository. A mirror of it, made
// with this judge, follows only what the keys open.
func (r *Repo) MirrorJudge() mirror.Judge {
	return prove.New(r.store)
}

// CopyOptions are the options of CopyTo.
type CopyOptions = copy.Options

// CopyReport says what CopyTo did, or would do.
type CopyReport = copy.Report

// CopiedSnapshot is one snapshot of a CopyReport.
type CopiedSnapshot = copy.Snapshot

// The outcomes of copying a snapshot.
const (
	CopyDone       = copy.Done
	CopyPresent    = copy.Present    // the target had it already
	CopyHealed     = copy.Healed     // the target had it, but incomplete; it is whole again
	CopyIncomplete = copy.Incomplete // the target has it, but incomplete, and the source lacks the same
	CopyDamaged    = copy.Damaged    // it cannot be read, and was left out
)

// CopyTo stores snapshots in another repository, which has its own keys and chunk
// IDs. It stores only what the target lacks. It decodes every chunk and verifies
// its ID. It encodes a block again only if the target lacks chunks of the block's
// dictionary.
//
// CopyTo skips snapshots that the target has already and that are whole there. Of the
// others it copies what they lack, and replaces records that list files as lost. If a
// snapshot cannot be read, or cannot be made whole in the target, CopyTo reports that,
// copies the others and returns ErrDamaged. It returns the report even if there is an
// error.
//
// Both indexes must have been loaded. CopyTo may load that of the target again. The caller holds a read lock here and a
// write lock on the target.
func (r *Repo) CopyTo(ctx context.Context, to *Repo, list []*Snapshot, opts CopyOptions) (*CopyReport, error) {
	return copy.Run(ctx, r.store, to.store, list, opts)
}
