package chunk

import (
	"crypto/rand"
	mathrand "math/rand/v2"
	"testing"

	"github.com/snap-backup/snap/internal/faultpoint"
)

// Products of two irreducible polynomials are not valid, whatever their degrees.
func TestValidPolynomial(t *testing.T) {
	t.Parallel()
	p, err := NewPolynomial(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if !ValidPolynomial(p) {
		t.Errorf("%#x was drawn and is not valid", uint64(p))
	}
	rng := faultpoint.Rand(t)
	n := 300
	if faultpoint.All() {
		n = 20_000
	}
	irreducible := 0
	for range n {
		p := randomPolynomial(rng)
		want := p.Irreducible()
		if got := ValidPolynomial(p); got != want {
			t.Fatalf("ValidPolynomial(%#x) = %v, want %v", uint64(p), got, want)
		}
		if want {
			irreducible++
		}
	}
	if irreducible == 0 {
		t.Error("no random polynomial was irreducible")
	}
	for _, p := range []Polynomial{0, 1, 2, 3, 7, 1 << 53, 1<<53 | 1, p << 1, p >> 1, p | 1<<54, 1<<64 - 1, p.Mul(1)} {
		want := p.Deg() == degree && p.Irreducible()
		if got := ValidPolynomial(p); got != want {
			t.Errorf("ValidPolynomial(%#x) = %v, want %v", uint64(p), got, want)
		}
	}
	for a := Polynomial(2); a < 200; a++ {
		b := randomPolynomial(rng) >> (a.Deg())
		if product := a.Mul(b); product.Deg() == degree && ValidPolynomial(product) {
			t.Errorf("%#x times %#x is valid", uint64(a), uint64(b))
		}
	}
}

func randomPolynomial(rng *mathrand.Rand) Polynomial {
	return Polynomial(rng.Uint64()&(1<<degree-1) | 1<<degree | 1)
}
