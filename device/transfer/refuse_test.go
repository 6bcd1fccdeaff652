package transfer

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
	"github.com/snap-backup/snap/repo/backend/memory"
)

// Every reason not to trust a folder is refused with its reason and stored
// nowhere, or taken and marked when that is wanted.
func TestIncompleteIsRefused(t *testing.T) {
	remove := func(name string) func(m *mini) {
		return func(m *mini) { m.check(os.RemoveAll(filepath.Join(m.dir, name))) }
	}
	for _, test := range []struct {
		name, says string
		spoil      func(m *mini)
	}{
		{"running", "uploading", func(m *mini) { m.status("uploading", time.Unix(1.7e9, 0)) }},
		{"moving", "mixture", func(m *mini) { m.status("moving", time.Unix(1.7e9, 0)) }},
		{"no state", "does not say", func(m *mini) { m.status("", time.Unix(1.7e9, 0)) }},
		{"snapshot folder", "Snapshot", func(m *mini) { m.write("Snapshot/Manifest.db", []byte("x")) }},
		{"placeholder", "never finished", func(m *mini) { m.write("Manifest.plist", nil) }},
		{"no status", "Status.plist is missing", remove("Status.plist")},
		{"empty status", "Status.plist is empty", func(m *mini) { m.write("Status.plist", nil) }},
		{"no manifest.plist", "Manifest.plist is missing", remove("Manifest.plist")},
		{"broken manifest.plist", "Manifest.plist cannot be read", func(m *mini) { m.write("Manifest.plist", []byte("bplist00garbage")) }},
		{"no manifest", "no Manifest.db", remove("Manifest.db")},
		{"empty manifest", "Manifest.db is empty", func(m *mini) { m.write("Manifest.db", nil) }},
		{"manifest cut off", "cut off", func(m *mini) { m.check(os.Truncate(filepath.Join(m.dir, "Manifest.db"), 4096)) }},
		{"manifest of noise", "not an SQLite database", func(m *mini) { m.write("Manifest.db", noise(7, 4096)) }},
		{"manifest damaged inside", "manifest is damaged", func(m *mini) {
			b, err := os.ReadFile(filepath.Join(m.dir, "Manifest.db"))
			m.check(err)
			clear(b[100:])
			m.write("Manifest.db", b)
		}},
		{"bad name", "unsafe name", func(m *mini) { m.write("bad\\name", []byte("x")) }},
		{"reserved name", "Windows", func(m *mini) { m.write("ab/aux.txt", []byte("x")) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := newMini(t)
			test.spoil(m)
			be := memory.New()
			r := createRepo(t, be)
			_, err := importDir(r, m.dir, ImportOptions{})
			var incomplete *IncompleteError
			if !errors.Is(err, ErrIncomplete) || !errors.As(err, &incomplete) || incomplete.Dir != m.dir || !strings.Contains(err.Error(), test.says) {
				t.Fatalf("got %v, want ErrIncomplete that says %q", err, test.says)
			}
			if n := len(fileNames(t, be, "snapshots/")) + len(fileNames(t, be, "packs/")); n > 0 {
				t.Errorf("%d files were stored", n)
			}
			res := mustImport(t, r, m.dir, ImportOptions{AllowIncomplete: true})
			s := res.Snapshot
			if s.Complete || !strings.Contains(strings.Join(s.Problems, "\n"), test.says) {
				t.Errorf("complete is %v, problems are %q", s.Complete, s.Problems)
			}
			want := takePicture(t, m.dir)
			for path := range want {
				if folder.CheckPath(path) != nil {
					delete(want, path)
				}
			}
			if err := giveBack(mustOpen(t, be, 2), s, t.TempDir(), want); err != nil {
				t.Error(err)
			}
		})
	}
}

// Doubts that a complete backup may have are noted, and no reason to refuse it.
func TestOddIsTaken(t *testing.T) {
	m := newMini(t)
	m.check(os.Remove(filepath.Join(m.dir, "Info.plist")))
	m.check(os.Remove(m.blob("CameraRollDomain", "Media/DCIM/a.jpg")))
	m.check(os.Truncate(m.blob("CameraRollDomain", "Media/DCIM/b.jpg"), 0)) // as of a photo that is in a cloud
	res := mustImport(t, createRepo(t, memory.New()), m.dir, ImportOptions{})
	says := strings.Join(res.Snapshot.Problems, "\n")
	if !res.Snapshot.Complete || !strings.Contains(says, "Info.plist is missing") || !strings.Contains(says, "CameraRollDomain/Media/DCIM/a.jpg") {
		t.Errorf("complete is %v, problems are %q", res.Snapshot.Complete, says)
	}
	if res.Report.Missing.Count != 1 || res.Report.Emptied.Count != 1 {
		t.Errorf("%+v", res.Report)
	}
}

