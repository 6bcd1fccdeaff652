package repo_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/internal/record"
	"github.com/snap-backup/snap/repo/repotest"
	"github.com/snap-backup/snap/repo/tree"
)

const (
	goldenPassword = "golden password"
	goldenRecovery = "0123456789ABCDEFGHJK" // 20 bytes, used instead of 160 random bits
)

// goldenMaker makes the golden repository. Section 16 of docs/format.md lists what is
// in it. goldenMaker makes every file by hand, one after another, so that every run uses the
// same random bytes in the same places.
type goldenMaker struct {
	t    *testing.T
	be   *memory.Backend
	r    *repo.Repo
	rand io.Reader
	meta []repotest.Block // metadata blocks that no pack has yet
}

func makeGolden(t *testing.T) *memory.Backend {
	ctx := context.Background()
	opts := repotest.Options(1)
	opts.Rand = rand.NewChaCha8([32]byte([]byte("snap golden repository version 1")))
	opts.Cost = crypto.Cost{Time: 2, MemoryKiB: 64, Threads: 2}
	g := &goldenMaker{t: t, be: memory.New(), rand: opts.Rand}
	var err error
	g.r, err = repo.Create(ctx, g.be, []byte(goldenPassword), crypto.SlotInfo{Kind: crypto.PasswordSlot, Label: "golden"}, opts)
	g.must(err)
	text, err := crypto.NewRecoveryKey(strings.NewReader(goldenRecovery))
	g.must(err)
	_, err = g.r.AddKey(ctx, []byte(text), crypto.SlotInfo{Kind: crypto.RecoverySlot})
	g.must(err)
	first := g.addDay(1, nil)
	g.addDay(2, &first.ID)
	return g.be
}

func (g *goldenMaker) must(err error) {
	g.t.Helper()
	if err != nil {
		g.t.Fatal(err)
	}
}

// addDay stores one snapshot. On day 2 the database and a plist have changed. The
// database is stored as a delta.
func (g *goldenMaker) addDay(n int, parent *repo.FileID) *repo.Snapshot {
	ctx := context.Background()
	b := tree.NewBuilder(g.save, nil)
	count, size := int64(0), int64(0)
	add := func(e tree.Entry) {
		e.ModTime = tree.At(time.Date(2026, 1, n, 7, 0, 0, 123456789, time.UTC))
		g.must(b.Add(ctx, &e))
		if count++; e.Kind == tree.Dir {
			count--
		}
		size += e.Content.Size
	}
	db := goldenDatabase(n)
	plists := goldenPlists(n)
	tiny := goldenTiny()
	switch n {
	case 1:
		g.addPack(pack.Content, repotest.Raw(db[0]), repotest.Raw(db[1]), repotest.Block{Encoding: pack.Zstd, Chunks: plists})
		g.addPack(pack.Content, repotest.Block{Encoding: pack.Zstd, Chunks: tiny})
	case 2:
		// The first delta has two chunks, and a dictionary of two chunks. The
		// dictionary of the second delta is a chunk of the first, so its depth is 2.
		old := goldenDatabase(1)
		two := repotest.Delta(g.r, nil, old[0], old[1])
		two.Chunks = db
		third := goldenDatabase(3)[0]
		g.addPack(pack.Content, two, repotest.Delta(g.r, third, db[0]), repotest.Block{Encoding: pack.Zstd, Chunks: plists[:1]})
		db = append(db, third)
	}
	// Entries come in the order of their keys: domain, name, path.
	add(tree.Entry{Path: "00", Kind: tree.Dir, Mode: 0o755})
	add(tree.Entry{Path: "Info.plist", Mode: 0o644, Content: g.content(plists[0])})
	add(tree.Entry{Path: "Status.plist", Mode: 0o600, Content: tree.Content{}})
	for i := range 110 {
		e := tree.Entry{
			Path: fmt.Sprintf("%02x/%040x", i, i), Domain: "AppDomain-com.example.app",
			Name: fmt.Sprintf("Documents/%03d-ü.plist", i), Mode: 0o644,
			Stat:    &tree.Stat{Inode: 1 << 40, ChangeTime: -1},
			Record:  &tree.Record{ModTime: int64(i) - 75, Sum: uint64(i) << 56},
			Content: g.content(plists[1+i%(len(plists)-1)]),
		}
		if i%50 == 7 {
			e.Encryption = &tree.Encryption{Cipher: tree.CBC, Key: [32]byte{byte(i), 1, 2, 3}}
		}
		add(e)
	}
	add(tree.Entry{Path: "aa/database", Domain: "HomeDomain", Name: "Library/SMS/sms.db", Mode: 0o644, Content: g.content(db...)})
	if n == 1 {
		add(tree.Entry{Path: "bb/lists1", Domain: "HomeDomain", Name: "lists/1", Mode: 0o644, Content: g.listContent(1, tiny)})
	}
	add(tree.Entry{Path: "bb/lists2", Domain: "HomeDomain", Name: "lists/2", Mode: 0o644, Content: g.listContent(2, tiny)})

	root, err := b.Finish(ctx)
	g.must(err)
	g.addPack(pack.Metadata, g.meta...)
	g.meta = nil
	s := &repo.Snapshot{
		Version: 1, Time: time.Date(2026, 1, n, 8, 0, 0, 0, time.UTC), StoredAt: time.Date(2026, 1, n, 8, 5, 0, 0, time.UTC),
		Host: "host", Program: "snap test",
		Device: repo.Device{UDID: "00008110-000A1234567890AB", Name: "Anna’s iPhone", ProductType: "iPhone14,5", ProductVersion: "19.2", BuildVersion: "23C55", SerialNumber: "ABCDEFGHIJ"},
		Source: repo.Source{Kind: "folder", Path: "/backups", Folder: "00008110-000A1234567890AB", RunID: "7A0B", Full: n == 1},
		Parent: parent, Root: root, Complete: true, Files: count, Bytes: size,
		NewChunks: 1, NewBytes: 2, StoredBytes: 3,
	}
	if n == 2 {
		s.Tags, s.Problems, s.Encrypted = []string{"weekly", "before <update>"}, []string{"one file was not listed"}, true
	}
	sealed, err := record.Seal(repo.Store(g.r), s)
	g.must(err)
	s.ID = repotest.PutNamed(g.t, g.be, repotest.SnapshotsDir, sealed)
	return s
}

