package ingest

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/snap-backup/snap/device/mobilesync/foldertest"
	"github.com/snap-backup/snap/internal/faultpoint"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
)

// topFiles are the files that a device rewrites in every backup.
var topFiles = []string{"Info.plist", "Manifest.db", "Manifest.plist", "Status.plist"}

func sizes(m *foldertest.Folder, names ...string) (sum int64) {
	m.Helper()
	for _, name := range names {
		info, err := os.Stat(filepath.Join(m.Dir, name))
		m.Check(err)
		sum += info.Size()
	}
	return sum
}

// awaitClock waits until a file that is changed now gets a later change time
// than all existing files: the kernel's clock for change times is coarse.
func awaitClock(t *testing.T) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "clock")
	changeTime := func() time.Time {
		if err := os.WriteFile(name, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		return info.ModTime()
	}
	for begun := changeTime(); !changeTime().After(begun); {
		time.Sleep(time.Millisecond)
	}
}

// The second import of a folder reads only the files that changed.
func TestOnlyChangesAreRead(t *testing.T) {
	t.Parallel()
	const domain, path = "HomeDomain", "Library/Preferences/p4.plist"
	sms := func(m *foldertest.Folder) string { return m.Blob("HomeDomain", "Library/SMS/sms.db") }
	for _, test := range []struct {
		name   string
		opts   Options
		change func(m *foldertest.Folder)
		files  int64 // number of files read, without topFiles
		top    bool  // topFiles are read too
	}{
		{name: "nothing", change: func(*foldertest.Folder) {}},
		{name: "nothing, rescan", opts: Options{Rescan: true}, change: func(*foldertest.Folder) {}, files: 12, top: true},
		{name: "size", change: func(m *foldertest.Folder) { m.Put(domain, path, []byte("new")); m.Finish(2) }, files: 1, top: true},
		{name: "mtime", files: 1, change: func(m *foldertest.Folder) { m.Check(os.Chtimes(m.Blob(domain, path), time.Time{}, time.Unix(1e9, 0))) }},
		{name: "content, size and mtime kept, renamed over", files: 1, change: func(m *foldertest.Folder) {
			info, err := os.Stat(sms(m))
			m.Check(err)
			b, err := os.ReadFile(sms(m))
			m.Check(err)
			b[len(b)-1] ^= 1
			m.Check(os.WriteFile(sms(m)+"x", b, 0o644))
			m.Check(os.Chtimes(sms(m)+"x", time.Time{}, info.ModTime()))
			m.Check(os.Rename(sms(m)+"x", sms(m)))
		}},
		{name: "content, size and mtime kept, in place", files: 1, change: func(m *foldertest.Folder) {
			info, err := os.Stat(sms(m))
			m.Check(err)
			f, err := os.OpenFile(sms(m), os.O_WRONLY, 0)
			m.Check(err)
			_, err = f.WriteAt([]byte("changed"), 40_000)
			m.Check(err)
			m.Check(f.Close())
			m.Check(os.Chtimes(sms(m), time.Time{}, info.ModTime()))
		}},
		{name: "row of the manifest", files: 1, top: true, change: func(m *foldertest.Folder) {
			r := m.Records[domain+"-"+path]
			r.ModTime++
			m.Records[domain+"-"+path] = r
			m.Finish(2)
		}},
		{name: "a file added", files: 1, top: true, change: func(m *foldertest.Folder) { m.Put(domain, "more", []byte("more")); m.Finish(2) }},
		{name: "a file removed", top: true, change: func(m *foldertest.Folder) {
			m.Check(os.Remove(m.Blob(domain, path)))
			delete(m.Records, domain+"-"+path)
			m.Finish(2)
		}},
		{name: "file added beside the manifest", files: 1, change: func(m *foldertest.Folder) { m.Write("notes.txt", []byte("x")) }},
		{name: "an empty file added", change: func(m *foldertest.Folder) { m.Write("empty.txt", nil) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := foldertest.New(t)
			be := memory.New()
			mustImport(t, createRepo(t, be), m.Dir, Options{})
			awaitClock(t)
			test.change(m)
			r := mustOpen(t, be, seed(3))
			res := mustImport(t, r, m.Dir, test.opts)
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
			if test.name == "a file removed" && res.ReadBytes != sizes(m, topFiles...) {
				t.Errorf("read %d bytes, want %d", res.ReadBytes, sizes(m, topFiles...))
			}
			if err := wantSame(mustOpen(t, be, seed(4)), res.Snapshot, foldertest.MustRead(t, m.Dir)); err != nil {
				t.Error(err)
			}
		})
	}
}

// Content that the repository has lost is read and stored again, even if the
// file looks unchanged, and even if the file has so many chunks that its entry
// refers to content lists.
func TestLostContentIsStoredAnew(t *testing.T) {
	t.Parallel()
	m := foldertest.New(t)
	m.Put("AppDomain-x", "big.db", append([]byte("SQLite format 3\x00"), foldertest.Noise(8, 6<<20)...))
	m.Finish(1)
	base := memory.New()
	mustImport(t, createRepo(t, base), m.Dir, Options{})
	packs := repotest.FilesIn(t, base, "packs/")
	if len(packs) < 6 {
		t.Fatalf("only %d packs", len(packs))
	}
	want := foldertest.MustRead(t, m.Dir)
	for _, i := range faultpoint.Choose(t, len(packs), 6) {
		name := packs[i]
		be := base.Clone()
		if err := be.Delete(context.Background(), name); err != nil {
			t.Fatal(err)
		}
		r := mustOpen(t, be, seed(5))
		mustImport(t, r, m.Dir, Options{})
		list, _, err := r.Snapshots(context.Background())
		if err != nil || len(list) != 2 {
			t.Fatalf("%d snapshots: %v", len(list), err)
		}
		for _, s := range list {
			got, err := readBack(mustOpen(t, be, seed(6)), s)
			if err == nil {
				err = want.Diff(got)
			}
			if err != nil {
				t.Errorf("without %s: %v", name, err)
			}
		}
	}
}

// SkipIfUnchanged does not skip a backup if the repository has lost a pack that
// it needs.
func TestSkipIfUnchanged(t *testing.T) {
	t.Parallel()
	m := foldertest.New(t)
	base := memory.New()
	first := mustImport(t, createRepo(t, base), m.Dir, Options{})
	skip := Options{SkipIfUnchanged: true}
	if res := mustImport(t, mustOpen(t, base, seed(2)), m.Dir, skip); !res.Unchanged || res.Snapshot.ID != first.Snapshot.ID {
		t.Errorf("%+v", res)
	}
	if n := len(repotest.FilesIn(t, base, "snapshots/")); n != 1 {
		t.Errorf("%d snapshots", n)
	}
	for _, name := range repotest.FilesIn(t, base, "packs/") {
		be := base.Clone()
		if err := be.Delete(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		res := mustImport(t, mustOpen(t, be, seed(2)), m.Dir, skip)
		if res.Unchanged {
			t.Errorf("without %s: nothing was stored", name)
		}
		for _, s := range repotest.FilesIn(t, be, "snapshots/") {
			spec := strings.TrimPrefix(s, "snapshots/")
			r := mustOpen(t, be, seed(3))
			found, err := r.FindSnapshot(t.Context(), spec)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := readBack(r, found); err != nil {
				t.Errorf("without %s: %v", name, err)
			}
		}
	}
	m.Write("notes.txt", []byte("x"))
	if res := mustImport(t, mustOpen(t, base, seed(2)), m.Dir, skip); res.Unchanged {
		t.Error("a new file was not noticed")
	}
}
