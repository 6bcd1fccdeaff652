package keybag

import (
	"crypto/aes"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
)

const (
	keyLen     = 32
	wrappedLen = keyLen + 8
	keyBlocks  = keyLen / 8
)

// wrapPrefix is the initial value of RFC 3394 section 2.2.3.1. The integrity check
// fails if unwrapping does not restore it.
var wrapPrefix = [8]byte{0xa6, 0xa6, 0xa6, 0xa6, 0xa6, 0xa6, 0xa6, 0xa6}

// wrapKey wraps a 32-byte key by RFC 3394. It is deterministic.
func wrapKey(kek *[keyLen]byte, key *[keyLen]byte) (out [wrappedLen]byte, err error) {
	block, err := aes.NewCipher(kek[:])
	if err != nil {
		return out, fmt.Errorf("key wrap: %w", err)
	}
	var buf [16]byte // the register A of the RFC, then the current block
	copy(buf[:8], wrapPrefix[:])
	copy(out[8:], key[:])
	for t, round := uint64(1), 0; round < 6; round++ {
		for i := 1; i <= keyBlocks; i++ {
			copy(buf[8:], out[8*i:])
			block.Encrypt(buf[:], buf[:])
			xorCounter(&buf, t)
			copy(out[8*i:8*i+8], buf[8:])
			t++
		}
	}
	copy(out[:8], buf[:8])
	clear(buf[:])
	return out, nil
}

// unwrapKey is the inverse of wrapKey. If the integrity check fails, ok is false and
// key is zero.
func unwrapKey(kek *[keyLen]byte, wrapped *[wrappedLen]byte) (key [keyLen]byte, ok bool, err error) {
	block, err := aes.NewCipher(kek[:])
	if err != nil {
		return key, false, fmt.Errorf("key unwrap: %w", err)
	}
	var buf [16]byte
	copy(buf[:8], wrapped[:8])
	copy(key[:], wrapped[8:])
	for t, round := uint64(6*keyBlocks), 0; round < 6; round++ {
		for i := keyBlocks - 1; i >= 0; i-- {
			xorCounter(&buf, t)
			copy(buf[8:], key[8*i:])
			block.Decrypt(buf[:], buf[:])
			copy(key[8*i:8*i+8], buf[8:])
			t--
		}
	}
	ok = subtle.ConstantTimeCompare(buf[:8], wrapPrefix[:]) == 1
	clear(buf[:])
	if !ok {
		clear(key[:])
	}
	return key, ok, nil
}

func xorCounter(buf *[16]byte, t uint64) {
	binary.BigEndian.PutUint64(buf[:8], binary.BigEndian.Uint64(buf[:8])^t)
}
