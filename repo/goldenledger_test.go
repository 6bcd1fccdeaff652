package repo_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
	"golang.org/x/crypto/chacha20poly1305"
)

var updateLedger = flag.Bool("update-ledger", false, "write the golden repository with a ledger anew; only for a new format version")

// ledgerDir is a golden repository with a ledger of four snapshots: the record of the first
// was lost, the labels of the second were changed, the third was forgotten.
const ledgerDir = "testdata/golden-v1-ledger"

func makeLedger(t *testing.T) *memory.Backend {
	ctx := context.Background()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	be := memory.New()
	now := time.Date(2026, 5, 1, 8, 0, 0, 0, time.UTC)
	_, err := repo.Create(ctx, be, []byte(goldenPassword), crypto.SlotInfo{Kind: crypto.PasswordSlot, Label: "golden"}, recordOptions(70, now))
	must(err)
	var days []*repo.Snapshot
	for day := 1; day <= 4; day++ {
		r, err := repotest.Open(ctx, be, []byte(goldenPassword), recordOptions(byte(70+day), now.AddDate(0, 0, day)))
		must(err)
		s := &repo.Snapshot{Time: now.AddDate(0, 0, day), Device: repo.Device{UDID: repotest.UDID, Name: "Anna’s iPhone"}, Complete: true}
		if day == 4 {
			s.Findings = slices.Repeat(goldenFindings(20)[:1], 4) // long enough to be compressed
		}
		must(repotest.StoreSnapshot(ctx, r, recordFiles(day), s, nil))
		days = append(days, s)
	}
	r, err := repotest.Open(ctx, be, []byte(goldenPassword), recordOptions(80, now.AddDate(0, 0, 5)))
	must(err)
	l, err := r.Lock(ctx, repo.LockWrite, "snap tag")
	must(err)
	_, err = r.ChangeSnapshot(ctx, days[1], repo.Labels{Note: recordNote})
	must(errors.Join(err, r.Forget(ctx, days[2].ID), l.Release()))
	repotest.Remove(t, be, repotest.SnapshotsDir+days[0].ID.String())
	return be
}

// TestGoldenLedger reads a ledger that an earlier version of the program wrote, and stores the
// lost record again.
func TestGoldenLedger(t *testing.T) {
	ctx := context.Background()
	if *updateLedger {
		writeGoldenTo(t, ledgerDir, makeLedger(t))
	}
	be := loadGoldenFrom(t, ledgerDir)
	r := openLedger(t, be)
	missing, err := r.MissingSnapshots(ctx)
	if err != nil || len(missing) != 1 {
		t.Fatal(missing, err)
	}
	rep, err := r.Check(ctx, repo.CheckOptions{ReadData: 1, DryRun: true})
	if name := repotest.SnapshotsDir + missing[0].ID.String(); err != nil || len(rep.Problems) != 1 || rep.Problems[0].File != name {
		t.Errorf("check: %+v, %v", rep, err)
	}
	if id := healLedger(t, be); id != missing[0].ID {
		t.Errorf("%s was stored again, want %s", id, missing[0].ID)
	}
	list, damaged, err := r.Snapshots(ctx)
	if err != nil || len(damaged) > 0 || len(list) != 3 || list[0].ID != missing[0].ID || list[1].Note != recordNote {
		t.Errorf("%+v, %v, %v", list, damaged, err)
	}
}

func openLedger(t *testing.T, be backend.Backend) *repo.Repo {
	t.Helper()
	return repotest.MustOpenWith(t, be, []byte(goldenPassword), recordOptions(50, time.Date(2026, 5, 9, 8, 0, 0, 0, time.UTC)))
}

// healLedger stores the lost record again and returns its ID.
func healLedger(t *testing.T, be backend.Backend) repo.FileID {
	t.Helper()
	ctx := context.Background()
	r := openLedger(t, be)
	l, err := r.Lock(ctx, repo.LockExclusive, "test")
	if err != nil {
		t.Fatal(err)
	}
	rep, err := r.RepairSnapshots(ctx, repo.SnapshotRepairOptions{})
	if err := errors.Join(err, l.Release()); err != nil || len(rep.Healed) != 1 {
		t.Fatal(rep, err)
	}
	return rep.Healed[0]
}

