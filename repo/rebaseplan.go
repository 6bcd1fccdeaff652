package repo

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/pack"
)

const (
	// unitJoins is up to which length a unit is made of several files, in bytes. It
	// needs whatever any of them needs, so its chain is as long as the longest.
	unitJoins = 64 << 10
	// keptSealed bounds the encoded units that are kept until they are stored. What
	// is beyond it is encoded again.
	keptSealed = 64 << 20
)

// layout is blocks that are to go, and units that come in their place.
type layout struct {
	goes    map[index.BlockRef]bool
	units   []*unit
	at      map[chunk.ID]index.Location // in units, by number
	damaged map[index.BlockRef]bool     // groups of which something cannot be read
	cost    int64                       // by so many bytes the new blocks are estimated to be larger
}

// unit is a block that is to be stored, of chunks that lie in others.
type unit struct {
	run
	kind   pack.Kind
	of     index.BlockRef // one of the leaners that its chunks lie in
	dict   []chunk.ID     // nil: it stands alone
	stored uint32         // sealed bytes
	done   bool           // it has its dictionary
	sealed []byte         // what is to be stored, or nil if that is to be encoded again
	block  pack.Block     // of sealed
}

// firstPlanned is the number of the first planned block.
const firstPlanned index.BlockRef = 1 << 31

// location returns where a chunk will be, if it is in a planned block.
func (l *layout) location(id chunk.ID) (index.Location, bool) {
	loc, ok := l.at[id]
	return loc, ok
}

// unit returns a planned block, nil for one of the index.
func (l *layout) unit(ref index.BlockRef) *unit {
	if ref < firstPlanned {
		return nil
	}
	return l.units[ref-firstPlanned]
}

// block describes a planned block.
func (l *layout) block(ref index.BlockRef) (plannedBlock, bool) {
	u := l.unit(ref)
	if u == nil {
		return plannedBlock{}, false
	}
	return plannedBlock{u.stored, int64(u.size), u.dict}, true
}

// unusable reports whether a block must not be needed: it goes, or has no
// dictionary yet.
func (l *layout) unusable(ref index.BlockRef) bool {
	if u := l.unit(ref); u != nil {
		return !u.done
	}
	return l.goes[ref]
}

// replaces reports whether what is in use of a block is to be stored anew.
func (l *layout) replaces(ref index.BlockRef) bool { return l.goes[ref] }

// dictionaries calls fn for the dictionary of every planned block.
func (l *layout) dictionaries(fn func(ids []chunk.ID)) {
	for _, u := range l.units {
		fn(u.dict)
	}
}

// size returns how many blocks the plan replaces.
func (l *layout) size() int { return len(l.goes) }

// add appends a unit.
func (l *layout) add(u *unit) {
	l.units = append(l.units, u)
	at := uint32(0)
	for _, c := range u.chunks {
		l.put(c, at)
		at += c.Length
	}
}

// put notes the place of a chunk in the last unit.
func (l *layout) put(c pack.Chunk, start uint32) {
	l.at[c.ID] = index.Location{Block: firstPlanned + index.BlockRef(len(l.units)-1), Start: start, Size: c.Length}
}

func (b *rebaser) newLayout() *layout {
	l := &layout{goes: map[index.BlockRef]bool{}, at: map[chunk.ID]index.Location{}, damaged: map[index.BlockRef]bool{}}
	for ref, n := range b.lean {
		if n.chosen {
			l.goes[ref] = true
		}
	}
	return l
}

// only returns the part of a layout for what is chosen by now.
func (l *layout) only(b *rebaser) *layout {
	left := b.newLayout()
	left.cost = l.cost
	rule := chainRule{b.x, left}
	for _, u := range l.units {
		if !b.lean[u.of].chosen {
			continue
		}
		u.done = false
		left.add(u)
		if u.dict != nil {
			// It may have needed a unit that does not come.
			if dict, ok := rule.bound(u.dict, maxChain(u.size)); !ok || !slices.Equal(dict, u.dict) {
				u.dict, u.sealed, u.stored = dict, nil, uint32(u.size)
			}
		}
		u.done = true
	}
	return left
}

// planner puts a layout together.
type planner struct {
	b      *rebaser
	layout *layout
	rule   chainRule
	codec  *pack.Codec
	kept   int   // bytes of sealed units
	tried  int64 // bytes of plaintext
	tell   func(tried int64)
}

// plan divides the chunks of all chosen leaners into units, and encodes each with
// its dictionary: it leads to no unit that has none yet, and so not back to itself.
func (b *rebaser) plan(ctx context.Context, tell func(tried int64)) (*layout, error) {
	p := &planner{b: b, layout: b.newLayout(), codec: pack.NewCodec(b.u.r.blocks), tell: tell}
	p.rule = chainRule{b.x, p.layout}
	if err := p.others(ctx); err != nil {
		return nil, err
	}
	return p.layout, p.inOrder(ctx)
}

