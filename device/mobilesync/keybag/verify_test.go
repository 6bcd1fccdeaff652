package keybag

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"github.com/snap-backup/snap/internal/aescbc"
)

func encrypt(t testing.TB, plain []byte, key FileKey) []byte {
	t.Helper()
	var b bytes.Buffer
	w := NewEncrypter(&b, key)
	if _, err := w.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestVerifierReadsCanonicalBytes(t *testing.T) {
	key := FileKey{1}
	for _, n := range []int{0, 1, 15, 16, 17, bufLen - 1, bufLen, bufLen + 16, 3*bufLen + 5} {
		plain := bytes.Repeat([]byte("canonical "), n/10+1)[:n]
		encrypted := encrypt(t, plain, key)
		for name, r := range map[string]io.Reader{
			"at once": bytes.NewReader(encrypted), "in bytes": iotest.OneByteReader(bytes.NewReader(encrypted)), "late end": iotest.DataErrReader(bytes.NewReader(encrypted)),
		} {
			if name == "in bytes" && n > bufLen {
				continue
			}
			p := NewVerifier(r, key)
			got, err := io.ReadAll(p)
			if err != nil || !bytes.Equal(got, plain) {
				t.Errorf("%d bytes, %s: %d bytes, %v", n, name, len(got), err)
			}
			if more, err := p.Read(make([]byte, 10)); more != 0 || err != io.EOF {
				t.Errorf("%d bytes, %s: after the end %d bytes, %v", n, name, more, err)
			}
		}
	}
}

func TestVerifierRefuses(t *testing.T) {
	key := FileKey{1}
	encrypted := encrypt(t, bytes.Repeat([]byte{0x77}, 1000), key)
	boom := errors.New("boom")
	for name, tc := range map[string]struct {
		r    io.Reader
		want error
	}{
		"empty":       {bytes.NewReader(nil), ErrPadding},
		"odd length":  {bytes.NewReader(encrypted[:500]), ErrPadding},
		"cut":         {bytes.NewReader(encrypted[:512]), ErrPadding},
		"wrong key":   {bytes.NewReader(encrypt(t, make([]byte, 1000), FileKey{2})), ErrPadding},
		"read failed": {io.MultiReader(bytes.NewReader(encrypted[:512]), iotest.ErrReader(boom)), boom},
	} {
		if _, err := io.ReadAll(NewVerifier(tc.r, key)); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
}

// TestVerifierCompares gives a verifier a cipher that decrypts wrongly, as after a bug or
// a memory error. The verifier must notice that, and return none of the wrong bytes.
func TestVerifierCompares(t *testing.T) {
	key := FileKey{1}
	plain := bytes.Repeat([]byte("some content "), 40_000)
	encrypted := encrypt(t, plain, key)
	for _, at := range []int{0, 5000, len(plain) - 1, len(encrypted) - 1} {
		for name, max := range map[string]int{"at once": 1 << 20, "in pieces": 7} {
			p := NewVerifier(bytes.NewReader(encrypted), key).(*decrypter)
			p.cipher = &flipping{p.cipher, at}
			got, err := io.ReadAll(pieces{p, max})
			if !errors.Is(err, ErrNotCanonical) {
				t.Errorf("byte %d decrypted wrongly, read %s: got %v", at, name, err)
			}
			if len(got) > at || !bytes.HasPrefix(plain, got) {
				t.Errorf("byte %d decrypted wrongly, read %s: %d bytes returned", at, name, len(got))
			}
		}
	}
}

// pieces reads at most max bytes at a time.
type pieces struct {
	r   io.Reader
	max int
}

func (p pieces) Read(b []byte) (int, error) { return p.r.Read(b[:min(len(b), p.max)]) }

// flipping changes one byte of what it decrypts.
type flipping struct {
	opener
	at int
}

func (f *flipping) Decrypt(dst, src []byte, iv *aescbc.IV) {
	f.opener.Decrypt(dst, src, iv)
	if f.at >= 0 && f.at < len(dst) {
		dst[f.at] ^= 1
	}
	f.at -= len(dst)
}

func FuzzVerifier(f *testing.F) {
	key := FileKey{3}
	f.Add(encrypt(f, []byte("something"), key))
	f.Add(encrypt(f, make([]byte, 64), key))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, encrypted []byte) {
		plain, err := io.ReadAll(NewVerifier(bytes.NewReader(encrypted), key))
		if err == nil && !bytes.Equal(encrypt(t, plain, key), encrypted) {
			t.Fatal("verified bytes that differ")
		}
		if err != nil && !errors.Is(err, ErrPadding) && !errors.Is(err, ErrNotCanonical) {
			t.Fatalf("untyped error %v", err)
		}
	})
}
