// Package crypto derives keys from passwords and seals bytes with keys.
//
// A repository has one random master key. Each purpose has its own key, derived from the
// master key, so that a file of one kind cannot be used as another kind. A key slot
// (slot.go) holds the master key, sealed with a key that Argon2id derives from a
// password, a key file or a recovery key.
//
// Open returns only bytes that were sealed with the same key. No error or string of this
// package contains a secret. The package never touches storage and never chooses its
// own source of randomness.
package crypto

import (
	"crypto/cipher"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/snap-backup/snap/crypto/blake"
	"golang.org/x/crypto/chacha20poly1305"
)

// KeySize is the length of every symmetric key, in bytes.
const KeySize = 32

// Overhead is the number of bytes that Seal adds to a plaintext: a nonce of 24 bytes
// before it and a tag of 16 bytes after it.
const Overhead = chacha20poly1305.NonceSizeX + chacha20poly1305.Overhead

// ErrAuth says that bytes were not sealed with this key, or were changed since. Open
// cannot tell which.
var ErrAuth = errors.New("authentication failed: wrong key or damaged data")

// Key is a symmetric key.
type Key [KeySize]byte

// String hides the key.
func (Key) String() string { return "crypto.Key(secret)" }

// Format hides the key from every verb, including those for numbers.
func (k Key) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, k.String()) }

// MarshalText always fails, to keep the key out of JSON.
func (Key) MarshalText() ([]byte, error) { return nil, errors.New("keys cannot be marshaled") }

// NewKey draws a random key.
func NewKey(rand io.Reader) (Key, error) {
	var k Key
	if _, err := io.ReadFull(rand, k[:]); err != nil {
		return Key{}, fmt.Errorf("draw a random key: %w", err)
	}
	return k, nil
}

// Destroy overwrites the key, as a best effort: Go may have made other copies.
func (k *Key) Destroy() { clear(k[:]) }

// Purpose names a use of the master key. The strings are part of the repository format
// (docs/format.md) and never change their meaning.
type Purpose string

// The purposes of format version 1.
const (
	ForChunkIDs     Purpose = "snap v1 chunk id"
	ForBlocks       Purpose = "snap v1 block"
	ForPacks        Purpose = "snap v1 pack header"
	ForIndexes      Purpose = "snap v1 index"
	ForSnapshots    Purpose = "snap v1 snapshot"
	ForConfig       Purpose = "snap v1 config"
	ForSlotInfo     Purpose = "snap v1 key slot info"
	ForSecrets      Purpose = "snap v1 secret"
	ForLocks        Purpose = "snap v1 lock"
	ForPruneLists   Purpose = "snap v1 prune list"
	ForUnfinished   Purpose = "snap v1 run"
	ForChecks       Purpose = "snap v1 check record"
	ForCertificates Purpose = "snap v1 certificate"
	ForLedgers      Purpose = "snap v1 ledger"
)

// Derive returns the key for a purpose: BLAKE3 in key derivation mode with the purpose as
// the context string.
func (k Key) Derive(p Purpose) Key {
	var sub Key
	blake.DeriveKey(sub[:], string(p), k[:])
	return sub
}

// Sealer seals and opens bytes with XChaCha20-Poly1305 and one key. Nonces are random
// and have 192 bits, so that processes need not share a counter. A Sealer is safe for
// concurrent use if its source of randomness is.
type Sealer struct {
	key  Key
	aead cipher.AEAD
	rand io.Reader

	inVain atomic.Int32 // times that Correct looked for a wrong nonce in vain
}

// NewSealer returns a sealer for key that draws its nonces from rand.
func NewSealer(key Key, rand io.Reader) *Sealer {
	aead, err := chacha20poly1305.NewX(key[:])
	if err != nil {
		panic("crypto: 32-byte key refused: " + err.Error())
	}
	return &Sealer{key: key, aead: aead, rand: rand}
}

// Seal appends nonce, ciphertext and tag to dst. It authenticates ad but does not store
// it: Open needs the same ad.
func (s *Sealer) Seal(dst, plaintext, ad []byte) ([]byte, error) {
	at := len(dst)
	dst = append(dst, make([]byte, chacha20poly1305.NonceSizeX)...)
	nonce := dst[at : at+chacha20poly1305.NonceSizeX]
	if _, err := io.ReadFull(s.rand, nonce); err != nil {
		return nil, fmt.Errorf("draw a nonce: %w", err)
	}
	return s.aead.Seal(dst, nonce, plaintext, ad), nil
}

// SealAgain appends to dst what Seal made of plaintext and ad, given the nonce that Seal
// drew then. The caller must know that plaintext and ad are the same as then. Otherwise two
// texts would be sealed with one nonce.
func (s *Sealer) SealAgain(dst, nonce, plaintext, ad []byte) []byte {
	return s.aead.Seal(append(dst, nonce...), nonce, plaintext, ad)
}

// Open appends the plaintext to dst. If sealed was not made by Seal with the same key and
// the same ad, Open returns ErrAuth and no bytes.
func (s *Sealer) Open(dst, sealed, ad []byte) ([]byte, error) {
	if len(sealed) < Overhead {
		return nil, ErrAuth
	}
	nonce, box := sealed[:chacha20poly1305.NonceSizeX], sealed[chacha20poly1305.NonceSizeX:]
	out, err := s.aead.Open(dst, nonce, box, ad)
	if err != nil {
		return nil, ErrAuth
	}
	return out, nil
}
