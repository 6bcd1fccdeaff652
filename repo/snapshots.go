package repo

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/access"
	"github.com/snap-backup/snap/repo/internal/certificate"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/ledger"
	"github.com/snap-backup/snap/repo/internal/record"
	"github.com/snap-backup/snap/repo/internal/store"
)

// Snapshot is the record of one backup.
type Snapshot = record.Snapshot

// Finding is one thing that was found in a backup.
type Finding = record.Finding

// Consequence says what a finding means for a backup.
type Consequence = record.Consequence

// The consequences of a finding.
const (
	Remark     = record.Remark
	Damage     = record.Damage
	Incomplete = record.Incomplete
)

// MaxFindingNames bounds how many names a finding in a snapshot's record has.
const MaxFindingNames = record.MaxFindingNames

// BackupTime chooses the time of a backup: the first possible one of the times that the
// backup states, otherwise the time at which it was stored; see record.BackupTime.
func BackupTime(stored time.Time, stated ...time.Time) (t time.Time, note string) {
	return record.BackupTime(stored, stated...)
}

// ErrTag says that a text cannot be a tag.
var ErrTag = record.ErrTag

// MaxTags is the largest number of tags of a snapshot.
const MaxTags = record.MaxTags

// CheckTag returns ErrTag if a text must not become a tag of a snapshot.
func CheckTag(tag string) error { return record.CheckTag(tag) }

// MoreNames reports whether findings have more names than a record holds.
func MoreNames(findings []Finding) bool { return record.MoreNames(findings) }

// Origin names the snapshot in another repository from which a snapshot was copied.
// For a copy of a copy, it names the original snapshot.
type Origin = record.Origin

// Device describes the device that was backed up.
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

// SnapshotByID returns the snapshot that has an ID, or had it before its labels
// were changed. It fails with ErrNoSnapshot if there is none.
func (r *Repo) SnapshotByID(ctx context.Context, id FileID) (*Snapshot, error) {
	return record.ByID(ctx, r.store, id)
}

// Snapshots reads all snapshot records, oldest backup first. damaged has an error
// for each record that cannot be read.
func (r *Repo) Snapshots(ctx context.Context) (list []*Snapshot, damaged []error, err error) {
	if err := access.Confirm(ctx, r.store); err != nil {
		return nil, nil, err
	}
	return r.remember(record.List)(ctx, r.store)
}

// ArrivedSnapshots is like Snapshots for stores to which others may add files, but not replace
// or remove any: of several records of one snapshot, it returns the one that arrived first.
// Records of the same backup add their pin and tags to it.
func (r *Repo) ArrivedSnapshots(ctx context.Context) (list []*Snapshot, damaged []error, err error) {
	if err := access.Confirm(ctx, r.store); err != nil {
		return nil, nil, err
	}
	return record.ListArrived(ctx, r.store)
}

// knownSnapshots are the snapshots that a process has listed last.
type knownSnapshots struct {
	mu     sync.Mutex
	listed bool
	puts   int64 // records that the process had put before
	list   []*Snapshot
}

// KnownSnapshots returns the snapshots as this process has listed them last. It lists them if
// the process has not done that, or has stored one since. It is for callers to which a
// snapshot that another process stores meanwhile does not matter, and saves requests to a
// store far away.
func (r *Repo) KnownSnapshots(ctx context.Context) ([]*Snapshot, error) {
	r.known.mu.Lock()
	list, ok := slices.Clone(r.known.list), r.known.listed && r.known.puts == r.store.SnapshotsPut.Load()
	r.known.mu.Unlock()
	if ok {
		return list, nil
	}
	list, _, err := r.Snapshots(ctx)
	return list, err
}

// remember returns a function that lists snapshots for KnownSnapshots, too.
func (r *Repo) remember(read func(context.Context, *store.Store) ([]*Snapshot, []error, error)) func(context.Context, *store.Store) ([]*Snapshot, []error, error) {
	return func(ctx context.Context, s *store.Store) ([]*Snapshot, []error, error) {
		puts := s.SnapshotsPut.Load()
		list, damaged, err := read(ctx, s)
		if err == nil {
			r.known.mu.Lock()
			defer r.known.mu.Unlock()
			r.known.listed, r.known.puts, r.known.list = true, puts, slices.Clone(list)
		}
		return list, damaged, err
	}
}

// MissingSnapshots returns the snapshots whose records are gone although nobody has removed
// them, oldest backup first. Forget accepts their IDs, and RepairSnapshots stores the records
// again.
func (r *Repo) MissingSnapshots(ctx context.Context) ([]*Snapshot, error) {
	all, err := record.ReadAll(ctx, r.store)
	return all.Missing, err
}

