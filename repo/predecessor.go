package repo

import (
	"context"
	"errors"
	"sort"
	"sync/atomic"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/repo/tree"
)

// The near dictionary of a new chunk is what was at its place before; the far
// one reaches farMargin beyond that, in bytes.
const farMargin = 512 << 10

// maxPredecessor bounds how many chunks of an earlier version are looked at. It
// is a database of 16 GiB; what lies behind is stored in full.
const maxPredecessor = 1 << 18

// manyPlaces is the place of a chunk that the predecessor has more than once,
// such as one of zeros: it tells nothing of where what follows has moved.
const manyPlaces = -1

// errNoBase ends the look at a predecessor.
var errNoBase = errors.New("no base")

// predecessor is an earlier version of content, looked at when it is first
// needed. A nil predecessor has nothing.
type predecessor struct {
	r       *Repo
	content *tree.Content
	moved   atomic.Bool // the near dictionary was of no use: pages have moved
	loaded  bool
	chunks  []base
	ends    []int64            // offsets behind the chunks
	places  map[chunk.ID]int64 // or manyPlaces
	shift   int64              // of the last chunk that was found at another place
}

func (r *Repo) newPredecessor(c *tree.Content) *predecessor {
	if c == nil || len(c.IDs) == 0 {
		return nil
	}
	return &predecessor{r: r, content: c}
}

// load reads where the chunks of the predecessor lie. One that is damaged
// serves as far as it can be read: it saves space and is not needed.
func (p *predecessor) load(ctx context.Context) {
	p.loaded = true
	p.places = map[chunk.ID]int64{}
	off := int64(0)
	_ = p.content.Chunks(ctx, p.r.Chunk, func(id chunk.ID) error {
		size, ok := p.r.index.Size(id)
		if !ok || !p.r.index.Reusable(id) || len(p.chunks) == maxPredecessor || off > p.content.Size {
			return errNoBase
		}
		if _, twice := p.places[id]; twice {
			p.places[id] = manyPlaces
		} else {
			p.places[id] = off
		}
		off += int64(size)
		p.chunks = append(p.chunks, base{id, size})
		p.ends = append(p.ends, off)
		return nil
	})
}

// met tells that a chunk of the new content, at offset off, is known. If the
// predecessor has it elsewhere, what follows has probably moved as far.
func (p *predecessor) met(id chunk.ID, off int64) {
	if p == nil || !p.loaded {
		return
	}
	at, ok := p.places[id]
	switch {
	case !ok, p.startsAt(off+p.shift, id):
	case p.startsAt(off, id):
		p.shift = 0
	case at != manyPlaces:
		p.shift = at - off
	}
}

// startsAt reports whether the predecessor has a chunk at an offset.
func (p *predecessor) startsAt(off int64, id chunk.ID) bool {
	i := sort.Search(len(p.ends), func(i int) bool { return p.ends[i] > off })
	return i < len(p.ends) && p.chunks[i].id == id && p.ends[i]-int64(p.chunks[i].size) == off
}

// around returns the chunks of the predecessor at the place where size bytes
// at offset off probably were, and those farther around.
func (p *predecessor) around(ctx context.Context, off int64, size int) (near, far []base) {
	if p == nil {
		return nil, nil
	}
	if !p.loaded {
		p.load(ctx)
	}
	from := off + p.shift
	near = p.between(from, from+int64(size))
	far = p.between(from-farMargin, from+int64(size)+farMargin)
	if len(near) == 0 && len(p.chunks) > 0 {
		// Beyond the end: what has grown is most like what it grew from.
		near = p.chunks[len(p.chunks)-1:]
		far = near
	}
	return near, far
}

// between returns the chunks that overlap a range.
func (p *predecessor) between(from, to int64) []base {
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