// ledgerVector has the values of the golden repository with a ledger.
type ledgerVector struct {
	Repository string             `json:"repository"`
	Key        hexBytes           `json:"ledger_key"`
	Files      []ledgerFileVector `json:"files"`
	Missing    string             `json:"missing"` // ID of a record
	Record     hexBytes           `json:"record"`  // its file
}

// ledgerFileVector has the opened bytes of a file of the ledger, and their plain form.
type ledgerFileVector struct {
	File   string   `json:"file"`
	Opened hexBytes `json:"opened"`
	Plain  hexBytes `json:"plain"`
}

func readLedger(t *testing.T) ledgerVector {
	t.Helper()
	be := loadGoldenFrom(t, ledgerDir)
	key := repotest.MasterKey(t, be, []byte(goldenPassword)).Derive(crypto.ForLedgers)
	v := ledgerVector{Repository: "repo/" + ledgerDir, Key: key[:]}
	all := repotest.Content(t, be)
	for _, name := range repotest.FilesIn(t, be, repotest.LedgerDir) {
		opened, err := crypto.NewSealer(key, nil).Open(nil, all[name][8:], nil)
		if err != nil {
			t.Fatal(err)
		}
		plain, err := pack.Expand(opened, 64<<20)
		if err != nil {
			t.Fatal(err)
		}
		v.Files = append(v.Files, ledgerFileVector{name, opened, plain})
	}
	v.Missing = healLedger(t, be).String()
	v.Record = repotest.Content(t, be)[repotest.SnapshotsDir+v.Missing]
	return v
}

// TestFormatOfLedger reads the golden repository with a ledger by the rules of
// docs/format.md, and compares what it reads with docs/format-vectors.json.
func TestFormatOfLedger(t *testing.T) {
	var v struct {
		Password string
		Ledger   struct {
			Key     string `json:"ledger_key"`
			Files   []struct{ File, Opened, Plain string }
			Missing string
			Record  string
		}
	}
	if err := json.Unmarshal(try(os.ReadFile("../docs/format-vectors.json")), &v); err != nil {
		t.Fatal(err)
	}
	r := open(ledgerDir, v.Password)
	if got := hex.EncodeToString(r.key("snap v1 ledger")); got != v.Ledger.Key {
		t.Errorf("ledger key %s, want %s", got, v.Ledger.Key)
	}
	names := r.list("ledger")
	if len(names) != len(v.Ledger.Files) {
		t.Fatal(names)
	}
	counts := map[string]ledgerEntry{}
	forms := [3]int{}
	for i, name := range names {
		opened, plain, entries := r.ledgerFile(name)
		forms[opened[0]]++
		if want := v.Ledger.Files[i]; want.File != name || want.Opened != hex.EncodeToString(opened) || want.Plain != hex.EncodeToString(plain) {
			t.Errorf("%s: %x, want %s", name, plain, want.Plain)
		}
		for _, e := range entries {
			if old, ok := counts[e.id]; !ok || e.turn > old.turn {
				counts[e.id] = e
			}
		}
	}
	removed, missing := 0, 0
	for id, e := range counts {
		_, err := os.Stat(r.path("snapshots/" + id))
		if e.turn%2 == 1 {
			removed++
			if at := time.Unix(e.removed, 0).UTC().Format(time.DateOnly); err == nil || at != "2026-05-06" {
				t.Errorf("%s was removed at %s: %v", id, at, err)
			}
			continue
		}
		file := append(bytes.Clone(e.head), try(chacha20poly1305.NewX(r.key("snap v1 snapshot"))).Seal(nil, e.head[8:], e.json, nil)...)
		if hash(file) != id || string(e.head[:8]) != "snapsn01" {
			t.Errorf("%s is made again as %x", id, file)
		}
		if err != nil {
			missing++
			if id != v.Ledger.Missing || hex.EncodeToString(file) != v.Ledger.Record {
				t.Errorf("%s is missing, want %s", id, v.Ledger.Missing)
			}
		}
	}
	if len(counts) != 5 || removed != 2 || missing != 1 || forms[1] == 0 || forms[2] == 0 {
		t.Errorf("%d entries, %d removed, %d missing; forms %v", len(counts), removed, missing, forms)
	}
}
