package repo

import (
	"context"

	"github.com/snap-backup/snap/repo/internal/inspect"
)

// Stats says what a repository holds and how much space that takes. Sizes are in bytes.
type Stats = inspect.Stats

// DeviceStats is the part of Stats for one device.
type DeviceStats = inspect.DeviceStats

// Stats counts the snapshots in list, which has the order of Snapshots, and the
// files of the repository. The index must have been loaded.
func (r *Repo) Stats(ctx context.Context, list []*Snapshot) (*Stats, error) {
	return inspect.Count(ctx, r.store, list)
}

// Share is the space that the files of one domain or app take.
type Share = inspect.Share

// Shares returns the space that files take in the repository, the largest share
// first. It groups the files by the result of name for their domain. Each chunk
// counts once, for the oldest snapshot that has it, with its part of the stored
// block. The index must have been loaded.
func (r *Repo) Shares(ctx context.Context, list []*Snapshot, name func(domain string) string) ([]Share, error) {
	return inspect.FindShares(ctx, r.store, list, name)
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
