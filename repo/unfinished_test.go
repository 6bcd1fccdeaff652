package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/tree"
)

// receive is a run that stores one file more of an unfinished backup.
func receive(ctx context.Context, r *Repo, u *Unfinished, path string, data []byte) error {
	w := r.NewWriter(ctx)
	defer w.Close()
	lane := w.NewContentWriter()
	content, err := lane.Store(ctx, bytes.NewReader(data), nil)
	if err != nil {
		return err
	}
	b := tree.NewBuilder(w.SaveNode, nil)
	if err := b.Add(ctx, &tree.Entry{Path: path, Content: content}); err != nil {
		return err
	}
	root, err := b.Finish(ctx)
	if err != nil {
		return err
	}
	if err := lane.Flush(ctx); err != nil {
		return err
	}
	if err := w.Finish(ctx); err != nil {
		return err
	}
	u.Parts = append(u.Parts, root)
	u.SetStats(u.Stats().Add(w.Stats()))
	return r.SaveUnfinished(ctx, u)
}

// received returns what an unfinished run has.
func received(ctx context.Context, r *Repo, u *Unfinished) (map[string]string, error) {
	got := map[string]string{}
	err := r.WalkUnfinished(ctx, u, func(e *tree.Entry) error {
		var b bytes.Buffer
		err := r.WriteContent(ctx, &b, &e.Content)
		got[e.Path] = b.String()
		return err
	})
	return got, err
}

func TestUnfinished(t *testing.T) {
	ctx := context.Background()
	be := tinyRepo(t, 1)
	r, err := openWith(ctx, be, testSecret, tinyOptions(5))
	if err != nil {
		t.Fatal(err)
	}
	u, err := r.NewUnfinished(UnfinishedBackup, "udid")
	if err != nil {
		t.Fatal(err)
	}
	other, err := r.NewUnfinished(UnfinishedRekey, "udid")
	if err != nil || other.Run == u.Run {
		t.Fatal(other, err)
	}
	for i, data := range []string{"one", "two", "one again"} {
		if err := receive(ctx, r, u, fmt.Sprintf("Snapshot/%d", i%2), []byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := receive(ctx, r, other, "Manifest.plist", []byte("rekeyed")); err != nil {
		t.Fatal(err)
	}
	r, err = openWith(ctx, be, testSecret, tinyOptions(6))
	if err != nil {
		t.Fatal(err)
	}
	list, damaged, err := r.Unfinished(ctx)
	if err != nil || len(damaged) > 0 || len(list) != 2 || list[0].Run != u.Run || list[1].Kind != UnfinishedRekey {
		t.Fatalf("%v, %v, %v", list, damaged, err)
	}
	got, err := received(ctx, r, list[0])
	if err != nil || len(got) != 2 || got["Snapshot/0"] != "one again" || got["Snapshot/1"] != "two" {
		t.Errorf("%v, %v", got, err)
	}
	if list[0].NewChunks < 3 || list[0].StoredBytes == 0 {
		t.Errorf("%+v", list[0])
	}
	if err := judgeClean(be, testSecret, 1); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := r.RemoveUnfinished(ctx, list[0]); err != nil {
			t.Fatal(err)
		}
	}
	if list, _, err = r.Unfinished(ctx); err != nil || len(list) != 1 || list[0].Run != other.Run {
		t.Errorf("%v, %v", list, err)
	}
}

// Whatever happens while a record is replaced, one of the two is there with all
// that it names, and the snapshots are whole.
func TestUnfinishedSurvivesEveryFault(t *testing.T) {
	ctx := context.Background()
	base := tinyRepo(t, 1)
	first, err := openWith(ctx, base, testSecret, tinyOptions(5))
	if err != nil {
		t.Fatal(err)
	}
	u, err := first.NewUnfinished(UnfinishedBackup, "udid")
	if err != nil {
		t.Fatal(err)
	}
	if err := receive(ctx, first, u, "a", noise(50, 30<<10)); err != nil {
		t.Fatal(err)
	}
	run := func(be backend.Backend) error {
		r, err := openWith(ctx, be, testSecret, tinyOptions(6))
		if err != nil {
			return err
		}
		list, _, err := r.Unfinished(ctx)
		if err != nil {
			return err
		}
		return receive(ctx, r, list[0], "b", noise(51, 60<<10))
	}
	verdict := func(be *memory.Backend, runErr error) error {
		r, err := openWith(ctx, be, testSecret, tinyOptions(7))
		if err != nil {
			return err
		}
		list, damaged, err := r.Unfinished(ctx)
		if err != nil || len(damaged) > 0 || len(list) != 1 {
			return fmt.Errorf("records %v, damaged %v: %w", list, damaged, err)
		}
		got, err := received(ctx, r, list[0])
		if err != nil || len(got) != len(list[0].Parts) || len(got["a"]) != 30<<10 || runErr == nil && len(got) != 2 {
			return fmt.Errorf("%d files: %w", len(got), err)
		}
		if err := judgeClean(be, testSecret, 1); err != nil {
			return err
		}
		return r.RemoveUnfinished(ctx, list[0])
	}
	everyOperation(t, 8, base, run, verdict)
	everyCrash(t, false, 3, base, run, func(be *memory.Backend) error { return verdict(be, errors.New("crashed")) })
}

// A record that is damaged, or has lost content, is named by check and hurts
// nobody else.
func TestDamagedUnfinished(t *testing.T) {
	ctx := context.Background()
	be := tinyRepo(t, 1)
	r, err := openWith(ctx, be, testSecret, tinyOptions(5))
	if err != nil {
		t.Fatal(err)
	}
	u, err := r.NewUnfinished(UnfinishedBackup, "udid")
	if err != nil {
		t.Fatal(err)
	}
	before := content(t, be)
	if err := receive(ctx, r, u, "a", noise(50, 30<<10)); err != nil {
		t.Fatal(err)
	}
	lose := func(prefix string) *memory.Backend {
		c := be.Clone()
		for name := range content(t, be) {
			if _, old := before[name]; !old && strings.HasPrefix(name, prefix) {
				if prefix == runsDir {
					err = c.Set(name, []byte("damaged"))
				} else {
					err = c.Delete(ctx, name)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
		}
		return c
	}
	for _, prefix := range []string{runsDir, packsDir} {
		v, err := judge(lose(prefix), testSecret)
		if err != nil || len(v.report.Suffering) > 0 || !slices.Equal(v.days, []int{1}) {
			t.Fatalf("%s: %v, %+v", prefix, err, v)
		}
		named := slices.ContainsFunc(v.report.Problems, func(p Problem) bool { return strings.HasPrefix(p.File, runsDir) && !p.Fatal })
		if !named {
			t.Errorf("%s: check says nothing of it: %+v", prefix, v.report.Problems)
		}
	}
}

func FuzzParseUnfinished(f *testing.F) {
	f.Add([]byte(`{"version":1,"kind":"backup","run":"0102","udid":"u","started":"2026-01-01T00:00:00Z","saved":"2026-01-01T00:00:00Z","parts":["` + strings.Repeat("ab", 32) + `"],"removed":["Snapshot/aa/aa"],"files":1,"bytes":3}`))
	f.Add([]byte(`{"version":2}`))
	f.Add([]byte(`{"version":1,"parts":["x"]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		u, err := parseUnfinished(b)
		if err == nil && (u.Version != 1 || len(u.Parts) > maxParts) {
			t.Errorf("%+v", u)
		}
	})
}
