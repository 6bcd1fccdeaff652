package restore

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/snap-backup/snap/device/ingest"
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/protocol/backup2"
	"github.com/snap-backup/snap/device/simulator/synthetic"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
)

// imported imports a folder, with its backup password unless that is "".
func imported(t *testing.T, dir, password string) (*repo.Repo, *repo.Snapshot) {
	t.Helper()
	ctx := t.Context()
	b, err := mobilesync.Open(ctx, dir)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if password != "" {
		keys, err := b.Unlock(ctx, []byte(password), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer keys.Destroy()
	}
	be := memory.New()
	res, err := ingest.Import(ctx, repotest.Create(t, be), b, ingest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return repotest.MustOpen(t, be), res.Snapshot
}

func get(ctx context.Context, f backup2.Folder, path string) ([]byte, error) {
	r, err := f.Open(ctx, path)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(r)
	return b, errors.Join(err, r.Close())
}

func filesIn(t *testing.T, dir string) (files []string) {
	t.Helper()
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// A View returns every file as it was in the backup, in any order.
func TestView(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	folders := t.TempDir()
	devices, err := synthetic.Generate(ctx, folders, synthetic.Config{Seed: 5, Encryption: synthetic.EncryptAll, StateDir: t.TempDir()}, 1)
	if err != nil {
		t.Fatal(err)
	}
	udid := devices[0].UDID
	dir := filepath.Join(folders, udid)
	r, snap := imported(t, dir, synthetic.DefaultPassword)
	v, err := New(ctx, r, snap, Options{Target: "OTHER"})
	if err != nil {
		t.Fatal(err)
	}
	if !snap.Unlocked || v.Lost() != 0 {
		t.Errorf("unlocked is %v, %d files are lost", snap.Unlocked, v.Lost())
	}
	u := udid + "/"
	for _, name := range []string{"Status.plist", "Manifest.plist", "Manifest.db", "Info.plist"} {
		if _, err := get(ctx, v, u+name); err != nil || v.Begun() {
			t.Errorf("%s: %v; begun is %v", name, err, v.Begun())
		}
	}
	files := filesIn(t, dir)
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(files), func(i, j int) { files[i], files[j] = files[j], files[i] })
	for _, path := range files {
		want, err := os.ReadFile(filepath.Join(dir, path))
		if err != nil {
			t.Fatal(err)
		}
		if b, err := get(ctx, v, u+path); err != nil || !bytes.Equal(b, want) {
			t.Errorf("%s: %d bytes, %v", path, len(b), err)
		}
	}
	if !v.Begun() {
		t.Error("the restore has not begun")
	}
	listed := 0
	items, err := v.List(ctx, udid)
	for _, it := range items {
		if !it.Dir {
			listed++
			continue
		}
		below, err := v.List(ctx, u+it.Name)
		if err != nil {
			t.Error(err)
		}
		listed += len(below)
	}
	if err != nil || listed != len(files) {
		t.Errorf("%d of %d files are listed: %v", listed, len(files), err)
	}
	for _, path := range []string{u + "aa/" + strings.Repeat("a", 40), u + "00", udid, "OTHER/Status.plist", u + "nothing"} {
		if _, err := v.Open(ctx, path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := v.List(ctx, "OTHER"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	for _, err := range []error{
		v.Mkdir(ctx, u+"00"), v.Move(ctx, u+"Status.plist", u+"x"), v.Remove(ctx, u+"Status.plist"), v.Copy(ctx, u+"Status.plist", u+"x"),
		v.Copy(ctx, udid, "THIRD-20260101-101010"),
	} {
		if !errors.Is(err, fs.ErrPermission) {
			t.Errorf("a change was not refused: %v", err)
		}
	}
	if _, err := v.Create(ctx, u+"x"); err == nil {
		t.Error("a file was accepted")
	}
	for _, err := range []error{v.Mkdir(ctx, "OTHER-20260101-101010"), v.Copy(ctx, "OTHER", "OTHER-20260101-101010"), v.Copy(ctx, udid, udid+"-20260101-101010")} {
		if err != nil {
			t.Error(err)
		}
	}
	with, err := New(ctx, r, snap, Options{Info: []byte("info")})
	if err != nil {
		t.Fatal(err)
	}
	if b, err := get(ctx, with, u+"Info.plist"); err != nil || string(b) != "info" {
		t.Errorf("%q, %v", b, err)
	}
}

// A view shows a backup in the flat layout of an old device.
func TestViewOfFlatBackup(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	folders := t.TempDir()
	d, err := synthetic.GenerateLegacy(ctx, folders, synthetic.Config{Scale: synthetic.Tiny, StateDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(folders, d.UDID)
	r, snap := imported(t, dir, "")
	v, err := New(ctx, r, snap, Options{})
	if err != nil {
		t.Fatal(err)
	}
	items, err := v.List(ctx, d.UDID)
	if files := filesIn(t, dir); err != nil || len(items) != len(files) {
		t.Errorf("%d items of %d, %v", len(items), len(files), err)
	}
	for _, it := range items {
		want, err := os.ReadFile(filepath.Join(dir, it.Name))
		if err != nil {
			t.Fatal(err)
		}
		if b, err := get(ctx, v, d.UDID+"/"+it.Name); err != nil || !bytes.Equal(b, want) || it.Size != int64(len(b)) {
			t.Errorf("%s: %d bytes, %v", it.Name, len(b), err)
		}
	}
}
