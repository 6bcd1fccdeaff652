// Package record reads and writes the records of a repository: snapshots with
// their labels, unfinished backups, and kept backup passwords.
//
// A record is never changed, only replaced: the new one is durable before the old
// one is removed, and readers show the newer one. The package stores no content.
package record

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/ledger"
	"github.com/snap-backup/snap/repo/internal/store"
	"golang.org/x/sync/errgroup"
)

const (
	snapshotMagic   = layout.SnapshotMagic + "01"
	maxSnapshotSize = 1 << 20
	SnapshotVersion = 1
)

// Snapshot is the record of one backup.
type Snapshot struct {
	ID layout.FileID `json:"id"`

	Version  int       `json:"version"`
	Time     time.Time `json:"time"`      // of the backup, see BackupTime
	StoredAt time.Time `json:"stored_at"` // when the repository stored it
	// NotBefore is a time before which the repository cannot have stored this snapshot,
	// as earlier snapshots of the device show; zero if none is known. A StoredAt long
	// before it is wrong. See Follow.
	NotBefore time.Time `json:"not_before,omitzero"`

	Host    string `json:"host,omitempty"`
	Program string `json:"program,omitempty"`

	Device Device `json:"device"`
	Source Source `json:"source"`

	Encrypted bool     `json:"encrypted"`          // by the device, with a backup password
	Unlocked  bool     `json:"unlocked,omitempty"` // encrypted, but stored decrypted
	Complete  bool     `json:"complete"`           // all findings are remarks
	Problems  []string `json:"problems,omitempty"` // the findings of older programs
	Tags      []string `json:"tags,omitempty"`
	Pin       *Pin     `json:"pin,omitempty"`
	Note      string   `json:"note,omitempty"`

	// Findings say what was found in the backup. Each may name only some of the files.
	// Findings is nil in records of programs that did not look for findings.
	Findings []Finding `json:"findings,omitzero"`

	// Set if the record has replaced another: the ID under which the snapshot was
	// first stored, its later IDs, and the time of the last change.
	Original *layout.FileID  `json:"original,omitempty"`
	Former   []layout.FileID `json:"former,omitempty"`
	Changed  *time.Time      `json:"changed,omitempty"`

	// Lost lists files of the snapshot that the repository has lost; nil if there
	// are none.
	Lost *Lost `json:"lost,omitempty"`

	Parent *layout.FileID `json:"parent,omitempty"`
	Root   chunk.ID       `json:"root"`

	// CopiedFrom is set in a copy of another repository's snapshot.
	CopiedFrom *Origin `json:"copied_from,omitempty"`
	// Estimated is set in a copy of a misdated snapshot: Time is an estimate, which the
	// other repository had evidence for.
	Estimated bool `json:"estimated,omitempty"`

	Files int64 `json:"files"`
	Bytes int64 `json:"bytes"` // of files in the backup folder

	// What storing the snapshot added to the repository, without this record of
	// about 1 KB.
	NewChunks   int64 `json:"new_chunks"`
	NewBytes    int64 `json:"new_bytes"`    // content, before compression
	StoredBytes int64 `json:"stored_bytes"` // in files of the repository

	// Misdated says that the record has a date in the future, or one that is long before
	// the snapshot can have been stored: the clock of the computer that stored it was wrong, or that of this
	// one is. Time and StoredAt are estimates if there is evidence; see datesOf. A copy of
	// such a snapshot is misdated, too; see Estimated.
	Misdated bool `json:"-"`

	// Put is when the record was put, by the store's clock; zero if that is not known.
	Put time.Time `json:"-"`

	stated *dates    // as in the record, if Time, StoredAt or Problems differ
	ahead  bool      // the record has a date in the future
	floor  time.Time // it was stored then or later, by NotBefore and its ancestors
}

// Origin names the snapshot in another repository from which a snapshot was copied.
// For a copy of a copy, it names the original snapshot.
type Origin struct {
	Repository string        `json:"repository"` // its ID, as in its Config
	Snapshot   layout.FileID `json:"snapshot"`
	Root       chunk.ID      `json:"root"` // in that repository
}

// Device describes the device that was backed up.
type Device struct {
	UDID           string `json:"udid"`
	Name           string `json:"name"`
	ProductType    string `json:"product_type,omitempty"`    // such as iPhone14,5
	ProductVersion string `json:"product_version,omitempty"` // of iOS
	BuildVersion   string `json:"build_version,omitempty"`
	SerialNumber   string `json:"serial_number,omitempty"`
}

// Source is where a backup came from.
type Source struct {
	Kind     string `json:"kind"`           // "folder" or "device"
	Path     string `json:"path,omitempty"` // of the folder, as the host named it
	Folder   string `json:"folder"`         // name of the backup folder, for materialize
	RunID    string `json:"run_id,omitempty"`
	Full     bool   `json:"full,omitempty"`     // a full backup, as the device says
	Archived bool   `json:"archived,omitempty"` // by Finder or iTunes
}

