package record

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/store"
	"github.com/snap-backup/snap/repo/replace"
	"github.com/snap-backup/snap/repo/tree"
)

const (
	unfinishedMagic   = layout.RunMagic + "01"
	unfinishedVersion = 1
	maxUnfinishedSize = 4 << 20
	// maxParts bounds the number of trees of one record.
	maxParts = 1 << 14
)

// Kinds of unfinished backups.
const (
	// UnfinishedBackup is a backup that was interrupted.
	UnfinishedBackup = "backup"
	// UnfinishedPasswordChange is a change of the backup password. The device writes
	// files of its last backup again, with new keys. The record has these files, and
	// the next backup begins with them.
	UnfinishedPasswordChange = "rekey"
)

// Unfinished is the record of a device backup that was interrupted, with the files
// that the device has sent. The next backup of the device continues from these
// files. A prune keeps their chunks. The record may be removed at any time: the
// device then sends the files again.
type Unfinished struct {
	ID layout.FileID `json:"-"` // of the file

	Version int       `json:"version"`
	Kind    string    `json:"kind"`
	Run     string    `json:"run"` // names the backup; its later records replace earlier ones
	UDID    string    `json:"udid"`
	Device  string    `json:"device,omitempty"` // its name
	Host    string    `json:"host,omitempty"`
	Program string    `json:"program,omitempty"`
	Started time.Time `json:"started"`
	Saved   time.Time `json:"saved"`

	// Parent is the parent of the snapshot that the backup will become, nil for none.
	Parent *layout.FileID `json:"parent,omitempty"`
	// Full says that the device sends everything, since it was shown nothing of the
	// parent.
	Full bool `json:"full,omitempty"`
	// Parts are roots of trees of files. Files of later parts replace files of
	// earlier parts that have the same path.
	Parts []chunk.ID `json:"parts"`
	// Removed are paths to ignore in all parts.
	Removed []string `json:"removed,omitempty"`

	Files int64 `json:"files"` // in all parts, without those that were replaced
	Bytes int64 `json:"bytes"`
	// Spooled counts files that are in spools on the computer that received them,
	// since their keys arrive at the end.
	Spooled int64 `json:"spooled,omitempty"`

	// Complaints are what the device has said about its own errors, at most
	// MaxComplaints.
	Complaints []Complaint `json:"complaints,omitempty"`

	NewChunks   int64 `json:"new_chunks"` // see Snapshot
	NewBytes    int64 `json:"new_bytes"`
	StoredBytes int64 `json:"stored_bytes"`

	// Put is when the record was put, by the store's clock; zero if that is not known.
	Put time.Time `json:"-"`
}

// Complaint is a problem that a device reported without ending its backup.
type Complaint struct {
	// Path names the file in the backup folder that did not arrive completely. It is
	// empty if the complaint is not about a file.
	Path   string `json:"path,omitempty"`
	Origin string `json:"origin,omitempty"` // the file's name on the device
	Text   string `json:"text"`             // the device's description of the problem
}

// MaxComplaints bounds the complaints of a record.
const MaxComplaints = 1000

// Stats returns how much storing the files has added to the repository.
func (u *Unfinished) Stats() WriteStats {
	return WriteStats{u.NewChunks, u.NewBytes, u.StoredBytes}
}

// SetStats sets how much storing the files has added to the repository.
func (u *Unfinished) SetStats(s WriteStats) {
	u.NewChunks, u.NewBytes, u.StoredBytes = s.Chunks, s.Bytes, s.Stored
}

// NewUnfinished returns a new record without files. It stores nothing.
func NewUnfinished(r *store.Store, kind, udid string) (*Unfinished, error) {
	id, err := crypto.NewKey(r.Options.Rand) // random bytes, used as a name
	if err != nil {
		return nil, err
	}
	defer id.Destroy()
	return &Unfinished{Kind: kind, UDID: udid, Run: fmt.Sprintf("%x", id[:8]), Started: r.Options.Now().UTC(), Parts: []chunk.ID{}}, nil
}

// SaveUnfinished stores a record and removes the one that it replaces, as
// repo.Repo.SaveUnfinished describes.
func SaveUnfinished(ctx context.Context, r *store.Store, u *Unfinished) error {
	before := u.ID
	now := r.Options.Now().UTC()
	if !now.After(u.Saved) {
		now = u.Saved.Add(1) // newer than the record before, even if the clock went backwards
	}
	u.Version, u.Saved = unfinishedVersion, now
	if u.Parts == nil {
		u.Parts = []chunk.ID{}
	}
	plain, err := json.Marshal(u)
	if err != nil {
		return fmt.Errorf("save an unfinished backup: %w", err)
	}
	b, err := r.RunSealer.Seal([]byte(unfinishedMagic), plain, nil)
	if err != nil {
		return fmt.Errorf("save an unfinished backup: %w", err)
	}
	if len(b) > maxUnfinishedSize || len(u.Parts) > maxParts {
		return fmt.Errorf("save an unfinished backup: a record of %d bytes and %d parts is too large", len(b), len(u.Parts))
	}
	if err := r.CheckLock(ctx); err != nil {
		return fmt.Errorf("save an unfinished backup: %w", err)
	}
	id, err := r.PutNamed(ctx, layout.RunsDir, b)
	if err != nil {
		return fmt.Errorf("save an unfinished backup: %w", err)
	}
	if err := r.CheckLock(ctx); err != nil {
		// A prune that did not see the record may have removed chunks that the
		// record needs.
		if id != before {
			_ = r.Backend.Delete(context.WithoutCancel(ctx), layout.RunsDir+id.String())
		}
		return fmt.Errorf("save an unfinished backup: %w", err)
	}
	u.ID = id
	if before == (layout.FileID{}) || before == id {
		return nil
	}
	// If this fails, readers still use the newer record.
	if err := replace.Delete(ctx, r.Backend, layout.RunsDir+before.String()); err != nil && !errors.Is(err, backend.ErrNotExist) {
		return fmt.Errorf("remove the earlier record of an unfinished backup: %w", err)
	}
	return nil
}

