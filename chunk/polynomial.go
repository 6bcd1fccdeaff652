package chunk

import (
	"fmt"
	"io"
	"math/bits"

	"github.com/restic/chunker"
)

// Polynomial determines where content is cut. Each repository has its own, which is
// random and secret, so that chunk lengths do not identify content.
type Polynomial = chunker.Pol

// degree is the degree of all polynomials; the cutter's tables require it.
const degree = 53

// NewPolynomial draws a random irreducible polynomial.
func NewPolynomial(rand io.Reader) (Polynomial, error) {
	p, err := chunker.DerivePolynomial(rand)
	if err != nil {
		return 0, fmt.Errorf("draw a chunker polynomial: %w", err)
	}
	return p, nil
}

// ValidPolynomial reports whether NewPolynomial could return p: whether p has the
// right degree and is irreducible. It takes microseconds; p.Irreducible takes
// milliseconds.
func ValidPolynomial(p Polynomial) bool {
	// The degree is a prime number. So p divides x^(2^degree)-x if and only if p is
	// irreducible, or a product of different polynomials of degree 1. p has a factor of
	// degree 1 if and only if 0 or 1 is a root.
	f := uint64(p)
	if bits.Len64(f) != degree+1 || f&1 == 0 || bits.OnesCount64(f)%2 == 0 {
		return false
	}
	const x = 2
	power := uint64(x)
	for range degree {
		power = square(power, f)
	}
	return power == x
}

// square returns a*a modulo f, for polynomials over GF(2).
func square(a, f uint64) uint64 {
	var r uint64
	for i := degree - 1; i >= 0; i-- {
		r <<= 1
		if r>>degree != 0 {
			r ^= f
		}
		if a>>i&1 != 0 {
			r ^= a
		}
	}
	return r
}
