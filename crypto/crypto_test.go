package crypto

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func seeded(n byte) *rand.ChaCha8 { return rand.NewChaCha8([32]byte{n}) }

var testKey = Key{1, 2, 3}

func TestSealAndOpen(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		plain := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "plain")
		ad := rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "ad")
		before := rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "dst")
		s := NewSealer(testKey, seeded(1))
		sealed, err := s.Seal(bytes.Clone(before), plain, ad)
		if err != nil || !bytes.HasPrefix(sealed, before) {
			t.Fatalf("%x, %v", sealed, err)
		}
		sealed = sealed[len(before):]
		if len(sealed) != len(plain)+Overhead {
			t.Fatalf("%d bytes sealed in %d", len(plain), len(sealed))
		}
		got, err := s.Open(bytes.Clone(before), sealed, ad)
		if err != nil || !bytes.Equal(got, append(before, plain...)) {
			t.Fatalf("opened %x, %v", got, err)
		}
		again, err := s.Seal(nil, plain, ad)
		if err != nil || bytes.Equal(again, sealed) {
			t.Fatal("sealing the same bytes twice gave the same result")
		}
	})
}

func TestEveryChangeIsNoticed(t *testing.T) {
	t.Parallel()
	s := NewSealer(testKey, seeded(1))
	plain, ad := []byte("some plaintext"), []byte("some context")
	sealed, err := s.Seal(nil, plain, ad)
	if err != nil {
		t.Fatal(err)
	}
	refused := func(what string, b, ad []byte) {
		t.Helper()
		if got, err := s.Open(nil, b, ad); !errors.Is(err, ErrAuth) || len(got) > 0 {
			t.Errorf("%s: got %q, %v", what, got, err)
		}
	}
	for i := range sealed {
		for bit := range 8 {
			b := bytes.Clone(sealed)
			b[i] ^= 1 << bit
			refused(fmt.Sprintf("bit %d of byte %d", bit, i), b, ad)
		}
		refused(fmt.Sprintf("cut at %d", i), sealed[:i], ad)
	}
	refused("a byte longer", append(bytes.Clone(sealed), 0), ad)
	refused("other associated data", sealed, []byte("what else"))
	refused("no associated data", sealed, nil)
	other := testKey
	other[31] ^= 1
	if _, err := NewSealer(other, nil).Open(nil, sealed, ad); !errors.Is(err, ErrAuth) {
		t.Errorf("other key: got %v", err)
	}
}

func TestKeysAreNeverPrinted(t *testing.T) {
	t.Parallel()
	key, err := NewKey(seeded(3))
	if err != nil {
		t.Fatal(err)
	}
	holder := struct {
		K Key
		P *Key
		M map[string]Key
	}{key, &key, map[string]Key{"k": key}}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		for _, v := range []any{key, &key, holder, []Key{key}} {
			out := strings.ToLower(fmt.Sprintf(verb, v))
			for _, form := range []string{fmt.Sprintf("%x", key[:4]), fmt.Sprintf("%d, %d", key[0], key[1]), fmt.Sprintf("%d %d", key[0], key[1]), fmt.Sprintf("0x%x, 0x%x", key[0], key[1])} {
				if strings.Contains(out, form) {
					t.Errorf("%s of %T shows the key: %s", verb, v, out)
				}
			}
		}
	}
	if b, err := json.Marshal(holder); err == nil && bytes.Contains(b, fmt.Appendf(nil, "%d,%d,%d", key[0], key[1], key[2])) {
		t.Errorf("JSON shows the key: %s", b)
	}
}

func TestPurposesGiveDifferentKeys(t *testing.T) {
	t.Parallel()
	seen := map[Key]Purpose{testKey: "the master key itself"}
	for _, p := range []Purpose{ForChunkIDs, ForBlocks, ForPacks, ForIndexes, ForSnapshots, ForConfig, ForSlotInfo} {
		k := testKey.Derive(p)
		if other, ok := seen[k]; ok {
			t.Errorf("%q and %q have the same key", p, other)
		}
		seen[k] = p
		if k != testKey.Derive(p) {
			t.Errorf("%q: two keys", p)
		}
	}
}

func TestDestroy(t *testing.T) {
	t.Parallel()
	k := testKey
	k.Destroy()
	if k != (Key{}) {
		t.Error("the key was not overwritten")
	}
}

// Without randomness no key or nonce can be made.
func TestRandomnessFails(t *testing.T) {
	t.Parallel()
	short := func() *bytes.Reader { return bytes.NewReader(make([]byte, 10)) }
	if k, err := NewKey(short()); err == nil || k != (Key{}) {
		t.Error("NewKey")
	}
	if _, err := NewSealer(testKey, short()).Seal(nil, []byte("x"), nil); err == nil {
		t.Error("Seal")
	}
	if _, err := NewRecoveryKey(short()); err == nil {
		t.Error("NewRecoveryKey")
	}
	for n := range 32 + Overhead + Overhead - 16 {
		r := bytes.NewReader(make([]byte, n))
		if _, err := NewSlot(r, testKey, []byte("x"), cheap, SlotInfo{}); err == nil && n < 32+24+24 {
			t.Errorf("NewSlot out of %d random bytes", n)
		}
	}
}
