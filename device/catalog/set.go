package catalog

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sort"
	"sync"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/device/blob"
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/tree"
)

// Set holds the files of a snapshot by their path in the backup folder. For
// each blob it keeps the ID, the size, and the position of the entry in the
// tree. Find loads the entry from the tree. A Set may be used by several
// goroutines.
type Set struct {
	r      *repo.Repo
	flat   bool
	leaves []chunk.ID
	blobs  []position             // sorted by ID
	first  [257]int               // number of the first blob with this first byte of its ID
	others map[string]*tree.Entry // folders, and files that are not blobs
	lost   int

	mu    sync.Mutex
	cache []cachedLeaf // the most recently used is last
}

// position is the position of a blob's entry in the tree. It takes 32 bytes, so a
// million of them is affordable.
type position struct {
	id     blob.ID
	leaf   uint32
	sizeLo uint32
	sizeHi uint16
	pos    uint16 // in the leaf
}

func (b *position) size() int64 { return int64(b.sizeHi)<<32 | int64(b.sizeLo) }

type cachedLeaf struct {
	leaf uint32
	node *tree.Node
}

// cachedLeaves is how many leaves stay decoded. Devices read their files in the
// order of the tree, so neighbours are read together.
const cachedLeaves = 16

// NewSet reads the paths of a snapshot. The repository's index must have been
// loaded.
func NewSet(ctx context.Context, r *repo.Repo, s *repo.Snapshot) (*Set, error) {
	x := &Set{r: r, others: map[string]*tree.Entry{}}
	// A folder in the flat layout has its blobs at the top. Only the name of its
	// manifest shows the layout.
	if e, err := r.Find(ctx, s, tree.Key{Path: mobilesync.ManifestDB}); err != nil {
		return nil, err
	} else if e == nil {
		e, err := r.Find(ctx, s, tree.Key{Path: mobilesync.ManifestMBDB})
		if err != nil {
			return nil, err
		}
		x.flat = e != nil
	}
	err := r.Leaves(ctx, s, func(id chunk.ID, leaf *tree.Node) error { return x.add(ctx, id, leaf) })
	if err != nil {
		return nil, err
	}
	slices.SortFunc(x.blobs, func(a, b position) int { return bytes.Compare(a.id[:], b.id[:]) })
	at := 0
	for b := range x.first {
		for at < len(x.blobs) && int(x.blobs[at].id[0]) < b {
			at++
		}
		x.first[b] = at
	}
	return x, nil
}

// add adds the entries of a leaf.
func (x *Set) add(ctx context.Context, id chunk.ID, leaf *tree.Node) error {
	number := uint32(len(x.leaves))
	x.leaves = append(x.leaves, id)
	for i := range leaf.Entries {
		e := &leaf.Entries[i]
		present, err := blob.Present(ctx, x.r, &e.Content, x.r.Index().Has)
		if err != nil {
			return err
		}
		if !present {
			x.lost++
		}
		id, ok := blob.ParsePath(e.Path, x.flat)
		size := blob.Size(e)
		if !ok || e.Kind != tree.File || size>>48 != 0 {
			other := *e
			x.others[e.Path] = &other
			continue
		}
		x.blobs = append(x.blobs, position{id: id, leaf: number, pos: uint16(i), sizeLo: uint32(size), sizeHi: uint16(size >> 32)})
	}
	return nil
}

// Flat reports whether the snapshot is of a folder in the flat layout.
func (x *Set) Flat() bool { return x.flat }

// Lost returns the number of files whose content the repository has lost.
func (x *Set) Lost() int { return x.lost }

// find returns the number of a blob, or -1.
func (x *Set) find(id blob.ID) int {
	if x == nil {
		return -1
	}
	from, to := x.first[id[0]], x.first[int(id[0])+1]
	i := from + sort.Search(to-from, func(i int) bool { return bytes.Compare(x.blobs[from+i].id[:], id[:]) >= 0 })
	if i < to && x.blobs[i].id == id {
		return i
	}
	return -1
}

// Find returns the entry of a file; nil if the snapshot has no file at this
// path.
func (x *Set) Find(ctx context.Context, path string) (*tree.Entry, error) {
	if id, ok := blob.ParsePath(path, x.flat); ok {
		if i := x.find(id); i >= 0 {
			return x.entry(ctx, i)
		}
		return nil, nil
	}
	if e := x.others[path]; e != nil && e.Kind == tree.File {
		return e, nil
	}
	return nil, nil
}

// entry loads the entry of a blob.
func (x *Set) entry(ctx context.Context, i int) (*tree.Entry, error) {
	b := &x.blobs[i]
	node, err := x.leaf(ctx, b.leaf)
	if err != nil {
		return nil, err
	}
	if int(b.pos) >= len(node.Entries) {
		return nil, fmt.Errorf("%w: a leaf has become shorter", tree.ErrDamaged)
	}
	e := node.Entries[b.pos]
	return &e, nil
}

func (x *Set) leaf(ctx context.Context, number uint32) (*tree.Node, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for i, c := range x.cache {
		if c.leaf == number {
			copy(x.cache[i:], x.cache[i+1:])
			x.cache[len(x.cache)-1] = c
			return c.node, nil
		}
	}
	node, err := x.r.Leaf(ctx, x.leaves[number])
	if err != nil {
		return nil, err
	}
	if len(x.cache) == cachedLeaves {
		x.cache = append(x.cache[:0], x.cache[1:]...)
	}
	x.cache = append(x.cache, cachedLeaf{number, node})
	return node, nil
}
