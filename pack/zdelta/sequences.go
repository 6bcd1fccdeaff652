package zdelta

import (
	"math"
	"math/bits"
)

// class encodes a length or offset of a sequence: the code of its class, and bits that
// tell it from other values of the class (RFC 8878, 3.1.1.3.2.1.1).
type class struct {
	code uint8
	bits uint8  // how many bits follow the code
	low  uint32 // the value of these bits
}

// literalBase has the first literal length of each class from class 16 on. matchBase
// has the first match length minus 3 of each class from class 32 on. Later classes
// begin at powers of two.
var (
	literalBase = [...]uint32{16, 18, 20, 22, 24, 28, 32, 40, 48}
	matchBase   = [...]uint32{32, 34, 36, 38, 40, 44, 48, 56, 64, 80, 96}
)

func literalClass(n int) class {
	v := uint32(n)
	switch {
	case v < 16:
		return class{code: uint8(v)}
	case v >= 64:
		b := log2(v)
		return class{uint8(b + 19), uint8(b), v - 1<<b}
	}
	return search(v, literalBase[:], 16, 64)
}

func matchClass(n int) class {
	v := uint32(n - 3)
	switch {
	case v < 32:
		return class{code: uint8(v)}
	case v >= 128:
		b := log2(v)
		return class{uint8(b + 36), uint8(b), v - 1<<b}
	}
	return search(v, matchBase[:], 32, 128)
}

func search(v uint32, base []uint32, first uint8, end uint32) class {
	i := len(base) - 1
	for base[i] > v {
		i--
	}
	if i+1 < len(base) {
		end = base[i+1]
	}
	return class{first + uint8(i), uint8(log2(end - base[i])), v - base[i]}
}

func offsetClass(v uint32) class {
	b := log2(v)
	return class{uint8(b), uint8(b), v - 1<<b}
}

// The predefined distributions, which a frame need not describe.
var (
	literalDefault = []int16{4, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 2, 1, 1, 1, 1, 1, -1, -1, -1, -1}
	matchDefault   = []int16{1, 4, 3, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1}
	offsetDefault  = []int16{1, 1, 1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1}
)

// Modes of a table.
const (
	modeDefault = 0
	modeRLE     = 1
	modeOwn     = 2
)

// codeTables are the three tables of a block, kept to reuse their memory.
type codeTables struct {
	classes                [3][]class
	literal, offset, match fseTable
}

// appendSequences writes the sequences of a block. They follow its literals.
func (e *Encoder) appendSequences(dst []byte) []byte {
	n := len(e.seqs)
	switch {
	case n < 128:
		dst = append(dst, byte(n))
	case n < 0x7F00:
		dst = append(dst, byte(128+n>>8), byte(n))
	default:
		dst = append(dst, 255, byte(n-0x7F00), byte((n-0x7F00)>>8))
	}
	if n == 0 {
		return dst
	}
	t := &e.codes
	for i := range t.classes {
		t.classes[i] = t.classes[i][:0]
	}
	for _, s := range e.seqs {
		t.classes[0] = append(t.classes[0], literalClass(s.lits))
		t.classes[1] = append(t.classes[1], offsetClass(s.offset))
		t.classes[2] = append(t.classes[2], matchClass(s.match))
	}
	at := len(dst)
	dst = append(dst, 0)
	var mode [3]byte
	dst, mode[0] = t.literal.choose(dst, t.classes[0], literalDefault, 6, 9)
	dst, mode[1] = t.offset.choose(dst, t.classes[1], offsetDefault, 5, 8)
	dst, mode[2] = t.match.choose(dst, t.classes[2], matchDefault, 6, 9)
	dst[at] = mode[0]<<6 | mode[1]<<4 | mode[2]<<2
	return t.appendStream(dst)
}

// appendStream writes the sequences from the last to the first, since decoders read from
// the end.
func (t *codeTables) appendStream(dst []byte) []byte {
	w := bitWriter{out: dst}
	var lit, off, match uint32
	for i := len(t.classes[0]) - 1; i >= 0; i-- {
		l, o, m := t.classes[0][i], t.classes[1][i], t.classes[2][i]
		if i == len(t.classes[0])-1 {
			lit, off, match = t.literal.begin(l.code), t.offset.begin(o.code), t.match.begin(m.code)
		} else {
			off = t.offset.next(&w, off, o.code)
			match = t.match.next(&w, match, m.code)
			lit = t.literal.next(&w, lit, l.code)
		}
		w.add(l.low, l.bits)
		w.add(m.low, m.bits)
		w.add(o.low, o.bits)
	}
	w.add(match, t.match.log)
	w.add(off, t.offset.log)
	w.add(lit, t.literal.log)
	w.add(1, 1) // marks the end
	return w.close()
}

// fseTable encodes classes by finite state entropy (RFC 8878, 4.1).
type fseTable struct {
	log    uint8 // 0 if there is only one class
	norm   [64]int16
	states [512]uint16 // grouped by class
	spread [512]uint8
	moves  [64]move
}

// move is the state change for a class: the number of bits to write is
// (state+bits)>>16, and states of the class begin at from.
type move struct {
	bits uint32
	from int32
}

