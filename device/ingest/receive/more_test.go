package receive

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/snap-backup/snap/device/finding"
	"github.com/snap-backup/snap/device/simulator/synthetic"
	"github.com/snap-backup/snap/internal/faultpoint"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
)

// If the spool is too small, the remaining files are stored in the repository,
// with the same result. The result is also the same if the host does not know
// that the device encrypts.
func TestSpoolOverflow(t *testing.T) {
	ctx := context.Background()
	t.Parallel()
	device, be := firstDay(t, synthetic.EncryptAll), memory.New()
	if err := createRepo(t, be).KeepDevicePassword(ctx, device.udid, []byte(synthetic.DefaultPassword)); err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		name string
		opts Options
	}{
		{"nothing", Options{Encrypted: true, SpoolDir: t.TempDir(), SpoolLimit: 1}},
		{"not told", Options{SpoolDir: t.TempDir()}},
		{"no place", Options{Encrypted: true}},
		{"small", Options{Encrypted: true, SpoolDir: t.TempDir(), SpoolLimit: 300_000}},
	}
	for _, i := range faultpoint.Choose(t, len(cases), len(cases)) {
		name, opts, be := cases[i].name, cases[i].opts, be.Clone()
		p := newPhone(device.dir)
		p.step = func(string) error {
			found, err := filepath.Glob(filepath.Join(opts.SpoolDir, "*", "data"))
			for _, f := range found {
				if info, err := os.Stat(f); err != nil || info.Size() > opts.SpoolLimit {
					t.Fatalf("%s: the spool: %v, %v", name, info, err)
				}
			}
			return err
		}
		r := mustOpen(t, be, seed(4))
		res := mustRun(t, r, p, nil, opts)
		if (res.Overflow > 0) != (opts.SpoolLimit > 0) || !res.Snapshot.Unlocked || res.Locked != nil {
			t.Errorf("%s: %+v", name, res)
		}
		sameAsImport(t, r, p, res.Snapshot, synthetic.DefaultPassword)
		checkClean(t, be)
	}
}

// A backup is stored even if no password fits.
func TestWrongPassword(t *testing.T) {
	t.Parallel()
	s, be := newSeries(t, synthetic.Config{Seed: 5, Encryption: synthetic.EncryptAll}), memory.New()
	s.next()
	r := createRepo(t, be)
	if err := r.KeepDevicePassword(context.Background(), s.phone.udid, []byte("wrong")); err != nil {
		t.Fatal(err)
	}
	res := mustRun(t, r, s.phone, nil, Options{Encrypted: true, SpoolDir: t.TempDir()})
	if res.Locked == nil || res.Snapshot.Unlocked {
		t.Errorf("%+v", res)
	}
	sameAsImport(t, r, s.phone, res.Snapshot, "")
	old := s.phone.state()
	s.next()
	// With the right password, everything is decrypted the next day, including
	// files that are not sent again.
	if err := r.KeepDevicePassword(context.Background(), s.phone.udid, []byte(s.Password(0))); err != nil {
		t.Fatal(err)
	}
	r = mustOpen(t, be, seed(3))
	res = mustRun(t, r, s.phone, old, Options{Encrypted: true, SpoolDir: t.TempDir()})
	if res.Locked != nil || !res.Snapshot.Unlocked {
		t.Errorf("%+v", res)
	}
	sameAsImport(t, r, s.phone, res.Snapshot, s.Password(1))
}