// Kinds of sources.
const (
	FromFolder = "folder"
	FromDevice = "device"
)

// Seal returns the bytes of a snapshot file. A finding keeps at most MaxFindingNames
// names, and fewer if the file would be too large otherwise.
func Seal(r *store.Store, s *Snapshot) ([]byte, error) {
	plain := *s
	plain.ID = layout.FileID{} // the ID is the hash of the sealed bytes
	if d := s.stated; d != nil {
		plain.Time, plain.StoredAt, plain.Problems = d.time, d.storedAt, d.problems
	}
	for names := MaxFindingNames; ; names /= 2 {
		plain.Findings = Clip(s.Findings, names)
		b, err := json.Marshal(&plain)
		if err != nil {
			return nil, err
		}
		out, err := r.SnapshotSealer.Seal([]byte(snapshotMagic), b, nil)
		if err != nil || len(out) <= maxSnapshotSize {
			return out, err
		}
		if names == 0 {
			return nil, fmt.Errorf("record of %d bytes is too large", len(out))
		}
	}
}

func openSnapshot(b []byte, sealer *crypto.Sealer) (*Snapshot, error) {
	sealed, ok := store.CutMagic(b, snapshotMagic)
	if !ok {
		return nil, errors.New("bad magic")
	}
	plain, err := sealer.Open(nil, sealed, nil)
	if err != nil {
		return nil, err
	}
	return parseSnapshot(plain)
}

func parseSnapshot(plain []byte) (*Snapshot, error) {
	var s Snapshot
	if err := json.Unmarshal(plain, &s); err != nil {
		return nil, err
	}
	if s.Version != SnapshotVersion {
		return nil, fmt.Errorf("snapshot version %d: %w", s.Version, store.ErrUnsupported)
	}
	s.settleTime()
	s.Misdated = s.Estimated
	return &s, nil
}

// Load reads one snapshot record.
func Load(ctx context.Context, r *store.Store, id layout.FileID) (*Snapshot, error) {
	s, err := load(ctx, r, id)
	now := r.Options.Now()
	if err != nil || !s.isAhead(now) && !s.StoredAt.Before(s.NotBefore.Add(-aheadSlack)) {
		return s, err
	}
	f, err := r.Backend.Stat(ctx, layout.SnapshotsDir+id.String())
	if err != nil && !errors.Is(err, backend.ErrNotExist) {
		return nil, err
	}
	s.Put = f.Modified
	datesOf([]*Snapshot{s}, now)
	return s, nil
}

// loadKnown is like loadOnce, but takes the record from the ledger if the store is far away:
// there a record takes as long as a file of the ledger, which has many.
func loadKnown(ctx context.Context, r *store.Store, known *ledger.Ledger, id layout.FileID) (*Snapshot, error) {
	if e := known.Get(id); r.Options.Distant && e != nil && len(e.JSON) > 0 {
		// Whoever has the key can enter anything, but only the record itself has this hash.
		if _, err := e.File(r); err == nil {
			if s, err := parseSnapshot(e.JSON); err == nil {
				s.ID = id
				return s, nil
			}
		}
	}
	return loadOnce(ctx, r, id)
}

// loadOnce is like load, but does not read a record again that it has read before.
func loadOnce(ctx context.Context, r *store.Store, id layout.FileID) (*Snapshot, error) {
	name := layout.SnapshotsDir + id.String()
	if first, ok := r.Parsed.Load(name); ok {
		s := *first.(*Snapshot)
		return &s, nil
	}
	s, err := load(ctx, r, id)
	if err == nil {
		first := *s
		r.Parsed.Store(name, &first)
	}
	return s, err
}

func load(ctx context.Context, r *store.Store, id layout.FileID) (*Snapshot, error) {
	name := layout.SnapshotsDir + id.String()
	b, err := r.ReadNamed(ctx, name, maxSnapshotSize)
	if err != nil {
		return nil, err
	}
	s, err := openSnapshot(b, r.SnapshotSealer)
	if err != nil {
		return nil, &store.DamageError{File: name, Err: err}
	}
	s.ID = id
	return s, nil
}

// ByID returns the snapshot that has an ID, or had it before a change. It fails
// with ErrNoSnapshot if there is none.
func ByID(ctx context.Context, r *store.Store, id layout.FileID) (*Snapshot, error) {
	s, err := Load(ctx, r, id)
	if !errors.Is(err, backend.ErrNotExist) {
		return s, err
	}
	list, _, err := List(ctx, r)
	if err != nil {
		return nil, err
	}
	for _, s := range list {
		if s.Has(id) {
			return s, nil
		}
	}
	return nil, fmt.Errorf("snapshot %s: %w", id.Short(), store.ErrNoSnapshot)
}

