package writer

import (
	"context"
	"errors"
	"sort"
	"sync/atomic"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/repo/internal/chain"
	"github.com/snap-backup/snap/repo/internal/store"
	"github.com/snap-backup/snap/repo/tree"
)

// The near dictionary of a new chunk is what was at its place before; the far
// one reaches farMargin beyond that, in bytes.
const FarMargin = 512 << 10

// maxPredecessor bounds how many chunks of an earlier version are looked at. It
// is a database of 16 GiB; what is behind is stored in full.
const maxPredecessor = 1 << 18

// manyPlaces is the place of a chunk that the predecessor has more than once,
// such as one of zeros: it tells nothing of where what follows has moved.
const manyPlaces = -1

// errNoBase ends the look at a predecessor.
var errNoBase = errors.New("no base")

// Predecessor is an earlier version of content, looked at when it is first
// needed. A nil predecessor has nothing.
type Predecessor struct {
	r       *store.Store
	content *tree.Content
	moved   atomic.Bool // the near dictionary was of no use: pages have moved
	loaded  bool
	chunks  []chain.Base
	ends    []int64            // offsets behind the chunks
	Places  map[chunk.ID]int64 // or manyPlaces
	shift   int64              // of the last chunk that was found at another place
}

// NewPredecessor returns content as a predecessor, nil if it has no chunks.
func NewPredecessor(r *store.Store, c *tree.Content) *Predecessor {
	if c == nil || len(c.IDs) == 0 {
		return nil
	}
	return &Predecessor{r: r, content: c}
}

// Load reads where the chunks of the predecessor lie. One that is damaged
// serves as far as it can be read: it saves space and is not needed.
func (p *Predecessor) Load(ctx context.Context) {
	p.loaded = true
	p.Places = map[chunk.ID]int64{}
	off := int64(0)
	_ = p.content.Chunks(ctx, p.r.Chunk, func(id chunk.ID) error {
		size, ok := p.r.Index.Size(id)
		if !ok || !p.r.Index.Reusable(id) || len(p.chunks) == maxPredecessor || off > p.content.Size {
			return errNoBase
		}
		if _, twice := p.Places[id]; twice {
			p.Places[id] = manyPlaces
		} else {
			p.Places[id] = off
		}
		off += int64(size)
		p.chunks = append(p.chunks, chain.Base{ID: id, Size: size})
		p.ends = append(p.ends, off)
		return nil
	})
}

// Met tells that a chunk of the new content, at offset off, is known. If the
// predecessor has it elsewhere, what follows has probably moved as far.
func (p *Predecessor) Met(id chunk.ID, off int64) {
	if p == nil || !p.loaded {
		return
	}
	at, ok := p.Places[id]
	switch {
	case !ok, p.startsAt(off+p.shift, id):
	case p.startsAt(off, id):
		p.shift = 0
	case at != manyPlaces:
		p.shift = at - off
	}
}

// startsAt reports whether the predecessor has a chunk at an offset.
func (p *Predecessor) startsAt(off int64, id chunk.ID) bool {
	i := sort.Search(len(p.ends), func(i int) bool { return p.ends[i] > off })
	return i < len(p.ends) && p.chunks[i].ID == id && p.ends[i]-int64(p.chunks[i].Size) == off
}

// Around returns the chunks of the predecessor at the place where size bytes
// at offset off probably were, and those farther around.
func (p *Predecessor) Around(ctx context.Context, off int64, size int) (near, far []chain.Base) {
	if p == nil {
		return nil, nil
	}
	if !p.loaded {
		p.Load(ctx)
	}
	from := off + p.shift
	near = p.between(from, from+int64(size))
	far = p.between(from-FarMargin, from+int64(size)+FarMargin)
	if len(near) == 0 && len(p.chunks) > 0 {
		// Beyond the end: what has grown is most like what it grew from.
		near = p.chunks[len(p.chunks)-1:]
		far = near
	}
	return near, far
}

// between returns the chunks that overlap a range.
func (p *Predecessor) between(from, to int64) []chain.Base {
	if to <= 0 {
		return nil
	}
	first := sort.Search(len(p.ends), func(i int) bool { return p.ends[i] > from })
	last := first
	for last < len(p.ends) && (last == 0 || p.ends[last-1] < to) {
		last++
	}
	return p.chunks[first:last]
}
