package ingest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/folder"
	"github.com/snap-backup/snap/device/mobilesync/foldertest"
	"github.com/snap-backup/snap/internal/faultpoint"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
)

// A folder that cannot be trusted is refused, with the reason, and nothing is
// stored. With AllowIncomplete it is imported, and the snapshot is marked as
// incomplete.
func TestIncompleteIsRefused(t *testing.T) {
	t.Parallel()
	remove := func(name string) func(m *foldertest.Folder) {
		return func(m *foldertest.Folder) { m.Check(os.RemoveAll(filepath.Join(m.Dir, name))) }
	}
	for _, test := range []struct {
		name, says string
		spoil      func(m *foldertest.Folder)
	}{
		{"running", "uploading", func(m *foldertest.Folder) { m.Status("uploading", time.Unix(1.7e9, 0)) }},
		{"moving", "mixture", func(m *foldertest.Folder) { m.Status("moving", time.Unix(1.7e9, 0)) }},
		{"no state", "does not say", func(m *foldertest.Folder) { m.Status("", time.Unix(1.7e9, 0)) }},
		{"snapshot folder", "Snapshot", func(m *foldertest.Folder) { m.Write("Snapshot/Manifest.db", []byte("x")) }},
		{"placeholder", "never finished", func(m *foldertest.Folder) { m.Write("Manifest.plist", nil) }},
		{"no status", "Status.plist is missing", remove("Status.plist")},
		{"empty status", "Status.plist is empty", func(m *foldertest.Folder) { m.Write("Status.plist", nil) }},
		{"no manifest.plist", "Manifest.plist is missing", remove("Manifest.plist")},
		{"broken manifest.plist", "Manifest.plist cannot be read", func(m *foldertest.Folder) { m.Write("Manifest.plist", []byte("bplist00garbage")) }},
		{"no manifest", "no Manifest.db", remove("Manifest.db")},
		{"empty manifest", "Manifest.db is empty", func(m *foldertest.Folder) { m.Write("Manifest.db", nil) }},
		{"manifest cut off", "cut off", func(m *foldertest.Folder) { m.Check(os.Truncate(filepath.Join(m.Dir, "Manifest.db"), 4096)) }},
		{"manifest of noise", "not an SQLite database", func(m *foldertest.Folder) { m.Write("Manifest.db", foldertest.Noise(7, 4096)) }},
		{"manifest damaged inside", "manifest is damaged", func(m *foldertest.Folder) {
			b, err := os.ReadFile(filepath.Join(m.Dir, "Manifest.db"))
			m.Check(err)
			clear(b[100:])
			m.Write("Manifest.db", b)
		}},
		{"bad name", "unsafe name", func(m *foldertest.Folder) { m.Write("bad\\name", []byte("x")) }},
		{"reserved name", "Windows", func(m *foldertest.Folder) { m.Write("ab/aux.txt", []byte("x")) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := foldertest.New(t)
			test.spoil(m)
			be := memory.New()
			r := createRepo(t, be)
			_, err := importDir(r, m.Dir, Options{})
			var incomplete *IncompleteError
			if !errors.Is(err, ErrIncomplete) || !errors.As(err, &incomplete) || incomplete.Dir != m.Dir || !strings.Contains(err.Error(), test.says) {
				t.Fatalf("got %v, want ErrIncomplete that says %q", err, test.says)
			}
			if n := len(repotest.FilesIn(t, be, "snapshots/")) + len(repotest.FilesIn(t, be, "packs/")); n > 0 {
				t.Errorf("%d files were stored", n)
			}
			res := mustImport(t, r, m.Dir, Options{AllowIncomplete: true})
			s := res.Snapshot
			if s.Complete || !strings.Contains(strings.Join(s.Problems, "\n"), test.says) {
				t.Errorf("complete is %v, problems are %q", s.Complete, s.Problems)
			}
			want := foldertest.Take(t, m.Dir)
			for path := range want {
				if folder.CheckPath(path) != nil {
					delete(want, path)
				}
			}
			if err := materializeSame(mustOpen(t, be, 2), s, t.TempDir(), want); err != nil {
				t.Error(err)
			}
		})
	}
}

