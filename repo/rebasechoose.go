package repo

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/pack"
)

// choose picks the groups of leftovers that are worth less than they cost.
// What it would take to do without them is found by trying some of the blocks.
// thorough takes whatever saves something, however much is to be written for it.
func (b *rebaser) choose(ctx context.Context, thorough bool, budget int64) error {
	type group struct {
		weight  int64 // of its leftovers
		leaners []index.BlockRef
	}
	found := map[index.BlockRef]*group{}
	for ref := range b.ghosts {
		root := b.group(ref)
		if found[root] == nil {
			found[root] = &group{}
		}
		found[root].weight += b.leftover(ref)
	}
	for ref, l := range b.lean {
		g := found[b.group(l.on)]
		g.leaners = append(g.leaners, ref)
	}
	for _, l := range b.lean {
		l.chosen = false
	}
	codec := pack.NewCodec(b.u.r.blocks)
	packs := map[pack.ID]bool{}
	total := int64(0)
	for _, g := range found {
		total += g.weight
	}
	// The heaviest first: when half of all has been looked at, it shows whether
	// this comes to anything.
	order := slices.SortedFunc(maps.Values(found), func(x, y *group) int { return cmp.Compare(y.weight, x.weight) })
	sizes := map[pack.ID]int64{}
	for _, p := range b.x.Packs() {
		sizes[p.ID] = p.Size
	}
	var saved, written, seen int64
groups:
	for _, g := range order {
		if !thorough && seen > total/2 && saved < written/worthWriting/2 {
			break
		}
		seen += g.weight
		if len(g.leaners) == 0 {
			continue
		}
		slices.Sort(g.leaners)
		size := int64(0)
		more := map[pack.ID]bool{}
		for _, ref := range g.leaners {
			id, _ := b.x.Block(ref)
			if !packs[id] && !more[id] {
				more[id] = true
				size += sizes[id]
			}
		}
		if written+size > budget {
			continue // before anything is read to find out
		}
		step := (len(g.leaners) + groupTrials - 1) / groupTrials
		var before, after, path, all int64
		for _, ref := range g.leaners {
			all += b.lean[ref].path + 1
		}
		for i := 0; i < len(g.leaners); i += step {
			ref := g.leaners[i]
			n, err := b.try(ctx, codec, ref)
			if errors.Is(err, ErrDamaged) {
				// What is damaged stays for a repair, and the rest need not wait.
				continue groups
			}
			if err != nil {
				return err
			}
			path += b.lean[ref].path + 1
			before += b.weight(ref) - b.leftover(ref)
			after += n
		}
		// What a block costs goes by what it has been through.
		cost := int64(float64(after-before) / float64(path) * float64(all))
		// Some were not tried, and writing costs something, too.
		if cost+cost/8 >= g.weight {
			continue
		}
		written += size
		saved += g.weight - cost
		b.u.rebaseCost += cost
		maps.Copy(packs, more)
		for _, ref := range g.leaners {
			b.lean[ref].chosen = true
		}
	}
	if !thorough && saved < written/worthWriting {
		for _, l := range b.lean {
			l.chosen = false
		}
		b.u.rebaseCost = 0
	}
	return nil
}

// try returns what is in use of a block would take without leftovers.
func (b *rebaser) try(ctx context.Context, codec *pack.Codec, ref index.BlockRef) (int64, error) {
	_, block := b.x.Block(ref)
	used, _, _ := b.u.used.Block(ref)
	r := run{}
	for i, c := range block.Chunks {
		if !used[i] {
			continue
		}
		plain, err := b.u.r.Chunk(ctx, c.ID)
		if err != nil {
			return 0, err
		}
		r.plain, r.chunks = append(r.plain, plain...), append(r.chunks, c)
	}
	ids := b.u.rebased[ref]
	var frame []byte
	if len(ids) > 0 {
		if dict, _, err := b.u.r.dictionary(ctx, ids, 1, detours{}); err == nil {
			frame, err = codec.Delta(r.plain, dict.b)
			dict.free()
			if err != nil {
				return 0, err
			}
		}
	}
	sealed, stored, err := sealRun(codec, nil, &r, frame, ids)
	return int64(len(sealed) + dictWeight(stored.Dict)), err
}
