package zdelta

import (
	"encoding/binary"
	"math/bits"
)

const (
	// maxLongBits limits the table of long matches to 1 MiB, which fits in caches.
	maxLongBits  = 18
	maxShortBits = 15
	minBits      = 8
	// dictStep is the distance between the positions of a dictionary that are put into
	// the table. Any match of at least 8+dictStep-1 bytes is found.
	dictStep = 4
	// minMatch is the minimum length of a match that is worth a sequence.
	minMatch = 5
	// lazyUpTo is the match length from which find accepts a match without trying the
	// next positions.
	lazyUpTo = 64
	// skipAfter makes the step of the search grow by 1 for every 1<<skipAfter bytes
	// without a match.
	skipAfter = 6
)

func (e *Encoder) hash8(v uint64) uint32 {
	return uint32(v * 0x9E3779B97F4A7C15 >> (64 - e.longBits))
}

func (e *Encoder) hash5(v uint64) uint32 {
	return uint32((v << 24) * 0x9E3779B97F4A7C15 >> (64 - e.shortBits))
}

func (e *Encoder) load(at int) uint64 { return binary.LittleEndian.Uint64(e.hist[at:]) }

// index clears the tables and inserts positions of the dictionary.
func (e *Encoder) index() {
	size := bits.Len(uint(len(e.hist)))
	e.longBits = min(max(size-1, minBits), maxLongBits)
	e.shortBits = min(max(size-2, minBits), maxShortBits)
	e.long = cleared(e.long, 1<<e.longBits)
	e.short = cleared(e.short, 1<<e.shortBits)
	step := max(dictStep, e.start>>maxLongBits)
	for at := step; at+8 <= e.start; at += step {
		e.long[e.hash8(e.load(at))] = uint32(at)
	}
}

func cleared(t []uint32, n int) []uint32 {
	if cap(t) < n {
		return make([]uint32, n)
	}
	t = t[:n]
	clear(t)
	return t
}

// find searches for matches between two positions and fills lits and seqs.
func (e *Encoder) find(from, to int) {
	e.lits, e.seqs = e.lits[:0], e.seqs[:0]
	anchor := from // end of the last match
	for at := from; at+8 <= to; {
		m := e.match(at, to, at == anchor)
		if m.length < minMatch {
			at += 1 + (at-anchor)>>skipAfter
			continue
		}
		// A longer match may begin within a short one.
		for try := at + 1; m.length < lazyUpTo && try <= m.at+2 && try+8 <= to; try++ {
			if better := e.match(try, to, false); better.gain() > m.gain()+4*(try-m.at) {
				m = better
			}
		}
		for m.at > anchor && m.at > m.offset && e.hist[m.at-1] == e.hist[m.at-1-m.offset] {
			m.at--
			m.length++
		}
		e.emit(anchor, m)
		at = m.at + m.length
		anchor = at
		if at-2 >= from && at+6 <= to {
			e.insert(at - 2)
		}
	}
	e.lits = append(e.lits, e.hist[anchor:to]...)
}

// candidate is a match: length bytes that begin at position at are equal to those that
// begin offset bytes earlier. cost is what encoding the offset costs, in the unit of gain.
type candidate struct{ at, length, offset, cost int }

// gain estimates what a match saves, in quarters of literals.
func (f candidate) gain() int { return 4*f.length - f.cost }

// match returns the best match at a position among those that are cheap to find. It
// adds the position to the tables. after says whether a match ends at the position.
func (e *Encoder) match(at, to int, after bool) (best candidate) {
	v := e.load(at)
	h8, h5 := e.hash8(v), e.hash5(v)
	long, short := int(e.long[h8]), int(e.short[h5])
	e.long[h8], e.short[h5] = uint32(at), uint32(at)
	for i, r := range e.reps {
		if r <= at && uint32(e.load(at-r)) == uint32(v) && (i > 0 || !after) {
			best = e.better(best, at-r, at, to, 0)
		}
	}
	if long > 0 && long < at && at-long <= MaxWindow && e.load(long) == v {
		best = e.better(best, long, at, to, log2(uint32(at-long)))
	}
	if best.length < 16 && short > 0 && short < at && at-short <= MaxWindow && (e.load(short)^v)<<24 == 0 {
		best = e.better(best, short, at, to, log2(uint32(at-short)))
	}
	return best
}

// better returns the match that repeats the bytes from position earlier at position at,
// or best if best saves at least as much.
func (e *Encoder) better(best candidate, earlier, at, to, cost int) candidate {
	if best.length > 0 && (at+best.length >= to || e.hist[earlier+best.length] != e.hist[at+best.length]) {
		return best
	}
	f := candidate{at, e.extend(earlier, at, to), at - earlier, cost}
	if best.length == 0 || f.gain() > best.gain() {
		return f
	}
	return best
}

// insert adds a position to the tables.
func (e *Encoder) insert(at int) {
	v := e.load(at)
	e.long[e.hash8(v)], e.short[e.hash5(v)] = uint32(at), uint32(at)
}

// extend returns how many bytes are equal at two positions, up to an end.
func (e *Encoder) extend(earlier, at, to int) int {
	a, b := e.hist[earlier:], e.hist[at:to]
	n := 0
	for n+8 <= len(b) {
		if d := binary.LittleEndian.Uint64(a[n:]) ^ binary.LittleEndian.Uint64(b[n:]); d != 0 {
			return n + bits.TrailingZeros64(d)/8
		}
		n += 8
	}
	for n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// emit appends a sequence and updates the repeated offsets.
func (e *Encoder) emit(anchor int, m candidate) {
	e.lits = append(e.lits, e.hist[anchor:m.at]...)
	offset := m.offset
	s := sequence{lits: m.at - anchor, match: m.length, offset: uint32(offset) + 3}
	r := &e.reps
	// Directly after a match the last offset has no code, and the codes of the two
	// others are one lower.
	shift := uint32(0)
	if s.lits == 0 {
		shift = 1
	}
	switch {
	case offset == r[0] && shift == 0:
		s.offset = 1
	case offset == r[1]:
		s.offset = 2 - shift
		r[0], r[1] = r[1], r[0]
	case offset == r[2]:
		s.offset = 3 - shift
		r[0], r[1], r[2] = r[2], r[0], r[1]
	default:
		r[0], r[1], r[2] = offset, r[0], r[1]
	}
	e.seqs = append(e.seqs, s)
}