// Publish verifies that the device has finished. Otherwise it makes no snapshot, and
// the next backup begins anew.
func TestPublishRefuses(t *testing.T) {
	ctx := context.Background()
	t.Parallel()
	device, be := firstDay(t, synthetic.EncryptNone), memory.New()
	createRepo(t, be)
	reasons := map[string]func(n *Receiver) error{
		"no manifest":          func(n *Receiver) error { return n.Remove(ctx, device.udid+"/Manifest.db") },
		"Snapshot is left":     func(n *Receiver) error { return n.Mkdir(ctx, device.udid+"/Snapshot") },
		"unfinished":           func(n *Receiver) error { return device.put(ctx, n, "Status.plist", device.status("removing")) },
		"damaged manifest":     func(n *Receiver) error { return device.put(ctx, n, "Manifest.db", []byte("SQLite format 3\x00")) },
		"no Manifest.plist":    func(n *Receiver) error { return device.put(ctx, n, "Manifest.plist", nil) },
		"a file still arrives": func(n *Receiver) error { _, err := n.Create(ctx, device.udid+"/x"); return err },
	}
	names := slices.Sorted(maps.Keys(reasons))
	for _, i := range faultpoint.Choose(t, len(names), len(names)) {
		name, spoil := names[i], reasons[names[i]]
		be := be.Clone()
		n, err := New(ctx, mustOpen(t, be, seed(3)), Options{UDID: device.udid})
		if err != nil {
			t.Fatal(err)
		}
		p := newPhone(device.dir)
		if err := p.backup(ctx, n, nil); err != nil {
			t.Fatal(err)
		}
		if err := spoil(n); err != nil {
			t.Fatal(name, err)
		}
		if res, err := n.Publish(ctx, PublishOptions{}); err == nil {
			t.Errorf("%s: %+v", name, res.Snapshot)
		}
		_ = n.Close(ctx)
		r := mustOpen(t, be, seed(4))
		if list, _, err := r.Snapshots(ctx); err != nil || len(list) > 0 {
			t.Errorf("%s: %v, %v", name, list, err)
		}
		p = newPhone(device.dir)
		mustRun(t, r, p, nil, Options{})
	}
}

// A backup that lacks files which the manifest lists is kept, and the snapshot says
// what is missing.
func TestPublishWithMissingFiles(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	device := firstDay(t, synthetic.EncryptNone)
	for _, missing := range []int{1, 30} {
		n, err := New(ctx, createRepo(t, memory.New()), Options{UDID: device.udid})
		if err != nil {
			t.Fatal(err)
		}
		if err := newPhone(device.dir).backup(ctx, n, nil); err != nil {
			t.Fatal(err)
		}
		for _, path := range device.blobs()[3 : 3+missing] {
			if err := n.Remove(ctx, device.udid+"/"+path); err != nil {
				t.Fatal(err)
			}
		}
		res, err := n.Publish(ctx, PublishOptions{})
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(res.Snapshot.Findings, func(f repo.Finding) bool { return f.Kind == finding.Missing })
		if i < 0 || res.Snapshot.Findings[i].Count != int64(missing) || res.Snapshot.Damaged() != (missing > 20) || res.Snapshot.Complete != (missing <= 20) {
			t.Errorf("%d missing: complete is %v, findings are %+v", missing, res.Snapshot.Complete, res.Snapshot.Findings)
		}
	}
}

// If the repository has lost content of the last snapshot, the device sends all
// files.
func TestRepair(t *testing.T) {
	ctx := context.Background()
	t.Parallel()
	device, be := firstDay(t, synthetic.EncryptNone), memory.New()
	mustRun(t, createRepo(t, be), device, nil, Options{})
	packs := repotest.FilesIn(t, be, repotest.PacksDir)
	repaired := 0
	for _, i := range faultpoint.Choose(t, len(packs), 4) {
		name := packs[i]
		c := be.Clone()
		if err := c.Delete(ctx, name); err != nil {
			t.Fatal(err)
		}
		p := newPhone(device.dir)
		res := mustRun(t, mustOpen(t, c, seed(4)), p, p.state(), Options{})
		if len(res.Problems) > 0 {
			repaired++
		}
		want, _ := folderContents(p.dir)
		got, err := snapshotContents(mustOpen(t, c, seed(5)), res.Snapshot)
		if err == nil {
			err = sameContents(want, got)
		}
		if err != nil {
			t.Errorf("without %s: %v", name, err)
		}
	}
	if repaired == 0 && faultpoint.All() {
		t.Errorf("%d packs were lost one at a time, and no loss was noticed", len(packs))
	}
}

// roomy is a store that knows its free space.
type roomy struct {
	backend.Backend
	free int64
	err  error
}

