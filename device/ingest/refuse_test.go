package ingest

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/snap-backup/snap/device/finding"
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/foldertest"
	"github.com/snap-backup/snap/internal/faultpoint"
	"github.com/snap-backup/snap/repo"
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
			if s.Complete || s.Damaged() || !strings.Contains(texts(s.Findings), test.says) {
				t.Errorf("complete is %v, findings are %q", s.Complete, texts(s.Findings))
			}
			if err := materializeSame(mustOpen(t, be, seed(2)), s, t.TempDir(), foldertest.MustRead(t, m.Dir)); err != nil {
				t.Error(err)
			}
		})
	}
}

// texts returns the sentences of findings, a line each.
func texts(findings []repo.Finding) string {
	var out []string
	for _, f := range findings {
		out = append(out, string(f.Consequence)+": "+f.Text)
	}
	return strings.Join(out, "\n")
}

// TestFindings imports folders that contradict their own manifest, or that have
// unusual files. All of them are stored. Damage makes the snapshot incomplete, a
// remark does not.
func TestFindings(t *testing.T) {
	t.Parallel()
	const jpg = "CameraRollDomain/Media/DCIM/a.jpg"
	photo := func(m *foldertest.Folder) string { return m.Blob("CameraRollDomain", "Media/DCIM/a.jpg") }
	for name, test := range map[string]struct {
		spoil  func(m *foldertest.Folder)
		second bool // spoil the folder after a first import
		kind   string
		want   repo.Consequence
		says   string
	}{
		"no Info.plist": {spoil: func(m *foldertest.Folder) { m.Check(os.Remove(filepath.Join(m.Dir, "Info.plist"))) }, kind: "info-plist", want: repo.Remark, says: "Info.plist is missing"},
		"never sent":    {spoil: func(m *foldertest.Folder) { m.Check(os.Remove(photo(m))) }, kind: finding.Missing, want: repo.Remark, says: jpg},
		"lost since":    {spoil: func(m *foldertest.Folder) { m.Check(os.Remove(photo(m))) }, second: true, kind: finding.Missing, want: repo.Damage, says: jpg},
		"database never sent": {spoil: func(m *foldertest.Folder) {
			m.Put("HomeDomain", "a.sqlite", nil)
			m.Finish(1)
			m.Check(os.Remove(m.Blob("HomeDomain", "a.sqlite")))
		}, kind: finding.Missing, want: repo.Damage, says: "a.sqlite"},
		// Imports and verifications have one rule for what was a database; see judge.Ends.
		"a database without its first bytes": {spoil: func(m *foldertest.Folder) {
			m.Put("HomeDomain", "a.dat", append([]byte("SQLite f\x00rmat 3"), make([]byte, 1000)...))
			m.Finish(1)
		}, kind: finding.Database, want: repo.Damage, says: "a.dat"},
		"a database of zeros": {spoil: func(m *foldertest.Folder) {
			m.Put("HomeDomain", "a.sqlite", make([]byte, 4096))
			m.Finish(1)
		}, kind: finding.Database, want: repo.Damage, says: "a.sqlite"},
		"many never sent": {spoil: func(m *foldertest.Folder) {
			m.Check(os.Remove(photo(m)))
			m.Check(os.Remove(m.Blob("CameraRollDomain", "Media/DCIM/b.jpg")))
		}, kind: finding.Missing, want: repo.Damage, says: "2 files"},
		"a folder in its place": {spoil: func(m *foldertest.Folder) { m.Check(os.Remove(photo(m))); m.Check(os.Mkdir(photo(m), 0o755)) }, second: true, kind: finding.Missing, want: repo.Damage, says: jpg},
		"emptied":               {spoil: func(m *foldertest.Folder) { m.Check(os.Truncate(photo(m), 0)) }, kind: finding.Emptied, want: repo.Damage, says: jpg},
		"cut off":               {spoil: func(m *foldertest.Folder) { m.Check(os.Truncate(photo(m), 3)) }, kind: finding.Size, want: repo.Damage, says: jpg},
		"not listed":            {spoil: func(m *foldertest.Folder) { m.Write("ab/ab"+strings.Repeat("0", 38), []byte("x")) }, kind: finding.Extra, want: repo.Remark, says: "ab/ab00"},
		"bad name":              {spoil: func(m *foldertest.Folder) { m.Write("bad\\name", []byte("x")) }, kind: finding.Stray, want: repo.Remark, says: "bad"},
		"reserved name":         {spoil: func(m *foldertest.Folder) { m.Write("ab/aux.txt", []byte("x")) }, kind: finding.Stray, want: repo.Remark, says: "Windows"},
		"download mark":         {spoil: func(m *foldertest.Folder) { m.Write("Info.plist:Zone.Identifier", []byte("x")) }, kind: finding.Stray, want: repo.Remark, says: "Zone"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, be := foldertest.New(t), memory.New()
			r := createRepo(t, be)
			if test.second {
				mustImport(t, r, m.Dir, Options{})
			}
			test.spoil(m)
			for range 2 { // the second import has nothing new to read
				s := mustImport(t, r, m.Dir, Options{}).Snapshot
				i := slices.IndexFunc(s.Findings, func(f repo.Finding) bool { return f.Kind == test.kind && f.Consequence == test.want })
				if i < 0 || !strings.Contains(s.Findings[i].Text, test.says) || s.Complete != (test.want == repo.Remark) || s.Damaged() != (test.want == repo.Damage) {
					t.Errorf("complete is %v, findings are %q", s.Complete, texts(s.Findings))
				}
			}
		})
	}
}

