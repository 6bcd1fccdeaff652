package repo_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
	"github.com/snap-backup/snap/repo/tree"
	"lukechampine.com/blake3"
)

var update = flag.Bool("update", false, "write the golden repository and the test vectors anew; only for a new format version")

const (
	goldenDir   = "testdata/golden-v1"
	vectorsFile = "../docs/format-vectors.json"
)

// hexBytes are bytes that JSON stores as hex digits.
type hexBytes []byte

func (h hexBytes) MarshalText() ([]byte, error) { return chunkHex(h), nil }

func chunkHex(b []byte) []byte {
	const digits = "0123456789abcdef"
	var out []byte
	for _, c := range b {
		out = append(out, digits[c>>4], digits[c&15])
	}
	return out
}

// vectors are the values that a reader of the golden repository computes, step
// by step. The document explains each.
type vectors struct {
	Repository string              `json:"repository"`
	Password   string              `json:"password"`
	Recovery   recoveryVector      `json:"recovery_key"`
	Slots      []slotVector        `json:"key_slots"`
	Master     hexBytes            `json:"master_key"`
	Keys       map[string]hexBytes `json:"derived_keys"`
	Config     configVector        `json:"config"`
	Chunks     []chunkVector       `json:"chunk_ids"`
	Packs      []packVector        `json:"packs"`
	Compressed compressedVector    `json:"compressed_header"`
	Indexes    []plainVector       `json:"index_files"`
	Meta       []chunkVector       `json:"nodes_and_lists"`
	Snapshots  []snapshotVector    `json:"snapshots"`
	Findings   findingsVector      `json:"findings"`
	Ledger     ledgerVector        `json:"ledger"`
	Bound      keysVector          `json:"bound_key_slots"`
	Times      []timeVector        `json:"times"`
}

// timeVector is a tree of one folder with a modification time.
type timeVector struct {
	Seconds     int64    `json:"seconds"`
	Nanoseconds int      `json:"nanoseconds"`
	Node        hexBytes `json:"node"`
}

type recoveryVector struct {
	Bits hexBytes `json:"bits"`
	Text string   `json:"text"`
}

type slotVector struct {
	File   string   `json:"file"`
	Secret string   `json:"secret"`
	Key    hexBytes `json:"derived_key"`
	Info   string   `json:"info"`
}

type configVector struct {
	AD    string `json:"associated_data"`
	Plain string `json:"plain"`
}

type chunkVector struct {
	Plain hexBytes `json:"plain"`
	ID    chunk.ID `json:"id"`
}

type packVector struct {
	File   string        `json:"file"`
	Header hexBytes      `json:"header"`
	Blocks []blockVector `json:"blocks"`
}

// compressedVector is a pack header of version 2. Its frame was made by zstd
// 1.5.4 and is kept, since encoders differ from version to version.
type compressedVector struct {
	Opened hexBytes `json:"opened"`
	Header hexBytes `json:"header"`
}

type blockVector struct {
	Offset     uint32   `json:"offset"`
	Stored     uint32   `json:"stored"`
	Encoding   string   `json:"encoding"`
	Dictionary hexBytes `json:"dictionary,omitempty"`
	Opened     hexBytes `json:"opened"`
	// Plain is omitted for metadata, whose plaintext is in nodes_and_lists.
	Plain hexBytes `json:"plain,omitempty"`
}

type plainVector struct {
	File  string   `json:"file"`
	Plain hexBytes `json:"plain"`
}

type snapshotVector struct {
	File  string       `json:"file"`
	Plain string       `json:"plain"`
	Files []fileVector `json:"files"`
}

// fileVector is one entry, and the BLAKE3-256 of its content.
type fileVector struct {
	Path   string   `json:"path"`
	Domain string   `json:"domain,omitempty"`
	Name   string   `json:"name,omitempty"`
	Dir    bool     `json:"dir,omitempty"`
	Size   int64    `json:"size"`
	Hash   hexBytes `json:"blake3,omitempty"`
	Sealed hexBytes `json:"sealed_blake3,omitempty"` // of the content, encrypted as a blob
}

// loadGolden reads the golden repository into memory.
func loadGolden(t *testing.T) *memory.Backend { return loadGoldenFrom(t, goldenDir) }

func loadGoldenFrom(t *testing.T, dir string) *memory.Backend {
	t.Helper()
	be := memory.New()
	be.SetClock(func() time.Time { return time.Now().Add(-24 * time.Hour) })
	defer be.SetClock(time.Now)
	root := os.DirFS(dir)
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		return be.Put(context.Background(), name, b)
	})
	if err != nil {
		t.Fatal(err)
	}
	return be
}

