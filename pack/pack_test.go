package pack

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/crypto"
	"pgregory.net/rapid"
)

var testKey = crypto.Key{1, 2, 3}

func sealer() *crypto.Sealer { return crypto.NewSealer(testKey, rand.Reader) }

func id(n byte) chunk.ID { return chunk.ID{n} }

func genBlock(t *rapid.T) Block {
	b := Block{Encoding: Encoding(rapid.IntRange(0, numEncodings-1).Draw(t, "encoding"))}
	size := uint32(0)
	for range rapid.IntRange(1, 20).Draw(t, "chunks") {
		c := Chunk{ID: id(rapid.Byte().Draw(t, "id")), Length: rapid.Uint32Range(1, 1<<18).Draw(t, "length")}
		size += c.Length
		b.Chunks = append(b.Chunks, c)
	}
	b.Stored = rapid.Uint32Range(crypto.Overhead+1, size+crypto.Overhead+1).Draw(t, "stored")
	if b.Encoding == Raw {
		b.Stored = size + crypto.Overhead
	}
	if b.Encoding == Delta {
		for range rapid.IntRange(1, 5).Draw(t, "dict") {
			b.Dict = append(b.Dict, id(rapid.Byte().Draw(t, "dict id")))
		}
	}
	return b
}

func TestHeaderRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		h := Header{Kind: Kind(rapid.IntRange(0, 1).Draw(t, "kind")), Blocks: []Block{}}
		offset := uint32(len(magic))
		for range rapid.IntRange(0, 10).Draw(t, "blocks") {
			b := genBlock(t)
			b.Offset = offset
			offset += b.Stored
			h.Blocks = append(h.Blocks, b)
		}
		got, err := ParseHeader(h.Append(nil))
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, h) {
			t.Fatalf("got %+v\nwant %+v", got, h)
		}
	})
}

