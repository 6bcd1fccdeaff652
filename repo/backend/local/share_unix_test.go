//go:build unix

package local

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestSharedMode(t *testing.T) {
	t.Parallel()
	const setgid = fs.ModeSetgid
	for above, want := range map[fs.FileMode][2]fs.FileMode{ // of a file, of a folder
		0o700:                 {0o600, 0o700},
		0o755:                 {0o640, 0o750},
		0o770:                 {0o660, 0o770},
		0o770 | setgid:        {0o660, 0o770 | setgid},
		0o777 | fs.ModeSticky: {0o660, 0o770},
		0o710:                 {0o600, 0o710},
		0o507:                 {0o600, 0o700},
		fs.ModeDir:            {0o600, 0o700},
	} {
		if got := [2]fs.FileMode{sharedMode(above, false), sharedMode(above, true)}; got != want {
			t.Errorf("%v: %v, want %v", above, got, want)
		}
	}
}

// place is what share decides on.
type place struct {
	mode     fs.FileMode
	uid, gid uint32
}

func placeOf(t *testing.T, name string) place {
	t.Helper()
	info, err := os.Lstat(name)
	if err != nil {
		t.Fatal(err)
	}
	st := info.Sys().(*syscall.Stat_t)
	return place{info.Mode() &^ fs.ModeDir, st.Uid, st.Gid}
}

// checkShared puts a file into a repository and compares it, and its folders, with the
// repository's folder.
func checkShared(t *testing.T, dir string, want place) {
	t.Helper()
	b, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := b.Put(t.Context(), "packs/ab/cd", []byte("x")); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]fs.FileMode{"tmp": sharedMode(want.mode, true), "packs/ab": sharedMode(want.mode, true), "packs/ab/cd": sharedMode(want.mode, false)} {
		if got := placeOf(t, filepath.Join(dir, name)); got != (place{mode, want.uid, want.gid}) {
			t.Errorf("%s is %v, want %v like %v", name, got, mode, want)
		}
	}
}

func TestShare(t *testing.T) {
	defer unix.Umask(unix.Umask(0o077))
	for _, mode := range []fs.FileMode{0o700, 0o750, 0o770, 0o770 | fs.ModeSetgid} {
		dir := t.TempDir()
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		checkShared(t, dir, placeOf(t, dir))
	}
}

// A job of root leaves files that the owner of the repository can use.
func TestShareAsRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can change owners")
	}
	dir := t.TempDir()
	if err := os.Chown(dir, 12345, 23456); err != nil {
		t.Skip(err) // in a namespace
	}
	repo := filepath.Join(dir, "repo")
	b, err := Create(repo)
	if err != nil {
		t.Fatal(err)
	}
	b.Close()
	checkShared(t, repo, place{0o700, 12345, 23456})
	if err := os.Chmod(repo, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(repo, "tmp")); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(repo, "packs")); err != nil {
		t.Fatal(err)
	}
	checkShared(t, repo, place{0o750, 12345, 23456})
}
