package aescbc

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"fmt"
	"math/rand/v2"
	"testing"
)

// reference encrypts with the standard library.
func reference(t testing.TB, key *[KeySize]byte, plain []byte, iv IV) []byte {
	t.Helper()
	block, err := aes.NewCipher(key[:])
	if err != nil {
		t.Fatal(err)
	}
	out := make([]byte, len(plain))
	cipher.NewCBCEncrypter(block, iv[:]).CryptBlocks(out, plain)
	return out
}

// ciphers returns the ciphers that are tested: the one of this processor, and the pure
// one.
func ciphers(key *[KeySize]byte) map[string]*Cipher {
	all := map[string]*Cipher{"pure": newPure(key)}
	if accelerated {
		all["accelerated"] = New(key)
	}
	return all
}

func random(seed uint64, n int) []byte {
	b := make([]byte, n)
	var s [32]byte
	s[0], s[1] = byte(seed), byte(seed>>8)
	_, _ = rand.NewChaCha8(s).Read(b)
	return b
}

// check compares one cipher with the standard library: in pieces, in place and not.
func check(t *testing.T, name string, c *Cipher, key *[KeySize]byte, plain []byte, cut int) {
	t.Helper()
	iv := IV(random(1, BlockSize))
	want := reference(t, key, plain, iv)
	last := iv
	if len(want) > 0 {
		last = IV(want[len(want)-BlockSize:])
	}
	for _, inPlace := range []bool{false, true} {
		encrypted, decrypted := make([]byte, len(plain)), make([]byte, len(plain))
		from, to := plain, want
		if inPlace {
			from, to = encrypted, decrypted
			copy(encrypted, plain)
			copy(decrypted, want)
		}
		e, d, r := iv, iv, iv
		c.Encrypt(encrypted[:cut], from[:cut], &e)
		c.Encrypt(encrypted[cut:], from[cut:], &e)
		if !bytes.Equal(encrypted, want) || e != last {
			t.Fatalf("%s, %d bytes cut at %d, in place %v: encrypted otherwise than by the standard library", name, len(plain), cut, inPlace)
		}
		c.Decrypt(decrypted[:cut], to[:cut], &d)
		c.Decrypt(decrypted[cut:], to[cut:], &d)
		if !bytes.Equal(decrypted, plain) || d != last {
			t.Fatalf("%s, %d bytes cut at %d, in place %v: decrypted otherwise than by the standard library", name, len(plain), cut, inPlace)
		}
		if !c.Restores(plain[:cut], want[:cut], &r) || !c.Restores(plain[cut:], want[cut:], &r) || r != last {
			t.Fatalf("%s, %d bytes cut at %d: the right ciphertext is refused", name, len(plain), cut)
		}
	}
}

func TestLikeStandardLibrary(t *testing.T) {
	if !accelerated {
		t.Log("this processor has no instructions for AES that are used")
	}
	for seed := range uint64(8) {
		key := [KeySize]byte(random(seed+1000, KeySize))
		for name, c := range ciphers(&key) {
			for blocks := range 35 {
				plain := random(seed, blocks*BlockSize)
				for _, cut := range []int{0, blocks / 3, blocks} {
					check(t, name, c, &key, plain, cut*BlockSize)
				}
			}
		}
	}
}

