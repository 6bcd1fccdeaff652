package repo

import (
	"context"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/heal"
	"github.com/snap-backup/snap/repo/internal/repair"
	"github.com/snap-backup/snap/repo/parity"
)

// RepairOptions say how to repair.
type RepairOptions = repair.RepairOptions

// IndexRepair says what RepairIndex has found and done, or would do.
type IndexRepair = repair.IndexRepair

// RepairIndex makes the index say what the packs say: it reads the header of
// every pack and, where the index files say something else, or are damaged or
// gone, writes new ones and then removes the old. Of a pack whose header is
// damaged the index is believed. Packs that a prune has announced and no index
// lists stay out, unless index files are damaged or missing: then they may have
// been listed, and a snapshot may need them. The prune decides that anew.
//
// The caller holds a lock of kind LockExclusive, but for a dry run. The index
// is loaded anew.
func (r *Repo) RepairIndex(ctx context.Context, opts RepairOptions) (*IndexRepair, error) {
	return repair.Index(ctx, r.store, opts)
}

// PackRepair says what RepairPacks has found and done, or would do.
type PackRepair = repair.PackRepair

// DamagedPack is a pack that RepairPacks has taken apart.
type DamagedPack = repair.DamagedPack

// RepairPacks reads all packs and takes the damaged ones apart: every block that
// is still as it was written goes into new packs. The damaged packs leave the
// index and are announced as in a prune, so that nothing relies on them any more
// and the next prune removes them; what could not be saved is stored anew when
// it turns up in a backup. It begins with RepairIndex.
//
// The caller holds a lock of kind LockExclusive, but for a dry run.
func (r *Repo) RepairPacks(ctx context.Context, opts RepairOptions) (*PackRepair, error) {
	return repair.Packs(ctx, r.store, opts)
}

// SnapshotRepairOptions say how RepairSnapshots goes about it.
type SnapshotRepairOptions = repair.SnapshotRepairOptions

// SnapshotRepair says what RepairSnapshots has found and done, or would do.
type SnapshotRepair = repair.SnapshotRepair

// RepairedSnapshot is a snapshot of which RepairSnapshots makes a new version.
type RepairedSnapshot = repair.RepairedSnapshot

// RepairSnapshots makes a new version of every snapshot that cannot be given
// back whole: without the files that are lost, whose entries go into a list of
// their own, and with a record that says so. Files of earlier losses that are
// whole again come back. The old record is removed when the new one, which
// names it, is durable: it could give nothing back that the new one cannot.
//
// Everything is read for that. The caller holds a lock of kind LockExclusive,
// but for a dry run.
func (r *Repo) RepairSnapshots(ctx context.Context, opts SnapshotRepairOptions) (*SnapshotRepair, error) {
	return repair.Snapshots(ctx, r.store, opts)
}

// HealOptions say how to heal from a copy.
type HealOptions = heal.Options

// HealReport says what HealFromMirror has found and done, or would do.
type HealReport = heal.Report

// HealFromMirror heals the repository from an exact copy, one with the same
// keys. It reads all files here; those that are damaged are fetched by name.
// Then it looks for content that snapshots need and that is not here, and
// fetches the packs that have it. Everything that comes from the copy was
// compared with its name.
//
// The caller holds a lock of kind LockExclusive, but for a dry run.
func (r *Repo) HealFromMirror(ctx context.Context, from backend.Backend, opts HealOptions) (*HealReport, error) {
	return heal.FromMirror(ctx, r.store, from, opts)
}

// ContentReport says what HealFromContent has found and done, or would do.
type ContentReport = heal.ContentReport

// HealFromContent stores content that is missing here and that another
// repository has, with whatever keys: it goes through the snapshots of the same
// devices there, and compares the chunks of their files, and those that this
// repository would cut the same files into, with what is missing. It begins with
// RepairPacks, so that nothing damaged counts as being there. other's index must
// have been loaded.
//
// Lists of files name chunks by this repository's key, so only an exact copy can
// give them back. The caller holds a lock of kind LockExclusive, but for a dry
// run.
func (r *Repo) HealFromContent(ctx context.Context, other *Repo, opts RepairOptions) (*ContentReport, error) {
	return heal.FromContent(ctx, r.store, other.store, opts)
}

// HealFromParity brings back what parity can. The caller holds a lock of kind
// LockExclusive, but for a dry run.
func (r *Repo) HealFromParity(ctx context.Context, opts RepairOptions) (*parity.HealReport, error) {
	return heal.FromParity(ctx, r.store, opts)
}

// RefreshParity makes parity for what has none yet, and anew for groups of which
// packs were removed. percent, in hundredths, changes how much there is; with 0 a
// repository without parity stays so. Call it after storing; the index must have
// been loaded.
func (r *Repo) RefreshParity(ctx context.Context, percent int, progress func(done int, total int)) (*parity.RefreshReport, error) {
	return heal.RefreshParity(ctx, r.store, percent, progress)
}

// RemoveParity removes all parity files, and returns how many there were.
func (r *Repo) RemoveParity(ctx context.Context) (int, error) {
	return heal.RemoveParity(ctx, r.store)
}

// ParityStatus says what parity guards.
func (r *Repo) ParityStatus(ctx context.Context) (*parity.Status, error) {
	return heal.ParityStatus(ctx, r.store)
}
