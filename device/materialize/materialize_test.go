package materialize

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/snap-backup/snap/device/blob"
	"github.com/snap-backup/snap/device/mobilesync/foldertest"
	"github.com/snap-backup/snap/internal/faultpoint"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend/fault"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
)

// stored returns a small backup folder in a repository. Some of its files are
// large enough to have blocks of their own.
func stored(t testing.TB) (be *memory.Backend, s *repo.Snapshot, want foldertest.Contents) {
	t.Helper()
	m := foldertest.New(t)
	for i := range 8 {
		m.Put("MediaDomain", fmt.Sprintf("v%d.mov", i), foldertest.Noise(byte(10+i), 300<<10))
	}
	m.Finish(1)
	be = memory.New()
	repotest.Create(t, be)
	s = mustImport(t, mustOpen(t, be, seed(9)), m.Dir, "")
	return be, s, foldertest.MustRead(t, m.Dir)
}

func hidden(target string, s *repo.Snapshot) string {
	return filepath.Join(target, "."+foldertest.UDID+"."+s.ID.Short()+".partial")
}

// wantFolder reports an error unless target has only the backup folder, with the
// content of want.
func wantFolder(t testing.TB, target string, want foldertest.Contents) {
	t.Helper()
	if err := want.Diff(foldertest.MustRead(t, filepath.Join(target, foldertest.UDID))); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(target); err != nil || len(left) != 1 {
		t.Errorf("%v are in the target: %v", left, err)
	}
}

// A run can be continued wherever it was stopped. Complete files are kept;
// damaged, incomplete and foreign files are not.
func TestMaterializeResumes(t *testing.T) {
	t.Parallel()
	be, s, want := stored(t)
	stops := 0
	for _, i := range faultpoint.Choose(t, int(s.Files), 8) {
		stop := int64(i)
		target := filepath.Join(t.TempDir(), "new", "target")
		ctx, cancel := context.WithCancel(t.Context())
		p := &blob.Progress{}
		// The test stops a run when it reads a block.
		store := fault.New(be)
		r := mustOpen(t, store, seed(2))
		store.SetPlan(func(fault.Call) fault.Action {
			if p.Files.Load() >= stop && p.TotalFiles.Load() > 0 {
				cancel()
			}
			return fault.Action{}
		})
		_, err := Write(ctx, r, s, target, Options{Progress: p})
		cancel()
		if err == nil {
			continue // the run had read all blocks before
		}
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("stopped at file %d: %v", stop, err)
		}
		if _, err := os.Lstat(filepath.Join(target, foldertest.UDID)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("stopped at file %d: the folder exists: %v", stop, err)
		}
		stops++
		done := p.Files.Load()
		// A run that wrote nothing leaves no folder.
		if err := os.MkdirAll(hidden(target, s), 0o700); err != nil {
			t.Fatal(err)
		}
		spoil(t, hidden(target, s))
		res, err := Write(t.Context(), mustOpen(t, be, seed(3)), s, target, Options{Verify: true})
		if err != nil {
			t.Fatalf("continued at file %d: %v", stop, err)
		}
		// spoil has damaged two of the complete files.
		if res.Kept < done-2 || res.Kept > done || !res.Verified || res.Files != s.Files || res.Bytes != s.Bytes {
			t.Errorf("continued at file %d: %+v", done, res)
		}
		wantFolder(t, target, want)
	}
	t.Logf("stopped %d times", stops)
	if stops < 8 && faultpoint.All() {
		t.Errorf("stopped only %d times", stops)
	}
}

// spoil changes an unfinished folder as a crash or another program may. It
// damages one file, truncates another, and adds others.
func spoil(t testing.TB, dir string) {
	t.Helper()
	spoiled := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || spoiled == 2 {
			return err
		}
		info, err := d.Info()
		if err != nil || info.Size() == 0 {
			return err
		}
		spoiled++
		if spoiled == 1 {
			return os.Truncate(path, info.Size()/2)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		b[len(b)/2] ^= 1
		return os.WriteFile(path, b, 0o600)
	})
	err = errors.Join(err,
		os.WriteFile(filepath.Join(dir, ".DS_Store"), []byte("x"), 0o600),
		os.MkdirAll(filepath.Join(dir, "zz", "deep"), 0o700),
		os.WriteFile(filepath.Join(dir, "zz", "deep", "file"), nil, 0o600))
	if err != nil {
		t.Fatal(err)
	}
}

