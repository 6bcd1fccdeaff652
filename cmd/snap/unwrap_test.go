package main

import (
	"crypto/aes"
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"testing"

	"github.com/snap-backup/snap/device/mobilesync/keybag"
)

// deriveByHand turns a password into the key that wraps the class keys.
func deriveByHand(t *testing.T, bag *keybag.Bag, password string) []byte {
	t.Helper()
	first, err := pbkdf2.Key(sha256.New, password, bag.DPSL, int(bag.DPIC), 32)
	if err != nil {
		t.Fatal(err)
	}
	key, err := pbkdf2.Key(sha1.New, string(first), bag.Salt, int(bag.Iter), 32)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// unwrapByHand unwraps a key as in section 2.2.2 of RFC 3394.
func unwrapByHand(t *testing.T, kek, wrapped []byte) []byte {
	t.Helper()
	block, err := aes.NewCipher(kek)
	if err != nil {
		t.Fatal(err)
	}
	n := len(wrapped)/8 - 1
	a, r := binary.BigEndian.Uint64(wrapped), append([]byte(nil), wrapped[8:]...)
	for step := uint64(6 * n); step > 0; step-- {
		i := int(step-1) % n * 8
		b := append(binary.BigEndian.AppendUint64(nil, a^step), r[i:i+8]...)
		block.Decrypt(b, b)
		a = binary.BigEndian.Uint64(b)
		copy(r[i:], b[8:])
	}
	if a != 0xa6a6a6a6a6a6a6a6 {
		t.Fatal("a class key does not unwrap")
	}
	return r
}
