package index

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	mrand "math/rand/v2"
	"runtime"
	"runtime/debug"
	"slices"
	"testing"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/pack"
)

// history returns pack headers like those of a repository after years of backups and
// prunes. With deltas, the dictionary of most blocks is a run of mostly recent chunks.
func history(chunks int, deltas bool) []pack.Header {
	rng := mrand.New(mrand.NewPCG(1, 2))
	var all []chunk.ID
	var packs []pack.Header
	for len(all) < chunks {
		h := pack.Header{}
		for range min(256, 1+chunks/16) {
			b := pack.Block{Encoding: pack.Zstd, Stored: 50 + rng.Uint32N(64<<10)}
			if n := rng.IntN(24); deltas && n > 8 && n < len(all) {
				at := max(0, len(all)-n-rng.IntN(20_000))
				b.Encoding, b.Dict = pack.Delta, all[at:at+n]
			}
			for range 1 + rng.IntN(16) {
				all = append(all, id(uint32(len(all))))
				b.Chunks = append(b.Chunks, pack.Chunk{ID: all[len(all)-1], Length: 1 + rng.Uint32N(64<<10)})
			}
			h.Blocks = append(h.Blocks, b)
		}
		packs = append(packs, h)
	}
	return packs
}

// seal returns index files with perFile packs each, and the total length of their
// plain forms.
func seal(t testing.TB, sealer *crypto.Sealer, packs []pack.Header, perFile int) (files [][]byte, plain int) {
	t.Helper()
	f := &File{}
	for i := range packs {
		f.Add(packID(uint32(i)), 1<<24, &packs[i])
		if f.Len() < perFile && i+1 < len(packs) {
			continue
		}
		b, err := f.Seal(sealer)
		if err != nil {
			t.Fatal(err)
		}
		files, plain, f = append(files, b), plain+f.Size(), &File{}
	}
	return files, plain
}

func TestFileIsCompressedWhereIDsRepeat(t *testing.T) {
	t.Parallel()
	sealer := crypto.NewSealer(crypto.Key{1}, rand.Reader)
	large := 200_000
	if testing.Short() {
		large = 20_000
	}
	for _, tc := range []struct {
		name       string
		packs      []pack.Header
		compressed bool
	}{
		{"short", history(100, true)[:1], false},
		{"nothing repeats", history(3000, false), false},
		{"dictionaries", history(3000, true), true},
		{"copies", slices.Repeat(history(3000, false), 10), true},
		{"longer than a window", history(large, true), true},
	} {
		files, plain := seal(t, sealer, tc.packs, len(tc.packs))
		form, err := sealer.Open(nil, files[0][len(magic):], nil)
		if err != nil || len(files) != 1 {
			t.Fatal(len(files), err)
		}
		if isCompressed := form[0] != pack.PlainVersion; isCompressed != tc.compressed || isCompressed && len(form) > plain*2/3 {
			t.Errorf("%s: version %d, %d bytes for %d", tc.name, form[0], len(form), plain)
		}
		var got []pack.Header
		err = OpenFile(files[0], sealer, func(id pack.ID, size int64, h pack.Header) {
			if id != packID(uint32(len(got))) || size != 1<<24 {
				t.Errorf("%s: pack %s of %d bytes", tc.name, id, size)
			}
			got = append(got, h)
		})
		if err != nil || len(got) != len(tc.packs) {
			t.Fatalf("%s: %d packs, want %d; %v", tc.name, len(got), len(tc.packs), err)
		}
		for i, h := range got {
			if !bytes.Equal(h.Append(nil), tc.packs[i].Append(nil)) {
				t.Errorf("%s: pack %d differs", tc.name, i)
			}
		}
	}
}

// plainFile returns the plain form of an index file of one pack with this header.
func plainFile(header []byte) []byte {
	b := append([]byte{pack.PlainVersion, 1}, make([]byte, 32)...)
	b = append(b, 100)
	b = binary.AppendUvarint(b, uint64(len(header)))
	return append(b, header...)
}

func compressed(t testing.TB, plain []byte) []byte {
	t.Helper()
	b, err := pack.Compress(plain)
	if err != nil || bytes.Equal(b, plain) {
		t.Fatalf("%d bytes do not shrink: %v", len(plain), err)
	}
	return b
}

