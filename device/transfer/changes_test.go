package transfer

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/snap-backup/snap/repo/backend/memory"
)

// topFiles are rewritten by every run of a device.
var topFiles = []string{"Info.plist", "Manifest.db", "Manifest.plist", "Status.plist"}

func sizes(m *mini, names ...string) (sum int64) {
	m.t.Helper()
	for _, name := range names {
		info, err := os.Stat(filepath.Join(m.dir, name))
		m.check(err)
		sum += info.Size()
	}
	return sum
}

// The second import of a folder reads what changed and nothing else.
func TestOnlyChangesAreRead(t *testing.T) {
	const domain, path = "HomeDomain", "Library/Preferences/p4.plist"
	sms := func(m *mini) string { return m.blob("HomeDomain", "Library/SMS/sms.db") }
	for _, test := range []struct {
		name   string
		opts   ImportOptions
		change func(m *mini)
		files  int64 // read besides topFiles
		top    bool  // topFiles too
	}{
		{name: "nothing", change: func(*mini) {}},
		{name: "nothing, rescan", opts: ImportOptions{Rescan: true}, change: func(*mini) {}, files: 12, top: true},
		{name: "size", change: func(m *mini) { m.put(domain, path, []byte("new")); m.finish(2) }, files: 1, top: true},
		{name: "mtime", files: 1, change: func(m *mini) { m.check(os.Chtimes(m.blob(domain, path), time.Time{}, time.Unix(1e9, 0))) }},
		{name: "content, size and mtime kept, renamed over", files: 1, change: func(m *mini) {
			info, err := os.Stat(sms(m))
			m.check(err)
			b, err := os.ReadFile(sms(m))
			m.check(err)
			b[len(b)-1] ^= 1
			m.check(os.WriteFile(sms(m)+"x", b, 0o644))
			m.check(os.Chtimes(sms(m)+"x", time.Time{}, info.ModTime()))
			m.check(os.Rename(sms(m)+"x", sms(m)))
		}},
		{name: "content, size and mtime kept, in place", files: 1, change: func(m *mini) {
			info, err := os.Stat(sms(m))
			m.check(err)
			f, err := os.OpenFile(sms(m), os.O_WRONLY, 0)
			m.check(err)
			_, err = f.WriteAt([]byte("changed"), 40_000)
			m.check(err)
			m.check(f.Close())
			m.check(os.Chtimes(sms(m), time.Time{}, info.ModTime()))
		}},
		{name: "row of the manifest", files: 1, top: true, change: func(m *mini) {
			r := m.rows[domain+"-"+path]
			r.mtime++
			m.rows[domain+"-"+path] = r
			m.finish(2)
		}},
		{name: "file more", files: 1, top: true, change: func(m *mini) { m.put(domain, "more", []byte("more")); m.finish(2) }},
		{name: "file less", top: true, change: func(m *mini) {
			m.check(os.Remove(m.blob(domain, path)))
			delete(m.rows, domain+"-"+path)
			m.finish(2)
		}},
		{name: "file beside the manifest", files: 1, change: func(m *mini) { m.write("notes.txt", []byte("x")) }},
		{name: "empty file more", change: func(m *mini) { m.write("empty.txt", nil) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := newMini(t)
			be := memory.New()
			mustImport(t, createRepo(t, be), m.dir, ImportOptions{})
			time.Sleep(10 * time.Millisecond) // change times are as coarse as the kernel's clock
			test.change(m)
			r := mustOpen(t, be, 3)
			res := mustImport(t, r, m.dir, test.opts)
			want := test.files
			if test.top {
				want += int64(len(topFiles))
			}
			if res.ReadFiles != want {
				t.Errorf("read %d files, want %d", res.ReadFiles, want)
			}
			if test.name == "nothing" && (res.ReadBytes != 0 || res.Snapshot.NewChunks != 0) {
				t.Errorf("read %d bytes, stored %d chunks", res.ReadBytes, res.Snapshot.NewChunks)
			}
			if test.name == "file less" && res.ReadBytes != sizes(m, topFiles...) {
				t.Errorf("read %d bytes, want %d", res.ReadBytes, sizes(m, topFiles...))
			}
			if err := giveBack(mustOpen(t, be, 4), res.Snapshot, t.TempDir(), takePicture(t, m.dir)); err != nil {
				t.Error(err)
			}
		})
	}
}

// Content that the repository has lost is read and stored anew, though the
// file looks unchanged: also where a file has so many chunks that its entry
// does not name them.
func TestLostContentIsStoredAnew(t *testing.T) {
	m := newMini(t)
	m.put("AppDomain-x", "big.db", append([]byte("SQLite format 3\x00"), noise(8, 6<<20)...))
	m.finish(1)
	base := memory.New()
	mustImport(t, createRepo(t, base), m.dir, ImportOptions{})
	packs := fileNames(t, base, "packs/")
	if len(packs) < 6 {
		t.Fatalf("only %d packs", len(packs))
	}
	want := takePicture(t, m.dir)
	for i, name := range packs {
		if i%3 != 0 && testing.Short() {
			continue
		}
		be := base.Clone()
		if err := be.Delete(context.Background(), name); err != nil {
			t.Fatal(err)
		}
		r := mustOpen(t, be, 5)
		mustImport(t, r, m.dir, ImportOptions{})
		list, _, err := r.Snapshots(context.Background())
		if err != nil || len(list) != 2 {
			t.Fatalf("%d snapshots: %v", len(list), err)
		}
		for _, s := range list {
			got, err := readBack(mustOpen(t, be, 6), s)
			if err == nil {
				err = want.diff(got)
			}
			if err != nil {
				t.Errorf("without %s: %v", name, err)
			}
		}
	}
}

// With SkipIfUnchanged a lost pack is healed by a new snapshot, not passed
// over.
func TestSkipIfUnchanged(t *testing.T) {
	m := newMini(t)
	base := memory.New()
	first := mustImport(t, createRepo(t, base), m.dir, ImportOptions{})
	skip := ImportOptions{SkipIfUnchanged: true}
	if res := mustImport(t, mustOpen(t, base, 2), m.dir, skip); !res.Unchanged || res.Snapshot.ID != first.Snapshot.ID {
		t.Errorf("%+v", res)
	}
	if n := len(fileNames(t, base, "snapshots/")); n != 1 {
		t.Errorf("%d snapshots", n)
	}
	for _, name := range fileNames(t, base, "packs/") {
		be := base.Clone()
		if err := be.Delete(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		res := mustImport(t, mustOpen(t, be, 2), m.dir, skip)
		if res.Unchanged {
			t.Errorf("without %s: nothing was stored", name)
		}
		for _, s := range fileNames(t, be, "snapshots/") {
			spec := strings.TrimPrefix(s, "snapshots/")
			r := mustOpen(t, be, 3)
			found, err := r.FindSnapshot(t.Context(), spec)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := readBack(r, found); err != nil {
				t.Errorf("without %s: %v", name, err)
			}
		}
	}
	m.write("notes.txt", []byte("x"))
	if res := mustImport(t, mustOpen(t, base, 2), m.dir, skip); res.Unchanged {
		t.Error("a change was passed over")
	}
}