// Zeros at the beginning do not make a file a broken database: neither an import nor a
// verification says so.
func TestZerosAtTheBeginning(t *testing.T) {
	t.Parallel()
	m := foldertest.New(t)
	m.Put("HomeDomain", "a.db", append(make([]byte, 200), []byte(strings.Repeat("an app's own form ", 50))...))
	m.Finish(1)
	if s := mustImport(t, createRepo(t, memory.New()), m.Dir, Options{}).Snapshot; !s.Complete {
		t.Errorf("findings are %q", texts(s.Findings))
	}
}

// Links are not followed, and pipes are not opened. They are left out, and the
// result names them.
func TestSpecialFilesAreLeftOut(t *testing.T) {
	t.Parallel()
	m := foldertest.New(t)
	outside := filepath.Join(t.TempDir(), "secret")
	m.Check(os.WriteFile(outside, []byte("secret"), 0o600))
	clean := foldertest.MustRead(t, m.Dir)
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
	if len(res.Skipped) != want || res.Report.Missing.Count != 1 || len(res.Snapshot.Findings) != 2 {
		t.Errorf("left out %q, missing %v, findings %q", res.Skipped, res.Report.Missing, texts(res.Snapshot.Findings))
	}
	if err := materializeSame(mustOpen(t, be, seed(2)), res.Snapshot, t.TempDir(), clean); err != nil {
		t.Error(err)
	}
}

// A file of the manifest that is no regular file is never opened, and the
// snapshot is damaged.
func TestListedFilesThatAreNoFiles(t *testing.T) {
	t.Parallel()
	outside := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(outside, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, make := range map[string]func(name string) bool{
		"pipe":   makePipe,
		"folder": func(name string) bool { return os.Mkdir(name, 0o755) == nil },
		"link":   func(name string) bool { return os.Symlink(outside, name) == nil },
		"socket": func(name string) bool {
			// The path of a socket is bounded, so it is made elsewhere.
			short, err := os.MkdirTemp("", "s")
			if err != nil {
				return false
			}
			defer os.RemoveAll(short)
			l, err := net.Listen("unix", filepath.Join(short, "s"))
			if err != nil {
				return false
			}
			defer l.Close()
			return os.Rename(filepath.Join(short, "s"), name) == nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, whole := range []bool{false, true} { // the file, or the folder that has it
				m := foldertest.New(t)
				place := m.Blob("CameraRollDomain", "Media/DCIM/a.jpg")
				if whole {
					place = filepath.Dir(place)
				}
				m.Check(os.RemoveAll(place))
				if !make(place) {
					t.Skip("there are none here")
				}
				if whole && name == "folder" {
					continue // that is how it should be
				}
				res := mustImport(t, createRepo(t, memory.New()), m.Dir, Options{Workers: 1})
				if res.Report.Missing.Count == 0 || !res.Snapshot.Damaged() {
					t.Errorf("whole folder %v: missing %v, findings %q", whole, res.Report.Missing, texts(res.Snapshot.Findings))
				}
			}
		})
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
				r := mustOpen(t, store, seed(3))
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
					t.Errorf("refused with AllowIncomplete: %v", err)
					continue
				}
				s := j.res.Snapshot
				if s.Complete || len(s.Findings) == 0 {
					t.Errorf("complete is %v, findings %q", s.Complete, texts(s.Findings))
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
				res := mustImport(t, mustOpen(t, store, seed(4)), m.Dir, Options{})
				if err := wantSame(mustOpen(t, store, seed(5)), res.Snapshot, foldertest.MustRead(t, m.Dir)); err != nil {
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
