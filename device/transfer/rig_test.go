package transfer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/tree"
	"lukechampine.com/blake3"
)

var testSecret = []byte("correct horse")

// lockedReader is a seeded source of randomness for several goroutines.
type lockedReader struct {
	mu sync.Mutex
	r  io.Reader
}

func (l *lockedReader) Read(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.r.Read(p)
}

// testOptions make a run repeatable: one worker, seeded randomness, a clock
// that advances a minute a look, packs small enough to need several.
func testOptions(seed byte) repo.Options {
	minutes := atomic.Int64{}
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(seed) * 24 * time.Hour)
	return repo.Options{
		Rand:     &lockedReader{r: rand.NewChaCha8([32]byte{seed})},
		Now:      func() time.Time { return start.Add(time.Duration(minutes.Add(1)) * time.Minute) },
		Cost:     crypto.Cost{Time: 1, MemoryKiB: 8, Threads: 1},
		Workers:  1,
		PackSize: 16 << 10,
	}
}

func createRepo(t testing.TB, be backend.Backend) *repo.Repo {
	t.Helper()
	r, err := repo.Create(context.Background(), be, testSecret, crypto.SlotInfo{Kind: crypto.PasswordSlot}, testOptions(1))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// openRepo is what a new process does.
func openRepo(be backend.Backend, seed byte) (*repo.Repo, error) {
	ctx := context.Background()
	r, err := repo.Open(ctx, be, testSecret, testOptions(seed))
	if err != nil {
		return nil, err
	}
	return r, r.LoadIndex(ctx)
}

func mustOpen(t testing.TB, be backend.Backend, seed byte) *repo.Repo {
	t.Helper()
	r, err := openRepo(be, seed)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func importDir(r *repo.Repo, dir string, opts ImportOptions) (*ImportResult, error) {
	ctx := context.Background()
	b, err := mobilesync.Open(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	return Import(ctx, r, b, opts)
}

func mustImport(t testing.TB, r *repo.Repo, dir string, opts ImportOptions) *ImportResult {
	t.Helper()
	res, err := importDir(r, dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// picture is what has to come back of a folder: of everything below it, by
// path, its type, mode, size, mtime and content. The owner's right to read and
// write is added to every mode, as Materialize adds it.
type picture map[string]string

func takePicture(t testing.TB, dir string) picture {
	t.Helper()
	p, err := pictureOf(dir)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func pictureOf(dir string) (picture, error) {
	p := picture{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		var content []byte
		if info.Mode().IsRegular() {
			if content, err = os.ReadFile(path); err != nil {
				return err
			}
		}
		rel, err := filepath.Rel(dir, path)
		p[filepath.ToSlash(rel)] = describeFile(info.Mode(), info.ModTime().UnixNano(), content)
		return err
	})
	return p, err
}

func describeFile(mode fs.FileMode, mtime int64, content []byte) string {
	if mode.IsDir() {
		return fmt.Sprintf("%v mtime %d", mode|0o700, mtime)
	}
	return fmt.Sprintf("%v mtime %d, %d bytes %x", mode|0o600, mtime, len(content), sha256.Sum256(content))
}

// diff names up to five differences.
func (p picture) diff(got picture) error {
	var out []string
	for _, path := range slices.Sorted(maps.Keys(p)) {
		if g, ok := got[path]; !ok {
			out = append(out, path+" is not there")
		} else if g != p[path] {
			out = append(out, fmt.Sprintf("%s is %s, want %s", path, g, p[path]))
		}
	}
	for _, path := range slices.Sorted(maps.Keys(got)) {
		if _, ok := p[path]; !ok {
			out = append(out, path+" should not be there")
		}
	}
	if len(out) == 0 {
		return nil
	}
	return fmt.Errorf("%d differences: %s", len(out), strings.Join(out[:min(5, len(out))], "; "))
}

// giveBack materializes a snapshot and compares it with its picture.
func giveBack(r *repo.Repo, s *repo.Snapshot, target string, want picture) error {
	res, err := Materialize(context.Background(), r, s, target, MaterializeOptions{Workers: 1})
	if err != nil {
		return err
	}
	got, err := pictureOf(res.Dir)
	if err != nil {
		return err
	}
	if err := want.diff(got); err != nil {
		return fmt.Errorf("snapshot %s: %w", s.ID.Short(), err)
	}
	left, err := os.ReadDir(target)
	if err == nil && len(left) != 1 {
		err = fmt.Errorf("%d entries are left in %s", len(left), target)
	}
	return err
}

// readBack is giveBack without a disk: hundreds of them take no time.
func readBack(r *repo.Repo, s *repo.Snapshot) (picture, error) {
	ctx := context.Background()
	p := picture{}
	err := r.Walk(ctx, s, "", func(e *tree.Entry) error {
		mode := fs.FileMode(e.Mode)
		if e.Kind == tree.Dir {
			mode |= fs.ModeDir
		}
		var content bytes.Buffer
		err := r.WriteContent(ctx, &content, &e.Content)
		p[e.Path] = describeFile(mode, e.ModTime, content.Bytes())
		return err
	})
	return p, err
}

// judge opens a repository anew, reads back every snapshot and checks all.
// pictures are by the day of the snapshot's time; it returns the days. Check may
// name the files in torn, and no other.
func judge(be backend.Backend, pictures map[int]picture, torn ...string) ([]int, error) {
	ctx := context.Background()
	r, err := openRepo(be, 99)
	if err != nil {
		return nil, err
	}
	list, damaged, err := r.Snapshots(ctx)
	damaged = slices.DeleteFunc(damaged, func(err error) bool {
		var d *repo.DamageError
		return errors.As(err, &d) && slices.Contains(torn, d.File)
	})
	if err != nil || len(damaged) > 0 {
		return nil, fmt.Errorf("snapshots: %v, damaged %v", err, damaged)
	}
	days := []int{}
	for _, s := range list {
		got, err := readBack(r, s)
		if err == nil {
			err = pictures[s.Time.Day()].diff(got)
		}
		if err != nil {
			return nil, fmt.Errorf("day %d: %w", s.Time.Day(), err)
		}
		days = append(days, s.Time.Day())
	}
	report, err := r.Check(ctx, repo.CheckOptions{ReadData: 1})
	if err != nil {
		return nil, err
	}
	if len(report.Suffering) > 0 || slices.ContainsFunc(report.Problems, func(p repo.Problem) bool { return !slices.Contains(torn, p.File) }) {
		return nil, fmt.Errorf("check: %+v, torn are %v", report, torn)
	}
	return days, nil
}

// misnamed returns the files whose bytes are not those that their names stand
// for.
func misnamed(t testing.TB, be *memory.Backend) (bad []string) {
	t.Helper()
	ctx := context.Background()
	for _, name := range fileNames(t, be, "") {
		b, err := backend.ReadAll(ctx, be, name, 1<<30)
		if err != nil {
			t.Fatal(err)
		}
		if sum := blake3.Sum256(b); name != "config" && path.Base(name) != hex.EncodeToString(sum[:]) {
			bad = append(bad, name)
		}
	}
	return bad
}

func fileNames(t testing.TB, be *memory.Backend, prefix string) []string {
	t.Helper()
	var names []string
	err := be.List(context.Background(), prefix, func(f backend.Info) error { names = append(names, f.Name); return nil })
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// count returns what a snapshot really holds.
func count(t testing.TB, r *repo.Repo, s *repo.Snapshot) (files, bytes int64) {
	t.Helper()
	err := r.Walk(context.Background(), s, "", func(e *tree.Entry) error {
		if e.Kind == tree.File {
			files++
			bytes += e.Content.Size
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files, bytes
}