func TestHeaderLimits(t *testing.T) {
	t.Parallel()
	one := []Chunk{{ID: id(1), Length: 100}}
	many := make([]Chunk, MaxBlockChunks+1)
	for i := range many {
		many[i] = Chunk{ID: id(2), Length: 1}
	}
	for name, b := range map[string]Block{
		"no chunks":         {Encoding: Zstd, Stored: 100},
		"empty chunk":       {Encoding: Zstd, Stored: 100, Chunks: []Chunk{{ID: id(1)}}},
		"too many chunks":   {Encoding: Zstd, Stored: 100, Chunks: many},
		"huge chunk":        {Encoding: Zstd, Stored: 100, Chunks: []Chunk{{ID: id(1), Length: MaxBlockSize + 1}}},
		"huge block":        {Encoding: Zstd, Stored: 100, Chunks: []Chunk{{ID: id(1), Length: MaxBlockSize}, {ID: id(2), Length: 1}}},
		"unknown encoding":  {Encoding: 7, Stored: 100, Chunks: one},
		"stored in nothing": {Encoding: Zstd, Stored: crypto.Overhead, Chunks: one},
		"stored in a lot":   {Encoding: Zstd, Stored: MaxBlockSize + maxExpansion + 1, Chunks: one},
		"raw, wrong length": {Encoding: Raw, Stored: 99 + crypto.Overhead, Chunks: one},
		"delta of nothing":  {Encoding: Delta, Stored: 100, Chunks: one},
		"delta of too much": {Encoding: Delta, Stored: 100, Chunks: one, Dict: make([]chunk.ID, MaxDictChunks+1)},
	} {
		h := Header{Blocks: []Block{b}}
		if _, err := ParseHeader(h.Append(nil)); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	valid := (&Header{Blocks: []Block{{Encoding: Raw, Stored: 100 + crypto.Overhead, Chunks: one}}}).Append(nil)
	for n := range valid {
		if _, err := ParseHeader(valid[:n]); !errors.Is(err, ErrDamaged) {
			t.Errorf("cut at %d of %d: got %v", n, len(valid), err)
		}
	}
	if _, err := ParseHeader(append(valid, 0)); !errors.Is(err, ErrDamaged) {
		t.Errorf("a byte too many: got %v", err)
	}
}

func TestCodecRoundTrip(t *testing.T) {
	t.Parallel()
	text := []byte(strings.Repeat("messages, photos, health. ", 4000))
	noise := make([]byte, 100_000)
	rand.Read(noise)
	c := NewCodec(sealer())
	for _, tc := range []struct {
		name string
		data []byte
		want Encoding
	}{{"text", text, Zstd}, {"noise", noise, Raw}, {"one byte", []byte{7}, Raw}} {
		sealed, enc, err := c.Encode(nil, tc.data)
		if err != nil || enc != tc.want {
			t.Fatalf("%s: %v, %v", tc.name, enc, err)
		}
		b := &Block{Encoding: enc, Stored: uint32(len(sealed)), Chunks: []Chunk{{Length: uint32(len(tc.data))}}}
		got, err := c.Decode(nil, sealed, b, nil)
		if err != nil || !bytes.Equal(got, tc.data) {
			t.Fatalf("%s: %v", tc.name, err)
		}
		// A frame whose length differs from the length in the header is refused.
		for _, off := range []int{-1, 1} {
			lying := &Block{Encoding: enc, Stored: b.Stored, Chunks: []Chunk{{Length: uint32(len(tc.data) + off)}}}
			if _, err := c.Decode(nil, sealed, lying, nil); !errors.Is(err, ErrDamaged) {
				t.Errorf("%s, length off by %d: got %v", tc.name, off, err)
			}
		}
		for i := 0; i < len(sealed); i += 1 + len(sealed)/50 {
			bad := bytes.Clone(sealed)
			bad[i] ^= 0x10
			if _, err := c.Decode(nil, bad, b, nil); !errors.Is(err, ErrDamaged) {
				t.Errorf("%s, byte %d changed: got %v", tc.name, i, err)
			}
		}
	}
}

// TestDeltaDecodes checks the format of deltas: a zstd frame without a dictionary ID, with
// the dictionary's bytes as raw content.
func TestDeltaDecodes(t *testing.T) {
	t.Parallel()
	dict := make([]byte, 300_000)
	rand.Read(dict)
	data := bytes.Clone(dict[1000:250_000])
	copy(data[5000:], "a small change")
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderDictRaw(0, dict), zstd.WithEncoderLevel(zstd.SpeedBetterCompression), zstd.WithEncoderCRC(false))
	if err != nil {
		t.Fatal(err)
	}
	frame := enc.EncodeAll(data, nil)
	if len(frame) > len(data)/10 {
		t.Fatalf("the dictionary did not help: %d bytes for %d", len(frame), len(data))
	}
	sealed, err := sealer().Seal(nil, frame, nil)
	if err != nil {
		t.Fatal(err)
	}
	b := &Block{Encoding: Delta, Stored: uint32(len(sealed)), Dict: []chunk.ID{id(1)}, Chunks: []Chunk{{Length: uint32(len(data))}}}
	c := NewCodec(sealer())
	got, err := c.Decode(nil, sealed, b, dict)
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	for name, wrong := range map[string][]byte{"none": nil, "too long": make([]byte, MaxDictSize+1)} {
		if _, err := c.Decode(nil, sealed, b, wrong); !errors.Is(err, ErrDamaged) {
			t.Errorf("dictionary %s: got %v", name, err)
		}
	}
}

func testPack(t testing.TB) ([]byte, Header) {
	t.Helper()
	c := NewCodec(sealer())
	b := NewBuilder(Metadata, make([]byte, 1000))
	for i := range 5 {
		data := []byte(strings.Repeat(string('a'+rune(i)), 500*(i+1)))
		sealed, enc, err := c.Encode(nil, data)
		if err != nil {
			t.Fatal(err)
		}
		b.Add(sealed, Block{Encoding: enc, Chunks: []Chunk{{ID: id(byte(i)), Length: uint32(len(data))}}})
	}
	file, h, err := b.Finish(sealer())
	if err != nil {
		t.Fatal(err)
	}
	return file, h
}

