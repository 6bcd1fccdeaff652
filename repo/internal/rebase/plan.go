package rebase

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo/internal/chain"
	"github.com/snap-backup/snap/repo/internal/record"
	"github.com/snap-backup/snap/repo/internal/store"
	"github.com/snap-backup/snap/repo/internal/writer"
)

const (
	// maxJoined bounds the bytes of a planned block with chunks of several files.
	// The block's chain is as long as the longest chain that these chunks need.
	maxJoined = 64 << 10
	// keptSealed bounds the bytes of sealed blocks that are kept in memory until
	// they are stored. Other blocks are encoded again to store them.
	keptSealed = 64 << 20
)

// Plan lists blocks to replace, and the planned blocks that replace them.
type Plan struct {
	replaced map[index.BlockRef]bool
	Blocks   []*PlannedBlock
	at       map[chunk.ID]index.Location // of chunks in planned blocks
	damaged  map[index.BlockRef]bool     // roots of groups with a block that cannot be read
	Cost     int64                       // estimate of how many bytes larger the planned blocks are
}

// PlannedBlock is a block that will be written, from chunks that are in other
// blocks now.
type PlannedBlock struct {
	writer.Block
	Kind      pack.Kind
	dependent index.BlockRef // one of the dependents that its chunks are in
	Dict      []chunk.ID     // nil for a full block
	stored    uint32         // sealed bytes
	done      bool           // its dictionary is known
	Sealed    []byte         // its bytes, or nil if they were not kept
	PackBlock pack.Block     // describes Sealed
}

// firstPlanned is the reference of the first planned block.
const firstPlanned index.BlockRef = 1 << 31

// Location returns where a chunk will be, if it is in a planned block.
func (l *Plan) Location(id chunk.ID) (index.Location, bool) {
	loc, ok := l.at[id]
	return loc, ok
}

// planned returns a planned block, or nil for a block of the index.
func (l *Plan) planned(ref index.BlockRef) *PlannedBlock {
	if ref < firstPlanned {
		return nil
	}
	return l.Blocks[ref-firstPlanned]
}

// Block describes a planned block.
func (l *Plan) Block(ref index.BlockRef) (chain.PlannedBlock, bool) {
	u := l.planned(ref)
	if u == nil {
		return chain.PlannedBlock{}, false
	}
	return chain.PlannedBlock{Stored: u.stored, Plain: int64(u.Size), Dict: u.Dict}, true
}

// Unusable reports whether chunks of a block must not become bases, because the
// block is replaced or its own dictionary is not known yet.
func (l *Plan) Unusable(ref index.BlockRef) bool {
	if u := l.planned(ref); u != nil {
		return !u.done
	}
	return l.replaced[ref]
}

// Replaces reports whether the plan replaces a block.
func (l *Plan) Replaces(ref index.BlockRef) bool { return l.replaced[ref] }

// Dictionaries calls fn for the dictionary of every planned block.
func (l *Plan) Dictionaries(fn func(ids []chunk.ID)) {
	for _, u := range l.Blocks {
		fn(u.Dict)
	}
}

// Len returns how many blocks the plan replaces.
func (l *Plan) Len() int { return len(l.replaced) }

// add appends a block.
func (l *Plan) add(u *PlannedBlock) {
	l.Blocks = append(l.Blocks, u)
	at := uint32(0)
	for _, c := range u.Chunks {
		l.putChunk(c, at)
		at += c.Length
	}
}

// putChunk records where a chunk is in the last block.
func (l *Plan) putChunk(c pack.Chunk, start uint32) {
	l.at[c.ID] = index.Location{Block: firstPlanned + index.BlockRef(len(l.Blocks)-1), Start: start, Size: c.Length}
}

// newPlan returns a plan that replaces the chosen dependents, without new blocks.
func (b *rebaser) newPlan() *Plan {
	l := &Plan{replaced: map[index.BlockRef]bool{}, at: map[chunk.ID]index.Location{}, damaged: map[index.BlockRef]bool{}}
	for ref, n := range b.dependents {
		if n.chosen {
			l.replaced[ref] = true
		}
	}
	return l
}

// stillChosen returns the part of the plan for the dependents that are still chosen.
func (l *Plan) stillChosen(b *rebaser) *Plan {
	reduced := b.newPlan()
	reduced.Cost = l.Cost
	rule := chain.Rule{Index: b.x, Plan: reduced}
	for _, u := range l.Blocks {
		if !b.dependents[u.dependent].chosen {
			continue
		}
		u.done = false
		reduced.add(u)
		if u.Dict != nil {
			// Its bases may be in a block that is not in the plan any more.
			if dict, ok := rule.Bound(u.Dict, chain.MaxStored(u.Size)); !ok || !slices.Equal(dict, u.Dict) {
				u.Dict, u.Sealed, u.stored = dict, nil, uint32(u.Size)
			}
		}
		u.done = true
	}
	return reduced
}

// planner makes a plan.
type planner struct {
	b     *rebaser
	plan  *Plan
	rule  chain.Rule
	codec *pack.Codec
	kept  int   // bytes of sealed blocks in memory
	tried int64 // bytes of plaintext that were encoded
	tell  func(tried int64)
}

