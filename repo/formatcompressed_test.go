package repo_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend/local"
	"github.com/snap-backup/snap/repo/tree"
)

// storeDay opens the repository, as a new process would, and stores files.
// parent is the snapshot of the day before.
func storeDay(t *testing.T, be *local.Backend, files map[string][]byte, parent *repo.Snapshot, opts repo.Options) *repo.Snapshot {
	t.Helper()
	ctx := context.Background()
	r := try(repo.Open(ctx, be, []byte("secret"), opts))
	must(t, r.LoadIndex(ctx))
	before, old := map[string]*tree.Content{}, (*tree.Outline)(nil)
	if parent != nil {
		old = r.Outline(ctx, parent)
		must(t, r.Walk(ctx, parent, "", func(e *tree.Entry) error { before[e.Path] = &e.Content; return nil }))
	}
	w := r.NewWriter(ctx)
	defer w.Close()
	cw, b := w.NewContentWriter(), tree.NewBuilder(w.SaveNode, old)
	s := &repo.Snapshot{Time: opts.Now(), Complete: true, Device: repo.Device{UDID: "00008110-000A1234567890AB"}}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		c := try(cw.Store(ctx, bytes.NewReader(files[name]), before[name]))
		must(t, b.Add(ctx, &tree.Entry{Path: name, Content: c}))
		s.Files++
		s.Bytes += c.Size
	}
	must(t, cw.Flush(ctx))
	s.Root = try(b.Finish(ctx))
	must(t, w.Commit(ctx, s))
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestFormatCompressed makes a repository whose files list many IDs repeatedly,
// as after many prunes. It reads this repository with the reader written from
// docs/format.md.
func TestFormatCompressed(t *testing.T) {
	if testing.Short() {
		t.Skip("storing 20 days on a disk is slow")
	}
	ctx := context.Background()
	dir := t.TempDir()
	be := try(local.Open(dir))
	defer be.Close()
	now := time.Date(2026, 1, 1, 8, 0, 0, 0, time.UTC)
	opts := repo.Options{
		Rand: rand.NewChaCha8([32]byte{1}), Now: func() time.Time { return now }, Refresh: -1,
		Cost: crypto.Cost{Time: 1, MemoryKiB: 8, Threads: 1}, Workers: 1,
	}
	try(repo.Create(ctx, be, []byte("secret"), crypto.SlotInfo{Kind: crypto.PasswordSlot}, opts))
	// Small files that change a little every day.
	rng := rand.New(rand.NewPCG(1, 2))
	files := map[string][]byte{}
	for i := range 150 {
		files[fmt.Sprintf("settings/%03d", i)] = []byte(hex.EncodeToString(fmt.Append(nil, rng.Perm(300))))
	}
	var snaps []*repo.Snapshot
	kept := map[string]map[string][]byte{} // files of each snapshot, by its root
	for day := range 20 {
		for name, b := range files {
			b = bytes.Clone(b)
			copy(b[rng.IntN(len(b)-10):], fmt.Sprintf("day %d", day))
			files[name] = b
		}
		var parent *repo.Snapshot
		if day > 0 {
			parent = snaps[day-1]
		}
		s := storeDay(t, be, files, parent, opts)
		snaps, kept[s.Root.String()] = append(snaps, s), maps.Clone(files)
		now = now.AddDate(0, 0, 1)
	}
	r := try(repo.Open(ctx, be, []byte("secret"), opts))
	must(t, r.LoadIndex(ctx))
	l := try(r.Lock(ctx, repo.LockPrune, "prune"))
	for day, s := range snaps {
		if day%2 == 0 {
			delete(kept, s.Root.String())
			must(t, r.Forget(ctx, s.ID))
		}
	}
	try(r.Prune(ctx, repo.PruneOptions{MaxRepack: -1}))
	must(t, l.Release())

	// Package repo reads it like any other repository.
	r = try(repo.Open(ctx, be, []byte("secret"), opts))
	must(t, r.LoadIndex(ctx))
	report := try(r.Check(ctx, repo.CheckOptions{ReadData: 1}))
	if !report.Clean() || len(report.Problems) > 0 {
		t.Errorf("check: %+v", report)
	}
	repaired := try(r.RepairIndex(ctx, repo.RepairOptions{DryRun: true}))
	if repaired.Changed() {
		t.Errorf("a repair would change %+v", repaired)
	}

	reader := open(dir, "secret")
	forms := map[string]int{}
	for name, form := range reader.forms {
		folder, _, _ := strings.Cut(name, "/")
		forms[fmt.Sprintf("%s %d", folder, form)]++
	}
	if forms["index 2"] == 0 || forms["packs 2"] == 0 {
		t.Errorf("want both kinds of files in the compressed form, have %v", forms)
	}
	names := reader.list("snapshots")
	if len(names) != len(kept) {
		t.Errorf("%d snapshots, want %d", len(names), len(kept))
	}
	for _, name := range names {
		var record struct{ Root string }
		must(t, json.Unmarshal(try(unseal(reader.key("snap v1 snapshot"), reader.readNamed(name, "snapsn01"), "")), &record))
		var got []entry
		reader.tree(string(try(hex.DecodeString(record.Root))), -1, &got)
		want := kept[record.Root]
		if len(got) != len(want) || len(want) == 0 {
			t.Errorf("%s: %d files, want %d", name, len(got), len(want))
		}
		for _, e := range got {
			if e.BLAKE3 != hash(want[e.Path]) {
				t.Errorf("%s: %s has other content", name, e.Path)
			}
		}
	}
}