func writeGoldenTo(t *testing.T, dir string, be *memory.Backend) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	for name, b := range repotest.Content(t, be) {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestGolden reads a repository that an earlier version of the program wrote,
// and compares all intermediate values with the vectors of the document.
func TestGolden(t *testing.T) {
	if *update {
		writeGoldenTo(t, goldenDir, makeGolden(t))
	}
	be := loadGolden(t)
	got, err := json.MarshalIndent(goldenVectors(t, be), "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	if *update {
		if err := os.WriteFile(vectorsFile, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(vectorsFile)
	if err != nil {
		t.Fatal(err)
	}
	want = bytes.ReplaceAll(want, []byte("\r\n"), []byte("\n"))
	gotLines, wantLines := bytes.Split(got, []byte("\n")), bytes.Split(want, []byte("\n"))
	for i := range min(len(gotLines), len(wantLines)) {
		if !bytes.Equal(gotLines[i], wantLines[i]) {
			t.Fatalf("%s, line %d: the code has\n%s\nthe vectors\n%s", vectorsFile, i+1, gotLines[i], wantLines[i])
		}
	}
	if len(gotLines) != len(wantLines) {
		t.Errorf("%d lines of vectors, want %d", len(gotLines), len(wantLines))
	}
	size := 0
	for _, b := range repotest.Content(t, be) {
		size += len(b)
	}
	if size > 100<<10 {
		t.Errorf("the golden repository has %d bytes", size)
	}
	// The repository is undamaged, and new snapshots can be stored in it.
	r, err := repotest.Open(context.Background(), be, []byte(goldenPassword), repotest.SmallPacks(5))
	if err != nil {
		t.Fatal(err)
	}
	report, err := r.Check(context.Background(), repo.CheckOptions{ReadData: 1})
	if err != nil || !report.Clean() || len(report.Problems)+len(report.Unreferenced) > 0 || report.Snapshots != 2 {
		t.Errorf("check: %+v, %v", report, err)
	}
	s, err := repotest.Store(context.Background(), r, repotest.Day(3), 3)
	if err != nil {
		t.Fatal(err)
	}
	if f, err := repotest.Restore(context.Background(), r, s); err != nil || f.Same(repotest.Day(3)) != nil {
		t.Error("a new snapshot:", err)
	}
}

// goldenVectors reads a repository and records all intermediate values.
func goldenVectors(t *testing.T, be *memory.Backend) *vectors {
	t.Helper()
	ctx := context.Background()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	v := &vectors{Repository: "repo/" + goldenDir, Password: goldenPassword, Keys: map[string]hexBytes{}}
	text, err := crypto.NewRecoveryKey(bytes.NewReader([]byte(goldenRecovery)))
	must(err)
	v.Recovery = recoveryVector{hexBytes(goldenRecovery), text}
	r, err := repotest.Open(ctx, be, []byte(goldenPassword), repotest.SmallPacks(1))
	must(err)
	master := repotest.MasterKey(t, be, []byte(goldenPassword))
	v.Master = master[:]
	for _, p := range []crypto.Purpose{crypto.ForChunkIDs, crypto.ForBlocks, crypto.ForPacks, crypto.ForIndexes, crypto.ForSnapshots, crypto.ForConfig, crypto.ForSlotInfo} {
		key := master.Derive(p)
		v.Keys[string(p)] = key[:]
	}
	v.Compressed = readCompressed(t)
	v.Findings = readFindings(t)
	v.Ledger = readLedger(t)
	v.Bound = readKeys(t)
	for _, at := range []time.Time{
		time.Unix(0, -1), time.Unix(0, math.MinInt64), time.Unix(0, math.MaxInt64),
		time.Unix(0, math.MinInt64).Add(-1), time.Unix(0, math.MaxInt64).Add(1), time.Date(2400, 1, 1, 0, 0, 0, 5, time.UTC),
	} {
		v.addTime(t, at)
	}
	all := repotest.Content(t, be)
	var f struct {
		Format   int
		Features []string
		Sealed   []byte
	}
	must(json.Unmarshal(all[repotest.ConfigName], &f))
	ad := fmt.Sprintf("snap config %d %s", f.Format, strings.Join(f.Features, " "))
	plain, err := crypto.NewSealer(master.Derive(crypto.ForConfig), nil).Open(nil, f.Sealed, []byte(ad))
	must(err)
	v.Config = configVector{ad, string(plain)}
	sealer := func(p crypto.Purpose) *crypto.Sealer { return crypto.NewSealer(master.Derive(p), nil) }
	for _, name := range slices.Sorted(maps.Keys(all)) {
		b := all[name]
		switch repotest.Folder(name) {
		case "keys":
			s, err := crypto.ParseSlot(b)
			must(err)
			info, err := s.Info(master)
			must(err)
			secret := goldenPassword
			if info.Kind == crypto.RecoverySlot {
				secret = text
			}
			key, err := s.Open([]byte(secret))
			must(err)
			if key != master {
				t.Errorf("%s holds another master key", name)
			}
			v.Slots = append(v.Slots, goldenSlot(t, name, secret, b, master))
		case "packs":
			v.addPack(t, r, name, b, sealer(crypto.ForPacks), sealer(crypto.ForBlocks))
		case "index":
			plain, err := sealer(crypto.ForIndexes).Open(nil, b[8:], nil)
			must(err)
			must(index.OpenFile(b, sealer(crypto.ForIndexes), func(pack.ID, int64, pack.Header) {}))
			v.Indexes = append(v.Indexes, plainVector{name, plain})
		case "snapshots":
			v.addSnapshot(t, r, name, b, sealer(crypto.ForSnapshots))
		}
	}
	return v
}

func (v *vectors) addTime(t *testing.T, at time.Time) {
	t.Helper()
	var node []byte
	b := tree.NewBuilder(func(_ context.Context, plain []byte, _ *chunk.ID) (chunk.ID, error) {
		node = bytes.Clone(plain)
		return chunk.ID{}, nil
	}, nil)
	err := b.Add(t.Context(), &tree.Entry{Path: "a", Kind: tree.Dir, Mode: 0o755, ModTime: tree.At(at)})
	if err == nil {
		_, err = b.Finish(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	v.Times = append(v.Times, timeVector{at.Unix(), at.Nanosecond(), node})
}

// readCompressed parses the compressed header of the vectors.
func readCompressed(t *testing.T) compressedVector {
	t.Helper()
	var kept struct {
		Compressed struct{ Opened string } `json:"compressed_header"`
	}
	b, err := os.ReadFile(vectorsFile)
	if err == nil {
		err = json.Unmarshal(b, &kept)
	}
	if err != nil {
		t.Fatal(err)
	}
	opened, err := hex.DecodeString(kept.Compressed.Opened)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := pack.Expand(opened, pack.MaxHeaderSize)
	if err != nil {
		t.Fatal(err)
	}
	h, err := pack.ParseHeader(plain)
	if err != nil || len(opened) == len(plain) {
		t.Fatal(len(opened), len(plain), err)
	}
	return compressedVector{opened, h.Append(nil)}
}

func (v *vectors) addPack(t *testing.T, r *repo.Repo, name string, b []byte, packs, blocks *crypto.Sealer) {
	t.Helper()
	h, err := pack.ReadHeader(bytes.NewReader(b), int64(len(b)), packs)
	if err != nil {
		t.Fatal(err)
	}
	p := packVector{File: name, Header: h.Append(nil)}
	for i := range h.Blocks {
		blk := &h.Blocks[i]
		sealed := b[blk.Offset : blk.Offset+blk.Stored]
		opened, err := blocks.Open(nil, sealed, nil)
		if err != nil {
			t.Fatal(err)
		}
		var dict []byte
		for _, id := range blk.Dict {
			c, err := r.Chunk(context.Background(), id)
			if err != nil {
				t.Fatal(err)
			}
			dict = append(dict, c...)
		}
		plain, err := pack.NewCodec(blocks).Decode(nil, sealed, blk, dict)
		if err != nil {
			t.Fatal(err)
		}
		bv := blockVector{blk.Offset, blk.Stored, blk.Encoding.String(), dict, opened, nil}
		if h.Kind == pack.Content {
			bv.Plain = plain
		}
		p.Blocks = append(p.Blocks, bv)
		for _, c := range blk.Chunks {
			data := plain[:c.Length]
			plain = plain[c.Length:]
			if r.NewHasher().ID(data) != c.ID {
				t.Errorf("chunk %s has another ID", c.ID)
			}
			if h.Kind == pack.Metadata {
				v.Meta = append(v.Meta, chunkVector{data, c.ID})
			} else {
				v.Chunks = append(v.Chunks, chunkVector{data, c.ID})
			}
		}
	}
	v.Packs = append(v.Packs, p)
}

func (v *vectors) addSnapshot(t *testing.T, r *repo.Repo, name string, b []byte, sealer *crypto.Sealer) {
	t.Helper()
	plain, err := sealer.Open(nil, b[8:], nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := r.FindSnapshot(context.Background(), strings.TrimPrefix(name, repotest.SnapshotsDir))
	if err != nil {
		t.Fatal(err)
	}
	sv := snapshotVector{File: name, Plain: string(plain)}
	err = r.Walk(context.Background(), s, "", func(e *tree.Entry) error {
		fv := fileVector{Path: e.Path, Domain: e.Domain, Name: e.Name, Dir: e.Kind == tree.Dir, Size: e.Content.Size}
		var data bytes.Buffer
		if err := r.WriteContent(context.Background(), &data, &e.Content); err != nil {
			return err
		}
		if !fv.Dir {
			sum := blake3.Sum256(data.Bytes())
			fv.Hash = sum[:]
		}
		if e.Encryption != nil {
			sum := blake3.Sum256(cbc(t, e.Encryption.Key[:], data.Bytes()))
			fv.Sealed = sum[:]
		}
		sv.Files = append(sv.Files, fv)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	v.Snapshots = append(v.Snapshots, sv)
}