func TestBuilderUsesTheBuffer(t *testing.T) {
	t.Parallel()
	buf := bytes.Repeat([]byte{'x'}, 5000)
	for _, size := range []int{100, 1000, 6000} { // the last pack needs a larger buffer
		b := NewBuilder(Content, buf)
		b.Add(make([]byte, size), Block{Chunks: []Chunk{{ID: id(1), Length: uint32(size - crypto.Overhead)}}})
		file, h, err := b.Finish(sealer())
		if err != nil {
			t.Fatal(err)
		}
		if inside := &file[0] == &buf[0]; inside != (size < 5000) {
			t.Errorf("%d bytes are built in the buffer: %v", size, inside)
		}
		if got, err := ReadHeader(bytes.NewReader(file), int64(len(file)), sealer()); err != nil || !reflect.DeepEqual(got, h) {
			t.Errorf("%d bytes: %+v, %v", size, got, err)
		}
	}
}

func TestFileRoundTrip(t *testing.T) {
	t.Parallel()
	file, want := testPack(t)
	got, err := ReadHeader(bytes.NewReader(file), int64(len(file)), sealer())
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("got %+v, %v\nwant %+v", got, err, want)
	}
	c := NewCodec(sealer())
	for i := range got.Blocks {
		b := &got.Blocks[i]
		data, err := c.Decode(nil, file[b.Offset:b.Offset+b.Stored], b, nil)
		if err != nil || data[0] != 'a'+byte(i) {
			t.Errorf("block %d: %v", i, err)
		}
	}
}

func TestDamagedFileIsRefused(t *testing.T) {
	t.Parallel()
	file, _ := testPack(t)
	for n := range file {
		if _, err := ReadHeader(bytes.NewReader(file[:n]), int64(n), sealer()); !errors.Is(err, ErrDamaged) {
			t.Errorf("cut at %d: got %v", n, err)
		}
	}
	name := Name(file)
	for i := range file {
		bad := bytes.Clone(file)
		bad[i] ^= 1
		if Name(bad) == name {
			t.Errorf("byte %d changed, but the name did not", i)
		}
	}
	wrong := crypto.NewSealer(crypto.Key{9}, rand.Reader)
	if _, err := ReadHeader(bytes.NewReader(file), int64(len(file)), wrong); !errors.Is(err, ErrDamaged) {
		t.Errorf("wrong key: got %v", err)
	}
}

// FuzzParseHeader reads both forms of headers.
func FuzzParseHeader(f *testing.F) {
	file, h := testPack(f)
	f.Add(h.Append(nil))
	f.Add(file)
	h.Blocks[1].Encoding, h.Blocks[1].Dict = Delta, []chunk.ID{id(3), id(4)}
	f.Add(h.Append(nil))
	f.Add(compressedForm(uint64(len(h.Append(nil))-1), frameOf(f, h.Append(nil)[1:])))
	long := longHeader(40, true)
	f.Add(compressed(f, long.Append(nil)))
	f.Add(compressedForm(1<<20, frameOf(f, make([]byte, 1<<20))))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := expandHeader(b)
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		again, err := expandHeader(compressed(t, h.Append(nil)))
		if err != nil || !reflect.DeepEqual(h, again) {
			t.Fatalf("%+v was read as %+v, %v", h, again, err)
		}
	})
}

func FuzzReadFile(f *testing.F) {
	file, _ := testPack(f)
	f.Add(file)
	long, err := packOf(f, longHeader(40, true))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(long)
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ReadHeader(bytes.NewReader(b), int64(len(b)), sealer())
		if err != nil {
			return
		}
		c := NewCodec(sealer())
		for i := range h.Blocks {
			blk := &h.Blocks[i]
			_, _ = c.Decode(nil, b[blk.Offset:blk.Offset+blk.Stored], blk, nil)
		}
	})
}

