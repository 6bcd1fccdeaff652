package repo

import (
	"context"

	"github.com/snap-backup/snap/repo/internal/record"
)

// Snapshot is the record of one backup.
type Snapshot = record.Snapshot

// Origin is the snapshot of another repository that a snapshot is a copy of: the
// one that was imported, also if it came by way of a third repository.
type Origin = record.Origin

// Device is the device that a backup is of.
type Device = record.Device

// Source is where a backup came from.
type Source = record.Source

// Kinds of sources.
const (
	FromFolder = record.FromFolder
	FromDevice = record.FromDevice
)

// LoadSnapshot reads one snapshot record.
func (r *Repo) LoadSnapshot(ctx context.Context, id FileID) (*Snapshot, error) {
	return record.Load(ctx, r.store, id)
}

// SnapshotByID returns the snapshot that has an ID, or had it before it was
// changed: the parent of another one, say. If there is none, that is
// ErrNoSnapshot.
func (r *Repo) SnapshotByID(ctx context.Context, id FileID) (*Snapshot, error) {
	return record.ByID(ctx, r.store, id)
}

// Snapshots reads all snapshot records, oldest backup first. Records that
// cannot be read are left out and reported in damaged; they do not hide the
// others.
func (r *Repo) Snapshots(ctx context.Context) (list []*Snapshot, damaged []error, err error) {
	return record.List(ctx, r.store)
}

// FindSnapshot finds the snapshot that a person means: a unique beginning of
// its ID, or of one that it had before it was changed, "latest", or
// "latest:DEVICE" with a UDID or a device name.
func (r *Repo) FindSnapshot(ctx context.Context, spec string) (*Snapshot, error) {
	return record.FindSnapshot(ctx, r.store, spec)
}

// FindIndexed finds the snapshots that specs mean, as FindSnapshot does, and
// loads the index afterwards. In this order the index has what they need,
// however many backups end in between: packs and index files are there before
// the snapshot that needs them. The other way round a snapshot that is stored
// after the index was read would look damaged.
//
// A process that is to be safe from a prune has locked the repository before.
func (r *Repo) FindIndexed(ctx context.Context, specs ...string) ([]*Snapshot, error) {
	return record.FindIndexed(ctx, r.store, specs...)
}

// SnapshotsIndexed is Snapshots, and loads the index afterwards, as FindIndexed
// does.
func (r *Repo) SnapshotsIndexed(ctx context.Context) (list []*Snapshot, damaged []error, err error) {
	return record.ListIndexed(ctx, r.store)
}

// FindIn is FindSnapshot for a list that Snapshots has returned.
func FindIn(list []*Snapshot, spec string) (*Snapshot, error) {
	return record.FindIn(list, spec)
}

// OfDevice returns the snapshots of one device, in the order given; none fits is
// no error. The device is named as connected ones are: by its UDID, with or
// without dashes, by its name, or by the beginning of either; case does not
// matter. The whole name goes before beginnings. What several devices share is
// ErrAmbiguous.
func OfDevice(list []*Snapshot, device string) ([]*Snapshot, error) {
	return record.OfDevice(list, device)
}

// SameDevice reports whether two UDIDs name one device.
func SameDevice(a string, b string) bool {
	return record.SameDevice(a, b)
}

// Pin says that a snapshot is to stay.
type Pin = record.Pin

// Labels are what can be changed of a snapshot.
type Labels = record.Labels

// ChangeSnapshot gives a snapshot other labels. Since records are never
// changed, that makes a new one with another ID, which lists the earlier ones;
// the old record goes when the new one is durable. A crash in between leaves
// both, of which readers show the newer.
//
// The caller holds a lock: a prune that has just seen the old record forgotten
// must not remove what the new one needs. If somebody else changes or forgets
// the snapshot at the same time, one of the two wins, and the other one fails
// with ErrChanged.
func (r *Repo) ChangeSnapshot(ctx context.Context, s *Snapshot, labels Labels) (*Snapshot, error) {
	return record.ChangeLabels(ctx, r.store, s, labels)
}

// Forget removes snapshots. What only they needed stays until the next Prune.
// That a snapshot is gone already is no error.
func (r *Repo) Forget(ctx context.Context, ids ...FileID) error {
	return record.Forget(ctx, r.store, ids...)
}

// Lost is what a snapshot had once and cannot give back any more, as
// RepairSnapshots has marked it. Should the content come back, from a copy of
// the repository or with another backup, the next repair puts the files into
// their places again.
type Lost = record.Lost

// LostNode is a lost part of a list of files.
type LostNode = record.LostNode
