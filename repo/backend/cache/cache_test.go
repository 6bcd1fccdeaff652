package cache

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/snap-backup/snap/crypto/blake"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/backendtest"
	"github.com/snap-backup/snap/repo/backend/fault"
	"github.com/snap-backup/snap/repo/backend/memory"
)

// named returns the name of a file in a folder.
func named(folder string, data []byte) string {
	sum := blake.Sum(data)
	if folder == packsFolder {
		folder += hex.EncodeToString(sum[:1]) + "/"
	}
	return folder + hex.EncodeToString(sum[:])
}

// store is a store with a config and a cache in front of it.
type store struct {
	*memory.Backend
	asked *fault.Backend
	be    *Backend
	root  string
}

func newStore(t *testing.T) *store {
	t.Helper()
	mem := memory.New()
	if err := mem.Put(t.Context(), configName, []byte("the config")); err != nil {
		t.Fatal(err)
	}
	s := &store{Backend: mem, asked: fault.New(mem), root: filepath.Join(t.TempDir(), "caches")}
	s.reopen(t)
	return s
}

// reopen makes the cache as another process would.
func (s *store) reopen(t *testing.T) {
	t.Helper()
	be, err := New(t.Context(), s.asked, s.root)
	if err != nil {
		t.Fatal(err)
	}
	s.be = be
	if _, err := backend.ReadAll(t.Context(), s.be, configName, maxConfigSize); err != nil {
		t.Fatal(err)
	}
	s.asked.SetPlan()
}

func (s *store) path(name string) string {
	sum := blake.Sum([]byte("the config"))
	return filepath.Join(s.root, hex.EncodeToString(sum[:16]), filepath.FromSlash(name))
}

// read reads a file and returns how often the store was asked.
func (s *store) read(t *testing.T, name string, want []byte) int {
	t.Helper()
	s.asked.SetPlan()
	got, err := backend.ReadAll(t.Context(), s.be, name, 1<<20)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%s: got %q, %v", name, got, err)
	}
	return s.asked.Count()
}

func TestContract(t *testing.T) {
	t.Parallel()
	backendtest.Run(t, func(t *testing.T) backend.Backend {
		root := t.TempDir()
		return &Backend{Backend: memory.New(), dir: filepath.Join(root, "x"), locks: map[string][]byte{}}
	})
}

func TestReadOnce(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	for _, folder := range folders {
		data := []byte("content in " + folder)
		name := named(folder, data)
		if err := s.Put(t.Context(), name, data); err != nil {
			t.Fatal(err)
		}
		if n := s.read(t, name, data); n != 2 {
			t.Errorf("%s: the store was asked %d times, want a Stat and a ReadAt", folder, n)
		}
		s.reopen(t)
		if n := s.read(t, name, data); n != 0 {
			t.Errorf("%s: the store was asked %d times for a file in the cache", folder, n)
		}
	}
}

func TestOthersAreNotKept(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	data := []byte("content")
	for _, name := range []string{"reserve", named("locks/", data), named("runs/", data), named("parity/", data), named(packsFolder, data), "index/readme"} {
		if err := s.Put(t.Context(), name, data); err != nil {
			t.Fatal(err)
		}
		want, _ := backend.ReadAll(t.Context(), s.Backend, name, 1<<20)
		for range 2 {
			if n := s.read(t, name, want); n != 2 {
				t.Errorf("%s: the store was asked %d times", name, n)
			}
		}
	}
}

// A copy with other bytes than it should have counts as none.
func TestDamagedCopies(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	data := []byte("an index file")
	name := named("index/", data)
	if err := s.be.Put(t.Context(), name, data); err != nil {
		t.Fatal(err)
	}
	for _, forged := range [][]byte{nil, []byte("an index fil"), []byte("An index file"), bytes.Repeat(data, 100)} {
		if n := s.read(t, name, data); n != 0 {
			t.Errorf("a file that was put was asked for %d times", n)
		}
		if err := os.WriteFile(s.path(name), forged, 0o600); err != nil {
			t.Fatal(err)
		}
		if n := s.read(t, name, data); n != 2 {
			t.Errorf("%q: the store was asked %d times", forged, n)
		}
	}
	if err := os.Remove(s.path(name)); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(s.path(name), "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	if n := s.read(t, name, data); n != 2 {
		t.Errorf("a folder: the store was asked %d times", n)
	}
}