// save is a tree.Save that puts every node into a block of its own.
func (g *goldenMaker) save(_ context.Context, node []byte, _ *chunk.ID) (chunk.ID, error) {
	g.meta = append(g.meta, repotest.Block{Encoding: pack.Zstd, Chunks: [][]byte{bytes.Clone(node)}})
	return g.r.NewHasher().ID(node), nil
}

// addPack stores a pack and lists it in an index file.
func (g *goldenMaker) addPack(kind pack.Kind, blocks ...repotest.Block) {
	known := index.New()
	if g.r.Index() != nil {
		known = g.r.Index()
	}
	var fresh []repotest.Block
	for _, b := range blocks {
		if !known.Has(g.r.NewHasher().ID(b.Chunks[0])) {
			fresh = append(fresh, b)
		}
	}
	repotest.PutRepeatablePack(g.t, g.r, g.be, repotest.MasterKey(g.t, g.be, []byte(goldenPassword)), g.rand, kind, fresh...)
	g.must(g.r.LoadIndex(context.Background()))
}

func (g *goldenMaker) content(chunks ...[]byte) tree.Content {
	c := tree.Content{}
	for _, b := range chunks {
		c.Size += int64(len(b))
		c.IDs = append(c.IDs, g.r.NewHasher().ID(b))
	}
	return c
}

// listContent makes content that has lists up to a level. The few chunks do not need
// that many levels, but a reader must accept them.
func (g *goldenMaker) listContent(level uint8, chunks [][]byte) tree.Content {
	c := g.content(chunks...)
	for c.Level < level {
		c.Level++
		var up []chunk.ID
		for len(c.IDs) > 0 {
			n := min(len(c.IDs), 30)
			id, err := g.save(context.Background(), goldenList(c.Level, c.IDs[:n]), nil)
			g.must(err)
			up, c.IDs = append(up, id), c.IDs[n:]
		}
		c.IDs = up
	}
	return c
}

// goldenList encodes a list as the document says, since package tree does not
// make such short lists.
func goldenList(level uint8, ids []chunk.ID) []byte {
	b := []byte{1, level, byte(len(ids))} // below 128, a uvarint is one byte
	for _, id := range ids {
		b = append(b, id[:]...)
	}
	return b
}

// goldenDatabase returns two chunks that change a little from day to day.
func goldenDatabase(n int) [][]byte {
	out := [][]byte{append([]byte("SQLite format 3\x00"), repotest.Noise(1, 3000)...), repotest.Noise(2, 2000)}
	for i := range out {
		copy(out[i][500*n:], fmt.Appendf(nil, "changed on day %d", n))
	}
	return out
}

// goldenPlists returns small files. The first one changes every day.
func goldenPlists(n int) [][]byte {
	out := [][]byte{fmt.Appendf(nil, "<plist><date>day %d</date></plist>\n", n)}
	for i := range 5 {
		out = append(out, fmt.Appendf(nil, "<plist><integer>%d</integer>%s</plist>\n", i, strings.Repeat("<true/>", i)))
	}
	return out
}

func goldenTiny() [][]byte {
	var out [][]byte
	for i := range 70 {
		out = append(out, fmt.Appendf(nil, "chunk %d.", i))
	}
	return out
}