func TestDamagedForms(t *testing.T) {
	t.Parallel()
	header := history(3000, true)[1].Append(nil)
	plain := plainFile(header)
	for name, good := range map[string][]byte{"plain": plain, "compressed": compressed(t, plain)} {
		packs := 0
		if err := expand(good, func(pack.ID, int64, pack.Header) { packs++ }); err != nil || packs != 1 {
			t.Errorf("%s: %d packs, %v", name, packs, err)
		}
	}
	valid := compressed(t, plain)
	n, used := binary.Uvarint(valid[1:])
	frame := valid[1+used:]
	form := func(length uint64, frame []byte) []byte {
		return append(binary.AppendUvarint(valid[:1:1], length), frame...)
	}
	zeros := compressed(t, make([]byte, 1<<20))
	for name, bad := range map[string][]byte{
		"nothing":                                  {},
		"another version":                          append([]byte{3}, plain[1:]...),
		"a compressed header in a plain file":      plainFile(compressed(t, header)),
		"a compressed header in a compressed file": compressed(t, slices.Concat(plainFile(compressed(t, header)), make([]byte, 8000))),
		"a compressed header alone":                compressed(t, header),
		"a byte more than declared":                form(n-1, frame),
		"a byte less than declared":                form(n+1, frame),
		"longer than an index file may be":         form(MaxFileSize+1, make([]byte, 10_000)),
		"longer than a frame can hold":             form(MaxFileSize, frame[:1000]),
		"a byte left over":                         compressed(t, append(bytes.Clone(plain), 0)),
		"more packs than there are":                compressed(t, append([]byte{1, 2}, plain[2:]...)),
		"zeros":                                    zeros,
		"cut off":                                  valid[:len(valid)-1],
		"bytes at the end":                         append(bytes.Clone(valid), 1),
	} {
		err := expand(bad, func(pack.ID, int64, pack.Header) { t.Errorf("%s: a pack was read from it", name) })
		if !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// TestLargeFile reads a file whose headers are too many to be held in memory at once. No
// pack of it is added if a later one is damaged.
func TestLargeFile(t *testing.T) {
	t.Parallel()
	headers := history(40_000, true)
	var file File
	for i := range headers {
		file.Add(packID(uint32(i)), 100, &headers[i])
	}
	if file.Size() <= listAtOnce {
		t.Fatalf("only %d bytes", file.Size())
	}
	plain := append(binary.AppendUvarint([]byte{pack.PlainVersion}, uint64(file.Len())), file.packs...)
	for name, good := range map[string][]byte{"plain": plain, "compressed": compressed(t, plain)} {
		i := 0
		err := expand(good, func(id pack.ID, size int64, h pack.Header) {
			if id != packID(uint32(i)) || size != 100 || !bytes.Equal(h.Append(nil), headers[i].Append(nil)) {
				t.Errorf("%s: pack %d differs", name, i)
			}
			i++
		})
		if err != nil || i != len(headers) {
			t.Errorf("%s: %d of %d packs, %v", name, i, len(headers), err)
		}
		for _, bad := range [][]byte{good[:len(good)-1], append(bytes.Clone(good), 0)} {
			err := expand(bad, func(pack.ID, int64, pack.Header) { t.Errorf("%s: a pack was read from a damaged file", name) })
			if !errors.Is(err, ErrDamaged) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// TestLargeFileTakesLittleMemory reads a file of less than a MB that expands to 64 MB.
func TestLargeFileTakesLittleMemory(t *testing.T) {
	var one File
	h := pack.Header{Blocks: []pack.Block{{Stored: 50, Encoding: pack.Zstd, Chunks: []pack.Chunk{{ID: id(1), Length: 5}}}}}
	one.Add(packID(1), 100, &h)
	n := (64 << 20) / len(one.packs)
	if testing.Short() {
		n /= 4
	}
	bomb := compressed(t, append(binary.AppendUvarint([]byte{pack.PlainVersion}, uint64(n)), bytes.Repeat(one.packs, n)...))
	debug.FreeOSMemory()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	most, packs := uint64(0), 0
	err := expand(bomb, func(pack.ID, int64, pack.Header) {
		if packs++; packs%(n/4) == 1 {
			runtime.GC()
			runtime.ReadMemStats(&after)
			most = max(most, after.HeapAlloc)
		}
	})
	if err != nil || packs != n || most > before.HeapAlloc+(16<<20) {
		t.Errorf("%d of %d packs from %d bytes, %d bytes in memory, %v", packs, n, len(bomb), int64(most)-int64(before.HeapAlloc), err)
	}
}

// FuzzParse reads both forms of index files.
func FuzzParse(f *testing.F) {
	var file File
	h := pack.Header{Blocks: []pack.Block{{Stored: 50, Encoding: pack.Zstd, Chunks: []pack.Chunk{{ID: id(1), Length: 5}}}}}
	file.Add(packID(1), 100, &h)
	f.Add(append([]byte{pack.PlainVersion, 1}, file.packs...))
	header := history(400, true)[1].Append(nil)
	f.Add(compressed(f, plainFile(header)))
	f.Add(plainFile(compressed(f, header)))
	f.Add(compressed(f, make([]byte, 1<<20)))
	f.Fuzz(func(t *testing.T, b []byte) {
		x := New()
		if err := expand(b, x.Add); err != nil && !errors.Is(err, ErrDamaged) {
			t.Fatalf("untyped error %v", err)
		}
	})
}

// BenchmarkLoad loads an index of a million chunks. It also hashes each file, as a
// repository does to compare the hash with the file's name.
func BenchmarkLoad(b *testing.B) {
	sealer := crypto.NewSealer(crypto.Key{1}, rand.Reader)
	for name, deltas := range map[string]bool{"full": false, "deltas": true} {
		files, plain := seal(b, sealer, history(1_000_000, deltas), 64)
		size := 0
		for _, f := range files {
			size += len(f)
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				x := New()
				for _, f := range files {
					pack.Name(f)
					if err := OpenFile(f, sealer, x.Add); err != nil {
						b.Fatal(err)
					}
				}
				x.Compact()
			}
			b.ReportMetric(float64(size)/1e6, "MB")
			b.ReportMetric(float64(plain)/1e6, "plainMB")
		})
	}
}

// BenchmarkSeal writes index files of a million chunks.
func BenchmarkSeal(b *testing.B) {
	sealer := crypto.NewSealer(crypto.Key{1}, rand.Reader)
	packs := history(1_000_000, true)
	b.ReportAllocs()
	for b.Loop() {
		seal(b, sealer, packs, 64)
	}
}