// makePlan divides the chunks of all chosen dependents into planned blocks, and encodes
// the planned blocks. The bases of a block are only in blocks whose dictionaries
// are known, so no block needs itself, directly or indirectly.
func (b *rebaser) makePlan(ctx context.Context, tell func(tried int64)) (*Plan, error) {
	p := &planner{b: b, plan: b.newPlan(), codec: pack.NewCodec(b.u.Store.BlockSealer), tell: tell}
	p.rule = chain.Rule{Index: b.x, Plan: p.plan}
	if err := p.planOthers(ctx); err != nil {
		return nil, err
	}
	return p.plan, p.planInOrder(ctx)
}

// planOthers plans blocks for the chunks without a predecessor: one for each dependent,
// with its live bases as the dictionary.
func (p *planner) planOthers(ctx context.Context) error {
	var refs []index.BlockRef
	for ref := range p.plan.replaced {
		refs = append(refs, ref)
	}
	slices.SortFunc(refs, func(x, y index.BlockRef) int {
		return cmp.Or(cmp.Compare(p.b.dependents[x].depth, p.b.dependents[y].depth), cmp.Compare(x, y))
	})
	for _, ref := range refs {
		used, _, _ := p.b.u.Used.Block(ref)
		_, block := p.b.x.Block(ref)
		var u *PlannedBlock
		for i, c := range block.Chunks {
			_, met := p.b.met[c.ID]
			_, placed := p.plan.at[c.ID]
			if met || placed || !used[i] {
				continue
			}
			if u == nil {
				u = p.begin(ref)
				u.Near.Add(p.b.liveBases(ref))
			}
			p.putChunk(u, c)
		}
		if err := p.finish(ctx, u); err != nil {
			return err
		}
	}
	return nil
}

// planInOrder plans blocks for the other chunks, as backups would.
func (p *planner) planInOrder(ctx context.Context) error {
	var u *PlannedBlock
	var in *record.Snapshot
	for i := range p.b.newChunks {
		n := &p.b.newChunks[i]
		if !p.plan.replaced[n.block] {
			continue
		}
		size := int(n.chunk.Length)
		if u == nil || n.in != in || p.b.group(n.block) != p.b.group(u.dependent) ||
			n.at.File != u.Region.File && u.Size+size > maxJoined || !u.MayTake(p.b.x, size, writer.DeltaTarget, n.near, n.at) {
			if err := p.finish(ctx, u); err != nil {
				return err
			}
			u, in = p.begin(n.block), n.in
		}
		p.putChunk(u, n.chunk)
		u.AddBases(p.b.x, n.near, n.at)
	}
	return p.finish(ctx, u)
}

// begin adds a block for chunks of a dependent.
func (p *planner) begin(ref index.BlockRef) *PlannedBlock {
	u := &PlannedBlock{Kind: p.b.dependents[ref].kind, dependent: ref}
	u.Chain = *p.rule.Walk()
	p.plan.add(u)
	return u
}

// putChunk adds a chunk to the last block.
func (p *planner) putChunk(u *PlannedBlock, c pack.Chunk) {
	p.plan.putChunk(c, uint32(u.Size))
	u.Chunks = append(u.Chunks, c)
	u.Size += int(c.Length)
}

// finish gives a block its dictionary, and determines its stored size. u may be
// nil.
func (p *planner) finish(ctx context.Context, u *PlannedBlock) error {
	if u == nil {
		return nil
	}
	u.Dict, _ = p.rule.Bound(u.Near.IDs(), chain.MaxStored(u.Size))
	u.Near, u.Chain, u.done = chain.Bases{}, chain.Walk{}, true
	p.tried += int64(u.Size)
	p.tell(p.tried)
	sealed, block, err := Seal(ctx, p.b.u.Store, p.codec, u)
	if errors.Is(err, store.ErrDamaged) {
		// Leave its group for a repair. Other groups can still be rebased.
		p.plan.damaged[p.b.group(u.dependent)] = true
		return nil
	}
	if err != nil {
		return err
	}
	u.stored, u.Dict = uint32(len(sealed)), block.Dict
	if p.kept+len(sealed) <= keptSealed && u.Dict != nil {
		p.kept += len(sealed)
		u.Sealed, u.PackBlock = sealed, block
	}
	return nil
}

// Seal encodes and seals a planned block. It encodes the block in full if the
// dictionary cannot be read or used.
func Seal(ctx context.Context, r *store.Store, codec *pack.Codec, u *PlannedBlock) ([]byte, pack.Block, error) {
	from, err := Gather(ctx, r, u)
	if err != nil {
		return nil, pack.Block{}, err
	}
	var frame []byte
	if len(u.Dict) > 0 {
		dict, err := r.SoundDictionary(ctx, u.Dict)
		if err == nil {
			if frame, err = codec.CompressDelta(from.Plain, dict.B); err != nil {
				frame = nil // store it in full, as a backup does
			}
			dict.Free()
		} else if !errors.Is(err, store.ErrDamaged) {
			return nil, pack.Block{}, err
		}
	}
	return writer.SealBlock(codec, nil, from, frame, u.Dict)
}

// Gather reads the chunks of a planned block.
func Gather(ctx context.Context, r *store.Store, u *PlannedBlock) (*writer.Block, error) {
	out := &writer.Block{Chunks: u.Chunks, Size: u.Size, Plain: make([]byte, 0, u.Size)}
	for _, c := range u.Chunks {
		plain, err := r.Chunk(ctx, c.ID)
		if err != nil {
			return nil, err
		}
		out.Plain = append(out.Plain, plain...)
	}
	return out, nil
}
