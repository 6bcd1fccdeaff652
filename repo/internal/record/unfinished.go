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
	"github.com/snap-backup/snap/repo/tree"
)

const (
	unfinishedMagic   = "snaprn01"
	unfinishedVersion = 1
	maxUnfinishedSize = 4 << 20
	// maxParts bounds the trees of one record, and with them the roots that a
	// reader has to look at.
	maxParts = 1 << 14
)

// What an Unfinished is of.
const (
	// UnfinishedBackup is a backup that was interrupted.
	UnfinishedBackup = "backup"
	// UnfinishedRekey is a change of the backup password: files that the
	// device has changed in its last backup and that the next one begins with.
	UnfinishedRekey = "rekey"
)

// Unfinished is the record of files that a device has sent and that no
// snapshot has: of a backup that was interrupted, above all. The next run goes on
// from there. It refers to chunks, which have to stay while it is there, but it
// is no snapshot: nobody else can rely on it, and it may be removed at any time
// at the price of sending the files again.
type Unfinished struct {
	ID layout.FileID `json:"-"` // of the file

	Version int       `json:"version"`
	Kind    string    `json:"kind"`
	Run     string    `json:"run"` // names the run; later records of it replace earlier ones
	UDID    string    `json:"udid"`
	Device  string    `json:"device,omitempty"` // its name
	Host    string    `json:"host,omitempty"`
	Program string    `json:"program,omitempty"`
	Started time.Time `json:"started"`
	Saved   time.Time `json:"saved"`

	// Parent is the snapshot that the device continues, nil for none.
	Parent *layout.FileID `json:"parent,omitempty"`
	// Full says that the device was shown nothing of the parent and sends
	// everything.
	Full bool `json:"full,omitempty"`
	// Parts are roots of trees with the files; those of later parts replace
	// equal paths of earlier ones.
	Parts []chunk.ID `json:"parts"`
	// Removed are paths that no longer count, whatever part has them.
	Removed []string `json:"removed,omitempty"`

	Files int64 `json:"files"` // in all parts, without those that were replaced
	Bytes int64 `json:"bytes"`
	// Spooled counts files that wait outside of the repository, for keys that
	// come at the end, on the computer that received them.
	Spooled int64 `json:"spooled,omitempty"`

	NewChunks   int64 `json:"new_chunks"` // see Snapshot
	NewBytes    int64 `json:"new_bytes"`
	StoredBytes int64 `json:"stored_bytes"`
}

// Stats returns what storing the files has added.
func (u *Unfinished) Stats() WriteStats {
	return WriteStats{u.NewChunks, u.NewBytes, u.StoredBytes}
}

// SetStats notes what storing the files has added.
func (u *Unfinished) SetStats(s WriteStats) {
	u.NewChunks, u.NewBytes, u.StoredBytes = s.Chunks, s.Bytes, s.Stored
}

// NewUnfinished returns a record of a new run, without files. It is nowhere yet.
func NewUnfinished(r *store.Store, kind, udid string) (*Unfinished, error) {
	id, err := crypto.NewKey(r.Options.Rand) // just randomness
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
	u.Version, u.Saved = unfinishedVersion, r.Options.Now().UTC()
	if u.Parts == nil {
		u.Parts = []chunk.ID{}
	}
	plain, err := json.Marshal(u)
	if err != nil {
		return fmt.Errorf("save an unfinished run: %w", err)
	}
	b, err := r.RunSealer.Seal([]byte(unfinishedMagic), plain, nil)
	if err != nil {
		return fmt.Errorf("save an unfinished run: %w", err)
	}
	if len(b) > maxUnfinishedSize || len(u.Parts) > maxParts {
		return fmt.Errorf("save an unfinished run: a record of %d bytes and %d parts is too large", len(b), len(u.Parts))
	}
	if err := r.CheckLock(ctx); err != nil {
		return fmt.Errorf("save an unfinished run: %w", err)
	}
	id, err := r.PutNamed(ctx, layout.RunsDir, b)
	if err != nil {
		return fmt.Errorf("save an unfinished run: %w", err)
	}
	if err := r.CheckLock(ctx); err != nil {
		// What it needs may have been removed before it was there to be seen.
		if id != before {
			_ = r.Backend.Delete(context.WithoutCancel(ctx), layout.RunsDir+id.String())
		}
		return fmt.Errorf("save an unfinished run: %w", err)
	}
	u.ID = id
	if before == (layout.FileID{}) || before == id {
		return nil
	}
	// What is left over here counts for nothing, the newer record does.
	if err := r.Backend.Delete(ctx, layout.RunsDir+before.String()); err != nil && !errors.Is(err, backend.ErrNotExist) {
		return fmt.Errorf("remove the earlier record of an unfinished run: %w", err)
	}
	return nil
}

