package repo_test

// This file is a reader of repositories. It was written from docs/format.md
// alone and uses no code of this project. It proves that the document is
// complete, and that the code follows it. Numbers in comments are sections of
// the document. For clarity it panics where a real reader would return an
// error. The test then fails.

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/chacha20poly1305"
	"lukechampine.com/blake3"
)

func try[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func insist(ok bool, what string, args ...any) {
	if !ok {
		panic(fmt.Sprintf(what, args...))
	}
}

// unseal is the inverse of Seal (3).
func unseal(key, sealed []byte, ad string) ([]byte, error) {
	if len(sealed) < 40 {
		return nil, fmt.Errorf("%d bytes", len(sealed))
	}
	return try(chacha20poly1305.NewX(key)).Open(nil, sealed[:24], sealed[24:], []byte(ad))
}

// input reads values from the front of bytes (2).
type input struct{ b []byte }

func (in *input) take(n int) []byte {
	insist(n >= 0 && n <= len(in.b), "ends early")
	out := in.b[:n]
	in.b = in.b[n:]
	return out
}

func (in *input) byte() byte { return in.take(1)[0] }
func (in *input) id() string { return string(in.take(32)) }
func (in *input) u64() uint64 {
	return binary.LittleEndian.Uint64(in.take(8))
}
func (in *input) uvarint() int {
	v := uint64(0)
	for shift := 0; ; shift += 7 {
		b := in.byte()
		v |= uint64(b&0x7f) << shift
		if b < 0x80 {
			insist(v < 1<<62, "number too large")
			return int(v)
		}
	}
}
func (in *input) varint() int {
	v := in.uvarint()
	return v>>1 ^ -(v & 1)
}
func (in *input) string() string { return string(in.take(in.uvarint())) }
func (in *input) ids(limit int) (ids []string) {
	n := in.uvarint()
	insist(n <= limit, "%d IDs", n)
	for range n {
		ids = append(ids, in.id())
	}
	return ids
}
func (in *input) end() { insist(len(in.b) == 0, "%d bytes left over", len(in.b)) }

// plainForm expands the compressed form of a header or an index file (9, 10).
func plainForm(b []byte, limit int) []byte {
	in := &input{b}
	if in.byte() != 2 {
		return b
	}
	n := in.uvarint()
	insist(n <= limit && n <= len(in.b)*32768, "plain form of %d bytes", n)
	dec := try(zstd.NewReader(nil, zstd.WithDecoderMaxWindow(8<<20), zstd.WithDecoderConcurrency(1)))
	defer dec.Close()
	out := try(dec.DecodeAll(in.b, []byte{1}))
	insist(len(out) == 1+n, "plain form of %d bytes, want %d", len(out)-1, n)
	return out
}

// block is a block's description and where it is (9).
type block struct {
	pack           string
	offset, stored int
	encoding       byte
	dict           []string
	chunks         []string
	lengths        []int
	plain          []byte // plaintext; nil until the block is decoded
	depth          int    // the block's depth (7), set with plain
}

func parseHeader(b []byte, pack string) (blocks []block) {
	in := &input{b}
	insist(in.byte() == 1, "header version")
	insist(in.byte() <= 1, "kind")
	offset := 8
	for range in.uvarint() {
		blk := block{pack: pack, offset: offset, encoding: in.byte(), stored: in.uvarint()}
		insist(blk.encoding <= 2, "encoding")
		if blk.encoding == 2 {
			blk.dict = in.ids(256)
		}
		for range in.uvarint() {
			blk.chunks = append(blk.chunks, in.id())
			blk.lengths = append(blk.lengths, in.uvarint())
		}
		offset += blk.stored
		blocks = append(blocks, blk)
	}
	in.end()
	return blocks
}

// place is the location of a chunk: its block, and its position in it.
type place struct {
	block *block
	at    int
}

type reader struct {
	dir    string
	master []byte
	slots  map[string][]byte // slot keys by name of file
	infos  map[string][]byte // opened info of slots
	places map[string]place
	plain  map[string]string // plain forms of index files, by name of file
	forms  map[string]byte   // versions of index files and pack headers, by name of file
}

func (r *reader) key(purpose string) []byte {
	out := make([]byte, 32)
	blake3.DeriveKey(out, purpose, r.master)
	return out
}

func (r *reader) file(name string) []byte {
	return try(os.ReadFile(r.path(name)))
}

func (r *reader) path(name string) string { return filepath.Join(r.dir, filepath.FromSlash(name)) }

// readNamed reads a file whose name is its hash, and removes its magic (1).
func (r *reader) readNamed(name, magic string) []byte {
	b := r.file(name)
	insist(hash(b) == path.Base(name), "%s has other bytes than its name says", name)
	insist(strings.HasPrefix(string(b), magic), "%s: magic", name)
	return b[len(magic):]
}

func (r *reader) list(folder string) (names []string) {
	for _, e := range try(os.ReadDir(filepath.Join(r.dir, folder))) {
		names = append(names, folder+"/"+e.Name())
	}
	return names
}

func hash(b []byte) string {
	sum := blake3.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// open opens a repository: steps 1 to 4 of section 14.
func open(dir, secret string) *reader {
	r := &reader{dir: dir, slots: map[string][]byte{}, infos: map[string][]byte{}, places: map[string]place{}, plain: map[string]string{}, forms: map[string]byte{}}
	var config struct {
		Format   int
		Features []string
		Sealed   []byte
	}
	if err := json.Unmarshal(r.file("config"), &config); err != nil {
		panic(err)
	}
	insist(config.Format == 1 && len(config.Features) == 0, "config: %+v", config)
	for _, name := range r.list("keys") {
		var slot struct {
			Version      int
			KDF          string
			Time         uint32
			Memory       uint32 `json:"memory_kib"`
			Threads      uint8
			Salt, Master []byte
			Info         []byte
		}
		if err := json.Unmarshal(r.readNamed(name, ""), &slot); err != nil {
			panic(err)
		}
		insist((slot.Version == 1 || slot.Version == 2) && slot.KDF == "argon2id", "%s: version", name)
		key := argon2.IDKey([]byte(secret), slot.Salt, slot.Time, slot.Memory, slot.Threads, 32)
		if master, err := unseal(key, slot.Master, fmt.Sprintf("snap v%d key slot master", slot.Version)); err == nil {
			r.master = master
			r.slots[name] = key
			ad := []byte("snap v1 key slot info")
			if slot.Version == 2 {
				ad = binary.LittleEndian.AppendUint32([]byte("snap v2 key slot info"), slot.Time)
				ad = binary.LittleEndian.AppendUint32(ad, slot.Memory)
				ad = slices.Concat(ad, []byte{slot.Threads, byte(len(slot.Salt))}, slot.Salt, slot.Master)
			}
			r.infos[name] = try(unseal(r.key("snap v1 key slot info"), slot.Info, string(ad)))
		}
	}
	insist(r.master != nil, "wrong password")
	try(unseal(r.key("snap v1 config"), config.Sealed, "snap config 1 "))
	for _, name := range r.list("index") {
		form := try(unseal(r.key("snap v1 index"), r.readNamed(name, "snapix01"), ""))
		plain := plainForm(form, 256<<20)
		r.plain[name], r.forms[name] = string(plain), form[0]
		in := &input{plain}
		insist(in.byte() == 1, "index version")
		for range in.uvarint() {
			id := hex.EncodeToString(in.take(32))
			pack := "packs/" + id[:2] + "/" + id
			size := in.uvarint()
			header := in.take(in.uvarint())
			insist(size == len(r.file(pack)), "%s: length", pack)
			insist(bytes.Equal(header, r.header(pack)), "%s: index and header differ", pack)
			r.add(parseHeader(header, pack))
		}
		in.end()
	}
	return r
}

// header reads a pack's own header and returns its plain form (8, 9).
func (r *reader) header(pack string) []byte {
	file := r.readNamed(pack, "")
	insist(string(file[:8]) == "snappk01", "%s: magic", pack)
	end := len(file) - 4
	n := int(binary.LittleEndian.Uint32(file[end:]))
	form := try(unseal(r.key("snap v1 pack header"), file[end-n:end], ""))
	r.forms[pack] = form[0]
	return plainForm(form, 32<<20)
}

func (r *reader) add(blocks []block) {
	for i := range blocks {
		for at, id := range blocks[i].chunks {
			r.places[id] = place{&blocks[i], at}
		}
	}
}

// decode returns the plaintext of a block. It decodes each block only once,
// even if the block is part of many chains.
func (r *reader) decode(b *block, depth int) []byte {
	if b.plain != nil {
		return b.plain
	}
	plain := try(unseal(r.key("snap v1 block"), r.file(b.pack)[b.offset:b.offset+b.stored], ""))
	if b.encoding != 0 {
		opts := []zstd.DOption{zstd.WithDecoderMaxWindow(8 << 20)}
		if b.encoding == 2 {
			var dict []byte
			for _, id := range b.dict {
				dict = append(dict, r.chunk(id, depth+1)...)
				b.depth = max(b.depth, r.places[id].block.depth+1)
			}
			insist(b.depth <= 16, "block of depth %d", b.depth)
			opts = append(opts, zstd.WithDecoderDictRaw(0, dict))
		}
		plain = try(try(zstd.NewReader(nil, opts...)).DecodeAll(plain, nil))
	}
	b.plain = plain
	return plain
}

// chunk reads a chunk: step 6 of section 14.
func (r *reader) chunk(id string, depth int) []byte {
	insist(depth <= 16, "chain too long")
	p, ok := r.places[id]
	insist(ok, "chunk %x is nowhere", id)
	b := p.block
	plain := r.decode(b, depth)
	at := 0
	var data []byte
	for i, n := range b.lengths {
		if i == p.at {
			data = plain[at : at+n]
		}
		at += n
	}
	insist(at == len(plain), "block of %d bytes, want %d", len(plain), at)
	h := blake3.New(32, r.key("snap v1 chunk id"))
	h.Write(data)
	insist(string(h.Sum(nil)) == id, "chunk %x has other bytes", id)
	return data
}

// entry has the values of an entry that are compared with the vectors.
type entry struct {
	Path, Domain, Name string
	Dir                bool
	Size               int
	BLAKE3             string `json:"blake3"`
	Sealed             string `json:"sealed_blake3"`
}

// tree walks the nodes (11).
func (r *reader) tree(id string, parent int, out *[]entry) {
	in := &input{r.chunk(id, 0)}
	insist(in.byte() == 1, "node version")
	level := int(in.byte())
	insist(parent < 0 || level == parent-1, "level")
	for range in.uvarint() {
		if level == 0 {
			*out = append(*out, r.entry(in))
			continue
		}
		child, below := in.id(), in.uvarint()
		domain, name, path := in.string(), in.string(), in.string()
		before := len(*out)
		r.tree(child, level, out)
		insist(len(*out)-before == below, "entries below")
		first := (*out)[before]
		insist(first.Domain == domain && first.Name == name && first.Path == path, "first key")
	}
	in.end()
}

func (r *reader) entry(in *input) (e entry) {
	flags := in.uvarint()
	insist(flags < 128, "flags")
	e.Path = in.string()
	if flags&2 != 0 {
		e.Domain, e.Name = in.string(), in.string()
	}
	in.uvarint()
	in.modTime(flags)
	if flags&4 != 0 {
		in.uvarint()
		in.u64()
	}
	if flags&8 != 0 {
		in.varint()
		in.u64()
	}
	if e.Dir = flags&1 != 0; e.Dir {
		return e
	}
	var key []byte
	if flags&32 != 0 {
		insist(in.byte() == 1, "form of sealing")
		key = in.take(32)
	}
	e.Size = in.uvarint()
	level := 0
	if flags&16 != 0 {
		level = int(in.byte())
	}
	data := r.content(level, in.ids(64))
	insist(len(data) == e.Size, "%s: size", e.Path)
	e.BLAKE3 = hash(data)
	if key != nil {
		n := 16 - len(data)%16
		data = append(data, bytes.Repeat([]byte{byte(n)}, n)...)
		cipher.NewCBCEncrypter(try(aes.NewCipher(key)), make([]byte, 16)).CryptBlocks(data, data)
		e.Sealed = hash(data)
	}
	return e
}

// modTime reads the modification time of an entry (11).
func (in *input) modTime(flags int) (seconds int64, nanoseconds int) {
	n := int64(in.u64())
	if flags&64 == 0 {
		seconds, nanoseconds = n/1e9, int(n%1e9)
		if nanoseconds < 0 {
			seconds, nanoseconds = seconds-1, nanoseconds+1e9
		}
		return seconds, nanoseconds
	}
	nanoseconds = in.uvarint()
	insist(nanoseconds < 1e9, "nanoseconds")
	insist(n < -9223372037 || n == -9223372037 && nanoseconds < 145224192 ||
		n > 9223372036 || n == 9223372036 && nanoseconds > 854775807, "the time is not wide")
	return n, nanoseconds
}

// content puts a file together (12).
func (r *reader) content(level int, ids []string) (data []byte) {
	for _, id := range ids {
		b := r.chunk(id, 0)
		if level == 0 {
			data = append(data, b...)
			continue
		}
		in := &input{b}
		insist(in.byte() == 1 && int(in.byte()) == level, "list")
		data = append(data, r.content(level-1, in.ids(1024))...)
		in.end()
	}
	return data
}

// certificate has the values of a certificate that the test looks at.
type certificate struct {
	opened                       []byte
	plain                        string
	Version                      int
	Snapshot, Root, Kind, Result string
}

// certificate reads a certificate and returns the version of its form (13h).
func (r *reader) certificate(name string) (form byte, c certificate) {
	c.opened = try(unseal(r.key("snap v1 certificate"), r.readNamed(name, "snapce01"), ""))
	plain := plainForm(c.opened, 64<<20)
	insist(plain[0] == 1, "%s: form", name)
	c.plain = string(plain[1:])
	if err := json.Unmarshal(plain[1:], &c); err != nil {
		panic(err)
	}
	return c.opened[0], c
}

// ledgerEntry is what the ledger says about one snapshot record (13i).
type ledgerEntry struct {
	id      string // hex
	turn    int
	removed int64 // in seconds since 1970, if turn is odd
	head    []byte
	json    []byte
}

// ledgerFile reads a file of the ledger (13i).
func (r *reader) ledgerFile(name string) (opened, plain []byte, entries []ledgerEntry) {
	opened = try(unseal(r.key("snap v1 ledger"), r.readNamed(name, "snaple01"), ""))
	plain = plainForm(opened, 64<<20)
	in := &input{plain}
	insist(in.byte() == 1, "%s: version", name)
	for range in.uvarint() {
		e := ledgerEntry{id: hex.EncodeToString([]byte(in.id())), turn: in.uvarint()}
		insist(e.turn <= 1<<32, "%s: turn %d", name, e.turn)
		insist(len(entries) == 0 || entries[len(entries)-1].id < e.id, "%s: order", name)
		if e.turn%2 == 1 {
			e.removed = int64(in.uvarint())
		} else {
			e.head = in.take(32)
			e.json = in.take(in.uvarint())
			insist(len(e.json) <= 1<<20, "%s: %d bytes of JSON", name, len(e.json))
		}
		entries = append(entries, e)
	}
	in.end()
	return opened, plain, entries
}
