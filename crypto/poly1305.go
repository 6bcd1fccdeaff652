package crypto

import (
	"encoding/binary"
	"math/big"
	"math/bits"
)

// element is a number modulo p = 2^130 - 5, less than p, least significant word first.
type element [3]uint64

// The number p, and 2^64 and 2^128.
var (
	prime     = element{^uint64(4), ^uint64(0), 3}
	bigPrime  = prime.big()
	two64     = new(big.Int).Lsh(big.NewInt(1), 64)
	two128, _ = new(big.Int).SetString("100000000000000000000000000000000", 16)
)

func (x element) big() *big.Int {
	n := new(big.Int)
	for i := len(x) - 1; i >= 0; i-- {
		n.Lsh(n, 64)
		n.Or(n, new(big.Int).SetUint64(x[i]))
	}
	return n
}

// words returns the lowest 192 bits of a number, in two's complement if it is negative.
func words(n *big.Int) (x element) {
	rest, word := new(big.Int).Set(n), new(big.Int)
	for i := range x {
		rest.DivMod(rest, two64, word)
		x[i] = word.Uint64()
	}
	return x
}

func (x element) plus(y element) element {
	var c uint64
	x[0], c = bits.Add64(x[0], y[0], 0)
	x[1], c = bits.Add64(x[1], y[1], c)
	x[2] += y[2] + c
	return x.reduced()
}

func (x element) minus(y element) element {
	z, borrow := x.less(y)
	if borrow {
		var c uint64
		z[0], c = bits.Add64(z[0], prime[0], 0)
		z[1], c = bits.Add64(z[1], prime[1], c)
		z[2] += prime[2] + c
	}
	return z
}

// less returns x - y modulo 2^192, and whether y is greater than x.
func (x element) less(y element) (element, bool) {
	var b uint64
	x[0], b = bits.Sub64(x[0], y[0], 0)
	x[1], b = bits.Sub64(x[1], y[1], b)
	x[2], b = bits.Sub64(x[2], y[2], b)
	return x, b != 0
}

// reduced returns x less p if x is not less than p. x must be less than 2p.
func (x element) reduced() element {
	if y, borrow := x.less(prime); !borrow {
		return y
	}
	return x
}

// times returns the product of two elements.
func (x element) times(y element) element {
	// Modulo p, 2^130 is 5.
	var t [6]uint64
	for i := range x {
		var carry uint64
		for j := range y {
			hi, lo := bits.Mul64(x[i], y[j])
			var c uint64
			lo, c = bits.Add64(lo, t[i+j], 0)
			hi += c
			lo, c = bits.Add64(lo, carry, 0)
			t[i+j], carry = lo, hi+c
		}
		t[i+3] = carry
	}
	low := element{t[0], t[1], t[2] & 3}
	high := element{t[2]>>2 | t[3]<<62, t[3]>>2 | t[4]<<62, t[4] >> 2}
	// high is less than 2^130, so 5·high + low is less than 2^133.
	var c, c2 uint64
	hi0, lo0 := bits.Mul64(high[0], 5)
	hi1, lo1 := bits.Mul64(high[1], 5)
	low[0], c = bits.Add64(low[0], lo0, 0)
	lo1, c2 = bits.Add64(lo1, hi0, 0)
	low[1], c = bits.Add64(low[1], lo1, c)
	low[2] += high[2]*5 + hi1 + c + c2
	rest := low[2] >> 2
	low[2] &= 3
	return low.plus(element{rest * 5})
}

// corrector searches for the block of 16 bytes that explains a wrong value of Poly1305.
type corrector struct {
	blocks  []byte // whole blocks in which to search; one more block is after them
	inverse element

	// Two vectors (a, b) that span all those with a·r·2^72 + b = 0 modulo p, as short as
	// can be; and a1·b2 - a2·b1.
	a1, b1, a2, b2, det *big.Int
	// The coordinates of (0, 1) in terms of these vectors, in units of 2^-192 modulo 1;
	// and a bound of the coordinates of a vector whose a and b are less than 2^56.
	c1, c2       element
	near1, near2 uint64 // in units of 2^-64
}