// ListUnfinished returns the records of runs that have not finished, the newest of
// each run, in the order in which they were saved. Records that cannot be read
// are left out and reported in damaged: what they had has to be sent again.
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

// AllUnfinished is ListUnfinished, with the earlier records of each backup.
func AllUnfinished(ctx context.Context, r *store.Store) (list []*Unfinished, damaged []error, err error) {
	err = r.Backend.List(ctx, layout.RunsDir, func(f backend.Info) error {
		id, err := layout.ParseFileID(f.Name)
		if err != nil {
			return nil // not one of ours
		}
		u, err := readUnfinished(ctx, r, id)
		switch {
		case errors.Is(err, backend.ErrNotExist): // replaced since it was listed
		case errors.Is(err, store.ErrDamaged):
			damaged = append(damaged, err)
		case err != nil:
			return err
		default:
			list = append(list, u)
		}
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("read unfinished runs: %w", err)
	}
	slices.SortStableFunc(list, func(a, b *Unfinished) int {
		if c := a.Saved.Compare(b.Saved); c != 0 {
			return c
		}
		return strings.Compare(a.ID.String(), b.ID.String())
	})
	return list, damaged, nil
}

func readUnfinished(ctx context.Context, r *store.Store, id layout.FileID) (*Unfinished, error) {
	name := layout.RunsDir + id.String()
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
	u.ID = id
	return u, nil
}

func parseUnfinished(plain []byte) (*Unfinished, error) {
	var u Unfinished
	if err := json.Unmarshal(plain, &u); err != nil {
		return nil, err
	}
	if u.Version != unfinishedVersion {
		return nil, fmt.Errorf("version %d of an unfinished run: %w", u.Version, store.ErrUnsupported)
	}
	if len(u.Parts) > maxParts {
		return nil, fmt.Errorf("an unfinished run of %d parts", len(u.Parts))
	}
	return &u, nil
}

// WalkUnfinished calls fn for every file of a record, part by part: a path that
// comes again replaces what came before. Removed is left to the caller.
func WalkUnfinished(ctx context.Context, r *store.Store, u *Unfinished, fn func(*tree.Entry) error) error {
	for _, root := range u.Parts {
		if err := store.TreeDamage(tree.Walk(ctx, r.Chunk, root, fn)); err != nil {
			return err
		}
	}
	return nil
}

// RemoveUnfinished removes all records of a run. That they are gone already is
// no error.
func RemoveUnfinished(ctx context.Context, r *store.Store, u *Unfinished) error {
	all, _, err := AllUnfinished(ctx, r)
	if err != nil {
		return err
	}
	for _, o := range all {
		if o.Run != u.Run {
			continue
		}
		if err := r.Backend.Delete(ctx, layout.RunsDir+o.ID.String()); err != nil && !errors.Is(err, backend.ErrNotExist) {
			return fmt.Errorf("remove an unfinished run: %w", err)
		}
	}
	u.ID = layout.FileID{}
	return nil
}
