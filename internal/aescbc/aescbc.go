// Package aescbc encrypts and decrypts with AES-256 in CBC mode, several blocks at a
// time.
//
// The standard library handles one block after another. But a block can be decrypted
// without the others, several streams can be encrypted side by side, and known
// ciphertext can be compared block by block with what its plaintext encrypts to. So
// processors that have instructions for AES, and work on several of these at a time, need
// a fraction of the time. Other processors, and programs built with the tag purego, use
// the standard library.
//
// The lengths of all bytes that are passed must be multiples of BlockSize; otherwise the
// functions panic. The package knows no padding.
package aescbc

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
)

// BlockSize is the length of a block, and KeySize that of a key.
const (
	BlockSize = aes.BlockSize
	KeySize   = 32
)

// IV is what the next block is chained to: the initialisation vector at the beginning of
// a stream, and later the last block of ciphertext.
type IV [BlockSize]byte

// Cipher encrypts and decrypts with one key. Several goroutines may use it.
type Cipher struct {
	expanded schedule
	pure     cipher.Block // nil if the instructions are used
}

// New returns the cipher of a key.
func New(key *[KeySize]byte) *Cipher {
	c := &Cipher{}
	if accelerated {
		c.expanded.expand(key)
		return c
	}
	return newPure(key)
}

func newPure(key *[KeySize]byte) *Cipher {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic("aescbc: AES refused a key of 32 bytes: " + err.Error()) // unreachable: the length is a constant
	}
	return &Cipher{pure: block}
}

// Encrypt encrypts src to dst, which is as long as src and either is src or does not
// overlap it. It sets iv for the blocks that follow.
func (c *Cipher) Encrypt(dst, src []byte, iv *IV) {
	blocks := count(dst, src)
	switch {
	case blocks == 0:
	case c.pure == nil:
		encryptBlocks(&c.expanded.encrypt, &dst[0], &src[0], blocks, iv)
	default:
		cipher.NewCBCEncrypter(c.pure, iv[:]).CryptBlocks(dst, src)
		*iv = IV(dst[len(dst)-BlockSize:])
	}
}

// Decrypt decrypts src to dst, which is as long as src and either is src or does not
// overlap it. It sets iv for the blocks that follow.
func (c *Cipher) Decrypt(dst, src []byte, iv *IV) {
	blocks := count(dst, src)
	switch {
	case blocks == 0:
	case c.pure == nil:
		decryptBlocks(&c.expanded.decrypt, &dst[0], &src[0], blocks, iv)
	default:
		last := IV(src[len(src)-BlockSize:])
		cipher.NewCBCDecrypter(c.pure, iv[:]).CryptBlocks(dst, src)
		*iv = last
	}
}

// Restores reports whether Encrypt would turn plain into ciphertext. It sets iv for the
// blocks that follow. It takes no longer than Decrypt: since the ciphertext is known,
// each block is compared without waiting for the one before.
func (c *Cipher) Restores(plain, ciphertext []byte, iv *IV) bool {
	blocks := count(plain, ciphertext)
	if blocks == 0 {
		return true
	}
	if c.pure == nil {
		return differ(&c.expanded.encrypt, &plain[0], &ciphertext[0], blocks, iv) == 0
	}
	for len(plain) > 0 {
		subtle.XORBytes(iv[:], iv[:], plain[:BlockSize])
		c.pure.Encrypt(iv[:], iv[:])
		if *iv != IV(ciphertext) {
			return false
		}
		plain, ciphertext = plain[BlockSize:], ciphertext[BlockSize:]
	}
	return true
}

// Lanes is how many streams EncryptTogether encrypts side by side.
const Lanes = 8

// Lane is a piece of a stream that EncryptTogether encrypts.
type Lane struct {
	Cipher *Cipher
	IV     *IV
	Bytes  []byte // encrypted in place
}

// EncryptTogether encrypts pieces of several streams, as Encrypt does with each. It is
// fastest if the longest pieces come first.
func EncryptTogether(lanes []Lane) { encryptTogether(lanes, accelerated) }

func encryptTogether(lanes []Lane, accelerated bool) {
	if accelerated && len(lanes) > 1 {
		var s laneSet
		s.encrypt(lanes)
		return
	}
	for _, l := range lanes {
		l.Cipher.Encrypt(l.Bytes, l.Bytes, l.IV)
	}
}

// count returns the number of blocks.
func count(dst, src []byte) int {
	if len(dst) != len(src) || len(src)%BlockSize != 0 {
		panic("aescbc: lengths differ, or are not multiples of 16")
	}
	return len(src) / BlockSize
}