// newCorrector returns nil if r is 0, so that no block changes the value.
func newCorrector(r element, blocks []byte) *corrector {
	inverse := new(big.Int).ModInverse(r.big(), bigPrime)
	if inverse == nil {
		return nil
	}
	c := &corrector{blocks: blocks, inverse: words(inverse)}
	high := new(big.Int).Lsh(r.big(), 72)
	high.Mod(high, bigPrime)
	c.a1, c.b1 = big.NewInt(1), high.Neg(high)
	c.a2, c.b2 = new(big.Int), new(big.Int).Set(bigPrime)
	// Lagrange's algorithm finds the shortest vectors.
	for {
		if dot(c.a1, c.b1, c.a1, c.b1).Cmp(dot(c.a2, c.b2, c.a2, c.b2)) > 0 {
			c.a1, c.b1, c.a2, c.b2 = c.a2, c.b2, c.a1, c.b1
		}
		q := quotient(dot(c.a1, c.b1, c.a2, c.b2), dot(c.a1, c.b1, c.a1, c.b1))
		if q.Sign() == 0 {
			break
		}
		c.a2.Sub(c.a2, new(big.Int).Mul(q, c.a1))
		c.b2.Sub(c.b2, new(big.Int).Mul(q, c.b1))
	}
	c.det = new(big.Int).Mul(c.a1, c.b2)
	c.det.Sub(c.det, new(big.Int).Mul(c.a2, c.b1))
	unit := func(n *big.Int) element { return words(quotient(new(big.Int).Lsh(n, 192), c.det)) }
	c.c1, c.c2 = unit(new(big.Int).Neg(c.a2)), unit(c.a1)
	near := func(a, b *big.Int) uint64 {
		n := new(big.Int).Add(new(big.Int).Abs(a), new(big.Int).Abs(b))
		n.Quo(n.Lsh(n, 56+64), new(big.Int).Abs(c.det))
		if n.BitLen() > 62 {
			return 1 << 63
		}
		return n.Uint64() + 2
	}
	c.near1, c.near2 = near(c.a2, c.b2), near(c.a1, c.b1)
	return c
}

// dot returns a1·a2 + b1·b2.
func dot(a1, b1, a2, b2 *big.Int) *big.Int {
	s := new(big.Int).Mul(a1, a2)
	return s.Add(s, new(big.Int).Mul(b1, b2))
}

// quotient returns x / y, rounded to the nearest integer.
func quotient(x, y *big.Int) *big.Int {
	x, y = new(big.Int).Lsh(x, 1), new(big.Int).Set(y)
	if y.Sign() < 0 {
		x.Neg(x)
		y.Neg(y)
	}
	return x.Div(x.Add(x, y), y.Lsh(y, 1)) // Div rounds down
}

// search returns the offset and the right bytes of the one or two blocks that make the
// value too large by d, or nil.
func (c *corrector) search(d element) (int, []byte) {
	x := d.times(c.inverse)
	for at := len(c.blocks) - 16; at >= 0; at -= 16 {
		x = x.times(c.inverse)
		if right := c.one(at, x); right != nil {
			return at, right
		}
		if at > 0 && isNear(x, c.c1, c.near1) && isNear(x, c.c2, c.near2) {
			if right := c.two(at-16, x.big()); right != nil {
				return at - 16, right
			}
		}
	}
	return 0, nil
}

// isNear reports whether the product of x and a number in units of 2^-192 is nearly an
// integer.
func isNear(x, unit element, near uint64) bool {
	_, low := bits.Mul64(x[2], unit[0])
	_, low2 := bits.Mul64(x[1], unit[1])
	_, low3 := bits.Mul64(x[0], unit[2])
	top := low + low2 + low3
	hi, mid := bits.Mul64(x[1], unit[0])
	hi2, mid2 := bits.Mul64(x[0], unit[1])
	first, _ := bits.Mul64(x[0], unit[0])
	mid, c := bits.Add64(mid, mid2, 0)
	_, c2 := bits.Add64(mid, first, 0)
	top += hi + hi2 + c + c2
	return top+near <= 2*near || near >= 1<<63
}

