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

// FarMargin is how far a far dictionary reaches beyond the near one on both sides,
// in bytes. The near dictionary of a chunk is the earlier content at its position.
const FarMargin = 512 << 10

// maxPredecessor bounds how many chunks of a predecessor are used, enough for a
// database of 16 GiB. The last of these chunks is the base of all content beyond them.
const maxPredecessor = 1 << 18

// manyPlaces stands for the offset of a chunk that the predecessor has more than
// once, such as a chunk of zeros. Such a chunk does not show how far content has
// moved.
const manyPlaces = -1

// errNoBase stops loading a predecessor.
var errNoBase = errors.New("no base")

// Predecessor is an earlier version of content. It is loaded when it is first needed. A
// nil Predecessor has no chunks.
type Predecessor struct {
	r       *store.Store
	content *tree.Content
	moved   atomic.Bool // only the far dictionary was useful, since pages have moved
	loaded  bool
	chunks  []chain.Base
	ends    []int64            // offset of the end of each chunk
	Places  map[chunk.ID]int64 // offset of each chunk, or manyPlaces
	shift   int64              // how far the last chunk that was found has moved
}

// NewPredecessor returns content as a predecessor, nil if it has no chunks.
func NewPredecessor(r *store.Store, c *tree.Content) *Predecessor {
	if c == nil || len(c.IDs) == 0 {
		return nil
	}
	return &Predecessor{r: r, content: c}
}

// Load reads which chunks the predecessor has, as far as it can be read. It ignores
// errors, since a predecessor only saves space.
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

// cutByContent reports whether the predecessor of a photo or film was cut by content, as
// earlier versions did. The new version is then cut in the same way, so that the chunks
// that they share are stored once.
func (p *Predecessor) cutByContent(ctx context.Context) bool {
	if p == nil {
		return false
	}
	if !p.loaded {
		p.Load(ctx)
	}
	return len(p.chunks) > 1 && p.chunks[0].Size != chunk.MediaSize ||
		len(p.chunks) == 1 && p.chunks[0].Size > chunk.MediaSize
}

// NoteKnown notes a known chunk at offset off of the new content. If the predecessor
// has it at another offset, the following content has probably moved by the same
// distance.
func (p *Predecessor) NoteKnown(id chunk.ID, off int64) {
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

// Around returns the near and far dictionaries for size bytes at offset off: near
// has the chunks of the predecessor where these bytes probably were, and far has
// the chunks around these as well.
func (p *Predecessor) Around(ctx context.Context, off int64, size int) (near, far []chain.Base) {
	if p == nil {
		return nil, nil
	}
	if !p.loaded {
		p.Load(ctx)
	}
	from := off + p.shift
	near = p.overlapping(from, from+int64(size))
	far = p.overlapping(from-FarMargin, from+int64(size)+FarMargin)
	if len(near) == 0 && len(p.chunks) > 0 {
		// Beyond the end, the last chunk is the most similar.
		near = p.chunks[len(p.chunks)-1:]
		far = near
	}
	return near, far
}

// overlapping returns the chunks that overlap a range.
func (p *Predecessor) overlapping(from, to int64) []chain.Base {
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
