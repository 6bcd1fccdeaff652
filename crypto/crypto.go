// Package crypto turns passwords into keys and keys into sealed bytes.
//
// A repository has one random master key. Every use has a key of its own,
// derived from the master key by purpose, so that a file of one kind can never
// be passed off as another. Key slots (slot.go) hold the master key sealed
// under Argon2id of a password, a key file or a recovery key.
//
// The package promises that Open returns only bytes that Seal was given under
// the same key, and that no error or string that it makes contains a secret.
// It never touches storage and never picks its own source of randomness.
package crypto

import (
	"crypto/cipher"
	"errors"
	"fmt"
	"io"

	"github.com/snap-backup/snap/crypto/blake"
	"golang.org/x/crypto/chacha20poly1305"
)

// KeySize is the length of every symmetric key, in bytes.
const KeySize = 32

// Overhead is what Seal adds to a plaintext, in bytes: a nonce of 24 bytes in
// front and a tag of 16 behind.
const Overhead = chacha20poly1305.NonceSizeX + chacha20poly1305.Overhead

// ErrAuth says that sealed bytes were not made with this key, or were changed
// since. It does not say which: nobody can tell.
var ErrAuth = errors.New("authentication failed: wrong key or damaged data")

// Key is a symmetric key.
type Key [KeySize]byte

// String hides the key.
func (Key) String() string { return "crypto.Key(secret)" }

// Format hides the key from every verb, numbers too.
func (k Key) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, k.String()) }

// MarshalText refuses, and so hides the key from JSON.
func (Key) MarshalText() ([]byte, error) { return nil, errors.New("a key is not to be written out") }

// NewKey draws a random key.
func NewKey(rand io.Reader) (Key, error) {
	var k Key
	if _, err := io.ReadFull(rand, k[:]); err != nil {
		return Key{}, fmt.Errorf("draw a random key: %w", err)
	}
	return k, nil
}

// Destroy overwrites the key. Go may have made copies elsewhere; this is best
// effort.
func (k *Key) Destroy() { clear(k[:]) }

// Purpose names one use of the master key. The strings are part of the
// repository format (docs/format.md) and never change their meaning.
type Purpose string

// The purposes of format version 1.
const (
	ForChunkIDs   Purpose = "snap v1 chunk id"
	ForBlocks     Purpose = "snap v1 block"
	ForPacks      Purpose = "snap v1 pack header"
	ForIndexes    Purpose = "snap v1 index"
	ForSnapshots  Purpose = "snap v1 snapshot"
	ForConfig     Purpose = "snap v1 config"
	ForSlotInfo   Purpose = "snap v1 key slot info"
	ForSecrets    Purpose = "snap v1 secret"
	ForLocks      Purpose = "snap v1 lock"
	ForPruneLists Purpose = "snap v1 prune list"
	ForUnfinished Purpose = "snap v1 run"
	ForChecks     Purpose = "snap v1 check record"
)

// Derive returns the key for one purpose: BLAKE3 in key derivation mode, the
// purpose as context string.
func (k Key) Derive(p Purpose) Key {
	var sub Key
	blake.DeriveKey(sub[:], string(p), k[:])
	return sub
}

// Sealer seals and opens with XChaCha20-Poly1305 under one key. Nonces are
// random, 192 bits long, so that no count has to be kept across processes.
// It may be used by several goroutines if its source of randomness may.
type Sealer struct {
	aead cipher.AEAD
	rand io.Reader
}

// NewSealer returns a sealer for key that draws its nonces from rand.
func NewSealer(key Key, rand io.Reader) *Sealer {
	aead, err := chacha20poly1305.NewX(key[:])
	if err != nil {
		panic("crypto: a 32-byte key was refused: " + err.Error())
	}
	return &Sealer{aead: aead, rand: rand}
}

// Seal appends nonce, ciphertext and tag to dst. What stands in ad is
// authenticated but not stored: Open must be given the same.
func (s *Sealer) Seal(dst, plaintext, ad []byte) ([]byte, error) {
	at := len(dst)
	dst = append(dst, make([]byte, chacha20poly1305.NonceSizeX)...)
	nonce := dst[at : at+chacha20poly1305.NonceSizeX]
	if _, err := io.ReadFull(s.rand, nonce); err != nil {
		return nil, fmt.Errorf("draw a nonce: %w", err)
	}
	return s.aead.Seal(dst, nonce, plaintext, ad), nil
}

// Open appends the plaintext to dst. It returns ErrAuth, and no byte, unless
// all of sealed and ad are as Seal left them.
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
