package pack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/crypto"
	"pgregory.net/rapid"
)

// longHeader returns a header with blocks of four chunks each. With repeats, the
// dictionary of each block has the chunks of the block before.
func longHeader(blocks int, repeats bool) Header {
	rng := rand.New(rand.NewPCG(1, 2))
	h := Header{Blocks: []Block{}}
	offset := uint32(len(magic))
	for i := range blocks {
		b := Block{Offset: offset, Stored: 100 + rng.Uint32N(50_000), Encoding: Zstd}
		for range 4 {
			c := Chunk{Length: 1 + rng.Uint32N(1<<16)}
			for at := 0; at < len(c.ID); at += 8 {
				binary.LittleEndian.PutUint64(c.ID[at:], rng.Uint64())
			}
			b.Chunks = append(b.Chunks, c)
		}
		if repeats && i > 0 {
			b.Encoding = Delta
			for _, c := range h.Blocks[i-1].Chunks {
				b.Dict = append(b.Dict, c.ID)
			}
		}
		offset += b.Stored
		h.Blocks = append(h.Blocks, b)
	}
	return h
}

func compressed(t testing.TB, plain []byte) []byte {
	t.Helper()
	b, err := Compress(plain)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestCompressOnlyWhatRepeats(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name    string
		blocks  int
		repeats bool
		version byte
	}{
		{"short, with repeats", 10, true, PlainVersion},
		{"long, without repeats", 500, false, PlainVersion},
		{"long, with repeats", 500, true, compressedVersion},
	} {
		h := longHeader(tc.blocks, tc.repeats)
		plain := h.Append(nil)
		b := compressed(t, plain)
		if b[0] != tc.version {
			t.Errorf("%s: version %d, want %d", tc.name, b[0], tc.version)
		}
		if tc.version == PlainVersion && !bytes.Equal(b, plain) {
			t.Errorf("%s: not the plain form", tc.name)
		}
		if tc.version == compressedVersion && len(b) > len(plain)*6/10 {
			t.Errorf("%s: %d bytes of %d", tc.name, len(b), len(plain))
		}
		if got, err := Expand(b, len(plain)); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%s: %d bytes were expanded to %d, %v", tc.name, len(plain), len(got), err)
		}
	}
}

func TestCompressRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		plain := []byte{PlainVersion}
		for n := rapid.IntRange(0, 40_000).Draw(t, "length"); len(plain) < n; {
			if at := rng.IntN(len(plain)); rng.IntN(3) > 0 {
				plain = append(plain, plain[at:min(len(plain), at+rng.IntN(500))]...)
			} else {
				plain = binary.AppendUvarint(plain, rng.Uint64())
			}
		}
		b, err := Compress(plain)
		if err != nil || len(b) > len(plain) {
			t.Fatalf("%d bytes of %d, %v", len(b), len(plain), err)
		}
		if got, err := Expand(b, len(plain)); err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("%d bytes were expanded to %d, %v", len(plain), len(got), err)
		}
	})
}

// frameOf returns a frame with other options than Compress uses.
func frameOf(t testing.TB, plain []byte, opts ...zstd.EOption) []byte {
	t.Helper()
	enc, err := zstd.NewWriter(nil, append(opts, zstd.WithEncoderConcurrency(1))...)
	if err != nil {
		t.Fatal(err)
	}
	return enc.EncodeAll(plain, nil)
}

// wideFrame returns a frame with a window of 16 MiB.
func wideFrame(plain []byte) []byte {
	f := []byte{0x28, 0xb5, 0x2f, 0xfd, 0, 14 << 3}
	block := uint32(len(plain))<<3 | 1 // the last one, raw
	return append(append(f, byte(block), byte(block>>8), byte(block>>16)), plain...)
}

func compressedForm(length uint64, frame []byte) []byte {
	return append(binary.AppendUvarint([]byte{compressedVersion}, length), frame...)
}