// one returns the right bytes of the block at an offset if its value is too large by x
// and few of its bytes are wrong.
func (c *corrector) one(at int, x element) []byte {
	block := c.blocks[at : at+16]
	is := littleEndian(block)
	right := is.minus(x)
	if right[2] != 0 || span(is[0]^right[0], is[1]^right[1]) > MaxCorrected {
		return nil
	}
	b := binary.LittleEndian.AppendUint64(nil, right[0])
	return binary.LittleEndian.AppendUint64(b, right[1])
}

// two is like one for two blocks: the first one ends with wrong bytes, and the second
// one begins with them.
func (c *corrector) two(at int, x *big.Int) []byte {
	// The first difference is a multiple of 2^72, so both are small, and (0, x) is close
	// to a combination of the two vectors.
	q1, q2 := quotient(new(big.Int).Mul(x, c.a2), c.det), quotient(new(big.Int).Mul(x, c.a1), c.det)
	q1.Neg(q1)
	a := dot(q1, q2, c.a1, c.a2)
	b := dot(q1, q2, c.b1, c.b2)
	b.Sub(x, b)
	blocks := c.blocks[at : at+32]
	first, second := littleEndian(blocks[:16]).big(), littleEndian(blocks[16:]).big()
	first.Add(first, a.Lsh(a, 72))
	second.Sub(second, b)
	if first.Sign() < 0 || first.Cmp(two128) >= 0 || second.Sign() < 0 || second.Cmp(two128) >= 0 {
		return nil
	}
	right := make([]byte, 0, 32)
	for _, n := range []*big.Int{first, second} {
		w := words(n)
		right = binary.LittleEndian.AppendUint64(right, w[0])
		right = binary.LittleEndian.AppendUint64(right, w[1])
	}
	var differ [4]uint64
	for i := range differ {
		differ[i] = binary.LittleEndian.Uint64(blocks[8*i:]) ^ binary.LittleEndian.Uint64(right[8*i:])
	}
	if span(differ[:]...) > MaxCorrected {
		return nil
	}
	return right
}

// span returns the number of bytes from the first to the last one that is not 0.
func span(words ...uint64) int {
	first, last := -1, -1
	for i, w := range words {
		if w == 0 {
			continue
		}
		if first < 0 {
			first = 8*i + bits.TrailingZeros64(w)/8
		}
		last = 8*i + 7 - bits.LeadingZeros64(w)/8
	}
	return last - first + 1
}

// clamped returns r of Poly1305, given its half of the key.
func clamped(b []byte) element {
	x := littleEndian(b)
	x[0] &= 0x0ffffffc0fffffff
	x[1] &= 0x0ffffffc0ffffffc
	return x
}

// macInput returns what the AEAD of RFC 8439 authenticates: the additional data, the
// ciphertext and both lengths.
func macInput(text, ad []byte) []byte {
	b := make([]byte, roundUp(len(ad))+roundUp(len(text)), roundUp(len(ad))+roundUp(len(text))+16)
	copy(b, ad)
	copy(b[roundUp(len(ad)):], text)
	b = binary.LittleEndian.AppendUint64(b, uint64(len(ad)))
	return binary.LittleEndian.AppendUint64(b, uint64(len(text)))
}

func roundUp(n int) int { return (n + 15) / 16 * 16 }

// evaluate returns the value of Poly1305's polynomial for whole blocks.
func evaluate(b []byte, r element) (sum element) {
	for ; len(b) > 0; b = b[16:] {
		block := littleEndian(b[:16])
		block[2] = 1
		sum = sum.plus(block).times(r)
	}
	return sum
}

// littleEndian returns the number that 16 bytes stand for.
func littleEndian(b []byte) element {
	return element{binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])}
}
