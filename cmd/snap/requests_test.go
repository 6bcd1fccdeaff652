package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/internal/faultpoint"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/cache"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
)

// distant is a store far away, which notes what it is asked for. Each call is a request.
type distant struct {
	*memory.Backend
	mu       sync.Mutex
	requests []string
}

func (d *distant) note(what, name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if folder, _, ok := strings.Cut(name, "/"); ok {
		name = folder + "/"
	}
	d.requests = append(d.requests, what+" "+name)
}

func (d *distant) Put(ctx context.Context, name string, data []byte) error {
	d.note("put", name)
	return d.Backend.Put(ctx, name, data)
}

func (d *distant) ReadAt(ctx context.Context, name string, p []byte, off int64) (int, error) {
	d.note("read", name)
	return d.Backend.ReadAt(ctx, name, p, off)
}

func (d *distant) ReadFile(ctx context.Context, name string, limit int64) ([]byte, error) {
	d.note("get", name)
	return backend.ReadAll(ctx, d.Backend, name, limit)
}

func (d *distant) Stat(ctx context.Context, name string) (backend.Info, error) {
	d.note("stat", name)
	return d.Backend.Stat(ctx, name)
}

func (d *distant) List(ctx context.Context, prefix string, fn func(backend.Info) error) error {
	d.note("list", prefix)
	return d.Backend.List(ctx, prefix, fn)
}

func (d *distant) ListRange(ctx context.Context, after, before string, fn func(backend.Info) error) error {
	d.note("range", after)
	return d.Backend.List(ctx, "", func(f backend.Info) error {
		if f.Name <= after || before != "" && f.Name >= before {
			return nil
		}
		return fn(f)
	})
}

func (d *distant) Delete(ctx context.Context, name string) error {
	d.note("delete", name)
	return d.Backend.Delete(ctx, name)
}

// cachedFolder is a store with a cache in the place of a folder.
type cachedFolder struct {
	memoryFolder
	backend.FileReader
	backend.Keeper
	backend.Surveyor
}

// A store far away is asked for little, however many snapshots there are.
func TestRequests(t *testing.T) {
	t.Setenv("SNAP_PASSWORD", "pw")
	many := 100
	if faultpoint.All() {
		many = 2_000
	}
	for _, earlier := range []int{0, many} {
		t.Run(fmt.Sprint(earlier, " snapshots"), func(t *testing.T) { testRequests(t, earlier) })
	}
}

func testRequests(t *testing.T, earlier int) {
	p := newPatient(t)
	p.packs = 16 << 20
	be, _ := p.stores["repo"].(*memory.Backend)
	r, err := repo.Create(t.Context(), be, []byte("pw"), crypto.SlotInfo{Kind: crypto.PasswordSlot}, p.options())
	if err != nil {
		t.Fatal(err)
	}
	putSnapshots(t, r, earlier)
	far := &distant{Backend: be}
	ask := func(line string, most int) {
		t.Helper()
		far.requests = nil
		c, err := cache.New(t.Context(), far, filepath.Join(p.dir, "caches"))
		if err != nil {
			t.Fatal(err)
		}
		p.stores["repo"] = cachedFolder{memoryFolder{c}, c, c, c}
		if code, out := p.run(line); code != 0 {
			t.Fatalf("%s: exit code %d: %s", line, code, out)
		}
		t.Logf("%s: %d requests", line, len(far.requests))
		if len(far.requests) > most {
			t.Errorf("%s: %d requests, at most %d wanted:\n%s", line, len(far.requests), most, strings.Join(far.requests, "\n"))
		}
	}
	for day := 1; day <= 3; day++ {
		dir := filepath.Join(p.dir, "day")
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		p.must(fmt.Sprintf("generate -q --scale tiny --devices 1 --days %d DAY", day))
		most := 20
		if day == 1 {
			most += 40 // the cache is empty, and the first backup merges the ledger
		}
		ask("import -q DAY", most)
	}
	ask("import -q DAY", 8)
	for day := range time.Duration(3) { // each notes that it has looked
		p.jump = func(now time.Time) time.Time { return now.Add((day + 1) * 24 * time.Hour) }
		ask("import -q DAY", 8)
		ask("import -q DAY", 8)
	}
	if n := len(repotest.FilesIn(t, be, repotest.CertificatesDir)); n != 3 {
		t.Errorf("%d certificates, want one for each day", n)
	}
	ask("snapshots", 3)
	ask("ls latest", 6)
	ask("dump latest HomeDomain/Library/SMS/sms.db", 6)
	ask("find --device anna sms.db", 6)
	ask("history latest HomeDomain/Library/SMS/sms.db", 6)
}

// putSnapshots stores empty snapshots of another device.
func putSnapshots(t *testing.T, r *repo.Repo, n int) {
	t.Helper()
	for i := range n {
		w := r.NewWriter(t.Context())
		s := &repo.Snapshot{Time: time.Date(2020, 1, 1, 0, -i, 0, 0, time.UTC), Device: repo.Device{UDID: "00008110-0000000000000001", Name: "Another"}, Complete: true}
		if err := errors.Join(w.Commit(t.Context(), s), w.Close()); err != nil {
			t.Fatal(err)
		}
	}
}