func (r roomy) Free(context.Context) (int64, error) { return r.free, r.err }

func TestSpace(t *testing.T) {
	ctx := context.Background()
	be := memory.New()
	createRepo(t, be)
	for _, c := range []struct {
		store backend.Backend
		opts  Options
		want  int64
		fails bool
	}{
		{be, Options{}, spaceUnknown, false},
		{roomy{be, 0, errors.ErrUnsupported}, Options{}, spaceUnknown, false},
		{roomy{be, 1 << 30, nil}, Options{}, 4 * (1<<30 - spaceReserve), false},
		{roomy{be, 1 << 30, nil}, Options{Encrypted: true}, 1<<30 - spaceReserve, false},
		{roomy{be, 1 << 30, nil}, Options{Encrypted: true, SpaceFactor: 2}, 2 * (1<<30 - spaceReserve), false},
		{roomy{be, 1000, nil}, Options{}, 0, false},
		{roomy{be, 1<<63 - 1, nil}, Options{}, 1<<62 - 1, false},
		{roomy{be, 0, fs.ErrPermission}, Options{}, 0, true},
		{roomy{be, 1000, nil}, Options{IgnoreSpace: true}, spaceMost, false},
	} {
		r, err := openRepo(c.store, seed(3))
		if err != nil {
			t.Fatal(err)
		}
		c.opts.UDID = "udid"
		n, err := New(ctx, r, c.opts)
		if err != nil {
			t.Fatal(err)
		}
		got, err := n.Space(ctx)
		if got != c.want || (err != nil) != c.fails {
			t.Errorf("%+v: %d, %v, want %d", c.store, got, err, c.want)
		}
		if freed, err := n.Purge(ctx, 5); freed != 0 || err != nil {
			t.Error(freed, err)
		}
		if wanted := n.Wanted(); wanted != 5 {
			t.Errorf("wanted %d bytes", wanted)
		}
		if err := n.Close(ctx); err != nil {
			t.Error(err)
		}
	}
}

// pattern is a reader of endless, repeating content, which is cheap to store.
type pattern struct{ at int }

func (p *pattern) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(p.at * p.at >> 7)
		p.at = (p.at + 1) & 0xfffff
	}
	return len(b), nil
}

// Receiving a large file takes bounded memory.
func TestLargeFile(t *testing.T) {
	size := int64(64 << 20)
	switch {
	case os.Getenv("SNAP_TEST_HUGE") != "":
		size = 1 << 30
	case faultpoint.All():
		size = 128 << 20
	case testing.Short():
		t.Skip("it takes a second")
	}
	ctx := context.Background()
	be := memory.New()
	r := createRepo(t, be)
	n, err := New(ctx, r, Options{UDID: "udid"})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close(ctx)
	up, err := n.Create(ctx, "udid/Snapshot/ab/"+strings.Repeat("ab", 20))
	if err != nil {
		t.Fatal(err)
	}
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	runtime.GC()
	before, peak := heap(), uint64(0)
	src, buf := &pattern{}, make([]byte, 32<<10)
	for sent := int64(0); sent < size; sent += int64(len(buf)) {
		_, _ = src.Read(buf)
		if _, err := up.Write(buf); err != nil {
			t.Fatal(err)
		}
		if sent%(8<<20) == 0 {
			peak = max(peak, heap())
		}
	}
	if err := up.Commit(); err != nil {
		t.Fatal(err)
	}
	grown := int64(peak) - int64(before)
	t.Logf("%d MiB took %d MiB of memory", size>>20, grown>>20)
	if grown > 48<<20 {
		t.Errorf("%d bytes of memory for a file of %d", grown, size)
	}
	f, err := n.Open(ctx, "udid/Snapshot/ab/"+strings.Repeat("ab", 20))
	if err != nil {
		t.Fatal(err)
	}
	want := &pattern{}
	other := make([]byte, 32<<10)
	got := int64(0)
	for {
		m, err := io.ReadFull(f, buf)
		_, _ = want.Read(other[:m])
		if !bytes.Equal(buf[:m], other[:m]) {
			t.Fatalf("other bytes near %d", got)
		}
		if got += int64(m); err != nil {
			break
		}
	}
	if got != size {
		t.Errorf("%d bytes come back of %d", got, size)
	}
}

