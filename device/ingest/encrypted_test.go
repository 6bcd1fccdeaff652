package ingest

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/snap-backup/snap/device/materialize"
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/foldertest"
	"github.com/snap-backup/snap/device/simulator/synthetic"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend/memory"
)

// importUnlocked imports a folder with its backup password.
func importUnlocked(t testing.TB, r *repo.Repo, dir, password string, opts Options) *Result {
	t.Helper()
	ctx := context.Background()
	b, err := mobilesync.Open(ctx, dir)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if b.Encrypted() {
		keys, err := b.Unlock(ctx, []byte(password), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer keys.Destroy()
	}
	res, err := Import(ctx, r, b, opts)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// importedSeries is a repository into which each day of a series was imported.
type importedSeries struct {
	be      *memory.Backend
	r       *repo.Repo
	days    []foldertest.Contents
	results []*Result
}

// encryptedFolder returns the folder of a generated encrypted backup, which the test
// may change.
func encryptedFolder(t testing.TB, seed uint64) string {
	t.Helper()
	generated.Lock()
	defer generated.Unlock()
	dir := generated.folders[seed]
	if dir == "" {
		parent, err := os.MkdirTemp(shared, "")
		if err != nil {
			t.Fatal(err)
		}
		devices, err := synthetic.Generate(context.Background(), parent, synthetic.Config{Seed: seed, Encryption: synthetic.EncryptAll, StateDir: t.TempDir()}, 1)
		if err != nil {
			t.Fatal(err)
		}
		dir = filepath.Join(parent, devices[0].UDID)
		generated.folders[seed] = dir
	}
	own := filepath.Join(t.TempDir(), filepath.Base(dir))
	if err := os.CopyFS(own, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return own
}

var generated = struct {
	sync.Mutex
	folders map[uint64]string
}{folders: map[uint64]string{}}

// importSeries makes a tiny device and imports its backup after each of some days. If
// unlock is true, each backup is imported with the password of its day; otherwise without a password.
func importSeries(t testing.TB, conf synthetic.Config, days int, unlock bool) *importedSeries {
	t.Helper()
	conf.StateDir = t.TempDir()
	s, err := synthetic.New(conf)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	run := &importedSeries{be: memory.New()}
	run.r = createRepo(t, run.be)
	dir := t.TempDir()
	for day := range days {
		if err := s.Next(context.Background(), dir); err != nil {
			t.Fatal(err)
		}
		folder := filepath.Join(dir, s.Devices()[0].UDID)
		var res *Result
		if unlock {
			res = importUnlocked(t, run.r, folder, s.Password(day), Options{Workers: 2})
		} else {
			res = mustImport(t, run.r, folder, Options{Workers: 2})
		}
		run.days = append(run.days, foldertest.MustRead(t, folder))
		run.results = append(run.results, res)
	}
	return run
}

// verify materializes the snapshot of every day and compares it with the folder that was
// imported. It opens the repository anew, so no backup password is known.
func (run *importedSeries) verify(t testing.TB) {
	t.Helper()
	r := mustOpen(t, run.be, seed(9))
	for day, want := range run.days {
		out, err := materialize.Write(context.Background(), r, run.results[day].Snapshot, t.TempDir(), materialize.Options{Workers: 2, Verify: true})
		if err != nil {
			t.Fatalf("day %d: %v", day, err)
		}
		if err := want.Diff(foldertest.MustRead(t, out.Dir)); err != nil {
			t.Error(err)
		}
	}
	report, err := r.Check(context.Background(), repo.CheckOptions{ReadData: 1})
	if err != nil || !report.Clean() {
		t.Fatalf("check: %+v, %v", report, err)
	}
}

// stored returns the size of the repository in bytes.
func (run *importedSeries) stored(t testing.TB) int64 {
	t.Helper()
	st, err := run.r.Stats(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return st.StoredBytes
}

func TestEncryptedSeriesComesBackAndSharesLikeAPlainOne(t *testing.T) {
	if testing.Short() {
		t.Skip("it imports 12 days")
	}
	t.Parallel()
	plain := importSeries(t, synthetic.Config{Seed: 3}, 4, false)
	for name, conf := range map[string]synthetic.Config{
		"ordinary":                          {Seed: 3, Encryption: synthetic.EncryptAll},
		"empty files are stored as 0 bytes": {Seed: 3, Encryption: synthetic.EncryptAll, EmptyAsZeroBytes: true},
	} {
		run := importSeries(t, conf, 4, true)
		run.verify(t)
		for day, res := range run.results {
			if res.Decrypted < 100 || len(res.Raw) > 0 || !res.Snapshot.Unlocked {
				t.Errorf("%s: day %d: %d files stored decrypted, raw files %v, unlocked %v", name, day, res.Decrypted, res.Raw, res.Snapshot.Unlocked)
			}
			if day > 0 && res.ReadFiles > res.Files/2 {
				t.Errorf("%s: day %d: %d of %d files were read", name, day, res.ReadFiles, res.Files)
			}
		}
		p, e := plain.stored(t), run.stored(t)
		t.Logf("%s: plain %d bytes, encrypted %d: %.3f", name, p, e, float64(e)/float64(p))
		if float64(e) > 1.1*float64(p) {
			t.Errorf("%s: the encrypted series takes %d bytes, the plain one %d", name, e, p)
		}
	}
}

func TestPasswordChangeAddsLittle(t *testing.T) {
	if testing.Short() {
		t.Skip("TestPasswordChangeAddsNoContent is quicker")
	}
	t.Parallel()
	run := importSeries(t, synthetic.Config{Seed: 4, Encryption: synthetic.EncryptAll, PasswordChangeDay: 2, NewPassword: "another"}, 3, true)
	run.verify(t)
	before, after := run.results[1].Snapshot, run.results[2].Snapshot
	t.Logf("before the change %d bytes, after it %d, of %d", before.StoredBytes, after.StoredBytes, after.Bytes)
	// The backup of a tiny device is mostly metadata, and all keys in it are new.
	if after.StoredBytes > before.StoredBytes+after.Bytes/10 {
		t.Errorf("the day of the change added %d bytes, the day before %d", after.StoredBytes, before.StoredBytes)
	}
}

func TestUnlockingLaterSharesWithPlain(t *testing.T) {
	if testing.Short() {
		t.Skip("it generates two devices")
	}
	t.Parallel()
	run := importSeries(t, synthetic.Config{Seed: 3}, 1, false)
	dir := t.TempDir()
	conf := synthetic.Config{Seed: 3, Encryption: synthetic.EncryptAll, StateDir: t.TempDir()}
	devices, err := synthetic.Generate(context.Background(), dir, conf, 1)
	if err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(dir, devices[0].UDID)
	opaque := mustImport(t, run.r, folder, Options{Workers: 1})
	open := importUnlocked(t, run.r, folder, synthetic.DefaultPassword, Options{Workers: 1})
	if opaque.Snapshot.StoredBytes < opaque.Bytes/2 || open.Snapshot.StoredBytes > opaque.Snapshot.StoredBytes/10 {
		t.Errorf("the import without the password added %d bytes, the one with it %d of %d", opaque.Snapshot.StoredBytes, open.Snapshot.StoredBytes, open.Bytes)
	}
	for _, s := range []*repo.Snapshot{opaque.Snapshot, open.Snapshot} {
		out, err := materialize.Write(context.Background(), run.r, s, t.TempDir(), materialize.Options{Workers: 1})
		if err != nil {
			t.Fatal(err)
		}
		if err := foldertest.MustRead(t, folder).Diff(foldertest.MustRead(t, out.Dir)); err != nil {
			t.Error(err)
		}
	}
}

// TestOddEncryptedFiles damages files of an encrypted backup in all ways that were
// seen in real backups.
func TestOddEncryptedFiles(t *testing.T) {
	t.Parallel()
	folder := encryptedFolder(t, 21)
	blobs := blobsOf(t, folder, 4)
	change := func(path string, do func([]byte) []byte) {
		t.Helper()
		name := filepath.Join(folder, path)
		b, err := os.ReadFile(name)
		if err == nil {
			err = os.WriteFile(name, do(b), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	change(blobs[0], func(b []byte) []byte { return b[:len(b)-5] })
	change(blobs[1], func(b []byte) []byte { return b[:len(b)-16] })
	change(blobs[2], func(b []byte) []byte { return nil })
	if err := os.Remove(filepath.Join(folder, blobs[3])); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "00", "00112233445566778899aabbccddeeff00112233"), []byte("not listed"), 0o600); err != nil {
		t.Fatal(err)
	}
	be := memory.New()
	r := createRepo(t, be)
	for range 2 { // the second import takes everything from the parent
		res := importUnlocked(t, r, folder, synthetic.DefaultPassword, Options{Workers: 1})
		if res.Raw[RawLength] != 1 || res.Raw[RawPadding] != 1 || len(res.Raw) != 2 {
			t.Errorf("raw files: %v", res.Raw)
		}
		if res.Report.Missing.Count != 1 || res.Report.Extra.Count != 1 || res.Report.Emptied.Count != 1 {
			t.Errorf("report: %+v", res.Report)
		}
		out, err := materialize.Write(context.Background(), r, res.Snapshot, t.TempDir(), materialize.Options{Workers: 1})
		if err != nil {
			t.Fatal(err)
		}
		if err := foldertest.MustRead(t, folder).Diff(foldertest.MustRead(t, out.Dir)); err != nil {
			t.Error(err)
		}
	}
}

// blobsOf returns the first n blobs that have more than 100 bytes.
func blobsOf(t testing.TB, folder string, n int) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(folder, "??", "*"))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range found {
		if info, err := os.Stat(f); err == nil && info.Size() > 100 && len(filepath.Base(f)) == 40 && len(out) < n {
			rel, _ := filepath.Rel(folder, f)
			out = append(out, rel)
		}
	}
	if len(out) < n {
		t.Fatalf("only %d blobs", len(out))
	}
	return out
}