// Links are not followed and pipes not opened; they are left out by name.
func TestSpecialFilesAreLeftOut(t *testing.T) {
	m := newMini(t)
	outside := filepath.Join(t.TempDir(), "secret")
	m.check(os.WriteFile(outside, []byte("secret"), 0o600))
	clean := takePicture(t, m.dir)
	link := func(target, name string) {
		if err := os.Symlink(target, filepath.Join(m.dir, name)); err != nil {
			t.Skipf("no links here: %v", err)
		}
	}
	link(outside, "link-to-file")
	link(filepath.Dir(outside), "link-to-folder")
	link(".", "loop")
	link("/dev/zero", "endless")
	pipe := makePipe(filepath.Join(m.dir, "pipe"))
	blob := m.blob("CameraRollDomain", "Media/DCIM/a.jpg")
	m.check(os.Remove(blob))
	rel, err := filepath.Rel(m.dir, blob)
	m.check(err)
	link(outside, rel)
	delete(clean, filepath.ToSlash(rel))
	info, err := os.Stat(filepath.Dir(blob))
	m.check(err)
	clean[filepath.ToSlash(filepath.Dir(rel))] = describeFile(info.Mode(), info.ModTime().UnixNano(), nil)

	be := memory.New()
	res := mustImport(t, createRepo(t, be), m.dir, ImportOptions{Workers: 2})
	want := 5
	if pipe {
		want++
	}
	if len(res.Skipped) != want || res.Report.Missing.Count != 1 || len(res.Snapshot.Problems) != 2 {
		t.Errorf("left out %q, missing %v, problems %q", res.Skipped, res.Report.Missing, res.Snapshot.Problems)
	}
	if err := giveBack(mustOpen(t, be, 2), res.Snapshot, t.TempDir(), clean); err != nil {
		t.Error(err)
	}
}

// A folder that changes between the listing and the end of reading is refused;
// with AllowIncomplete it is taken as it was met, and read again next time.
func TestChangingIsRefused(t *testing.T) {
	const domain, path = "HomeDomain", "Library/Preferences/p4.plist"
	for _, test := range []struct {
		name   string
		change func(m *mini, file string)
		left   int // files that are left out
	}{
		{"file grows", func(m *mini, file string) {
			f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
			m.check(err)
			_, err = f.Write(noise(1, 100_000))
			m.check(errors.Join(err, f.Close()))
		}, 0},
		{"file shrinks", func(m *mini, file string) { m.check(os.Truncate(file, 3)) }, 0},
		{"file is emptied", func(m *mini, file string) { m.check(os.Truncate(file, 0)) }, 0},
		{"file is replaced", func(m *mini, _ string) { m.put(domain, path, []byte("other")) }, 0},
		{"file vanishes", func(m *mini, file string) { m.check(os.Remove(file)) }, 1},
		{"file becomes a folder", func(m *mini, file string) { m.check(os.Remove(file)); m.check(os.Mkdir(file, 0o755)) }, 1},
		{"file becomes a link", func(m *mini, file string) { m.check(os.Remove(file)); m.check(os.Symlink("/etc/passwd", file)) }, 1},
		{"folder vanishes", func(m *mini, file string) { m.check(os.RemoveAll(filepath.Dir(file))) }, 1},
		{"run begins", func(m *mini, _ string) { m.check(os.Mkdir(filepath.Join(m.dir, "Snapshot"), 0o755)) }, 0},
		{"status is rewritten", func(m *mini, _ string) { m.status("uploading", time.Unix(1.8e9, 0)) }, 0},
		{"whole run", func(m *mini, _ string) { m.put(domain, "new", nil); m.finish(9) }, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, allow := range []bool{false, true} {
				m := newMini(t)
				store := memory.New()
				createRepo(t, store)
				r := mustOpen(t, store, 3)
				b, err := mobilesync.Open(t.Context(), m.dir)
				m.check(err)
				im := newImporter(r, b, ImportOptions{Workers: 1, AllowIncomplete: allow})
				same, err := im.look(t.Context())
				m.check(err)
				test.change(m, m.blob(domain, path))
				err = im.store(t.Context(), same)
				if !allow {
					if !errors.Is(err, ErrChanged) || !strings.Contains(err.Error(), m.dir) || len(fileNames(t, store, "snapshots/")) > 0 {
						t.Errorf("got %v", err)
					}
					continue
				}
				if err != nil {
					t.Errorf("not taken: %v", err)
					continue
				}
				s := im.res.Snapshot
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
				m.check(errors.Join(os.RemoveAll(filepath.Join(m.dir, "Snapshot")), os.RemoveAll(m.blob(domain, path))))
				m.put(domain, path, []byte("at rest"))
				m.finish(10)
				res := mustImport(t, mustOpen(t, store, 4), m.dir, ImportOptions{})
				if err := giveBack(mustOpen(t, store, 5), res.Snapshot, t.TempDir(), takePicture(t, m.dir)); err != nil {
					t.Errorf("the next import: %v", err)
				}
			}
		})
	}
}

// A folder that is not one, or not there.
func TestNoBackup(t *testing.T) {
	r := createRepo(t, memory.New())
	if _, err := importDir(r, t.TempDir(), ImportOptions{AllowIncomplete: true}); !errors.Is(err, mobilesync.ErrNoBackup) {
		t.Errorf("an empty folder: %v", err)
	}
	if _, err := importDir(r, filepath.Join(t.TempDir(), "none"), ImportOptions{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no folder: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	m := newMini(t)
	b, err := mobilesync.Open(t.Context(), m.dir)
	m.check(err)
	defer b.Close()
	if _, err := Import(ctx, r, b, ImportOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}
