package virtual

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"sync"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/keybag"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/tree"
)

// fileID is the SHA-1 that names a blob.
type fileID [20]byte

// set is the files of a snapshot by their place in the backup folder. Of a blob
// it keeps the name, the size, and where its entry stands in the tree; the
// entry is loaded when it is asked for.
type set struct {
	r      *repo.Repo
	flat   bool
	leaves []chunk.ID
	blobs  []blob   // sorted by ID
	first  [257]int // where the blobs begin that begin with a byte
	others map[string]*tree.Entry
	lost   int // files of which the repository has lost content

	mu    sync.Mutex
	cache []cachedLeaf // the one used last comes last
}

// blob takes 32 bytes, so that a million of them is nothing.
type blob struct {
	id     fileID
	leaf   uint32
	sizeLo uint32
	sizeHi uint16
	pos    uint16 // in the leaf
}

func (b *blob) size() int64 { return int64(b.sizeHi)<<32 | int64(b.sizeLo) }

type cachedLeaf struct {
	leaf uint32
	node *tree.Node
}

// cachedLeaves is how many leaves stay decoded. Devices go through their files
// in the order of the tree, so neighbours come together.
const cachedLeaves = 16

// newSet reads the names of a snapshot.
func newSet(ctx context.Context, r *repo.Repo, s *repo.Snapshot) (*set, error) {
	x := &set{r: r, others: map[string]*tree.Entry{}}
	// Only the whole tells which layout it is; a folder of the old one has its
	// blobs at the top.
	if e, err := r.Find(ctx, s, tree.Key{Path: mobilesync.ManifestDB}); err != nil {
		return nil, err
	} else if e == nil {
		e, err := r.Find(ctx, s, tree.Key{Path: mobilesync.ManifestMBDB})
		if err != nil {
			return nil, err
		}
		x.flat = e != nil
	}
	err := r.Leaves(ctx, s, func(id chunk.ID, leaf *tree.Node) error {
		number := uint32(len(x.leaves))
		x.leaves = append(x.leaves, id)
		for i := range leaf.Entries {
			e := &leaf.Entries[i]
			whole, err := x.whole(ctx, &e.Content)
			if err != nil {
				return err
			}
			if !whole {
				x.lost++
			}
			id, ok := blobID(e.Path, x.flat)
			size := blobSize(e)
			if !ok || e.Kind != tree.File || size>>48 != 0 {
				other := *e
				x.others[e.Path] = &other
				continue
			}
			x.blobs = append(x.blobs, blob{id: id, leaf: number, pos: uint16(i), sizeLo: uint32(size), sizeHi: uint16(size >> 32)})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(x.blobs, func(a, b blob) int { return bytes.Compare(a.id[:], b.id[:]) })
	at := 0
	for b := range x.first {
		for at < len(x.blobs) && int(x.blobs[at].id[0]) < b {
			at++
		}
		x.first[b] = at
	}
	return x, nil
}

var errLost = errors.New("lost")

// whole reports whether the repository has all chunks of a content.
func (x *set) whole(ctx context.Context, c *tree.Content) (bool, error) {
	has := func(id chunk.ID) error {
		if !x.r.Index().Has(id) {
			return errLost
		}
		return nil
	}
	err := c.All(ctx, x.r.Chunk, has, has)
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	return err == nil, nil
}

// find returns the number of a blob, or -1.
func (x *set) find(id fileID) int {
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

// entry loads the entry of a blob.
func (x *set) entry(ctx context.Context, i int) (*tree.Entry, error) {
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

func (x *set) leaf(ctx context.Context, number uint32) (*tree.Node, error) {
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

// blobSize is the length of a file in the backup folder.
func blobSize(e *tree.Entry) int64 {
	if e.Encryption != nil {
		return keybag.SealedSize(e.Content.Size)
	}
	return e.Content.Size
}

// blobID returns what a blob at this place is called. In the flat layout of
// old devices blobs lie at the top, otherwise in the folder of their first two
// digits.
func blobID(path string, flat bool) (id fileID, ok bool) {
	name := path
	if !flat {
		dir, base, found := strings.Cut(path, "/")
		if !found || len(dir) != 2 || !strings.HasPrefix(base, dir) {
			return id, false
		}
		name = base
	}
	if len(name) != 2*len(id) {
		return id, false
	}
	for i := range len(name) {
		if c := name[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return id, false
		}
	}
	_, err := hex.Decode(id[:], []byte(name))
	return id, err == nil
}

// blobPath is the inverse of blobID.
func blobPath(id fileID, flat bool) string {
	layout := mobilesync.Hashed
	if flat {
		layout = mobilesync.Flat
	}
	return mobilesync.BlobPath(layout, id)
}
