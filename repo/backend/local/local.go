// Package local is a backend in a folder: on an internal or external disk, or
// on a share that the system has mounted.
//
// # On disk
//
// A file named "packs/ab/cd" is the file packs/ab/cd below the folder, and
// holds exactly the bytes that were put. Files have mode 0600 and folders 0700.
// Beside them there is the folder tmp, which holds what is being written. With
// no process at work everything in tmp is a left-over of a crash and may be
// removed, by hand or with [Backend.RemoveStale].
//
// # How a file comes into being
//
// Its bytes go into a new file in tmp, which is flushed (fsync). The folders
// above its name are made where they are missing, and the entry of each is
// flushed. Then the file gets its name by a hard link, which fails if the name
// is taken, and the folder that holds the new entry is flushed. Last, the name
// in tmp goes away. On file systems without hard links (exFAT, many shares)
// the name is looked up and the file then renamed. Within one process that is
// as strict as the link. Two processes that put the same name in the same
// moment could there both succeed, the later file replacing the earlier one;
// names that are hashes or random numbers make that harmless.
//
// # What it rests on
//
// Durability is what fsync of the system gives; on macOS that includes the
// cache of the drive. Where folders cannot be flushed (Windows and some
// network shares), the system decides when a new name reaches the disk, and
// this package does not fail for it. Where files cannot be flushed, it fails.
//
// # What it never does
//
// It never opens, makes or removes anything outside its folder, also if
// symbolic links lie in it: links are not listed, not read and not deleted,
// and one that stands in place of a folder and leads outside is an error. It
// never changes the mode of what it did not make. Between operations it keeps
// no file open, only its folder.
package local

import (
	"context"
	"crypto/rand"
	"io"
	"os"
	"sync"

	"github.com/snap-backup/snap/repo/backend"
)

// Backend is a store in a folder. Use [Create] or [Open].
type Backend struct {
	dir    string // as the user gave it, for messages
	disk   disk
	random io.Reader // for names in tmp; safe for many goroutines
	closer func() error
	piece  int // bytes that are written at a time

	folders durable
	naming  sync.Mutex // held between looking a name up and renaming to it
}

var _ backend.Backend = (*Backend)(nil)

// Open returns the store in dir, which must exist. It reads nothing: whether
// dir holds a repository is seen from the files in it.
func Open(dir string) (*Backend, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, failure("open", dir, "", err, hintOpen(err))
	}
	d := newRootDisk(root)
	return newBackend(dir, d, rand.Reader, d.close), nil
}

func newBackend(dir string, d disk, random io.Reader, closer func() error) *Backend {
	return &Backend{dir: dir, disk: d, random: random, closer: closer, piece: defaultPiece}
}

// Close lets go of the folder. No other method may run at the same time or be
// called afterwards.
func (b *Backend) Close() error { return b.closer() }

// Dir returns the folder as it was given to Create or Open.
func (b *Backend) Dir() string { return b.dir }

// allowed checks what every operation on a file checks first.
func (b *Backend) allowed(ctx context.Context, op, name string) error {
	if err := backend.ValidName(name); err != nil {
		return failure(op, b.dir, "", err, "")
	}
	if err := ctx.Err(); err != nil {
		return b.fail(op, name, "", err)
	}
	return nil
}
