package keybag

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"
)

var testKey = FileKey{3, 1, 4, 1, 5, 9, 2, 6}

func encryptBytes(t testing.TB, plain []byte, key FileKey) []byte {
	t.Helper()
	var out bytes.Buffer
	w := NewEncrypter(&out, key)
	if n, err := w.Write(plain); n != len(plain) || err != nil {
		t.Fatal(n, err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func testBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(b)
	return b
}

// encryptLengths are lengths around the ends of blocks and of the internal
// buffers.
var encryptLengths = []int{0, 1, 15, 16, 17, bufLen - 17, bufLen - 16, bufLen - 1, bufLen, bufLen + 1, bufLen + 15, bufLen + 16,
	bufLen + 17, 2*bufLen - 1, 2 * bufLen, 3*bufLen + 5}

func TestEncryptRoundTrip(t *testing.T) {
	for _, n := range encryptLengths {
		plain := testBytes(n)
		encrypted := encryptBytes(t, plain, testKey)
		if int64(len(encrypted)) != EncryptedSize(int64(n)) {
			t.Errorf("%d bytes: encrypted to %d", n, len(encrypted))
		}
		if !bytes.Equal(encrypted, referenceSeal(plain, testKey)) {
			t.Errorf("%d bytes: not AES-256-CBC with zero IV and PKCS#7", n)
		}
		for name, r := range map[string]io.Reader{
			"at once": bytes.NewReader(encrypted),
			"halves":  iotest.HalfReader(bytes.NewReader(encrypted)),
			"eof":     iotest.DataErrReader(bytes.NewReader(encrypted)),
		} {
			back, err := io.ReadAll(NewDecrypter(r, testKey))
			if err != nil || !bytes.Equal(back, plain) {
				t.Errorf("%d bytes, %s: %d bytes back, %v", n, name, len(back), err)
			}
		}
	}
}

func referenceSeal(plain []byte, key FileKey) []byte {
	pad := 16 - len(plain)%16
	out := append(bytes.Clone(plain), bytes.Repeat([]byte{byte(pad)}, pad)...)
	block, _ := aes.NewCipher(key[:])
	cipher.NewCBCEncrypter(block, make([]byte, 16)).CryptBlocks(out, out)
	return out
}

func TestEncrypterInPieces(t *testing.T) {
	plain := testBytes(2*bufLen + 333)
	var out bytes.Buffer
	w := NewEncrypter(&out, testKey)
	rng := rand.New(rand.NewPCG(1, 2))
	for rest := plain; len(rest) > 0; {
		n := min(len(rest), rng.IntN(5000))
		if _, err := w.Write(rest[:n]); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if !bytes.Equal(out.Bytes(), referenceSeal(plain, testKey)) {
		t.Error("pieces give other bytes than all at once")
	}
	if _, err := w.Write([]byte{1}); err == nil {
		t.Error("a closed encrypter accepts bytes")
	}
}

func TestEncrypterKeepsFirstError(t *testing.T) {
	boom := errors.New("boom")
	w := NewEncrypter(writerFunc(func([]byte) (int, error) { return 0, boom }), testKey)
	n, err := w.Write(make([]byte, 3*bufLen))
	if !errors.Is(err, boom) || n >= 3*bufLen {
		t.Errorf("write: %d, %v", n, err)
	}
	if err := w.Close(); !errors.Is(err, boom) {
		t.Errorf("close: %v", err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestDecrypterRefuses(t *testing.T) {
	encrypted := encryptBytes(t, bytes.Repeat([]byte{0x55}, 100), testKey)
	unpadded := func(plain []byte) []byte {
		block, _ := aes.NewCipher(testKey[:])
		out := bytes.Clone(plain)
		cipher.NewCBCEncrypter(block, make([]byte, 16)).CryptBlocks(out, out)
		return out
	}
	for name, b := range map[string][]byte{
		"empty":        nil,
		"cut in block": encrypted[:len(encrypted)-1],
		"cut block":    encrypted[:len(encrypted)-16],
		"one byte":     encrypted[:1],
		"zero padding": unpadded(make([]byte, 16)),
		"17":           unpadded(bytes.Repeat([]byte{17}, 32)),
		"mixed":        unpadded(append(make([]byte, 13), 3, 2, 3)),
		"at buffer":    unpadded(make([]byte, bufLen)),
	} {
		got, err := io.ReadAll(NewDecrypter(bytes.NewReader(b), testKey))
		if !errors.Is(err, ErrPadding) || len(got) > max(0, len(b)-16) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
		if _, _, err := DecrypterAt(bytes.NewReader(b), int64(len(b)), testKey); !errors.Is(err, ErrPadding) {
			t.Errorf("%s at random access: %v", name, err)
		}
	}
	if _, err := io.ReadAll(NewDecrypter(iotest.TimeoutReader(iotest.HalfReader(bytes.NewReader(encrypted))), testKey)); !errors.Is(err, iotest.ErrTimeout) {
		t.Errorf("error of the source: %v", err)
	}
}

func TestDecrypterAt(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for _, n := range encryptLengths {
		plain := testBytes(n)
		encrypted := encryptBytes(t, plain, testKey)
		r, size, err := DecrypterAt(bytes.NewReader(encrypted), int64(len(encrypted)), testKey)
		if err != nil || size != int64(n) {
			t.Fatalf("%d bytes: size %d, %v", n, size, err)
		}
		want := bytes.NewReader(plain)
		for range 200 {
			off := rng.Int64N(int64(n) + 20)
			a, b := make([]byte, rng.IntN(n+20)), make([]byte, 0)
			b = append(b, a...)
			gotN, gotErr := r.ReadAt(a, off)
			wantN, wantErr := want.ReadAt(b, off)
			if gotN != wantN || gotErr != wantErr || !bytes.Equal(a, b) {
				t.Fatalf("%d bytes: ReadAt(%d, %d) = %d, %v; want %d, %v", n, len(a), off, gotN, gotErr, wantN, wantErr)
			}
		}
		if _, err := r.ReadAt(make([]byte, 1), -1); err == nil {
			t.Error("negative offset")
		}
	}
}

func TestUnpaddedDecrypterAt(t *testing.T) {
	plain := testBytes(4096)
	encrypted := referenceSeal(plain, testKey)[:4096]
	r, err := UnpaddedDecrypterAt(bytes.NewReader(encrypted), 4096, testKey)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(io.NewSectionReader(r, 0, 1<<20)); err != nil || !bytes.Equal(got, plain) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	for _, size := range []int64{-16, 4095} {
		if _, err := UnpaddedDecrypterAt(bytes.NewReader(encrypted), size, testKey); !errors.Is(err, ErrPadding) {
			t.Errorf("size %d: %v", size, err)
		}
	}
	r, err = UnpaddedDecrypterAt(bytes.NewReader(encrypted), 8192, testKey)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.ReadAt(make([]byte, 16), 4096); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("source shorter than its size: %v", err)
	}
}

func FuzzDecrypter(f *testing.F) {
	f.Add(referenceSeal(nil, testKey))
	f.Add(referenceSeal(make([]byte, 31), testKey))
	f.Add(make([]byte, 48))
	f.Fuzz(func(t *testing.T, encrypted []byte) {
		plain, err := io.ReadAll(NewDecrypter(bytes.NewReader(encrypted), testKey))
		if err != nil {
			if !errors.Is(err, ErrPadding) {
				t.Errorf("untyped error %v", err)
			}
		} else if !bytes.Equal(referenceSeal(plain, testKey), encrypted) {
			t.Error("decrypting and encrypting does not restore the bytes")
		}
		at, size, atErr := DecrypterAt(bytes.NewReader(encrypted), int64(len(encrypted)), testKey)
		if (err == nil) != (atErr == nil) {
			t.Fatalf("stream: %v, random access: %v", err, atErr)
		}
		if atErr == nil {
			again, err := io.ReadAll(io.NewSectionReader(at, 0, size))
			if err != nil || !bytes.Equal(again, plain) {
				t.Errorf("random access returns other bytes: %v", err)
			}
		}
	})
}

func BenchmarkEncrypt(b *testing.B) {
	plain := testBytes(8 << 20)
	b.SetBytes(int64(len(plain)))
	for b.Loop() {
		w := NewEncrypter(io.Discard, testKey)
		_, _ = w.Write(plain)
		_ = w.Close()
	}
}

func BenchmarkDecrypt(b *testing.B) {
	encrypted := referenceSeal(testBytes(8<<20), testKey)
	b.SetBytes(int64(len(encrypted)))
	for b.Loop() {
		_, _ = io.Copy(io.Discard, NewDecrypter(bytes.NewReader(encrypted), testKey))
	}
}