// TestDeltaRoundTrip uses several dictionaries with one codec. Each delta must depend
// only on its own dictionary.
func TestDeltaRoundTrip(t *testing.T) {
	t.Parallel()
	c, fresh := NewCodec(sealer()), func() *Codec { return NewCodec(sealer()) }
	base := make([]byte, 2<<20)
	rand.Read(base)
	for i, size := range []int{1, 100, 5000, 300_000, 1 << 20, 10, 2 << 20} {
		dict := bytes.Clone(base[i*1000 : min(len(base), i*1000+size)])
		data := append(bytes.Clone(dict), fmt.Appendf(nil, "and something new, number %d", i)...)
		data = data[:min(len(data), MaxBlockSize)]
		frame, err := c.CompressDelta(data, dict)
		if err != nil {
			t.Fatal(err)
		}
		if want, _ := fresh().CompressDelta(data, dict); !bytes.Equal(frame, want) {
			t.Errorf("%d bytes: a used codec returns %d bytes, a new one %d", size, len(frame), len(want))
		}
		if size >= 5000 && len(frame) > len(data)/10 {
			t.Errorf("%d bytes: a delta of %d bytes", size, len(frame))
		}
		sealed, err := c.SealFrame(nil, frame)
		if err != nil {
			t.Fatal(err)
		}
		b := &Block{Encoding: Delta, Stored: uint32(len(sealed)), Dict: []chunk.ID{id(1)}, Chunks: []Chunk{{Length: uint32(len(data))}}}
		if got, err := c.Decode(nil, sealed, b, dict); err != nil || !bytes.Equal(got, data) {
			t.Fatalf("%d bytes: %v", size, err)
		}
	}
	if _, err := c.CompressDelta([]byte("x"), nil); err == nil {
		t.Error("a delta without a dictionary")
	}
}

// The bytes of samples tell text from noise. For noise of few values, which shrinks as
// well, they tell, too.
func TestUnevenBytes(t *testing.T) {
	t.Parallel()
	noise := make([]byte, probeCount*probeSize)
	if _, err := rand.Read(noise); err != nil {
		t.Fatal(err)
	}
	few := bytes.Clone(noise)
	for i := range few {
		few[i] &= 0x3f
	}
	rising := make([]byte, len(noise)) // shrinks, but only because it repeats itself
	for i := range rising {
		rising[i] = byte(i)
	}
	for name, test := range map[string]struct {
		samples []byte
		want    bool
	}{
		"noise": {noise, false}, "rising": {rising, false},
		"zeros": {make([]byte, len(noise)), true}, "few values": {few, true},
		"half noise, half zeros": {append(noise[:len(noise)/2:len(noise)/2], make([]byte, len(noise)/2)...), true},
	} {
		if got := uneven(test.samples); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// A window does not matter for blocks that fit into it, and long blocks have one that they
// fit into.
func TestWindows(t *testing.T) {
	t.Parallel()
	whole, err := newEncoder(zstd.SpeedDefault)
	if err != nil {
		t.Fatal(err)
	}
	words := make([]byte, 1<<10)
	if _, err := rand.Read(words); err != nil {
		t.Fatal(err)
	}
	var part []byte
	for i := range uint32(smallWindow / 16) {
		at := i * 2654435761 >> 22 // of 1 KiB
		part = append(part, words[at&^7:][:8]...)
	}
	c := NewCodec(sealer())
	for _, size := range []int{5000, 300 << 10, smallWindow, smallWindow + 1, 3 * smallWindow} {
		plain := bytes.Repeat(part, 6)[:size]
		sealed, enc, err := c.Encode(nil, plain)
		if err != nil || enc != Zstd {
			t.Fatalf("%d bytes: %v, %v", size, enc, err)
		}
		frame, err := sealer().Open(nil, sealed, nil)
		if err != nil || !bytes.Equal(frame, whole.EncodeAll(plain, nil)) {
			t.Errorf("%d bytes: a frame of %d bytes, %v; with the largest window it has %d", size, len(frame), err, len(whole.EncodeAll(plain, nil)))
		}
	}
}

// Content is compressed if any of its samples shrinks.
func TestProbe(t *testing.T) {
	t.Parallel()
	c := NewCodec(sealer())
	noise := make([]byte, 1<<20)
	if _, err := rand.Read(noise); err != nil {
		t.Fatal(err)
	}
	rising := make([]byte, 1<<20) // every byte is equally frequent
	for i := range rising {
		rising[i] = byte(i)
	}
	for name, test := range map[string]struct {
		plain []byte
		want  Encoding
	}{
		"noise":              {noise, Raw},
		"zeros":              {make([]byte, 1<<20), Zstd},
		"text in its middle": {slices.Concat(noise[:400<<10], bytes.Repeat([]byte("text "), 60<<10), noise[:300<<10]), Zstd},
		"short noise":        {noise[:1000], Raw},
		"rising bytes":       {rising, Zstd},
	} {
		sealed, got, err := c.Encode(nil, test.plain)
		if err != nil || got != test.want {
			t.Errorf("%s: %v, %d bytes, %v", name, got, len(sealed), err)
		}
	}
}
