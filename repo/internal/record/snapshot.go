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
	"slices"
	"strconv"
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
		if s, err := parseSnapshot(e.JSON); err == nil {
			s.ID = id
			return s, nil
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

// FindSnapshot finds the snapshot that spec names, as repo.Repo.FindSnapshot
// describes.
func FindSnapshot(ctx context.Context, r *store.Store, spec string) (*Snapshot, error) {
	s, _, err := findSnapshot(ctx, r, spec)
	return s, err
}

// findSnapshot is FindSnapshot. If it needs all records, it also returns an error for
// each that cannot be read: spec may mean one of them.
func findSnapshot(ctx context.Context, r *store.Store, spec string) (*Snapshot, []error, error) {
	if what, _, _ := strings.Cut(spec, ":"); what != "latest" {
		// Usually one record is enough. Then damage to others does not matter.
		id, err := r.Resolve(ctx, layout.SnapshotsDir, spec)
		if err == nil {
			s, err := Load(ctx, r, id)
			return s, nil, err
		}
		if !errors.Is(err, store.ErrNoSnapshot) {
			return nil, nil, fmt.Errorf("snapshot %q: %w", spec, err)
		}
	}
	list, damaged, err := List(ctx, r)
	if err != nil {
		return nil, nil, err
	}
	s, err := FindIn(list, spec)
	if errors.Is(err, store.ErrNoSnapshot) {
		// A damaged record may be the one that was meant.
		err = errors.Join(append([]error{err}, damaged...)...)
	}
	return s, damaged, err
}

// maxNames is how many devices an error names.
const maxNames = 6

// NoDevice returns the error that no snapshot of a list is of a device. It names the devices
// that there are.
func NoDevice(list []*Snapshot, device string) error {
	var names []string
	for _, own := range ByDevice(list) {
		names = append(names, strconv.Quote(own[len(own)-1].Device.Name))
	}
	known := ""
	if more := len(names) - maxNames; more > 0 {
		known = fmt.Sprintf("; there are %s and %d more", strings.Join(names[:maxNames], ", "), more)
	} else if len(names) > 0 {
		known = "; there are " + strings.Join(names, ", ")
	}
	return fmt.Errorf("no device has the name or UDID %q%s: %w", device, known, store.ErrNoSnapshot)
}

// FindIn is like FindSnapshot, but searches a list of snapshots.
func FindIn(list []*Snapshot, spec string) (*Snapshot, error) {
	what, device, byDevice := strings.Cut(spec, ":")
	var err error
	switch {
	case what != "latest":
		list, err = byID(list, strings.ToLower(spec))
	case byDevice:
		all := list
		if list, err = OfDevice(all, device); err == nil && len(list) == 0 {
			err = NoDevice(all, device)
		}
	}
	if err == nil && len(list) == 0 {
		err = store.ErrNoSnapshot
	}
	if err != nil {
		return nil, fmt.Errorf("snapshot %q: %w", spec, err)
	}
	if what == "latest" {
		return lastStored(list, list[len(list)-1]), nil
	}
	return list[len(list)-1], nil
}

// byID returns the one snapshot whose ID begins with prefix. It looks at former IDs
// only if no current ID matches.
func byID(list []*Snapshot, prefix string) ([]*Snapshot, error) {
	if prefix == "" {
		return nil, nil
	}
	fits := func(id layout.FileID) bool { return strings.HasPrefix(id.String(), prefix) }
	var found []*Snapshot
	for _, s := range list {
		if fits(s.ID) {
			found = append(found, s)
		}
	}
	for _, s := range list {
		if len(found) == 0 || !fits(found[0].ID) {
			if s.Original != nil && fits(*s.Original) || slices.ContainsFunc(s.Former, fits) {
				found = append(found, s)
			}
		}
	}
	if len(found) > 1 {
		return nil, fmt.Errorf("%w: %d IDs begin with %q", store.ErrAmbiguous, len(found), prefix)
	}
	return found, nil
}

// minPrefix is the least length of a prefix of a UDID that can name a device.
const minPrefix = 4

// OfDevice returns the snapshots of one device, as repo.OfDevice describes.
func OfDevice(list []*Snapshot, device string) ([]*Snapshot, error) {
	udid, name := PlainUDID(device), foldName(device)
	for _, fits := range []func(d *Device) bool{
		func(d *Device) bool { return PlainUDID(d.UDID) == udid },
		func(d *Device) bool { return foldName(d.Name) == name },
		func(d *Device) bool {
			return name != "" && strings.HasPrefix(foldName(d.Name), name) ||
				len(udid) >= minPrefix && strings.HasPrefix(PlainUDID(d.UDID), udid)
		},
	} {
		udids := map[string]bool{}
		for _, s := range list {
			if fits(&s.Device) {
				udids[PlainUDID(s.Device.UDID)] = true
			}
		}
		if len(udids) > 1 {
			return nil, fmt.Errorf("%w: %q matches %d devices; use the complete name or the UDID", store.ErrAmbiguous, device, len(udids))
		}
		if len(udids) == 1 {
			// Include snapshots from when the device had another name.
			return slices.DeleteFunc(slices.Clone(list), func(s *Snapshot) bool { return !udids[PlainUDID(s.Device.UDID)] }), nil
		}
	}
	return nil, nil
}

// foldName returns a name in lower case, with the apostrophe of keyboards instead
// of the one that iOS writes, so that similar names become equal.
func foldName(s string) string { return strings.ToLower(strings.ReplaceAll(s, "\u2019", "'")) }

// SameDevice reports whether two UDIDs name one device.
func SameDevice(a, b string) bool { return PlainUDID(a) == PlainUDID(b) }

// PlainUDID returns a UDID in lower case without dashes, for comparisons.
func PlainUDID(s string) string { return strings.ToLower(strings.ReplaceAll(s, "-", "")) }

// ByDevice groups snapshots by device, in the order of the devices' names.
func ByDevice(list []*Snapshot) [][]*Snapshot {
	at := map[string]int{}
	var groups [][]*Snapshot
	for _, s := range list {
		udid := PlainUDID(s.Device.UDID)
		i, ok := at[udid]
		if !ok {
			i = len(groups)
			at[udid] = i
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], s)
	}
	name := func(g []*Snapshot) string { d := g[len(g)-1].Device; return d.Name + "\x00" + d.UDID }
	slices.SortFunc(groups, func(a, b []*Snapshot) int { return strings.Compare(name(a), name(b)) })
	return groups
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
