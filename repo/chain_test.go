package repo

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/snap-backup/snap/index"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/tree"
)

// diary is a device whose database changes in some pages every day, grows, and
// now and then has pages inserted in front; beside it are small settings.
type diary struct {
	rng      *rand.Rand
	db       []byte
	settings [20][]byte
}

const diaryPage = 4096

func newDiary(pages int) *diary {
	d := &diary{rng: rand.New(rand.NewPCG(1, 2))}
	d.db = append(d.db, "SQLite format 3\x00"...)
	for len(d.db) < pages*diaryPage {
		d.db = append(d.db, d.text(400)...)
	}
	d.db = d.db[:pages*diaryPage]
	for i := range d.settings {
		d.settings[i] = d.text(1500)
	}
	return d
}

// text makes something that compresses to about half.
func (d *diary) text(n int) []byte {
	var b []byte
	for len(b) < n {
		b = fmt.Appendf(b, "%x message %d;", d.rng.Uint32(), d.rng.IntN(50))
	}
	return b[:n]
}

// next lives through a day.
func (d *diary) next(day int) {
	pages := len(d.db) / diaryPage
	for range 5 {
		at := (1+d.rng.IntN(pages-1))*diaryPage + d.rng.IntN(diaryPage-200)
		copy(d.db[at:], d.text(150))
	}
	if day%4 == 0 {
		d.db = append(d.db, d.text(diaryPage)...)
	}
	if day%30 == 29 {
		at := pages / 3 * diaryPage
		d.db = append(d.db[:at:at], append(d.text(diaryPage), d.db[at:]...)...)
	}
	for range 4 {
		s := d.settings[d.rng.IntN(len(d.settings))]
		binary.LittleEndian.PutUint32(s[d.rng.IntN(len(s)-4):], uint32(day))
	}
}

func (d *diary) files() files {
	f := files{"db/sms.db": bytes.Clone(d.db)}
	for i, s := range d.settings {
		f[fmt.Sprintf("settings/%02d.plist", i)] = bytes.Clone(s)
	}
	return f
}

// storeAfter is store for a snapshot that follows another one.
func storeAfter(t testing.TB, r *Repo, f files, day int, parent *Snapshot) *Snapshot {
	t.Helper()
	s, err := storeWithParent(context.Background(), r, f, day, parent)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestAYearOfDeltas stores a year of a small device, each day after the one
// before, and holds every chain to its bounds and every day to its bytes.
func TestAYearOfDeltas(t *testing.T) {
	days := 365
	if testing.Short() {
		days = 60
	}
	ctx := context.Background()
	be := memory.New()
	r := create(t, be)
	d := newDiary(40)
	var snapshots []*Snapshot
	var want []files
	var parent *Snapshot
	grown := int64(0)
	for day := range days {
		if day > 0 {
			d.next(day)
		}
		f := d.files()
		parent = storeAfter(t, r, f, day, parent)
		snapshots, want = append(snapshots, parent), append(want, f)
		if day > 0 {
			grown += parent.StoredBytes
		}
	}
	first := snapshots[0].StoredBytes
	t.Logf("first day %d bytes, later ones %d on average", first, grown/int64(days-1))
	// About 6 KB a day are new; everything stored again would be over 100 KB.
	if avg := grown / int64(days-1); avg > 16<<10 {
		t.Errorf("a day takes %d bytes on average", avg)
	}

	r = open(t, be)
	deltas, depth := 0, 0
	for _, p := range r.index.Packs() {
		for _, ref := range p.Blocks {
			_, b := r.index.Block(ref)
			w := chainWalk{x: r.index, depths: map[index.BlockRef]int{}}
			at, ok := w.depth(b.Chunks[0].ID, 0)
			if !ok {
				t.Fatal("a chain without end")
			}
			if b.Encoding != pack.Delta {
				continue
			}
			deltas++
			depth = max(depth, at)
			if limit := max(chainFactor*b.Size(), minChain) + int(b.Stored); w.stored > limit || at > maxChainDepth {
				t.Errorf("a block of %d bytes has a chain of %d bytes and depth %d", b.Size(), w.stored, at)
			}
		}
	}
	t.Logf("%d deltas, the deepest at %d", deltas, depth)
	if deltas < days || depth < 2 {
		t.Errorf("only %d deltas, depth %d", deltas, depth)
	}
	for day, s := range snapshots {
		if day%7 != 0 && day != days-1 {
			continue
		}
		got, err := restore(ctx, r, s)
		if err == nil {
			err = sameFiles(got, want[day])
		}
		if err != nil {
			t.Fatalf("day %d: %v", day, err)
		}
	}
	report, err := r.Check(ctx, CheckOptions{ReadData: 1})
	if err != nil || !report.Clean() {
		t.Fatalf("check: %+v, %v", report, err)
	}
}

// TestADayOfATreeCostsLittle holds the metadata of a large device to what a
// day changes.
func TestADayOfATreeCostsLittle(t *testing.T) {
	const entries, touched = 200_000, 500
	ctx := context.Background()
	be := memory.New()
	r := create(t, be)
	rng := rand.New(rand.NewPCG(3, 4))
	list := make([]tree.Entry, entries)
	for i := range list {
		list[i] = tree.Entry{
			Path:   fmt.Sprintf("%02x/%040x", i%256, uint64(i)*0x9e3779b97f4a7c15),
			Domain: fmt.Sprintf("AppDomain-com.example.app%03d", i/1000), Name: fmt.Sprintf("Library/Application Support/a folder/file %08d.plist", i),
			ModTime: int64(i) * 1e9, Mode: 0o644,
			Stat:   &tree.Stat{Inode: uint64(i), ChangeTime: int64(i) * 1e9},
			Source: &tree.Source{ModTime: int64(i), Sum: rng.Uint64()},
		}
	}
	day := func(parent *Snapshot) *Snapshot {
		w := r.NewWriter(ctx)
		defer w.Close()
		var old *tree.Outline
		if parent != nil {
			old = r.Outline(ctx, parent)
		}
		b := tree.NewBuilder(w.SaveNode, old)
		for i := range list {
			if err := b.Add(ctx, &list[i]); err != nil {
				t.Fatal(err)
			}
		}
		root, err := b.Finish(ctx)
		if err != nil {
			t.Fatal(err)
		}
		s := &Snapshot{Root: root}
		if err := w.Commit(ctx, s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	first := day(nil)
	for range touched {
		e := &list[rng.IntN(entries)]
		e.ModTime, e.Stat, e.Source = rng.Int64(), &tree.Stat{Inode: rng.Uint64(), ChangeTime: rng.Int64()}, &tree.Source{ModTime: rng.Int64(), Sum: rng.Uint64()}
	}
	second := day(first)
	t.Logf("the first tree takes %d bytes, %d touched entries of %d another %d", first.StoredBytes, touched, entries, second.StoredBytes)
	if second.StoredBytes > 500_000 {
		t.Errorf("%d touched entries cost %d bytes", touched, second.StoredBytes)
	}
	n := 0
	err := open(t, be).Walk(ctx, second, "", func(e *tree.Entry) error {
		if e.ModTime != list[n].ModTime {
			return fmt.Errorf("entry %d is not what was stored", n)
		}
		n++
		return nil
	})
	if err != nil || n != entries {
		t.Fatalf("%d entries, %v", n, err)
	}
}