// others makes units of what has no predecessor: one of each block, with what
// lies beneath.
func (p *planner) others(ctx context.Context) error {
	var refs []index.BlockRef
	for ref := range p.layout.goes {
		refs = append(refs, ref)
	}
	slices.SortFunc(refs, func(x, y index.BlockRef) int {
		return cmp.Or(cmp.Compare(p.b.lean[x].depth, p.b.lean[y].depth), cmp.Compare(x, y))
	})
	for _, ref := range refs {
		used, _, _ := p.b.u.used.Block(ref)
		_, block := p.b.x.Block(ref)
		var u *unit
		for i, c := range block.Chunks {
			_, met := p.b.met[c.ID]
			_, placed := p.layout.at[c.ID]
			if met || placed || !used[i] {
				continue
			}
			if u == nil {
				u = p.begin(ref)
				u.near.add(p.b.beneath(ref))
			}
			p.put(u, c)
		}
		if err := p.settle(ctx, u); err != nil {
			return err
		}
	}
	return nil
}

// inOrder makes units of the rest, much as backups would.
func (p *planner) inOrder(ctx context.Context) error {
	var u *unit
	var in *Snapshot
	for i := range p.b.news {
		n := &p.b.news[i]
		if !p.layout.goes[n.block] {
			continue
		}
		size := int(n.chunk.Length)
		if u == nil || n.in != in || p.b.group(n.block) != p.b.group(u.of) ||
			n.at.file != u.place.file && u.size+size > unitJoins || !u.takes(p.b.x, size, deltaTarget, n.near, n.at) {
			if err := p.settle(ctx, u); err != nil {
				return err
			}
			u, in = p.begin(n.block), n.in
		}
		p.put(u, n.chunk)
		u.leanOn(p.b.x, n.near, n.at)
	}
	return p.settle(ctx, u)
}

// begin adds a unit, of the kind of a block, whose chunks it is to have.
func (p *planner) begin(ref index.BlockRef) *unit {
	u := &unit{kind: p.b.lean[ref].kind, of: ref}
	u.chain = *p.rule.walk()
	p.layout.add(u)
	return u
}

// put adds a chunk to the last unit.
func (p *planner) put(u *unit, c pack.Chunk) {
	p.layout.put(c, uint32(u.size))
	u.chunks = append(u.chunks, c)
	u.size += int(c.Length)
}

// settle gives a unit its dictionary, and finds out what it will take.
func (p *planner) settle(ctx context.Context, u *unit) error {
	if u == nil {
		return nil
	}
	u.dict, _ = p.rule.bound(u.near.ids(), maxChain(u.size))
	u.near, u.chain, u.done = bases{}, chainWalk{}, true
	p.tried += int64(u.size)
	p.tell(p.tried)
	sealed, block, err := p.b.u.r.sealUnit(ctx, p.codec, u)
	if errors.Is(err, ErrDamaged) {
		// It stays for a repair, and the rest need not wait.
		p.layout.damaged[p.b.group(u.of)] = true
		return nil
	}
	if err != nil {
		return err
	}
	u.stored, u.dict = uint32(len(sealed)), block.Dict
	if p.kept+len(sealed) <= keptSealed && u.dict != nil {
		p.kept += len(sealed)
		u.sealed, u.block = sealed, block
	}
	return nil
}

// sealUnit encodes and seals a unit. One whose dictionary cannot be read, or used, is
// as good without, but for the room it takes.
func (r *Repo) sealUnit(ctx context.Context, codec *pack.Codec, u *unit) ([]byte, pack.Block, error) {
	from, err := r.gather(ctx, u)
	if err != nil {
		return nil, pack.Block{}, err
	}
	var frame []byte
	if len(u.dict) > 0 {
		dict, err := r.soundDictionary(ctx, u.dict)
		if err == nil {
			if frame, err = codec.CompressDelta(from.plain, dict.b); err != nil {
				frame = nil // as when a backup stores it
			}
			dict.free()
		} else if !errors.Is(err, ErrDamaged) {
			return nil, pack.Block{}, err
		}
	}
	return sealRun(codec, nil, from, frame, u.dict)
}

// gather reads the chunks of a unit.
func (r *Repo) gather(ctx context.Context, u *unit) (*run, error) {
	out := &run{chunks: u.chunks, size: u.size, plain: make([]byte, 0, u.size)}
	for _, c := range u.chunks {
		plain, err := r.Chunk(ctx, c.ID)
		if err != nil {
			return nil, err
		}
		out.plain = append(out.plain, plain...)
	}
	return out, nil
}
