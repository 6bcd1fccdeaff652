package repo_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/json"
	"testing"

	"github.com/snap-backup/snap/crypto"
	"golang.org/x/crypto/argon2"
)

// goldenSlot opens a slot step by step, to show values that package crypto does
// not return.
func goldenSlot(t *testing.T, name, secret string, b []byte, master crypto.Key) slotVector {
	t.Helper()
	var f struct {
		Time      uint32 `json:"time"`
		MemoryKiB uint32 `json:"memory_kib"`
		Threads   uint8  `json:"threads"`
		Salt      []byte `json:"salt"`
		Master    []byte `json:"master"`
		Info      []byte `json:"info"`
	}
	if err := json.Unmarshal(b, &f); err != nil {
		t.Fatal(err)
	}
	key := argon2.IDKey([]byte(secret), f.Salt, f.Time, f.MemoryKiB, f.Threads, 32)
	if got, err := crypto.NewSealer(crypto.Key(key), nil).Open(nil, f.Master, []byte("snap v1 key slot master")); err != nil || !bytes.Equal(got, master[:]) {
		t.Fatal("the slot does not hold the master key", err)
	}
	info, err := crypto.NewSealer(master.Derive(crypto.ForSlotInfo), nil).Open(nil, f.Info, []byte("snap v1 key slot info"))
	if err != nil {
		t.Fatal(err)
	}
	return slotVector{File: name, Secret: secret, Key: key, Info: string(info)}
}

// cbc encrypts content as tree.CBC describes.
func cbc(t *testing.T, key, plain []byte) []byte {
	t.Helper()
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	n := aes.BlockSize - len(plain)%aes.BlockSize
	out := append(bytes.Clone(plain), bytes.Repeat([]byte{byte(n)}, n)...)
	cipher.NewCBCEncrypter(block, make([]byte, aes.BlockSize)).CryptBlocks(out, out)
	return out
}
