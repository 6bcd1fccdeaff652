package repo

import (
	"context"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/access"
	"github.com/snap-backup/snap/repo/internal/heal"
	"github.com/snap-backup/snap/repo/internal/repair"
	"github.com/snap-backup/snap/repo/parity"
)

// RepairOptions are the options of repairs.
type RepairOptions = repair.Options

// IndexRepair says what RepairIndex found and did, or would do.
type IndexRepair = repair.IndexRepair

// RepairIndex makes the index agree with the packs. It reads the header of every
// pack. If index files are damaged, missing or wrong, it writes new ones and
// removes the old ones. For a pack whose header is damaged, it keeps the
// description in the index.
//
// RepairIndex leaves out a pack that is on a prune list and in no index file. But
// if index files are damaged or missing, it adds the pack: one of them may have
// listed it, and a snapshot may need it.
//
// The caller holds a lock of kind LockExclusive, except for a dry run. RepairIndex
// loads the index.
func (r *Repo) RepairIndex(ctx context.Context, opts RepairOptions) (*IndexRepair, error) {
	return repair.Index(ctx, r.store, opts)
}

// PackRepair says what RepairPacks found and did, or would do.
type PackRepair = repair.PackRepair

// DamagedPack is a damaged pack that RepairPacks found.
type DamagedPack = repair.DamagedPack

// RepairPacks reads all packs and stores the sound blocks of damaged packs in new
// ones. It removes the damaged packs from the index and puts them on a prune list,
// so that the next prune removes them. If the content of a later backup includes
// lost chunks, the backup stores them again. RepairPacks begins with RepairIndex.
//
// The caller holds a lock of kind LockExclusive, except for a dry run.
func (r *Repo) RepairPacks(ctx context.Context, opts RepairOptions) (*PackRepair, error) {
	return repair.Packs(ctx, r.store, opts)
}

// ConfigRepair says what RepairConfig found and did, or would do.
type ConfigRepair = access.ConfigRepair

// RepairConfig makes config and its copy those that the key of this repository has
// opened. A damaged config is removed only after a good copy was stored and read back.
// Other files in configs/, which the key does not open or which are older, are removed.
//
// The caller holds a lock of kind LockExclusive, except for a dry run.
func (r *Repo) RepairConfig(ctx context.Context, opts RepairOptions) (*ConfigRepair, error) {
	return repair.Config(ctx, r.store, opts)
}

// SnapshotRepairOptions are the options of RepairSnapshots.
type SnapshotRepairOptions = repair.SnapshotRepairOptions

// SnapshotRepair says what RepairSnapshots found and did, or would do.
type SnapshotRepair = repair.SnapshotRepair

// RepairedSnapshot is a snapshot that RepairSnapshots replaced by a new version.
type RepairedSnapshot = repair.RepairedSnapshot

// RepairSnapshots replaces every snapshot that cannot be restored completely by a
// new version without the lost files. The new version lists the lost files
// separately. Files that an earlier repair marked as lost are in the new version
// again if they are complete now. The old record is removed once the new one is
// durable. Certificates that are damaged are removed. It begins with storing again the
// records that are damaged or missing, as far as the ledger has copies of them.
//
// RepairSnapshots reads all packs. The caller holds a lock of kind LockExclusive,
// except for a dry run.
func (r *Repo) RepairSnapshots(ctx context.Context, opts SnapshotRepairOptions) (*SnapshotRepair, error) {
	return repair.Snapshots(ctx, r.store, opts)
}

// HealOptions are the options of HealFromMirror.
type HealOptions = heal.Options

// HealReport says what HealFromMirror found and did, or would do.
type HealReport = heal.Report

// HealFromMirror heals the repository from an exact copy, which has the same keys.
// It reads all files here and replaces damaged ones. Then it fetches what is missing
// here: packs that snapshots or unfinished backups need, certificates, and snapshots
// if the options ask for them. It verifies the hash of every file that it fetches.
//
// The caller holds a lock of kind LockExclusive, except for a dry run.
func (r *Repo) HealFromMirror(ctx context.Context, from backend.Backend, opts HealOptions) (*HealReport, error) {
	return heal.FromMirror(ctx, r.store, from, opts)
}

// ContentReport says what HealFromContent found and did, or would do.
type ContentReport = heal.ContentReport

// HealFromContent takes content that is missing here from another repository, which
// may have other keys. It searches the snapshots of the same devices there. It
// looks for the missing chunks in their files, both as the other repository has cut
// them and as this one would cut them. HealFromContent begins with RepairPacks, so
// that damaged chunks count as missing.
//
// It cannot restore lost parts of trees: tree nodes contain chunk IDs, which
// depend on this repository's key, so only a mirror has the same nodes.
//
// The other repository's index must have been loaded. The caller holds a lock of
// kind LockExclusive here, except for a dry run.
func (r *Repo) HealFromContent(ctx context.Context, other *Repo, opts RepairOptions) (*ContentReport, error) {
	return heal.FromContent(ctx, r.store, other.store, opts)
}

// HealFromParity rebuilds damaged and missing files from parity, as far as
// possible, and repairs config. The caller holds a lock of kind LockExclusive, except for a dry run.
func (r *Repo) HealFromParity(ctx context.Context, opts RepairOptions) (*parity.HealReport, error) {
	return heal.FromParity(ctx, r.store, opts)
}

// HealKeys rebuilds damaged key slots from parity. It needs no key, so it can be called
// before Open, and no lock: a rebuilt file has the hash that is its name. It returns the
// names of the files.
func HealKeys(ctx context.Context, be backend.Backend, dryRun bool) ([]string, error) {
	return parity.HealKeys(ctx, be, dryRun)
}

// FetchKey fetches, from an exact copy, the key slot that a secret opens. It does so only
// if the repository has no good slot, or if its own slot of that name is damaged: a slot
// that is missing beside good ones was removed. It returns the name of the slot, or "" if
// there is none to fetch. It needs no lock: the file has the hash that is its name.
func FetchKey(ctx context.Context, be, from backend.Backend, secret []byte, opts Options, dryRun bool) (string, error) {
	return access.FetchSlot(ctx, be, from, secret, opts, dryRun)
}

// RefreshParity makes parity for files that have none yet, and makes it again for
// groups whose packs were removed. percent, in hundredths of a percent, is the new
// amount of parity; 0 does not change the amount. Call it after storing. The index
// must have been loaded.
func (r *Repo) RefreshParity(ctx context.Context, percent int, progress func(done, total int)) (*parity.RefreshReport, error) {
	return heal.RefreshParity(ctx, r.store, percent, progress)
}

// RemoveParity removes all parity files and returns their number.
func (r *Repo) RemoveParity(ctx context.Context) (int, error) {
	return heal.RemoveParity(ctx, r.store)
}

// ParityStatus says what parity protects.
func (r *Repo) ParityStatus(ctx context.Context) (*parity.Status, error) {
	return heal.ParityStatus(ctx, r.store)
}