// Oddities that a complete backup may have are noted, but the backup is not
// refused.
func TestOddIsTaken(t *testing.T) {
	t.Parallel()
	m := foldertest.New(t)
	m.Check(os.Remove(filepath.Join(m.Dir, "Info.plist")))
	m.Check(os.Remove(m.Blob("CameraRollDomain", "Media/DCIM/a.jpg")))
	m.Check(os.Truncate(m.Blob("CameraRollDomain", "Media/DCIM/b.jpg"), 0)) // like a photo whose content is in a cloud
	res := mustImport(t, createRepo(t, memory.New()), m.Dir, Options{})
	says := strings.Join(res.Snapshot.Problems, "\n")
	if !res.Snapshot.Complete || !strings.Contains(says, "Info.plist is missing") || !strings.Contains(says, "CameraRollDomain/Media/DCIM/a.jpg") {
		t.Errorf("complete is %v, problems are %q", res.Snapshot.Complete, says)
	}
	if res.Report.Missing.Count != 1 || res.Report.Emptied.Count != 1 {
		t.Errorf("%+v", res.Report)
	}
}

// Links are not followed, and pipes are not opened. They are left out, and the
// result names them.
func TestSpecialFilesAreLeftOut(t *testing.T) {
	t.Parallel()
	m := foldertest.New(t)
	outside := filepath.Join(t.TempDir(), "secret")
	m.Check(os.WriteFile(outside, []byte("secret"), 0o600))
	clean := foldertest.Take(t, m.Dir)
	link := func(target, name string) {
		if err := os.Symlink(target, filepath.Join(m.Dir, name)); err != nil {
			t.Skipf("no links here: %v", err)
		}
	}
	link(outside, "link-to-file")
	link(filepath.Dir(outside), "link-to-folder")
	link(".", "loop")
	link("/dev/zero", "endless")
	pipe := makePipe(filepath.Join(m.Dir, "pipe"))
	blob := m.Blob("CameraRollDomain", "Media/DCIM/a.jpg")
	m.Check(os.Remove(blob))
	rel, err := filepath.Rel(m.Dir, blob)
	m.Check(err)
	link(outside, rel)
	delete(clean, filepath.ToSlash(rel))
	info, err := os.Stat(filepath.Dir(blob))
	m.Check(err)
	clean[filepath.ToSlash(filepath.Dir(rel))] = foldertest.Describe(info.Mode(), info.ModTime().UnixNano(), nil)

	be := memory.New()
	res := mustImport(t, createRepo(t, be), m.Dir, Options{Workers: 2})
	want := 5
	if pipe {
		want++
	}
	if len(res.Skipped) != want || res.Report.Missing.Count != 1 || len(res.Snapshot.Problems) != 2 {
		t.Errorf("left out %q, missing %v, problems %q", res.Skipped, res.Report.Missing, res.Snapshot.Problems)
	}
	if err := materializeSame(mustOpen(t, be, 2), res.Snapshot, t.TempDir(), clean); err != nil {
		t.Error(err)
	}
}