// TestVectors has the examples F.2.5 and F.2.6 of NIST SP 800-38A.
func TestVectors(t *testing.T) {
	key := [KeySize]byte{0x60, 0x3d, 0xeb, 0x10, 0x15, 0xca, 0x71, 0xbe, 0x2b, 0x73, 0xae, 0xf0, 0x85, 0x7d, 0x77, 0x81, 0x1f, 0x35, 0x2c, 0x07, 0x3b, 0x61, 0x08, 0xd7, 0x2d, 0x98, 0x10, 0xa3, 0x09, 0x14, 0xdf, 0xf4}
	plain := []byte{0x6b, 0xc1, 0xbe, 0xe2, 0x2e, 0x40, 0x9f, 0x96, 0xe9, 0x3d, 0x7e, 0x11, 0x73, 0x93, 0x17, 0x2a}
	want := []byte{0xf5, 0x8c, 0x4c, 0x04, 0xd6, 0xe5, 0xf1, 0xba, 0x77, 0x9e, 0xab, 0xfb, 0x5f, 0x7b, 0xfb, 0xd6}
	for name, c := range ciphers(&key) {
		iv := IV{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
		got := make([]byte, BlockSize)
		c.Encrypt(got, plain, &iv)
		if !bytes.Equal(got, want) {
			t.Errorf("%s: encrypted to %x", name, got)
		}
	}
}

// TestRestoresRefuses flips every bit of plaintext and ciphertext.
func TestRestoresRefuses(t *testing.T) {
	key := [KeySize]byte(random(7, KeySize))
	for _, blocks := range []int{1, 7, 8, 9, 19} {
		plain := random(8, blocks*BlockSize)
		encrypted := reference(t, &key, plain, IV{})
		for name, c := range ciphers(&key) {
			for _, changed := range [][]byte{plain, encrypted} {
				for bit := range 8 * len(changed) {
					changed[bit/8] ^= 1 << (bit % 8)
					if c.Restores(plain, encrypted, &IV{}) {
						t.Fatalf("%s: %d blocks with bit %d changed are accepted", name, blocks, bit)
					}
					changed[bit/8] ^= 1 << (bit % 8)
				}
			}
			if c.Restores(plain, encrypted, &IV{1}) {
				t.Errorf("%s: another IV is accepted", name)
			}
		}
	}
}

func TestEncryptTogether(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for n := range 40 {
		for _, pure := range []bool{false, true} {
			lanes, want, last := make([]Lane, n), make([][]byte, n), make([]IV, n)
			for i := range lanes {
				key := [KeySize]byte(random(rng.Uint64(), KeySize))
				iv := IV(random(rng.Uint64(), BlockSize))
				plain := random(rng.Uint64(), BlockSize*rng.IntN(40))
				want[i], last[i] = reference(t, &key, plain, iv), iv
				if len(plain) > 0 {
					last[i] = IV(want[i][len(plain)-BlockSize:])
				}
				lanes[i] = Lane{New(&key), &iv, plain}
				if pure {
					lanes[i].Cipher = newPure(&key)
				}
			}
			encryptTogether(lanes, accelerated && !pure)
			for i, l := range lanes {
				if !bytes.Equal(l.Bytes, want[i]) || *l.IV != last[i] {
					t.Fatalf("%d streams, pure %v: stream %d, of %d bytes, is not as it would be alone", n, pure, i, len(want[i]))
				}
			}
		}
	}
}

// TestBounds surrounds the bytes with others, which must stay as they are.
func TestBounds(t *testing.T) {
	key := [KeySize]byte(random(3, KeySize))
	c := New(&key)
	for blocks := range 20 {
		n := blocks * BlockSize
		guarded := bytes.Repeat([]byte{0xa5}, n+2*BlockSize)
		middle := guarded[BlockSize : BlockSize+n]
		c.Encrypt(middle, middle, &IV{})
		c.Decrypt(middle, middle, &IV{})
		EncryptTogether([]Lane{{c, &IV{}, middle}, {c, &IV{}, make([]byte, 320)}})
		c.Decrypt(middle, middle, &IV{})
		if !bytes.Equal(guarded, bytes.Repeat([]byte{0xa5}, len(guarded))) {
			t.Fatalf("%d blocks: bytes around them have changed", blocks)
		}
	}
}

func TestLengths(t *testing.T) {
	c := New(&[KeySize]byte{})
	for name, f := range map[string]func(){
		"odd":       func() { c.Encrypt(make([]byte, 17), make([]byte, 17), &IV{}) },
		"different": func() { c.Decrypt(make([]byte, 16), make([]byte, 32), &IV{}) },
		"compare":   func() { c.Restores(make([]byte, 16), make([]byte, 32), &IV{}) },
		"lane":      func() { EncryptTogether([]Lane{{c, &IV{}, make([]byte, 16)}, {c, &IV{}, make([]byte, 15)}}) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			f()
		}()
	}
}

// FuzzLikePure compares both forms with each other.
func FuzzLikePure(f *testing.F) {
	f.Add(make([]byte, KeySize), make([]byte, BlockSize), make([]byte, 150), uint16(3))
	f.Add(random(1, KeySize), random(2, BlockSize), random(3, 1000), uint16(40))
	f.Fuzz(func(t *testing.T, k, v, text []byte, at uint16) {
		var key [KeySize]byte
		var iv IV
		copy(key[:], k)
		copy(iv[:], v)
		text = text[:len(text)/BlockSize*BlockSize]
		cut := 0
		if len(text) > 0 {
			cut = int(at) % len(text) / BlockSize * BlockSize
		}
		for name, c := range ciphers(&key) {
			check(t, name, c, &key, text, cut)
		}
		// Streams with equal and with other keys, of several lengths.
		other := key
		other[0]++
		a, b, d := bytes.Clone(text), bytes.Clone(text[cut:]), bytes.Clone(text[:cut])
		x, y, z := iv, iv, iv
		EncryptTogether([]Lane{{New(&key), &x, a}, {New(&other), &y, b}, {New(&key), &z, d}})
		if !bytes.Equal(a, reference(t, &key, text, iv)) || !bytes.Equal(b, reference(t, &other, text[cut:], iv)) || !bytes.Equal(d, a[:cut]) {
			t.Error("streams that are encrypted together are not as they would be alone")
		}
	})
}

func benchmark(b *testing.B, n int, do func(c *Cipher, dst, src []byte)) {
	key := [KeySize]byte{1}
	for name, c := range ciphers(&key) {
		b.Run(name, func(b *testing.B) {
			dst, src := make([]byte, n), make([]byte, n)
			b.SetBytes(int64(n))
			for b.Loop() {
				do(c, dst, src)
			}
		})
	}
}

func BenchmarkEncrypt(b *testing.B) {
	benchmark(b, 64<<10, func(c *Cipher, dst, src []byte) { c.Encrypt(dst, src, &IV{}) })
}

func BenchmarkDecrypt(b *testing.B) {
	benchmark(b, 64<<10, func(c *Cipher, dst, src []byte) { c.Decrypt(dst, src, &IV{}) })
}

func BenchmarkRestores(b *testing.B) {
	plain := make([]byte, 64<<10)
	encrypted := reference(b, &[KeySize]byte{1}, plain, IV{})
	benchmark(b, len(plain), func(c *Cipher, _, _ []byte) {
		if !c.Restores(plain, encrypted, &IV{}) {
			b.Fatal("the right ciphertext is refused")
		}
	})
}

func BenchmarkEncryptTogether(b *testing.B) {
	for _, size := range []int{1 << 10, 32 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			lanes := make([]Lane, Lanes)
			for i := range lanes {
				lanes[i] = Lane{New(&[KeySize]byte{byte(i)}), &IV{}, make([]byte, size)}
			}
			b.SetBytes(int64(Lanes * size))
			for b.Loop() {
				EncryptTogether(lanes)
			}
		})
	}
}

func BenchmarkNew(b *testing.B) {
	for b.Loop() {
		New(&[KeySize]byte{1})
	}
}
