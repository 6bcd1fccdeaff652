package repo

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/memory"
	"lukechampine.com/blake3"
)

// tinyFiles is a day of a backup in 300 KB, for tests that store it hundreds
// of times. With tinyOptions it still makes several packs of both kinds, and
// from the second day on deltas of everything in deltaFiles and of tree nodes:
// TestTheRigsStoreDeltas holds it to that.
func tinyFiles(day int) files {
	f := files{"Info.plist": fmt.Appendf(nil, "info of day %d", day), "empty": nil}
	for i := range 8 {
		version := 0
		if i%4 == day%4 {
			version = day
		}
		f[fmt.Sprintf("%02x/small%d", i, i)] = bytes.Repeat(fmt.Appendf(nil, "file %d version %d. ", i, version), 20+i*10)
	}
	f["aa/old"] = noise(1, 30<<10)
	for i := range 4 {
		f[fmt.Sprintf("bb/new%d", i)] = noise(uint64(1000*i+day), 30<<10)
	}
	db := append([]byte("SQLite format 3\x00"), noise(2, 80<<10)...)
	copy(db[70<<10:], fmt.Appendf(nil, "row of day %d", day))
	f["cc/database"] = db
	// What is cut by content grows in front, so that all of it moves.
	text := noise(3, 40<<10)
	for d := 1; d <= day; d++ {
		text = append(fmt.Appendf(nil, "paragraph of day %d. ", d), text...)
	}
	f["dd/document"] = text
	for i := range 3 {
		settings := noise(uint64(4+i), 700)
		copy(settings[300:], fmt.Appendf(nil, "day %d", day))
		f[fmt.Sprintf("ee/settings%d", i)] = settings
	}
	return f
}

// deltaFiles are files that change a little every day.
var deltaFiles = []string{"cc/database", "dd/document", "ee/settings0", "ee/settings1", "ee/settings2"}

// noise is content that does not compress.
func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	var key [32]byte
	key[0], key[1], key[2] = byte(seed), byte(seed>>8), 77
	rand.NewChaCha8(key).Read(b)
	return b
}

func tinyOptions(seed byte) Options {
	opts := testOptions(seed)
	opts.PackSize = 40 << 10
	return opts
}

// tinyRepo is a store with the tiny files of some days.
func tinyRepo(t testing.TB, days ...int) *memory.Backend {
	t.Helper()
	be := memory.New()
	if _, err := Create(context.Background(), be, testSecret, testInfo, tinyOptions(1)); err != nil {
		t.Fatal(err)
	}
	for _, day := range days {
		if _, err := storeTiny(context.Background(), be, day); err != nil {
			t.Fatal(err)
		}
	}
	return be
}

// openWith opens a repository and reads its index.
func openWith(ctx context.Context, be backend.Backend, secret []byte, opts Options) (*Repo, error) {
	r, err := Open(ctx, be, secret, opts)
	if err != nil {
		return nil, err
	}
	return r, r.LoadIndex(ctx)
}

// storeTiny is one run of a program that stores a day, after the latest day
// that is there.
func storeTiny(ctx context.Context, be backend.Backend, day int) (*Snapshot, error) {
	return storeFiles(ctx, be, tinyFiles(day), day)
}

// storeFiles is storeTiny with other files.
func storeFiles(ctx context.Context, be backend.Backend, f files, day int) (*Snapshot, error) {
	r, err := openWith(ctx, be, testSecret, tinyOptions(byte(10+day)))
	if err != nil {
		return nil, err
	}
	list, _, err := r.Snapshots(ctx)
	if err != nil {
		return nil, err
	}
	var parent *Snapshot
	if len(list) > 0 {
		parent = list[len(list)-1]
	}
	return storeWithParent(ctx, r, f, day, parent)
}

// verdict is what a repository looks like after something went wrong.
type verdict struct {
	days    []int // snapshots that came back byte for byte
	damaged []error
	report  *CheckReport
}

// judge restores every snapshot and checks everything. Any snapshot that is
// listed and does not come back whole is an error.
func judge(be backend.Backend, secret []byte) (verdict, error) {
	ctx := context.Background()
	v := verdict{days: []int{}}
	r, err := openWith(ctx, be, secret, tinyOptions(2))
	if err != nil {
		return v, fmt.Errorf("open: %w", err)
	}
	list, damaged, err := r.Snapshots(ctx)
	if err != nil {
		return v, err
	}
	v.damaged = damaged
	for _, s := range list {
		day := s.Time.Day()
		f, err := restore(ctx, r, s)
		if err == nil {
			err = sameFiles(f, tinyFiles(day))
		}
		if err != nil {
			return v, fmt.Errorf("day %d: %w", day, err)
		}
		v.days = append(v.days, day)
	}
	v.report, err = r.Check(ctx, CheckOptions{ReadData: 1})
	return v, err
}

// judgeClean is judge, and wants exactly these days and no problem.
func judgeClean(be backend.Backend, secret []byte, days ...int) error {
	v, err := judge(be, secret)
	switch {
	case err != nil:
		return err
	case len(v.damaged) > 0:
		return fmt.Errorf("damaged snapshots: %v", v.damaged)
	case !slices.Equal(v.days, days):
		return fmt.Errorf("snapshots of days %v, want %v", v.days, days)
	case !v.report.Clean() || len(v.report.Problems) > 0:
		return fmt.Errorf("check: %+v", v.report)
	}
	return nil
}

// content is everything in a store.
func content(t testing.TB, be backend.Backend) map[string][]byte {
	t.Helper()
	ctx := context.Background()
	all := map[string][]byte{}
	err := be.List(ctx, "", func(f backend.Info) error {
		b, err := backend.ReadAll(ctx, be, f.Name, 1<<30)
		all[f.Name] = b
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// misnamed returns the files whose bytes are not those that their names stand
// for.
func misnamed(t testing.TB, be backend.Backend) []string {
	t.Helper()
	var bad []string
	for name, b := range content(t, be) {
		if id, err := fileID(name); err == nil && FileID(blake3.Sum256(b)) != id {
			bad = append(bad, name)
		}
	}
	return bad
}
