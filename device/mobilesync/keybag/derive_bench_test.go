package keybag

import (
	"context"
	"crypto/pbkdf2"
	"crypto/sha256"
	"testing"
)

const benchRounds = 500_000

func BenchmarkDerive(b *testing.B) {
	bag := &Bag{Iter: 1, Salt: []byte("salt"), hasDPIC: true, DPIC: benchRounds, DPSL: []byte("salt")}
	for b.Loop() {
		if _, err := bag.passwordKey(context.Background(), []byte("pw"), nil); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkDeriveStandard does the same work with the standard library, which
// can neither be cancelled nor report progress.
func BenchmarkDeriveStandard(b *testing.B) {
	for b.Loop() {
		if _, err := pbkdf2.Key(sha256.New, "pw", []byte("salt"), benchRounds, 32); err != nil {
			b.Fatal(err)
		}
	}
}
