package rclone

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/snap-backup/snap/internal/faultpoint"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/backendtest"
	"github.com/snap-backup/snap/repo/backend/retry"
)

// needRclone skips a test if there is no rclone, unless SNAP_TEST_INTEROP is set.
func needRclone(t testing.TB) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		if os.Getenv("SNAP_TEST_INTEROP") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
}

// noConfig keeps rclone from the configuration of whoever runs the tests.
const noConfig = "--config '' --log-level ERROR"

// inFolder is a remote that is a folder of this computer.
func inFolder(dir string) Config { return Config{Remote: ":local", Path: filepath.ToSlash(dir)} }

func open(t testing.TB, cfg Config) *Backend {
	t.Helper()
	b, err := Create(t.Context(), cfg, Options{Args: noConfig})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

func TestInteropBackend(t *testing.T) {
	t.Parallel()
	needRclone(t)
	backendtest.Run(t, func(t *testing.T) backend.Backend { return open(t, inFolder(t.TempDir())) })
}

func TestInteropMemory(t *testing.T) {
	t.Parallel()
	needRclone(t)
	backendtest.RunSmall(t, func(t *testing.T) backend.Backend { return open(t, Config{Remote: ":memory", Path: "bucket/phones"}) })
}

// TestInteropKilled kills rclone in the middle of operations. All of them succeed in the end,
// and no file is partial.
func TestInteropKilled(t *testing.T) {
	t.Parallel()
	needRclone(t)
	rng := faultpoint.Rand(t)
	dir := t.TempDir()
	b := open(t, inFolder(dir))
	again := retry.New(b, retry.Options{First: time.Millisecond, Longest: 5 * time.Millisecond})
	done := make(chan struct{})
	var killer, workers sync.WaitGroup
	kills := 0
	wait := rand.New(rand.NewPCG(rng.Uint64(), 1))
	killer.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(time.Duration(20+wait.IntN(150)) * time.Millisecond):
			}
			b.connecting <- struct{}{}
			if b.current != nil {
				b.current.child.Kill()
				kills++
			}
			<-b.connecting
		}
	})
	var mu sync.Mutex
	want := map[string][]byte{}
	for range 4 {
		rng := rand.New(rand.NewPCG(rng.Uint64(), 2))
		workers.Go(func() {
			for i := range 12 {
				data := bytes.Repeat([]byte{byte(rng.Uint32())}, 1+rng.IntN(2<<20))
				sum := sha256.Sum256(data)
				id := hex.EncodeToString(sum[:])
				name := "packs/" + id[:2] + "/" + id
				if err := again.Put(t.Context(), name, data); err != nil && !errors.Is(err, backend.ErrExist) {
					t.Errorf("Put = %v", err)
				}
				keep := data
				if i%3 == 0 {
					keep = nil
					if err := again.Delete(t.Context(), name); err != nil {
						t.Errorf("Delete = %v", err)
					}
				}
				if err := again.List(t.Context(), "packs/", func(backend.Info) error { return nil }); err != nil {
					t.Errorf("List = %v", err)
				}
				mu.Lock()
				want[name] = keep
				mu.Unlock()
			}
		})
	}
	workers.Wait()
	close(done)
	killer.Wait()
	t.Logf("%d kills, %d files", kills, len(want))
	listed := map[string]int64{}
	if err := again.List(t.Context(), "", func(i backend.Info) error { listed[i.Name] = i.Size; return nil }); err != nil {
		t.Fatal(err)
	}
	for name, data := range want {
		size, ok := listed[name]
		if ok != (data != nil) || ok && size != int64(len(data)) {
			t.Errorf("%s: listed %v with %d bytes, want %d", name, ok, size, len(data))
		}
		if data == nil {
			continue
		}
		got, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(name)))
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: %d bytes on disk, %v", name, len(got), err)
		}
	}
}

// What a killed process has left of a file is replaced.
func TestInteropPart(t *testing.T) {
	t.Parallel()
	needRclone(t)
	dir := t.TempDir()
	b := open(t, inFolder(dir))
	name := hashed("packs/0f/")
	part := filepath.Join(dir, filepath.FromSlash(name))
	if err := errors.Join(os.MkdirAll(filepath.Dir(part), 0o700), os.WriteFile(part, []byte("some"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := b.Put(t.Context(), name, []byte("some bytes")); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(part)
	if string(got) != "some bytes" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if err := b.Put(t.Context(), name, []byte("some bytes")); !errors.Is(err, backend.ErrExist) {
		t.Errorf("Put = %v", err)
	}
}

func TestInteropAppendOnly(t *testing.T) {
	t.Parallel()
	needRclone(t)
	b, err := Open(t.Context(), inFolder(t.TempDir()), Options{Args: noConfig + " --append-only"})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	mustPut(t, b, "config")
	if err := b.Delete(t.Context(), "config"); !errors.Is(err, backend.ErrAppendOnly) {
		t.Errorf("Delete = %v", err)
	}
}

func TestInteropUnknownRemote(t *testing.T) {
	t.Parallel()
	needRclone(t)
	_, err := Open(t.Context(), Config{Remote: "nothing"}, Options{Args: noConfig})
	if err == nil || !strings.Contains(err.Error(), "didn't find section in config file") {
		t.Errorf("Open = %v", err)
	}
}

// After Close, rclone has ended.
func TestInteropClose(t *testing.T) {
	t.Parallel()
	needRclone(t)
	b := open(t, inFolder(t.TempDir()))
	c := b.current
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-c.ended:
	default:
		t.Error("rclone runs")
	}
	if _, err := b.Stat(t.Context(), "config"); !errors.Is(err, errClosed) {
		t.Errorf("Stat = %v", err)
	}
}
