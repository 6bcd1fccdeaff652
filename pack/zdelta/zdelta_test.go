package zdelta

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// decode decodes with a general zstd decoder.
func decode(t testing.TB, frame, dict []byte, size int) []byte {
	t.Helper()
	opts := []zstd.DOption{zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(MaxWindow), zstd.WithDecoderMaxMemory(16 << 20)}
	if len(dict) > 0 {
		opts = append(opts, zstd.WithDecoderDictRaw(0, dict))
	}
	d, err := zstd.NewReader(nil, opts...)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	out, err := d.DecodeAll(frame, make([]byte, 0, size))
	if err != nil {
		t.Fatalf("decode %d bytes: %v", len(frame), err)
	}
	return out
}

func noise(rng *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// words returns text like that of databases.
func words(rng *rand.Rand, n int) []byte {
	var b []byte
	for len(b) < n {
		b = fmt.Appendf(b, "row %d: the %c%c%c of %x;", rng.IntN(1000), 'a'+rng.IntN(26), 'a'+rng.IntN(5), 'a'+rng.IntN(3), rng.Uint32())
	}
	return b[:n]
}

func edited(rng *rand.Rand, b []byte, edits int) []byte {
	b = bytes.Clone(b)
	for range edits {
		copy(b[rng.IntN(len(b)):], words(rng, rng.IntN(500)))
	}
	return b
}

func TestEncode(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	text, random := words(rng, 1<<20), noise(rng, 1<<20)
	moved := append(words(rng, 7000), text[:900_000]...)
	var scattered []byte
	for i := 0; i < 400_000; i += 5 + rng.IntN(200) {
		scattered = append(scattered, text[i:i+40]...)
		scattered = append(scattered, byte(i))
	}
	for _, test := range []struct {
		name        string
		plain, dict []byte
		most        int // bytes of the frame
	}{
		{"one byte", []byte("x"), []byte("y"), 20},
		{"no dictionary", text[:5000], nil, 2600},
		{"equal", text, text, 200},
		{"equal noise", random, random, 200},
		{"noise", random[:300_000], text, 300_000 + 30},
		{"zeros", make([]byte, 1<<20), text, 200},
		{"edited", edited(rng, text, 20), text, 9000},
		{"edited noise", edited(rng, random, 20), random, 9000},
		{"moved", moved, text, 5000},
		{"scattered", scattered, text, len(scattered) / 3},
		{"half a block", text[:64<<10], text[:60<<10], 3000},
		{"short", text[:100], text[:90], 100},
		{"large dictionary", edited(rng, text, 20), append(noise(rng, 5<<20), text...), 9000},
		{"beyond the window", text, append(bytes.Clone(text), noise(rng, 8<<20)...), 600_000},
		{"largest", bytes.Repeat(random, 8), random, 2000},
	} {
		t.Run(test.name, func(t *testing.T) {
			var e Encoder
			frame, err := e.Encode(nil, test.plain, test.dict)
			if err != nil {
				t.Fatal(err)
			}
			if got := decode(t, frame, test.dict, len(test.plain)); !bytes.Equal(got, test.plain) {
				t.Fatal("the decoded bytes differ")
			}
			if len(frame) > test.most {
				t.Errorf("%d bytes for %d, want at most %d", len(frame), len(test.plain), test.most)
			}
		})
	}
}

// The result must not depend on earlier calls.
func TestEncodeAgain(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(3, 4))
	var used Encoder
	for range 60 {
		dict := words(rng, rng.IntN(50_000)+1)
		plain := edited(rng, append(dict, words(rng, rng.IntN(9000))...), rng.IntN(9))
		var fresh Encoder
		want, err := fresh.Encode(nil, plain, dict)
		if err != nil {
			t.Fatal(err)
		}
		got, err := used.Encode([]byte("before"), plain, dict)
		if err != nil || !bytes.Equal(got, append([]byte("before"), want...)) {
			t.Fatalf("a used encoder returns %d bytes (%v), a new one %d", len(got)-6, err, len(want))
		}
	}
}

func TestEncodeRefuses(t *testing.T) {
	t.Parallel()
	var e Encoder
	for _, n := range []int{0, MaxWindow + 1} {
		if _, err := e.Encode(nil, make([]byte, n), []byte("dictionary")); err == nil {
			t.Errorf("no error for a content of %d bytes", n)
		}
	}
}

func FuzzEncode(f *testing.F) {
	rng := rand.New(rand.NewPCG(5, 6))
	text := words(rng, 3000)
	f.Add([]byte("a"), []byte("b"), uint8(0))
	f.Add(text, text[500:], uint8(0))
	f.Add(edited(rng, text, 5), text, uint8(90))
	f.Add(noise(rng, 1500), text, uint8(200))
	f.Add(bytes.Repeat([]byte("ab"), 900), []byte("ba"), uint8(150))
	f.Fuzz(func(t *testing.T, plain, dict []byte, repeat uint8) {
		// Repeat the content with changes to get several blocks.
		for i := range int(repeat) {
			if len(plain) == 0 || len(plain) > 1<<18 {
				break
			}
			n := min(len(plain), 2000)
			plain = append(plain, plain[:n]...)
			plain[len(plain)-1-i%n] ^= byte(i)
		}
		if len(plain) == 0 {
			return
		}
		var e Encoder
		frame, err := e.Encode(nil, plain, dict)
		if err != nil {
			t.Fatal(err)
		}
		if got := decode(t, frame, dict, len(plain)); !bytes.Equal(got, plain) {
			t.Fatal("the decoded bytes differ")
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	rng := rand.New(rand.NewPCG(7, 8))
	dict := words(rng, 1<<20)
	plain := edited(rng, dict, 20)
	var e Encoder
	var frame []byte
	b.SetBytes(int64(len(plain)))
	for b.Loop() {
		frame, _ = e.Encode(frame[:0], plain, dict)
	}
	b.ReportMetric(float64(len(frame)), "bytes")
}
