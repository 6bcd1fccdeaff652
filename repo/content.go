package repo

import (
	"context"
	"io"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/repo/internal/record"
	"github.com/snap-backup/snap/repo/internal/store"
	"github.com/snap-backup/snap/repo/internal/writer"
	"github.com/snap-backup/snap/repo/tree"
)

// NewHasher returns a hasher for this repository's chunk IDs.
func (r *Repo) NewHasher() *chunk.Hasher {
	return r.store.NewHasher()
}

// Chunk returns the bytes of a chunk after authenticating them and verifying their
// ID. The caller must not change them. If the chunk is missing or damaged, the
// error is ErrDamaged.
func (r *Repo) Chunk(ctx context.Context, id chunk.ID) ([]byte, error) {
	return r.store.Chunk(ctx, id)
}

// WriteContent writes the bytes of a file to w. It fails if their number is not
// c.Size.
func (r *Repo) WriteContent(ctx context.Context, w io.Writer, c *tree.Content) error {
	return r.store.WriteContent(ctx, w, c)
}

// SameContent reports whether src has exactly the bytes of a content. It compares
// chunk IDs and reads no content from the repository.
func (r *Repo) SameContent(ctx context.Context, src io.Reader, c *tree.Content) (bool, error) {
	return r.store.SameContent(ctx, src, c)
}

// ContentReader reads the content of a file at any offset. Every byte that it
// returns was authenticated; damage is an error that wraps ErrDamaged.
//
// Several goroutines may use its ReadAt at the same time, but only one may use Read
// and Seek.
type ContentReader = store.ContentReader

// NewContentReader returns a reader of a content. It looks up where the chunks
// are and reads none of them. The reader uses ctx for all of its reads. The
// index must have been loaded.
func (r *Repo) NewContentReader(ctx context.Context, c *tree.Content) (*ContentReader, error) {
	return r.store.NewContentReader(ctx, c)
}

// Walk calls fn, in order, for the entries of one domain of a snapshot, or for all
// entries if domain is "".
func (r *Repo) Walk(ctx context.Context, s *Snapshot, domain string, fn func(*tree.Entry) error) error {
	return record.Walk(ctx, r.store, s, domain, fn)
}

// WalkAll calls fn, in order, for all entries of a snapshot that can be read. For each
// part of the tree that cannot be read it calls lost, and goes on if that returns nil.
func (r *Repo) WalkAll(ctx context.Context, s *Snapshot, fn func(*tree.Entry) error, lost func(error) error) error {
	return record.WalkAll(ctx, r.store, s, fn, lost)
}

// Leaves calls fn for every leaf of a snapshot's tree; see tree.WalkLeaves.
func (r *Repo) Leaves(ctx context.Context, s *Snapshot, fn func(id chunk.ID, leaf *tree.Node) error) error {
	return record.Leaves(ctx, r.store, s, fn)
}

// Leaf loads one leaf of a tree.
func (r *Repo) Leaf(ctx context.Context, id chunk.ID) (*tree.Node, error) {
	return record.Leaf(ctx, r.store, id)
}

// Find returns the entry of a snapshot that has the given key, or nil if there is
// none.
func (r *Repo) Find(ctx context.Context, s *Snapshot, key tree.Key) (*tree.Entry, error) {
	return record.Find(ctx, r.store, s, key)
}

// Diff calls fn for every entry that differs between two snapshots; see
// tree.Diff.
func (r *Repo) Diff(ctx context.Context, a, b *Snapshot, fn func(a, b *tree.Entry) error) error {
	return record.Diff(ctx, r.store, a, b, fn)
}

// Outline returns the outline of a snapshot's tree; see tree.NewOutline.
func (r *Repo) Outline(ctx context.Context, s *Snapshot) *tree.Outline {
	return record.Outline(ctx, r.store, s)
}

// Writer stores the content of one snapshot. Each goroutine that passes content to
// it uses a ContentWriter of its own. The Writer compresses and seals blocks, and
// stores packs, in other goroutines, with bounded queues between them.
//
// A writer ends with Commit or Close. Close writes no snapshot, but keeps the packs
// that were stored, so that the next backup need not store them again.
type Writer = writer.Writer

// NewWriter starts a writer. The index must have been loaded.
func (r *Repo) NewWriter(ctx context.Context) *Writer {
	return writer.New(ctx, r.store)
}

// ContentWriter stores files through a Writer. One goroutine uses it at a time.
// Files that are stored one after another share blocks, so files that are similar or
// read together should follow each other.
type ContentWriter = writer.ContentWriter

// WriteStats counts what a writer has added.
type WriteStats = record.WriteStats