// List reads the current records of all snapshots, oldest backup first. damaged has
// an error for each record that cannot be read.
func List(ctx context.Context, r *store.Store) (list []*Snapshot, damaged []error, err error) {
	// While another process merges files of the ledger, Peek may miss entries, and List may
	// not notice that a record is missing. findMissing confirms what seems to be missing.
	known, err := ledger.Peek(ctx, r)
	if err != nil {
		return nil, nil, err
	}
	all, err := readAll(ctx, r, known)
	return all.Current, all.Damaged, err
}

// ListArrived is repo.Repo.ArrivedSnapshots.
func ListArrived(ctx context.Context, r *store.Store) (list []*Snapshot, damaged []error, err error) {
	known, err := ledger.Peek(ctx, r)
	if err != nil {
		return nil, nil, err
	}
	all, err := readAll(ctx, r, known)
	if err != nil {
		return nil, nil, err
	}
	first := map[layout.FileID]*Snapshot{}
	records := slices.Concat(all.Current, all.Superseded)
	for _, s := range records {
		o := first[s.FirstID()]
		if o == nil || s.Put.Before(o.Put) || s.Put.Equal(o.Put) && o.isNewer(s) {
			first[s.FirstID()] = s
		}
	}
	for _, s := range records {
		if o := first[s.FirstID()]; o != s && o.isSameBackup(s) {
			o.keepLabels(s)
		}
	}
	return slices.SortedFunc(maps.Values(first), Compare), all.Damaged, nil
}

// keepLabels adds the pin and the tags of another record of the same snapshot. The change that made
// the newer one may have been interrupted before the older one was removed.
func (s *Snapshot) keepLabels(of *Snapshot) {
	if s.Pin == nil {
		s.Pin = of.Pin
	}
	s.Tags = slices.Clone(s.Tags)
	for _, tag := range of.Tags {
		if !slices.Contains(s.Tags, tag) {
			s.Tags = append(s.Tags, tag)
		}
	}
}

// ReadAll is like List, but also returns superseded records, which interrupted changes
// leave. It notices all records that are missing according to the ledger.
func ReadAll(ctx context.Context, r *store.Store) (all Snapshots, err error) {
	known, err := ledger.Read(ctx, r)
	if err != nil {
		return Snapshots{}, err
	}
	return readAll(ctx, r, known)
}

func readAll(ctx context.Context, r *store.Store, known *ledger.Ledger) (all Snapshots, err error) {
	var mu sync.Mutex
	var list []*Snapshot
	var damaged []error
	bad := map[layout.FileID]bool{}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	err = r.Backend.List(ctx, layout.SnapshotsDir, func(f backend.Info) error {
		g.Go(func() error {
			id, err := layout.ParseFileID(f.Name)
			if err != nil {
				return nil // not a record
			}
			s, err := loadKnown(gctx, r, known, id)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case errors.Is(err, backend.ErrNotExist): // forgotten since it was listed
			case errors.Is(err, store.ErrDamaged):
				damaged = append(damaged, err)
				bad[id] = true
			case err != nil:
				return err
			default:
				s.Put = f.Modified
				list = append(list, s)
			}
			return nil
		})
		return gctx.Err()
	})
	if gerr := g.Wait(); gerr != nil {
		err = gerr
	}
	if err != nil {
		return Snapshots{}, fmt.Errorf("read snapshots: %w", err)
	}
	if len(list)+len(damaged) == 0 {
		if err := r.MustHaveFolder(ctx, layout.SnapshotsDir); err != nil {
			return Snapshots{}, fmt.Errorf("read snapshots: %w", err)
		}
	}
	if all.Missing, all.replaced, err = findMissing(ctx, r, known, list, bad); err != nil {
		return Snapshots{}, fmt.Errorf("read snapshots: %w", err)
	}
	for _, s := range all.Missing {
		damaged = append(damaged, &store.DamageError{File: layout.SnapshotsDir + s.ID.String(), Err: &MissingError{s}})
	}
	datesOf(list, r.Options.Now())
	slices.SortFunc(list, Compare)
	slices.SortFunc(damaged, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	all.Current, all.Superseded = splitSuperseded(list)
	all.Damaged, all.LedgerDamage = damaged, known.Damaged
	return all, nil
}

// Compare orders snapshots as List does.
func Compare(a, b *Snapshot) int {
	return cmp.Or(a.Time.Compare(b.Time), a.StoredAt.Compare(b.StoredAt), slices.Compare(a.ID[:], b.ID[:]))
}

// WriteStats counts what a writer has added.
type WriteStats struct {
	Chunks int64 // new chunks
	Bytes  int64 // their plaintext
	Stored int64 // bytes of files written
}

// Add returns the sum of two statistics.
func (s WriteStats) Add(o WriteStats) WriteStats {
	return WriteStats{s.Chunks + o.Chunks, s.Bytes + o.Bytes, s.Stored + o.Stored}
}