// ListUnfinished returns the newest record of each unfinished backup, in the order
// in which they were saved. damaged has an error for each record that cannot be
// read.
func ListUnfinished(ctx context.Context, r *store.Store) (list []*Unfinished, damaged []error, err error) {
	all, damaged, err := AllUnfinished(ctx, r)
	for _, u := range all {
		if n := len(list); n > 0 {
			list = slices.DeleteFunc(list, func(o *Unfinished) bool { return o.Run == u.Run })
		}
		list = append(list, u)
	}
	return list, damaged, err
}

// AllUnfinished is like ListUnfinished, but also returns the earlier records of
// each backup.
func AllUnfinished(ctx context.Context, r *store.Store) (list []*Unfinished, damaged []error, err error) {
	err = store.List(ctx, r.Backend, layout.RunsDir, func(f backend.Info) error {
		u, err := ReadUnfinished(ctx, r, f.Name)
		switch {
		case errors.Is(err, backend.ErrNotExist): // replaced since it was listed
		case errors.Is(err, store.ErrDamaged):
			damaged = append(damaged, err)
		case err != nil:
			return err
		default:
			u.Put = f.Modified
			list = append(list, u)
		}
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("read unfinished backups: %w", err)
	}
	slices.SortStableFunc(list, func(a, b *Unfinished) int {
		if c := a.Saved.Compare(b.Saved); c != 0 {
			return c
		}
		return strings.Compare(a.ID.String(), b.ID.String())
	})
	return list, damaged, nil
}

// ReadUnfinished reads the record of an unfinished backup, given the name of its file.
func ReadUnfinished(ctx context.Context, r *store.Store, name string) (*Unfinished, error) {
	b, err := r.ReadNamed(ctx, name, maxUnfinishedSize)
	if err != nil {
		return nil, err
	}
	sealed, ok := store.CutMagic(b, unfinishedMagic)
	if !ok {
		return nil, &store.DamageError{File: name, Err: errors.New("bad magic")}
	}
	plain, err := r.RunSealer.Open(nil, sealed, nil)
	if err != nil {
		return nil, &store.DamageError{File: name, Err: err}
	}
	u, err := parseUnfinished(plain)
	if err != nil {
		return nil, &store.DamageError{File: name, Err: err}
	}
	u.ID, err = layout.ParseFileID(name)
	return u, err
}

func parseUnfinished(plain []byte) (*Unfinished, error) {
	var u Unfinished
	if err := json.Unmarshal(plain, &u); err != nil {
		return nil, err
	}
	if u.Version != unfinishedVersion {
		return nil, fmt.Errorf("version %d of an unfinished backup: %w", u.Version, store.ErrUnsupported)
	}
	if len(u.Parts) > maxParts {
		return nil, fmt.Errorf("an unfinished backup of %d parts; at most %d are allowed", len(u.Parts), maxParts)
	}
	return &u, nil
}

// WalkUnfinished calls fn for every file of a record, part by part. A path that
// appears again replaces the earlier file. The caller must leave out the paths in
// Removed.
func WalkUnfinished(ctx context.Context, r *store.Store, u *Unfinished, fn func(*tree.Entry) error) error {
	for _, root := range u.Parts {
		if err := store.TreeDamage(tree.Walk(ctx, r.Chunk, root, fn)); err != nil {
			return err
		}
	}
	return nil
}

// RemoveUnfinished removes all records of an unfinished backup. Missing records are
// no error.
func RemoveUnfinished(ctx context.Context, r *store.Store, u *Unfinished) error {
	all, _, err := AllUnfinished(ctx, r)
	if err != nil {
		return err
	}
	var ids []layout.FileID
	for _, o := range all {
		if o.Run == u.Run && o.ID != u.ID {
			ids = append(ids, o.ID)
		}
	}
	// The newest record goes last, since it hides the others; and it goes even if reading
	// it has failed just now.
	for _, id := range append(ids, u.ID) {
		if id == (layout.FileID{}) {
			continue // never stored
		}
		if err := replace.Delete(ctx, r.Backend, layout.RunsDir+id.String()); err != nil && !errors.Is(err, backend.ErrNotExist) {
			return fmt.Errorf("remove an unfinished backup: %w", err)
		}
	}
	u.ID = layout.FileID{}
	return nil
}