// CanEnter returns an error if no snapshot can be stored, since the ledger cannot be listed. A
// long backup asks before it begins.
func (r *Repo) CanEnter(ctx context.Context) error { return ledger.MustList(ctx, r.store) }

// HasRecord reports whether a snapshot record exists.
func (r *Repo) HasRecord(ctx context.Context, id FileID) (bool, error) {
	_, err := r.store.Backend.Stat(ctx, layout.SnapshotsDir+id.String())
	if errors.Is(err, backend.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// FindSnapshot finds the snapshot that spec names. spec is a unique prefix of its
// ID, or of an ID that it had before its labels were changed; "latest"; or
// "latest:DEVICE", with a UDID or device name.
func (r *Repo) FindSnapshot(ctx context.Context, spec string) (*Snapshot, error) {
	if err := access.Confirm(ctx, r.store); err != nil {
		return nil, err
	}
	return record.FindSnapshot(ctx, r.store, spec)
}

// FindIndexed finds snapshots as FindSnapshot does, then loads the index. In this
// order the index has all chunks that the snapshots need, even if backups end
// meanwhile. In the other order, a snapshot that was stored after the index was
// read would look damaged.
//
// damaged has an error for each record that cannot be read and that a spec, such as
// "latest", may mean.
//
// To be safe from a prune, lock the repository first.
func (r *Repo) FindIndexed(ctx context.Context, specs ...string) (found []*Snapshot, damaged []error, err error) {
	if err := access.Confirm(ctx, r.store); err != nil {
		return nil, nil, err
	}
	return record.FindIndexed(ctx, r.store, specs...)
}

// SnapshotsIndexed calls Snapshots, then loads the index; see FindIndexed.
func (r *Repo) SnapshotsIndexed(ctx context.Context) (list []*Snapshot, damaged []error, err error) {
	if err := access.Confirm(ctx, r.store); err != nil {
		return nil, nil, err
	}
	return r.remember(record.ListIndexed)(ctx, r.store)
}

// NoDevice returns the error that no snapshot of a list is of a device. It is
// ErrNoSnapshot, and names the devices that there are.
func NoDevice(list []*Snapshot, device string) error { return record.NoDevice(list, device) }

// FindIn is like FindSnapshot, but searches a list of snapshots.
func FindIn(list []*Snapshot, spec string) (*Snapshot, error) {
	return record.FindIn(list, spec)
}

// OfDevice returns the snapshots of one device, in the given order, and none if no
// device matches. The device is named by its UDID, with or without dashes, by its
// name, or by a prefix of either. Case does not matter. A complete name is
// preferred to prefixes. The error is ErrAmbiguous if several devices match.
func OfDevice(list []*Snapshot, device string) ([]*Snapshot, error) {
	return record.OfDevice(list, device)
}

// ByDevice groups snapshots by device, in the order of the devices' names.
func ByDevice(list []*Snapshot) [][]*Snapshot { return record.ByDevice(list) }

// SameDevice reports whether two UDIDs name one device.
func SameDevice(a, b string) bool {
	return record.SameDevice(a, b)
}

// Pin says that a snapshot must not be forgotten.
type Pin = record.Pin

// Labels are the parts of a snapshot that can be changed.
type Labels = record.Labels

// ChangeSnapshot gives a snapshot other labels. Records never change, so it stores
// a new record, which has another ID and lists the earlier ones, and then removes
// the old record. An interruption may leave both; readers show the newer one.
//
// The caller holds a lock, so that a prune keeps what the new record needs. If
// another process changes or forgets the snapshot at the same time, one of the two
// fails with ErrChanged.
func (r *Repo) ChangeSnapshot(ctx context.Context, s *Snapshot, labels Labels) (*Snapshot, error) {
	return record.ChangeLabels(ctx, r.store, s, labels)
}

// Forget enters in the ledger that snapshots are removed on purpose, then removes them, then
// their certificates. The next Prune removes the data that only they needed. It is no error
// if a snapshot does not exist any more.
func (r *Repo) Forget(ctx context.Context, ids ...FileID) error {
	return certificate.Forget(ctx, r.store, ids...)
}

// Lost lists files of a snapshot that the repository has lost, as marked by
// RepairSnapshots. If their content returns, by healing or with another backup, the
// next repair puts the files back.
type Lost = record.Lost

// LostNode is a lost part of a tree.
type LostNode = record.LostNode
