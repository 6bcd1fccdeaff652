package repotest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/crypto/blake"
	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
)

// MasterKey reads the master key of a repository from its key slots.
func MasterKey(t testing.TB, be backend.Backend, secret []byte) crypto.Key {
	t.Helper()
	for _, name := range FilesIn(t, be, KeysDir) {
		b, err := backend.ReadAll(context.Background(), be, name, crypto.MaxSlotSize)
		if err != nil {
			t.Fatal(err)
		}
		s, err := crypto.ParseSlot(b)
		if err != nil {
			continue
		}
		if key, err := s.Open(secret); err == nil {
			return key
		}
	}
	t.Fatal("no key slot opens")
	return crypto.Key{}
}

// Sealer returns a sealer with the repository's key for a purpose.
func Sealer(t testing.TB, be backend.Backend, purpose crypto.Purpose) *crypto.Sealer {
	t.Helper()
	return crypto.NewSealer(MasterKey(t, be, Secret).Derive(purpose), rand.Reader)
}

// PutNamed stores a file under the hash of its bytes and returns its ID.
func PutNamed(t testing.TB, be backend.Backend, dir string, b []byte) repo.FileID {
	t.Helper()
	id := repo.FileID(blake.Sum(b))
	if err := be.Put(context.Background(), dir+id.String(), b); err != nil && !errors.Is(err, backend.ErrExist) {
		t.Fatal(err)
	}
	return id
}

// Header returns the header of a pack according to an index.
func Header(x *index.Index, p index.Pack) pack.Header {
	h := pack.Header{Kind: p.Kind}
	for _, ref := range p.Blocks {
		_, b := x.Block(ref)
		h.Blocks = append(h.Blocks, b)
	}
	return h
}

// ReplaceIndex replaces all index files by one. change, if not nil, is called with
// the header of each pack and may change it.
func ReplaceIndex(t testing.TB, be backend.Backend, change func(*pack.Header)) {
	t.Helper()
	x := MustOpen(t, be).Index()
	old, f := FilesIn(t, be, IndexDir), &index.File{}
	for _, p := range x.Packs() {
		h := Header(x, p)
		if change != nil {
			change(&h)
		}
		f.Add(p.ID, p.Size, &h)
	}
	b, err := f.Seal(Sealer(t, be, crypto.ForIndexes))
	if err != nil {
		t.Fatal(err)
	}
	PutNamed(t, be, IndexDir, b)
	Remove(t, be, old...)
}

// A Block is a block made by hand.
type Block struct {
	Encoding pack.Encoding
	Dict     []chunk.ID
	With     []byte // the dictionary's bytes
	Chunks   [][]byte
	Named    []byte // if not nil, each chunk has the ID of these bytes, not its own
}

// Delta returns a block with the chunk plain. Its dictionary is the chunks dict.
func Delta(r *repo.Repo, plain []byte, dict ...[]byte) Block {
	b := Block{Encoding: pack.Delta, Chunks: [][]byte{plain}, With: bytes.Join(dict, nil)}
	for _, d := range dict {
		b.Dict = append(b.Dict, r.NewHasher().ID(d))
	}
	return b
}

// Raw returns a block with one chunk, without compression.
func Raw(plain []byte) Block { return Block{Chunks: [][]byte{plain}} }

// seal encodes and seals the block.
func (b *Block) seal(r *repo.Repo, sealer *crypto.Sealer, level zstd.EncoderLevel) ([]byte, pack.Block, error) {
	body := bytes.Join(b.Chunks, nil)
	blk := pack.Block{Encoding: b.Encoding, Dict: b.Dict}
	for _, c := range b.Chunks {
		id := r.NewHasher().ID(c)
		if b.Named != nil {
			id = r.NewHasher().ID(b.Named)
		}
		blk.Chunks = append(blk.Chunks, pack.Chunk{ID: id, Length: uint32(len(c))})
	}
	if len(b.With) > 1<<20 {
		level = zstd.SpeedBestCompression // lower levels ignore the beginning of a long dictionary
	}
	if b.Encoding != pack.Raw {
		opts := []zstd.EOption{zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false), zstd.WithEncoderLevel(level)}
		if b.Encoding == pack.Delta {
			opts = append(opts, zstd.WithEncoderDictRaw(0, b.With))
		}
		enc, err := zstd.NewWriter(nil, opts...)
		if err != nil {
			return nil, blk, err
		}
		body = enc.EncodeAll(body, nil)
	}
	sealed, err := sealer.Seal(nil, body, nil)
	return sealed, blk, err
}

// PutPack stores a pack made by hand and an index file that lists it, and
// returns the pack's name.
func PutPack(t testing.TB, r *repo.Repo, be backend.Backend, kind pack.Kind, blocks ...Block) string {
	t.Helper()
	return putPack(t, r, be, MasterKey(t, be, Secret), rand.Reader, zstd.SpeedDefault, kind, blocks)
}

// PutRepeatablePack is PutPack for golden repositories: with the same master key
// and the same bytes from rand it stores the same pack.
func PutRepeatablePack(t testing.TB, r *repo.Repo, be backend.Backend, master crypto.Key, rand io.Reader, kind pack.Kind, blocks ...Block) string {
	t.Helper()
	// The golden repositories were made with this level, which is slow.
	return putPack(t, r, be, master, rand, zstd.SpeedBestCompression, kind, blocks)
}

func putPack(t testing.TB, r *repo.Repo, be backend.Backend, master crypto.Key, rand io.Reader, level zstd.EncoderLevel, kind pack.Kind, blocks []Block) string {
	t.Helper()
	sealer := crypto.NewSealer(master.Derive(crypto.ForBlocks), rand)
	builder := pack.NewBuilder(kind, nil)
	for _, b := range blocks {
		sealed, blk, err := b.seal(r, sealer, level)
		if err != nil {
			t.Fatal(err)
		}
		builder.Add(sealed, blk)
	}
	file, h, err := builder.Finish(crypto.NewSealer(master.Derive(crypto.ForPacks), rand))
	if err != nil {
		t.Fatal(err)
	}
	name := PackName(pack.Name(file))
	if err := be.Put(context.Background(), name, file); err != nil {
		t.Fatal(err)
	}
	var f index.File
	f.Add(pack.Name(file), int64(len(file)), &h)
	b, err := f.Seal(crypto.NewSealer(master.Derive(crypto.ForIndexes), rand))
	if err != nil {
		t.Fatal(err)
	}
	PutNamed(t, be, IndexDir, b)
	return name
}