// Links in the hidden folder, or instead of it, are not followed.
func TestMaterializeFollowsNoLinks(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("making links needs a privilege on Windows")
	}
	be, s, want := stored(t)
	r := mustOpen(t, be, seed(2))
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "sentinel"), []byte("untouched"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := foldertest.MustRead(t, outside)
	target := t.TempDir()
	dir := hidden(target, s)
	file := ""
	for path, what := range want {
		if strings.HasPrefix(what, "-") && strings.Contains(path, "/") {
			file = path
		}
	}
	for _, err := range []error{
		os.Mkdir(dir, 0o700),
		os.Symlink(outside, filepath.Join(dir, "00")),
		os.Symlink(outside, filepath.Join(dir, filepath.Dir(file))),
		os.Symlink(filepath.Join(outside, "sentinel"), filepath.Join(dir, "Status.plist")),
		os.Symlink("../../new", filepath.Join(dir, "Info.plist")),
		os.Mkdir(filepath.Join(dir, "Manifest.db"), 0o700),
		os.WriteFile(filepath.Join(dir, "Manifest.db", "x"), nil, 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Write(t.Context(), r, s, target, Options{}); err != nil {
		t.Fatal(err)
	}
	wantFolder(t, target, want)
	target = t.TempDir()
	if err := os.Symlink(outside, hidden(target, s)); err != nil {
		t.Fatal(err)
	}
	if _, err := Write(t.Context(), r, s, target, Options{}); err == nil || !strings.Contains(err.Error(), "remove it") {
		t.Errorf("a link instead of the hidden folder: %v", err)
	}
	if err := before.Diff(foldertest.MustRead(t, outside)); err != nil {
		t.Errorf("outside the target: %v", err)
	}
}

func TestMaterializeReplaces(t *testing.T) {
	t.Parallel()
	be, s, want := stored(t)
	r := mustOpen(t, be, seed(2))
	target := t.TempDir()
	dir := filepath.Join(target, foldertest.UDID)
	if err := os.MkdirAll(filepath.Join(dir, "old"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Write(t.Context(), r, s, target, Options{}); !errors.Is(err, ErrTargetExists) {
		t.Errorf("without Replace: %v", err)
	}
	wantFolder(t, target, foldertest.MustRead(t, dir))

	// The old folder stays until the new one is complete.
	bad := be.Clone()
	for _, name := range repotest.FilesIn(t, bad, "packs/") {
		if err := bad.Delete(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		if _, err := Write(t.Context(), mustOpen(t, bad, seed(3)), s, target, Options{Replace: true}); !errors.Is(err, repo.ErrDamaged) {
			t.Errorf("without %s: %v", name, err)
		}
		if _, err := os.Lstat(filepath.Join(dir, "old")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Write(t.Context(), r, s, target, Options{Replace: true}); err != nil {
		t.Fatal(err)
	}
	wantFolder(t, target, want)

	if err := errors.Join(os.RemoveAll(dir), os.WriteFile(dir, []byte("a file"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := Write(t.Context(), r, s, target, Options{Replace: true}); err == nil || errors.Is(err, ErrTargetExists) {
		t.Errorf("a file instead of the folder: %v", err)
	}
}

// Verify compares the files on the disk.
func TestVerifyDetectsChange(t *testing.T) {
	t.Parallel()
	be, s, _ := stored(t)
	for _, damage := range []func(path string) error{
		func(path string) error { return os.WriteFile(path, []byte("other"), 0o600) },
		func(path string) error { return os.Truncate(path, 1) },
		func(path string) error {
			b, err := os.ReadFile(path)
			if err == nil {
				b[0] ^= 1
				err = os.WriteFile(path, b, 0o600)
			}
			return err
		},
	} {
		r := mustOpen(t, be, seed(2))
		m := &job{r: r, newMapper: asStored, opts: Options{Progress: &blob.Progress{}, Verify: true}, res: &Result{}}
		dir := t.TempDir()
		if err := m.fill(t.Context(), s, dir); err != nil || !m.res.Verified {
			t.Fatalf("verified is %v: %v", m.res.Verified, err)
		}
		root, err := os.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		m.root = root
		if err := damage(filepath.Join(dir, "Info.plist")); err != nil {
			t.Fatal(err)
		}
		if err := m.eachFile(t.Context(), s, m.verify); !errors.Is(err, ErrVerify) || !strings.Contains(err.Error(), "Info.plist") {
			t.Errorf("got %v", err)
		}
	}
}

// A store that stops answering at any point is reported. No backup folder appears, and the next
// attempt succeeds.
func TestMaterializeSurvivesEveryFailure(t *testing.T) {
	t.Parallel()
	be, s, want := stored(t)
	count := fault.New(be)
	r := mustOpen(t, count, seed(2))
	before := count.Count()
	if _, err := Write(t.Context(), r, s, t.TempDir(), Options{}); err != nil {
		t.Fatal(err)
	}
	steps := count.Count() - before
	if steps < 9 {
		t.Errorf("only %d points of failure", steps)
	}
	for _, i := range faultpoint.Choose(t, steps, 6) {
		n := i + 1
		store := fault.New(be)
		r := mustOpen(t, store, seed(2))
		store.SetPlan(fault.From(n, fault.ErrInjected))
		target := t.TempDir()
		_, err := Write(t.Context(), r, s, target, Options{})
		if !errors.Is(err, fault.ErrInjected) {
			t.Fatalf("fault at operation %d: %v", n, err)
		}
		if _, err := os.Lstat(filepath.Join(target, foldertest.UDID)); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("fault at operation %d: the folder exists: %v", n, err)
		}
		store.SetPlan()
		if _, err := Write(t.Context(), r, s, target, Options{}); err != nil {
			t.Fatalf("after the fault at operation %d: %v", n, err)
		}
		wantFolder(t, target, want)
	}
}
