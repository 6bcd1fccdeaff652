package repo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/fault"
)

// checkPart is one run of a program that checks a part.
func checkPart(ctx context.Context, be backend.Backend, day int, opts CheckOptions) (*CheckReport, error) {
	o := tinyOptions(byte(day))
	o.Now = func() time.Time { return time.Date(2026, 2, day, 4, 0, 0, 0, time.UTC) }
	r, err := Open(ctx, be, testSecret, o)
	if err != nil {
		return nil, err
	}
	opts.Seed = uint64(day)
	return r.Check(ctx, opts)
}

// Parts that are read day by day come round: nothing is read twice before
// everything was read once.
func TestChecksOfPartsReadEverything(t *testing.T) {
	ctx := context.Background()
	be := tinyRepo(t, 1, 2, 3)
	packs := len(filesIn(t, be, packsDir))
	read := 0
	for day := 1; day <= 34; day++ {
		rep, err := checkPart(ctx, be, day, CheckOptions{ReadData: 0.03})
		if err != nil {
			t.Fatal(err)
		}
		read += rep.ReadPacks
		if want := max(packs-read, 0); rep.UnreadPacks != want {
			t.Fatalf("day %d: %d packs of %d were never read, want %d", day, rep.UnreadPacks, packs, want)
		}
		if n := len(filesIn(t, be, checksDir)); n != 1 {
			t.Fatalf("day %d: %d records", day, n)
		}
	}
	if read < packs {
		t.Fatalf("%d of %d packs read", read, packs)
	}
	rep, err := checkPart(ctx, be, 36, CheckOptions{ReadPacks: 3})
	if err != nil || rep.ReadPacks != 3 || rep.Oldest == nil {
		t.Fatalf("%+v, %v", rep, err)
	}
	// Damage that is there is found when its turn comes, and again until it is mended.
	name := filesIn(t, be, packsDir)[0]
	b := content(t, be)[name]
	b[len(b)/2] ^= 1
	if err := be.Set(name, b); err != nil {
		t.Fatal(err)
	}
	found, turns := 0, 0
	for day := 37; day < 37+2*packs; day++ {
		rep, err := checkPart(ctx, be, day, CheckOptions{ReadBytes: 1})
		if err != nil || rep.ReadPacks != 1 {
			t.Fatal(rep, err)
		}
		if found == 0 {
			turns++
		}
		if !rep.Clean() {
			found++
		}
	}
	if turns > packs || found < packs {
		t.Fatalf("found after %d checks, and %d times, of %d packs", turns, found, packs)
	}
}

// A check that fails or dies anywhere leaves a repository as it was, and its
// record is of use or passed over.
func TestCheckSurvivesEveryFault(t *testing.T) {
	ctx := context.Background()
	base := tinyRepo(t, 1)
	if _, err := checkPart(ctx, base, 1, CheckOptions{ReadPacks: 2}); err != nil {
		t.Fatal(err)
	}
	for mode, plan := range faultModes {
		for n := 1; ; n++ {
			be := base.Clone()
			store := fault.New(be, plan(n))
			rep, err := checkPart(ctx, store, 2, CheckOptions{ReadPacks: 2})
			if store.Count() < n {
				break
			}
			if err == nil && len(rep.Problems) == 0 && mode == "gone from here" {
				t.Fatalf("%s at %d: nothing was noticed", mode, n)
			}
			if err := judgeClean(be, testSecret, 1); err != nil {
				t.Fatalf("%s at %d: %v", mode, n, err)
			}
		}
	}
}

// A damaged record costs nothing, and goes with the next one.
func TestDamagedCheckRecord(t *testing.T) {
	ctx := context.Background()
	be := tinyRepo(t, 1)
	for _, b := range []string{"", "snapck01", "snapck01" + strings.Repeat("x", 100)} {
		if err := be.Set(checksDir+strings.Repeat("0", 64), []byte(b)); err != nil {
			t.Fatal(err)
		}
		rep, err := checkPart(ctx, be, 2, CheckOptions{ReadData: 1})
		if err != nil || !rep.Clean() || rep.UnreadPacks > 0 || len(filesIn(t, be, checksDir)) != 1 {
			t.Fatalf("%+v, %v, %v", rep, err, filesIn(t, be, checksDir))
		}
	}
}

// A backup that ends while a check runs is none of its business, and is not
// called damaged.
func TestCheckBesideBackup(t *testing.T) {
	ctx := context.Background()
	base := tinyRepo(t, 1)
	stored := 0
	for n := 1; ; n++ {
		be := base.Clone()
		var failed error
		done := false
		store := fault.New(be, func(c fault.Call) fault.Action {
			if c.N == n && !done {
				done = true
				_, failed = storeTiny(ctx, be, 2)
				stored++
			}
			return fault.Action{}
		})
		rep, err := checkPart(ctx, store, 1, CheckOptions{ReadData: 1})
		if !done {
			break
		}
		if err != nil || failed != nil || !rep.Clean() || len(rep.Problems) > 0 {
			t.Fatalf("a backup at operation %d: %+v, %v, %v", n, rep, err, failed)
		}
	}
	if stored < 10 {
		t.Fatalf("only %d operations", stored)
	}
}

// A snapshot that is forgotten while a check runs is not missed.
func TestCheckBesideForget(t *testing.T) {
	ctx := context.Background()
	be := tinyRepo(t, 1, 2)
	all := content(t, be)
	done := false
	store := fault.New(be, func(c fault.Call) fault.Action {
		if c.Op == fault.List && c.Name == indexDir && !done {
			done = true
			if err := forgetTiny(ctx, be, 2); err != nil {
				t.Error(err)
			}
			if _, err := pruneTiny(ctx, be, everything); err != nil {
				t.Error(err)
			}
		}
		return fault.Action{}
	})
	rep, err := checkPart(ctx, store, 1, CheckOptions{ReadData: 1})
	if err != nil || !rep.Clean() || !done {
		t.Fatalf("%+v, %v", rep, err)
	}
	if len(content(t, be)) >= len(all) {
		t.Error("nothing was removed")
	}
}

// filesIn lists a folder.
func filesIn(t testing.TB, be backend.Backend, dir string) []string {
	t.Helper()
	var names []string
	if err := be.List(context.Background(), dir, func(f backend.Info) error { names = append(names, f.Name); return nil }); err != nil {
		t.Fatal(err)
	}
	return names
}

func FuzzParseCheckLog(f *testing.F) {
	f.Add([]byte(`{"version":1,"reads":[]}`))
	f.Add(fmt.Appendf(nil, `{"version":1,"reads":[{"time":"2026-02-01T04:00:00Z","packs":["%064x"]}]}`, 7))
	f.Add([]byte(`{"version":2}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := parseCheckLog(b)
		if err != nil {
			return
		}
		again, err := json.Marshal(l)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parseCheckLog(again); err != nil && !errors.Is(err, ErrUnsupported) {
			t.Fatal(err)
		}
	})
}
