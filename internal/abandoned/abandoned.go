// Package abandoned finds and removes the folders that killed processes have left.
//
// A process that makes a temporary folder claims it: a file beside the folder says which
// process that is. Sweep removes folders whose process has ended, and those that nobody
// needs. It never removes a folder of a running process. If the process is unknown, such
// as one of another computer that uses the same drive, Sweep reports the folder and
// leaves it.
package abandoned

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/snap-backup/snap/internal/process"
)

const (
	// OwnerSuffix is added to the name of a folder for the name of its owner file.
	OwnerSuffix = ".owner"
	// maxOwner bounds how many bytes of an owner file are read.
	maxOwner = 16 << 10
)

// ErrInUse says that another process uses a folder.
var ErrInUse = errors.New("another process writes it")

// Folder is a folder that was left.
type Folder struct {
	Path    string
	Bytes   int64 // the sizes of its files
	Removed bool
	// Owner is the process that made the folder, nil if nothing says which one did.
	Owner *process.Identity
}

// Claim makes self the owner of a folder, which may not exist yet. It fails with ErrInUse
// if the owner still runs. If it is unknown whether the owner runs, the folder changes
// hands: it may be on a drive that another computer used before.
//
// release removes the owner file. If it is not called, the folder counts as left when
// the process has ended.
func Claim(dir string, self process.Identity) (release func() error, err error) {
	file := dir + OwnerSuffix
	release = func() error { return os.Remove(file) }
	b, err := json.Marshal(self)
	if err != nil {
		return nil, err
	}
	for range 3 {
		err = writeNew(file, b)
		if !errors.Is(err, fs.ErrExist) {
			return release, err
		}
		if owner := readOwner(os.DirFS(filepath.Dir(file)), filepath.Base(file)); owner != nil && *owner != self && owner.State(self) == process.Alive {
			return nil, fmt.Errorf("%s: %w (process %d of %s)", dir, ErrInUse, owner.PID, owner.User)
		}
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return nil, err // another process claims the folder again and again
}

func writeNew(name string, b []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(name))
	}
	return nil
}

// readOwner returns what an owner file says, or nil if it says nothing.
func readOwner(dir fs.FS, name string) *process.Identity {
	if info, err := fs.Lstat(dir, name); err != nil || !info.Mode().IsRegular() {
		return nil // opening a pipe would wait for its other end
	}
	f, err := dir.Open(name)
	if err != nil {
		return nil
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxOwner))
	var owner process.Identity
	if err != nil || json.Unmarshal(b, &owner) != nil {
		return nil
	}
	return &owner
}

// Use is what the name of a folder says about who needs it.
type Use int

// What names say. Sweep passes over Other names.
const (
	Other   Use = iota
	Claimed     // its owner needs it as long as the owner runs
	Unused      // nobody needs it any more
)

// ClaimedIf returns a function for Sweep: the names that fit are of claimed folders.
func ClaimedIf(fits func(name string) bool) func(name string) Use {
	return func(name string) Use {
		if fits(name) {
			return Claimed
		}
		return Other
	}
}

// Sweep removes the temporary folders in dir that ended processes have claimed, and those
// that nobody needs. use says what a folder is, given its name. Sweep calls found for
// each folder that it has removed, and for each that it could not remove or whose owner
// is unknown. It does not call found for folders of running processes. dir need not
// exist.
func Sweep(ctx context.Context, dir string, use func(name string) Use, self process.Identity, found func(Folder)) error {
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer root.Close()
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		name, isOwner := strings.CutSuffix(e.Name(), OwnerSuffix)
		needed := use(name)
		if needed == Other || !isOwner && !e.IsDir() {
			continue
		}
		owner := readOwner(root.FS(), name+OwnerSuffix)
		state := process.Unknown
		switch {
		case needed == Unused:
			state = process.Dead
		case owner == nil:
		case *owner == self:
			state = process.Alive
		default:
			state = owner.State(self)
		}
		if isOwner {
			// The folder itself comes first, so it is gone if it could be removed.
			if _, err := root.Lstat(name); state == process.Dead && errors.Is(err, fs.ErrNotExist) {
				_ = root.Remove(e.Name())
			}
			continue
		}
		if state == process.Alive {
			continue
		}
		f := Folder{Path: filepath.Join(dir, name), Bytes: Size(ctx, root, name), Owner: owner}
		if state == process.Dead && root.RemoveAll(name) == nil {
			f.Removed = true
			_ = root.Remove(name + OwnerSuffix)
		}
		found(f)
	}
	return nil
}

// Size returns the sizes of the files in the folder name below root. It passes over what
// it cannot read.
func Size(ctx context.Context, root *os.Root, name string) (bytes int64) {
	_ = fs.WalkDir(root.FS(), filepath.ToSlash(name), func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if info, err := d.Info(); err == nil {
				bytes += info.Size()
			}
		}
		return ctx.Err()
	})
	return bytes
}
