package repo

import (
	"context"
	"time"

	"github.com/snap-backup/snap/repo/internal/check"
	"github.com/snap-backup/snap/repo/internal/inspect"
)

// Stats says what a repository holds and how much space that takes. Sizes are in bytes.
type Stats = inspect.Stats

// DeviceStats is the part of Stats for one device.
type DeviceStats = inspect.DeviceStats

// Stats counts the snapshots in list and the files of the repository. The list is
// in the order of Snapshots. The index must have been loaded.
func (r *Repo) Stats(ctx context.Context, list []*Snapshot) (*Stats, error) {
	return inspect.Count(ctx, r.store, list)
}

// LastRead returns the time since which checks have read all packs: that at which the one
// read longest ago was read. It returns the zero time if some packs were never read; unread
// is the number of these. The index must have been loaded.
func (r *Repo) LastRead(ctx context.Context) (since time.Time, unread int, err error) {
	return check.LastRead(ctx, r.store)
}

// Share is the space that the files of one domain or app take.
type Share = inspect.Share

// Shares returns the space that files take in the repository, the largest share
// first. It groups the files by the result of name for their domain. If several
// files share a chunk, only the first file in the oldest snapshot counts it. A chunk
// takes a part of the stored bytes of its block. The index must have been loaded.
func (r *Repo) Shares(ctx context.Context, list []*Snapshot, name func(domain string) string) ([]Share, error) {
	return inspect.FindShares(ctx, r.store, list, name)
}

// Part is the space that the files of one domain or app of a snapshot take.
type Part = inspect.Part

// Parts returns the space that the files of a snapshot take in the repository, and how
// much of it no other snapshot of list needs, the largest part first. It groups the files
// as Shares does. The index must have been loaded.
func (r *Repo) Parts(ctx context.Context, s *Snapshot, list []*Snapshot, name func(domain string) string) ([]Part, error) {
	return inspect.FindParts(ctx, r.store, s, list, name)
}

// UniqueSize returns the space that the files of a snapshot take in the repository,
// and how much of it no other snapshot of list needs. The index must have been loaded.
func (r *Repo) UniqueSize(ctx context.Context, s *Snapshot, list []*Snapshot) (unique, total int64, err error) {
	return inspect.FindUnique(ctx, r.store, s, list)
}

// PackContent is the content of a pack, according to its header.
type PackContent = inspect.PackContent

// BlockContent is one block of a pack.
type BlockContent = inspect.BlockContent

// ChunkContent is one chunk of a block.
type ChunkContent = inspect.ChunkContent

// InspectPack returns the content of a pack, according to its header. prefix is a
// prefix of its ID.
func (r *Repo) InspectPack(ctx context.Context, prefix string) (*PackContent, error) {
	return inspect.Pack(ctx, r.store, prefix)
}

// InspectIndex returns the packs that an index file lists. prefix is a prefix of
// its ID.
func (r *Repo) InspectIndex(ctx context.Context, prefix string) ([]PackContent, error) {
	return inspect.Index(ctx, r.store, prefix)
}

// KeyContent is the name and the content of a key slot file.
type KeyContent = inspect.KeyContent

// InspectKey returns a key slot. A key slot holds no secret in the clear. prefix is
// a prefix of its ID.
func (r *Repo) InspectKey(ctx context.Context, prefix string) (*KeyContent, error) {
	return inspect.Key(ctx, r.store, prefix)
}

// Raw returns the bytes of a repository file after comparing them with its name.
// name is "config", or a folder and an ID.
func (r *Repo) Raw(ctx context.Context, name string) ([]byte, error) {
	return r.store.Raw(ctx, name)
}
