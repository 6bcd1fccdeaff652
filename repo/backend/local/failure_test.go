package local

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/snap-backup/snap/repo/backend"
)

func TestFailureTexts(t *testing.T) {
	b := start(&process{machine: newMachine()})
	path := filepath.Join("disk", "packs", "ab", "cd")
	tests := []struct {
		step string
		err  error
		want string
	}{
		{"write", &fs.PathError{Op: "write", Path: "tmp/put-1", Err: syscall.ENOSPC}, "put " + path + ": write: " + syscall.ENOSPC.Error() + " (free some space on that disk)"},
		{"", backend.ErrExist, "put " + path + ": file already exists"},
		{"rename", &os.LinkError{Op: "link", Old: "a", New: "b", Err: syscall.EIO}, "put " + path + ": rename: " + syscall.EIO.Error() + " (the disk reports an error; check its cable and its health)"},
		{"write", context.Canceled, "put " + path + ": write: context canceled"},
		{"open", syscall.EACCES, "put " + path + ": open: " + syscall.EACCES.Error() + " (check the owner and permissions of the repository folder)"},
	}
	for _, tt := range tests {
		err := b.opError("put", "packs/ab/cd", tt.step, tt.err)
		if err.Error() != tt.want {
			t.Errorf("error text %q, want %q", err, tt.want)
		}
		if !errors.Is(err, withoutPath(tt.err)) {
			t.Errorf("%q does not wrap its cause", err)
		}
	}
}

func TestFullDisk(t *testing.T) {
	ctx := context.Background()
	p := &process{machine: newMachine(), trouble: failBefore, err: syscall.ENOSPC}
	b := start(p)
	refused := 0
	for at := 2; ; at++ { // the first call is lstat
		p.calls, p.at = nil, at
		err := b.Put(ctx, "packs/ab/cd", []byte("content"))
		if len(p.calls) < at {
			break
		}
		if err != nil {
			refused++
			if !backend.IsNoSpace(err) || !strings.Contains(err.Error(), "free some space") {
				t.Errorf("Put on a disk that is full at call %d = %v", at, err)
			}
		}
		p.at = 0
		if err := b.Delete(ctx, "packs/ab/cd"); err != nil && !errors.Is(err, backend.ErrNotExist) {
			t.Errorf("Delete afterwards = %v", err)
		}
	}
	if refused < 5 {
		t.Errorf("only %d Puts were refused", refused)
	}
}

// lostReply is a file server whose answer to a link is lost: the client repeats the
// request, which fails because the name exists.
type lostReply struct{ rootDisk }

func (d lostReply) link(from, to string) error {
	if err := d.rootDisk.link(from, to); err != nil {
		return err
	}
	return d.rootDisk.link(from, to)
}

func TestLostReply(t *testing.T) {
	ctx := context.Background()
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(root.WriteFile("a", nil, 0o600), root.Link("a", "b")); err != nil {
		t.Skipf("no hard links here: %v", err)
	}
	b := newBackend(root.Name(), lostReply{newRootDisk(root)}, constantRandom{}, root.Close)
	defer b.Close()
	if err := b.Put(ctx, "config", []byte("mine")); err != nil {
		t.Errorf("Put = %v", err)
	}
	if err := b.Put(ctx, "config", []byte("other")); !errors.Is(err, backend.ErrExist) {
		t.Errorf("second Put = %v, want ErrExist", err)
	}
	got, err := backend.ReadAll(ctx, b, "config", 100)
	if err != nil || string(got) != "mine" {
		t.Errorf("the file holds %q, %v", got, err)
	}
	if tmp, err := b.disk.readDir(tmpFolder); err != nil || len(tmp) != 0 {
		t.Errorf("tmp has %v, %v", tmp, err)
	}
}

type constantRandom struct{}

func (constantRandom) Read(p []byte) (int, error) { clear(p); return len(p), nil }