// A folder that changes after it is listed and before it is completely read is
// refused. With AllowIncomplete it is stored as it was found, and what changed
// is read again by the next import.
func TestChangingIsRefused(t *testing.T) {
	t.Parallel()
	const domain, path = "HomeDomain", "Library/Preferences/p4.plist"
	tests := []struct {
		name   string
		change func(m *foldertest.Folder, file string)
		left   int // files that are left out
	}{
		{"file grows", func(m *foldertest.Folder, file string) {
			f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
			m.Check(err)
			_, err = f.Write(foldertest.Noise(1, 100_000))
			m.Check(errors.Join(err, f.Close()))
		}, 0},
		{"file shrinks", func(m *foldertest.Folder, file string) { m.Check(os.Truncate(file, 3)) }, 0},
		{"file is emptied", func(m *foldertest.Folder, file string) { m.Check(os.Truncate(file, 0)) }, 0},
		{"file is replaced", func(m *foldertest.Folder, _ string) { m.Put(domain, path, []byte("other")) }, 0},
		{"file vanishes", func(m *foldertest.Folder, file string) { m.Check(os.Remove(file)) }, 1},
		{"file becomes a folder", func(m *foldertest.Folder, file string) { m.Check(os.Remove(file)); m.Check(os.Mkdir(file, 0o755)) }, 1},
		{"file becomes a link", func(m *foldertest.Folder, file string) {
			m.Check(os.Remove(file))
			m.Check(os.Symlink("/etc/passwd", file))
		}, 1},
		{"folder vanishes", func(m *foldertest.Folder, file string) { m.Check(os.RemoveAll(filepath.Dir(file))) }, 1},
		{"run begins", func(m *foldertest.Folder, _ string) { m.Check(os.Mkdir(filepath.Join(m.Dir, "Snapshot"), 0o755)) }, 0},
		{"status is rewritten", func(m *foldertest.Folder, _ string) { m.Status("uploading", time.Unix(1.8e9, 0)) }, 0},
		{"complete backup", func(m *foldertest.Folder, _ string) { m.Put(domain, "new", nil); m.Finish(9) }, 0},
	}
	for _, i := range faultpoint.Choose(t, len(tests), len(tests)) {
		test := tests[i]
		t.Run(test.name, func(t *testing.T) {
			for _, allow := range []bool{false, true} {
				m := foldertest.New(t)
				store := memory.New()
				createRepo(t, store)
				r := mustOpen(t, store, 3)
				b, err := mobilesync.Open(t.Context(), m.Dir)
				m.Check(err)
				j := newJob(r, b, &folderSource{r: r, b: b}, Options{Workers: 1, AllowIncomplete: allow})
				m.Check(j.begin(t.Context()))
				m.Check(j.list(t.Context()))
				test.change(m, m.Blob(domain, path))
				_, err = j.commit(t.Context(), j.store)
				if !allow {
					if !errors.Is(err, ErrChanged) || !strings.Contains(err.Error(), m.Dir) || len(repotest.FilesIn(t, store, "snapshots/")) > 0 {
						t.Errorf("got %v", err)
					}
					continue
				}
				if err != nil {
					t.Errorf("not taken: %v", err)
					continue
				}
				s := j.res.Snapshot
				if s.Complete || len(s.Problems) == 0 {
					t.Errorf("complete is %v, problems %q", s.Complete, s.Problems)
				}
				p, err := readBack(r, s)
				if err != nil {
					t.Fatal(err)
				}
				if s.Files != 17-int64(test.left) {
					t.Errorf("%d files in the record", s.Files)
				}
				if files, bytes := count(t, r, s); files != s.Files || bytes != s.Bytes {
					t.Errorf("the record says %d files and %d bytes, there are %d and %d in %v", s.Files, s.Bytes, files, bytes, p)
				}
				m.Check(errors.Join(os.RemoveAll(filepath.Join(m.Dir, "Snapshot")), os.RemoveAll(m.Blob(domain, path))))
				m.Put(domain, path, []byte("at rest"))
				m.Finish(10)
				res := mustImport(t, mustOpen(t, store, 4), m.Dir, Options{})
				if err := wantSame(mustOpen(t, store, 5), res.Snapshot, foldertest.Take(t, m.Dir)); err != nil {
					t.Errorf("the next import: %v", err)
				}
			}
		})
	}
}

// Import fails if the folder is empty or missing, or if it is canceled.
func TestNoBackup(t *testing.T) {
	t.Parallel()
	r := createRepo(t, memory.New())
	if _, err := importDir(r, t.TempDir(), Options{AllowIncomplete: true}); !errors.Is(err, mobilesync.ErrNoBackup) {
		t.Errorf("an empty folder: %v", err)
	}
	if _, err := importDir(r, filepath.Join(t.TempDir(), "none"), Options{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no folder: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	m := foldertest.New(t)
	b, err := mobilesync.Open(t.Context(), m.Dir)
	m.Check(err)
	defer b.Close()
	if _, err := Import(ctx, r, b, Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}
