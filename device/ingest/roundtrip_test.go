package ingest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/foldertest"
	"github.com/snap-backup/snap/device/simulator/synthetic"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend/memory"
)

// Every day of a series is restored as it was, even after later days were
// added, and by another process than the one that stored it.
func TestSeriesComesBack(t *testing.T) {
	t.Parallel()
	days := 4
	if testing.Short() {
		days = 2
	}
	ctx := context.Background()
	series, err := synthetic.New(synthetic.Config{
		Seed: 3, Devices: 2, Scale: synthetic.Tiny, Encryption: synthetic.EncryptAlternate,
		StateDir: t.TempDir(), FullBackupDay: 2, EmptyAsZeroBytes: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer series.Close()
	folders, be := t.TempDir(), memory.New()
	createRepo(t, be)
	contents := map[string]foldertest.Contents{} // by device and date
	key := func(udid string, when time.Time) string { return udid + when.UTC().Format(time.RFC3339) }
	for day := range days {
		if err := series.Next(ctx, folders); err != nil {
			t.Fatal(err)
		}
		r := mustOpen(t, be, seed(10+day))
		for i, d := range series.Devices() {
			dir := filepath.Join(folders, d.UDID)
			res := mustImport(t, r, dir, Options{Workers: 2, Host: "h", Program: "p", Tags: []string{"daily"}})
			s := res.Snapshot
			contents[key(d.UDID, s.Time)] = foldertest.MustRead(t, dir)
			if !s.Complete || len(s.Findings) > 0 || s.Encrypted != d.Encrypted || s.Device.UDID != d.UDID || s.Device.Name != d.Name ||
				s.Device.ProductVersion != d.ProductVersion || s.Host != "h" || s.Program != "p" || !slices.Equal(s.Tags, []string{"daily"}) {
				t.Errorf("day %d: %+v", day, s)
			}
			if wait := s.Time.Sub(series.Time(i, day)); wait < 0 || wait > time.Hour {
				t.Errorf("day %d: the snapshot is dated %v, the run was at %v", day, s.Time, series.Time(i, day))
			}
			if (s.Parent == nil) != (day == 0) || day > 0 && (res.ReadFiles == 0 || day != 2 && res.ReadFiles > res.Files/2) {
				t.Errorf("day %d of %s: read %d of %d files, parent %v", day, d.Name, res.ReadFiles, res.Files, s.Parent)
			}
			if res.Files != s.Files || res.Bytes != s.Bytes || len(res.Skipped) > 0 || (res.Report == nil) != d.Encrypted {
				t.Errorf("day %d: %+v", day, res)
			}
		}
	}
	r := mustOpen(t, be, seed(2))
	list, _, err := r.Snapshots(ctx)
	if err != nil || len(list) != 2*days {
		t.Fatalf("%d snapshots: %v", len(list), err)
	}
	for _, s := range list {
		want := contents[key(s.Device.UDID, s.Time)]
		if want["00"] == "" && s.Device.UDID != "" && len(want) < 256 {
			t.Fatalf("no contents of %s", s.Time)
		}
		if err := materializeSame(r, s, t.TempDir(), want); err != nil {
			t.Error(err)
		}
	}
	report, err := r.Check(ctx, repo.CheckOptions{ReadData: 1})
	if err != nil || !report.Clean() {
		t.Errorf("check: %+v, %v", report, err)
	}
}

func TestOldLayoutComesBack(t *testing.T) {
	t.Parallel()
	for _, encryption := range []synthetic.Encryption{synthetic.EncryptNone, synthetic.EncryptAll} {
		dir := t.TempDir()
		d, err := synthetic.GenerateLegacy(context.Background(), dir, synthetic.Config{Scale: synthetic.Tiny, Encryption: encryption, StateDir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		be := memory.New()
		r := createRepo(t, be)
		res := mustImport(t, r, filepath.Join(dir, d.UDID), Options{Workers: 2})
		if res.Report == nil || res.Report.Blobs == 0 || res.Snapshot.Encrypted != d.Encrypted || res.Snapshot.Device.UDID != d.UDID {
			t.Errorf("%+v of %+v", res.Report, res.Snapshot)
		}
		if err := materializeSame(mustOpen(t, be, seed(2)), res.Snapshot, t.TempDir(), foldertest.MustRead(t, filepath.Join(dir, d.UDID))); err != nil {
			t.Error(err)
		}
	}
}

// Backups that people have published are restored as they were, even if they are
// odd or lack files.
func TestSamplesComeBack(t *testing.T) {
	root := os.Getenv("SNAP_TEST_SAMPLES")
	if root == "" {
		t.Skip("SNAP_TEST_SAMPLES is not set")
	}
	for _, name := range []string{
		"ios-backup-browser/sample_backup", "pyiosbackup/encrypted-ios10.2-layout", "pyiosbackup/encrypted-mbdb-layout", "mvt",
	} {
		t.Run(name, func(t *testing.T) {
			dirs, err := mobilesync.Find(filepath.Join(root, filepath.FromSlash(name)))
			if err != nil {
				t.Fatal(err)
			}
			be := memory.New()
			r := createRepo(t, be)
			for _, found := range dirs {
				dir := found.Dir
				res := mustImport(t, r, dir, Options{Workers: 1, AllowIncomplete: true})
				if err := materializeSame(mustOpen(t, be, seed(2)), res.Snapshot, t.TempDir(), foldertest.MustRead(t, dir)); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// The name of an archived folder has no influence on the date of its snapshot.
func TestArchivedFolder(t *testing.T) {
	t.Parallel()
	m := foldertest.New(t)
	archived := m.Dir + "-20250102-030405"
	m.Check(os.Rename(m.Dir, archived))
	be := memory.New()
	res := mustImport(t, createRepo(t, be), archived, Options{})
	s := res.Snapshot
	if !s.Source.Archived || s.Source.Folder != filepath.Base(archived) || s.Device.UDID != foldertest.UDID || !s.Time.Equal(time.Date(2026, 1, 1, 8, 0, 0, 0, time.UTC)) {
		t.Errorf("%+v", s)
	}
	if err := materializeSame(mustOpen(t, be, seed(2)), s, t.TempDir(), foldertest.MustRead(t, archived)); err != nil {
		t.Error(err)
	}
}

// Extra files and folders in a backup folder are restored too.
func TestExtraFilesComeBack(t *testing.T) {
	t.Parallel()
	m := foldertest.New(t)
	m.Write("._Status.plist", []byte("AppleDouble"))
	m.Write("_BackupExplorer/notes/ünïcode 📱.txt", []byte("x"))
	m.Write("Case", []byte("upper"))
	m.Write("case", []byte("lower"))
	m.Write("nfc-\u00e9", []byte("composed"))
	m.Write("nfc-e\u0301", []byte("decomposed"))
	m.Write("ab/not-a-blob", nil)
	m.Write("Manifest.db-wal", nil)
	m.Check(os.MkdirAll(filepath.Join(m.Dir, "a/b/c/d"), 0o750))
	m.Check(os.Chmod(filepath.Join(m.Dir, "case"), 0o640))
	m.Check(os.Chtimes(filepath.Join(m.Dir, "case"), time.Time{}, time.Unix(-5, 123)))
	m.Check(os.Chtimes(filepath.Join(m.Dir, "a/b"), time.Time{}, time.Unix(1e9, 987654321)))
	be := memory.New()
	res := mustImport(t, createRepo(t, be), m.Dir, Options{Workers: 2})
	if err := materializeSame(mustOpen(t, be, seed(2)), res.Snapshot, t.TempDir(), foldertest.MustRead(t, m.Dir)); err != nil {
		t.Error(err)
	}
	if res.Report.Other.Count != 9-1 || !res.Snapshot.Complete {
		t.Errorf("%+v", res.Report)
	}
}

// A file of 300 chunks needs content lists, and a folder can have more files
// than fit in a node or a batch.
func TestLargeFileAndHugeDirectory(t *testing.T) {
	if testing.Short() {
		t.Skip("the file has 20 MiB")
	}
	t.Parallel()
	m := foldertest.New(t)
	m.Put("AppDomain-x", "big.db", append([]byte("SQLite format 3\x00"), foldertest.Noise(9, 20<<20)...))
	for i := range 1200 {
		m.Write(fmt.Sprintf("many/%d", i), []byte{byte(i)})
	}
	m.Finish(1)
	be := memory.New()
	res := mustImport(t, createRepo(t, be), m.Dir, Options{Workers: 2})
	if err := materializeSame(mustOpen(t, be, seed(2)), res.Snapshot, t.TempDir(), foldertest.MustRead(t, m.Dir)); err != nil {
		t.Error(err)
	}
}