// Wrong bytes of the store are not kept.
func TestDamagedFilesAreNotKept(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	name := named("snapshots/", []byte("a record"))
	if err := s.Put(t.Context(), name, []byte("other bytes")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if n := s.read(t, name, []byte("other bytes")); n != 2 {
			t.Errorf("the store was asked %d times", n)
		}
	}
}

// What the store does not have any more leaves the cache.
func TestSweep(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	ctx := t.Context()
	a, b, c := named("ledger/", []byte("a")), named("ledger/", []byte("b")), named("index/", []byte("c"))
	for name, data := range map[string]string{a: "a", b: "b", c: "c"} {
		if err := s.be.Put(ctx, name, []byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Backend.Delete(ctx, a); err != nil {
		t.Fatal(err)
	}
	if err := s.be.List(ctx, "ledger/", func(backend.Info) error { return errors.New("stop") }); err == nil {
		t.Fatal("no error")
	}
	if _, err := os.Stat(s.path(a)); err != nil {
		t.Error("a listing that did not end removed a copy")
	}
	if err := s.be.List(ctx, "ledger/", func(backend.Info) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.path(a)); err == nil {
		t.Error("the copy of a file that is gone stayed")
	}
	if n := s.read(t, b, []byte("b")) + s.read(t, c, []byte("c")); n != 0 {
		t.Error("other copies went, too")
	}
	if err := s.be.Delete(ctx, c); err != nil {
		t.Fatal(err)
	}
	if _, err := backend.ReadAll(ctx, s.be, c, 100); !errors.Is(err, backend.ErrNotExist) {
		t.Errorf("a deleted file: got %v", err)
	}
}

func TestPacks(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	ctx := t.Context()
	data := bytes.Repeat([]byte("0123456789"), 1000)
	name := named(packsFolder, data)
	if err := s.Put(ctx, name, data); err != nil {
		t.Fatal(err)
	}
	k := s.be
	var wait sync.WaitGroup
	for i := range 20 {
		wait.Go(func() {
			p := make([]byte, 10)
			if n, err := k.ReadKept(ctx, name, p, int64(i)); n != 10 || err != nil || !bytes.Equal(p, data[i:i+10]) {
				t.Error(i, n, err, string(p))
			}
		})
	}
	wait.Wait()
	s.reopen(t)
	p := make([]byte, 5000)
	if n, err := s.be.ReadAt(ctx, name, p, 5000); n != 5000 || err != nil || s.asked.Count() > 0 {
		t.Errorf("%d bytes, %v, after asking the store %d times", n, err, s.asked.Count())
	}
	if _, err := s.be.ReadAt(ctx, name, p, 6000); err == nil {
		t.Error("read beyond the end")
	}
	s.reopen(t)
	if err := os.WriteFile(s.path(name), bytes.Repeat([]byte("x"), len(data)), 0o600); err != nil {
		t.Fatal(err)
	}
	if n, err := k.ReadKept(ctx, name, p[:3], 1); n != 3 || err != nil {
		t.Error(n, err) // proven before, by the same process
	}
	k = s.be
	if _, err := k.ReadKept(ctx, name, p[:3], 1); err != nil || string(p[:3]) != "123" {
		t.Errorf("a forged pack: got %q, %v", p[:3], err)
	}
}

// A cache that cannot be written changes nothing.
func TestNoRoom(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	if err := os.RemoveAll(s.root); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.root, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	data := []byte("a key slot")
	name := named("keys/", data)
	if err := s.be.Put(t.Context(), name, data); err != nil {
		t.Fatal(err)
	}
	if n := s.read(t, name, data); n != 2 {
		t.Errorf("the store was asked %d times", n)
	}
	if _, err := New(t.Context(), s.asked, s.root); err == nil {
		t.Error("a cache without a folder")
	}
	if _, err := New(t.Context(), memory.New(), t.TempDir()); !errors.Is(err, backend.ErrNotExist) {
		t.Errorf("a store without config: %v", err)
	}
}

func TestTrim(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	ctx := t.Context()
	var names []string
	for i := range 10 {
		data := bytes.Repeat([]byte{byte(i)}, 100)
		name := named("index/", data)
		names = append(names, name)
		if err := s.be.Put(ctx, name, data); err != nil {
			t.Fatal(err)
		}
		used := time.Now().Add(time.Duration(i-100) * time.Hour)
		if err := os.Chtimes(s.path(name), used, used); err != nil {
			t.Fatal(err)
		}
	}
	s.read(t, names[0], bytes.Repeat([]byte{0}, 100)) // now it is the one that was used last
	for range 2 {
		if err := Trim(s.root, 350); err != nil {
			t.Fatal(err)
		}
	}
	for i, name := range names {
		_, err := os.Stat(s.path(name))
		if kept := i == 0 || i > 7; kept != (err == nil) {
			t.Errorf("copy %d: %v", i, err)
		}
	}
}

// ranged is a store that lists several folders at once.
type ranged struct{ *fault.Backend }

func (r ranged) ListRange(ctx context.Context, after, before string, fn func(backend.Info) error) error {
	return r.List(ctx, "", func(f backend.Info) error {
		if f.Name <= after || before != "" && f.Name >= before {
			return nil
		}
		return fn(f)
	})
}

// What Survey has found is shown once, and not after a while, nor after a change.
func TestSurvey(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	ctx := t.Context()
	s.be.Backend = ranged{s.asked}
	for _, name := range []string{named("index/", []byte("a")), named("snapshots/", []byte("b")), named(packsFolder, []byte("c"))} {
		if err := s.Put(ctx, name, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	list := func(prefix string) (files, asked int) {
		t.Helper()
		s.asked.SetPlan()
		if err := s.be.List(ctx, prefix, func(backend.Info) error { files++; return nil }); err != nil {
			t.Fatal(err)
		}
		return files, s.asked.Count()
	}
	survey := func() {
		t.Helper()
		if err := s.be.Survey(ctx); err != nil {
			t.Fatal(err)
		}
	}
	check := func(what, prefix string, files, asked int) {
		t.Helper()
		if f, a := list(prefix); f != files || a != asked {
			t.Errorf("%s: %d files, and the store was asked %d times; want %d and %d", what, f, a, files, asked)
		}
	}
	survey()
	check("the first list", "index/", 1, 0)
	check("the second list", "index/", 1, 1)
	check("an empty folder", "ledger/", 0, 0)
	check("packs", packsFolder, 1, 1)
	if err := s.be.Put(ctx, named("snapshots/", []byte("d")), []byte("d")); err != nil {
		t.Fatal(err)
	}
	check("after a change", "snapshots/", 2, 1)
	survey()
	s.be.until = time.Now()
	check("after a while", "index/", 1, 1)
	survey()
	done, cancel := context.WithCancel(ctx)
	cancel()
	if err := s.be.List(done, "index/", func(backend.Info) error { t.Error("called"); return nil }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// A lock of this process is read from memory, as long as the store lists it.
func TestOwnLock(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	ctx := context.Background()
	data := []byte("a lock")
	name := named(locksFolder, data)
	if err := s.be.Put(ctx, name, data); err != nil {
		t.Fatal(err)
	}
	if n := s.read(t, name, data); n != 0 {
		t.Errorf("the store was asked %d times", n)
	}
	if _, err := s.be.Stat(ctx, name); err != nil || s.asked.Count() != 1 {
		t.Error("Stat did not ask the store", err)
	}
	if err := s.be.Delete(ctx, name); err != nil {
		t.Fatal(err)
	}
	if _, err := backend.ReadAll(ctx, s.be, name, 100); !errors.Is(err, backend.ErrNotExist) {
		t.Error(err)
	}
}