// Requests that make no sense are refused and change nothing.
func TestOddRequests(t *testing.T) {
	ctx := context.Background()
	be := memory.New()
	n, err := New(ctx, createRepo(t, be), Options{UDID: "udid"})
	if err != nil {
		t.Fatal(err)
	}
	blob := "udid/Snapshot/ab/" + strings.Repeat("ab", 20)
	put := func(path string) error {
		up, err := n.Create(ctx, path)
		if err != nil {
			return err
		}
		_, err = up.Write([]byte("x"))
		return errors.Join(err, up.Commit())
	}
	if err := put(blob); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"foreign mkdir":     n.Mkdir(ctx, "other/x"),
		"foreign move":      n.Move(ctx, blob, "other/x"),
		"foreign copy":      n.Copy(ctx, blob, "udid-20260101-101010/x"),
		"foreign create":    put("other"),
		"file at the top":   put("udid"),
		"file over folder":  put("udid/Snapshot/ab"),
		"folder over file":  n.Mkdir(ctx, blob),
		"below a file":      put(blob + "/x"),
		"move of nothing":   n.Move(ctx, "udid/x", "udid/y"),
		"move of a folder":  n.Move(ctx, "udid/Snapshot", "udid/y"),
		"remove of nothing": n.Remove(ctx, "udid/x"),
		"unclean":           put("udid/../x"),
	} {
		if err == nil {
			t.Errorf("%s was accepted", what)
		}
	}
	if _, err := n.List(ctx, "udid/nothing"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if _, err := n.Open(ctx, "udid/Snapshot"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	up, err := n.Create(ctx, "udid/a")
	if err != nil {
		t.Fatal(err)
	}
	if err := put("udid/b"); err == nil {
		t.Error("a second file was begun before the first ended")
	}
	up.Abort()
	up.Abort()
	if err := up.Commit(); err == nil {
		t.Error("Commit succeeded after Abort")
	}
	if err := n.Move(ctx, blob, "udid/ab/"+strings.Repeat("ab", 20)); err != nil {
		t.Error(err)
	}
	if err := n.Remove(ctx, "udid"); err != nil {
		t.Error(err)
	}
	if _, err := n.List(ctx, "udid"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if err := n.Discard(ctx); err != nil {
		t.Error(err)
	}
	if err := put(blob); err == nil {
		t.Error("a file was accepted after Discard")
	}
	for _, udid := range []string{"", "a/b", "..", "a:b"} {
		if _, err := New(ctx, mustOpen(t, be, seed(3)), Options{UDID: udid}); err == nil {
			t.Errorf("the UDID %q was accepted", udid)
		}
	}
}

// hanging is a store in which Put of a pack waits until its context ends.
type hanging struct{ backend.Backend }

func (h hanging) Put(ctx context.Context, name string, data []byte) error {
	if strings.HasPrefix(name, "packs/") {
		<-ctx.Done()
		return ctx.Err()
	}
	return h.Backend.Put(ctx, name, data)
}

// If the store hangs, an upload returns when its context ends.
func TestHangingStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		be := memory.New()
		createRepo(t, be)
		r, err := openRepo(hanging{be}, seed(3))
		if err != nil {
			t.Fatal(err)
		}
		n, err := New(context.Background(), r, Options{UDID: "udid"})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		up, err := n.Create(ctx, "udid/Snapshot/x")
		if err != nil {
			t.Fatal(err)
		}
		noise, buf := rand.NewChaCha8([32]byte{1}), make([]byte, 32<<10)
		begun := time.Now()
		for range 4000 {
			_, _ = noise.Read(buf)
			if _, err = up.Write(buf); err != nil {
				break
			}
		}
		if err == nil {
			err = up.Commit()
		}
		if waited := time.Since(begun); !errors.Is(err, context.DeadlineExceeded) || waited > time.Second {
			t.Errorf("after %v: %v", waited, err)
		}
		up.Abort()
		n.release()
	})
}