func TestDamagedCompressedForm(t *testing.T) {
	t.Parallel()
	h := longHeader(100, true)
	rest := h.Append(nil)[1:]
	n, frame := uint64(len(rest)), frameOf(t, rest)
	stream := bytes.Buffer{} // a frame without its length
	enc, err := zstd.NewWriter(&stream, zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	for at := 0; at < len(rest); at += 1000 {
		if _, err := enc.Write(rest[at:min(len(rest), at+1000)]); err != nil {
			t.Fatal(err)
		}
		if err := enc.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	if err := enc.Close(); err != nil {
		t.Fatal(err)
	}
	withoutLength := stream.Bytes()
	for name, good := range map[string][]byte{
		"any frame": compressedForm(n, frame), "one without its length": compressedForm(n, withoutLength),
		"a length in more bytes than needed": append([]byte{compressedVersion, byte(n) | 0x80, byte(n>>7) | 0x80, byte(n>>14) | 0x80, 0}, frame...),
	} {
		if got, err := expandHeader(good); err != nil || !reflect.DeepEqual(got, h) {
			t.Errorf("%s: %v", name, err)
		}
	}
	bomb := frameOf(t, make([]byte, 1<<20))
	for name, bad := range map[string][]byte{
		"nothing":                      {},
		"the version alone":            {compressedVersion},
		"another version":              append([]byte{3}, rest...),
		"half a length":                {compressedVersion, 0x80},
		"no frame":                     compressedForm(n, nil),
		"no bytes":                     compressedForm(0, frame),
		"no bytes and an empty frame":  compressedForm(0, frameOf(t, nil)),
		"a length without bound":       compressedForm(1<<63, frame),
		"a length that overflows":      append([]byte{compressedVersion}, bytes.Repeat([]byte{0xff}, 12)...),
		"more than the limit":          compressedForm(MaxHeaderSize+1, make([]byte, 4000)),
		"more than a frame can hold":   compressedForm(MaxHeaderSize, frame[:100]),
		"a byte more than said":        compressedForm(n-1, frame),
		"a byte less than said":        compressedForm(n+1, frame),
		"the same without its length":  compressedForm(n-1, withoutLength),
		"the same, one byte less":      compressedForm(n+1, withoutLength),
		"far more than said":           compressedForm(n, bomb),
		"far less than said":           compressedForm(1<<20, frame),
		"not a header":                 compressedForm(1<<20, bomb),
		"not a frame":                  compressedForm(n, rest),
		"bytes at the end":             compressedForm(n, append(bytes.Clone(frame), 0)),
		"the header with its version":  compressedForm(n+1, frameOf(t, h.Append(nil))),
		"compressed twice":             compressedForm(n+1, frameOf(t, compressedForm(n, frame))),
		"with a dictionary":            compressedForm(n, frameOf(t, rest, zstd.WithEncoderDictRaw(7, rest))),
		"a dictionary without an ID":   compressedForm(n, frameOf(t, rest, zstd.WithEncoderDictRaw(0, rest))),
		"a window of 16 MiB":           compressedForm(n, wideFrame(rest)),
		"a wrong checksum at the end":  compressedForm(n, append(bytes.Clone(frame[:len(frame)-1]), frame[len(frame)-1]^1)),
		"nothing but a skippable part": compressedForm(n, []byte{0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0}),
	} {
		if got, err := expandHeader(bad); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: got %d blocks, %v", name, len(got.Blocks), err)
		}
	}
	valid := compressedForm(n, frame)
	for cut := range valid {
		if _, err := expandHeader(valid[:cut]); !errors.Is(err, ErrDamaged) {
			t.Errorf("cut at %d of %d: got %v", cut, len(valid), err)
		}
	}
	// ParseHeader also reads the headers in index files, which are plain.
	if _, err := ParseHeader(valid); !errors.Is(err, ErrDamaged) {
		t.Errorf("ParseHeader of a compressed form: got %v", err)
	}
}

// packOf returns a pack with this header and blocks of zeros.
func packOf(t testing.TB, h Header) ([]byte, error) {
	t.Helper()
	b := NewBuilder(h.Kind, nil)
	for _, blk := range h.Blocks {
		b.Add(make([]byte, blk.Stored), blk)
	}
	file, got, err := b.Finish(sealer())
	if err == nil && !reflect.DeepEqual(got, h) {
		t.Fatalf("got %+v\nwant %+v", got, h)
	}
	return file, err
}

func TestFileWithCompressedHeader(t *testing.T) {
	t.Parallel()
	h := longHeader(100, true)
	file, err := packOf(t, h)
	if err != nil {
		t.Fatal(err)
	}
	n := int(binary.LittleEndian.Uint32(file[len(file)-trailerSize:]))
	if plain := len(h.Append(nil)) + crypto.Overhead; n > plain*7/10 {
		t.Errorf("a header of %d bytes, %d in its plain form", n, plain)
	}
	got, err := ReadHeader(bytes.NewReader(file), int64(len(file)), sealer())
	if err != nil || !reflect.DeepEqual(got, h) {
		t.Fatalf("got %+v, %v\nwant %+v", got, err, h)
	}
	for at := len(file) - n - trailerSize; at < len(file); at += 101 {
		bad := bytes.Clone(file)
		bad[at] ^= 1
		if _, err := ReadHeader(bytes.NewReader(bad), int64(len(bad)), sealer()); !errors.Is(err, ErrDamaged) {
			t.Errorf("byte %d changed: got %v", at, err)
		}
	}
}

// A header whose plain form exceeds the limit must not be written, even if its compressed
// form is short.
func TestPlainFormOfHeaderIsLimited(t *testing.T) {
	if testing.Short() {
		t.Skip("it writes the largest header; the test runs without -short")
	}
	t.Parallel()
	h := Header{Blocks: []Block{}}
	chunks := make([]Chunk, MaxBlockChunks)
	for i := range chunks {
		chunks[i] = Chunk{ID: chunk.ID{byte(i)}, Length: 1}
	}
	offset := uint32(len(magic))
	for len(h.Blocks)*len(chunks)*33 < MaxHeaderSize {
		h.Blocks = append(h.Blocks, Block{Offset: offset, Stored: 100, Encoding: Zstd, Chunks: chunks})
		offset += 100
	}
	if _, err := packOf(t, h); err == nil {
		t.Error("a header above the limit was written")
	}
	plain := h.Append(nil)
	if b := compressed(t, plain); len(b) > MaxHeaderSize/2 {
		t.Errorf("a compressed form of %d bytes is too long for this test", len(b))
	} else if _, err := expandHeader(b); !errors.Is(err, ErrDamaged) {
		t.Errorf("%d bytes of plain form: got %v", len(plain), err)
	}
	h.Blocks = h.Blocks[:len(h.Blocks)-1]
	file, err := packOf(t, h)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ReadHeader(bytes.NewReader(file), int64(len(file)), sealer()); err != nil {
		t.Error(err)
	}
}