// choose chooses the cheapest form of a table for some classes and writes its
// description. predefined is the distribution of RFC 8878 for this table.
func (t *fseTable) choose(dst []byte, classes []class, predefined []int16, predefinedLog, maxLog uint8) ([]byte, byte) {
	var counts [64]uint32
	kinds, last := 0, 0
	for _, c := range classes {
		if counts[c.code] == 0 {
			kinds++
			last = max(last, int(c.code))
		}
		counts[c.code]++
	}
	fits := last < len(predefined)
	if kinds == 1 && (len(classes) > 2 || !fits) {
		t.log = 0
		return append(dst, classes[0].code), modeRLE
	}
	if fits && len(classes) < 16 {
		t.build(predefined, predefinedLog)
		return dst, modeDefault
	}
	log := min(maxLog, max(5, uint8(bits.Len(uint(len(classes)))), uint8(bits.Len(uint(kinds)))+1))
	norm := t.norm[:last+1]
	normalize(norm, counts[:last+1], len(classes), 1<<log)
	head := len(dst)
	dst = appendNorm(dst, norm, log)
	if fits && cost(counts[:last+1], predefined, predefinedLog) <= cost(counts[:last+1], norm, log)+8*float64(len(dst)-head) {
		t.build(predefined, predefinedLog)
		return dst[:head], modeDefault
	}
	t.build(norm, log)
	return dst, modeOwn
}

// cost returns the number of bits of classes under a distribution.
func cost(counts []uint32, norm []int16, log uint8) float64 {
	sum := 0.0
	for i, n := range counts {
		if n > 0 {
			sum += float64(n) * (float64(log) - math.Log2(math.Abs(float64(norm[i]))))
		}
	}
	return sum
}

// normalize scales counts to a sum of size. Each class that occurs gets at least 1.
func normalize(norm []int16, counts []uint32, total, size int) {
	sum := 0
	for i, n := range counts {
		norm[i] = 0
		if n > 0 {
			norm[i] = int16(max(1, int(n)*size/total))
		}
		sum += int(norm[i])
	}
	for sum != size {
		// A difference affects the largest number least.
		big := 0
		for i := range norm {
			if norm[i] > norm[big] {
				big = i
			}
		}
		change := size - sum
		if change < 0 {
			change = max(change, -int(norm[big]+1)/2)
		}
		norm[big] += int16(change)
		sum += change
	}
}

// appendNorm writes the description of a table.
func appendNorm(dst []byte, norm []int16, log uint8) []byte {
	w := bitWriter{out: dst}
	w.add(uint32(log-5), 4)
	left, threshold, width := int32(1)<<log+1, int32(1)<<log, log+1
	for i := 0; i < len(norm) && left > 1; {
		n := int32(norm[i])
		i++
		// Small values take one bit less.
		most := 2*threshold - 1 - left
		left -= max(n, -n)
		v := n + 1
		if v >= threshold {
			v += most
		}
		if v < most {
			w.add(uint32(v), width-1)
		} else {
			w.add(uint32(v), width)
		}
		for left < threshold && width > 1 {
			width--
			threshold >>= 1
		}
		if n != 0 {
			continue
		}
		zeros := 0
		for i < len(norm) && norm[i] == 0 {
			i++
			zeros++
		}
		for ; zeros >= 3; zeros -= 3 {
			w.add(3, 2)
		}
		w.add(uint32(zeros), 2)
	}
	return w.close()
}

// build makes the table of a distribution.
func (t *fseTable) build(norm []int16, log uint8) {
	t.log = log
	size := 1 << log
	var at [65]int
	high := size - 1
	for s, n := range norm {
		at[s+1] = at[s] + int(max(n, -n))
		if n < 0 {
			t.spread[high] = uint8(s)
			high--
		}
	}
	step, pos := size>>1+size>>3+3, 0
	for s, n := range norm {
		for range max(n, 0) {
			t.spread[pos] = uint8(s)
			for pos = (pos + step) & (size - 1); pos > high; {
				pos = (pos + step) & (size - 1)
			}
		}
	}
	for s, n := range norm {
		if n == 0 {
			continue
		}
		n := uint32(max(n, -n))
		width := uint32(log)
		if n > 1 {
			width -= uint32(log2(n - 1))
		}
		t.moves[s] = move{width<<16 - n<<width, int32(at[s]) - int32(n)}
	}
	for i := range size {
		s := t.spread[i]
		t.states[at[s]] = uint16(size + i)
		at[s]++
	}
}

// begin returns the state in which a decoder ends if the last class is code.
func (t *fseTable) begin(code uint8) uint32 {
	if t.log == 0 {
		return 0
	}
	m := t.moves[code]
	width := (m.bits + 1<<15) >> 16
	return uint32(t.states[int32((width<<16-m.bits)>>width)+m.from])
}

// next chooses a state of the class code from which a decoder can reach the given
// state. It writes the bits of this transition and returns the chosen state.
func (t *fseTable) next(w *bitWriter, state uint32, code uint8) uint32 {
	if t.log == 0 {
		return 0
	}
	m := t.moves[code]
	width := (state + m.bits) >> 16
	w.add(state&(1<<width-1), uint8(width))
	return uint32(t.states[int32(state>>width)+m.from])
}

// bitWriter writes numbers bit by bit, the lowest first.
type bitWriter struct {
	out  []byte
	acc  uint64
	have uint8
}

// add writes the lowest n bits of v.
func (w *bitWriter) add(v uint32, n uint8) {
	w.acc |= uint64(v&(1<<n-1)) << w.have
	w.have += n
	for w.have >= 32 {
		w.out = append(w.out, byte(w.acc), byte(w.acc>>8), byte(w.acc>>16), byte(w.acc>>24))
		w.acc >>= 32
		w.have -= 32
	}
}

func (w *bitWriter) close() []byte {
	for w.have > 0 {
		w.out = append(w.out, byte(w.acc))
		w.acc >>= 8
		w.have -= min(w.have, 8)
	}
	return w.out
}
