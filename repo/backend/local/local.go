// Package local is a backend in a folder of a local disk or a mounted share.
//
// # Files
//
// A repository file named "packs/ab/cd" is the file packs/ab/cd below the folder,
// with exactly the bytes that were put. Files have mode 0600 and folders 0700, plus at
// most the permissions that the repository's folder gives its group; see share. The
// folder tmp has the files that are being written. If no process is running, all
// files in tmp were left by crashes. They can be removed by hand or with
// [Backend.RemoveStale].
//
// # Put
//
// Put writes the bytes to a new file in tmp and flushes it (fsync). It makes missing
// folders and flushes the entry of each of them. It gives the file its name by a hard
// link, which fails if the name exists, and flushes the folder of the new entry. At the
// end it removes the name in tmp.
//
// On file systems without hard links (exFAT, many shares) Put checks that the name is
// free and then renames the file. Within one process this is as strict as a link. If
// two processes put the same name at the same time, both can succeed, and the later
// file replaces the earlier one. That is harmless for names that are hashes or random.
//
// # Durability
//
// Files are as durable as fsync makes them. On macOS, Put also flushes the cache of the
// drive. Where folders cannot be flushed (Windows and some network shares), the system
// decides when a new name reaches the disk, and Put succeeds. Where files cannot be
// flushed, Put fails with [ErrNoFsync], unless [Backend.AllowNoFsync] was called.
//
// # What it never does
//
// It never opens, makes or removes anything outside its folder, even if the folder
// has symbolic links. It does not read links, or list or delete them, except for one with
// the name of a file that is named by a hash: List shows it as a file that cannot be read,
// and Delete removes it, never its target. A link where a folder
// is expected is an error if its target is outside. It never changes the mode of
// existing files. Between operations it keeps only its folder open.
package local

import (
	"context"
	"crypto/rand"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"github.com/snap-backup/snap/repo/backend"
)

// Backend is a store in a folder. Use [Create] or [Open].
type Backend struct {
	dir       string // as given by the user, for messages
	disk      disk
	random    io.Reader // for names in tmp; safe for concurrent use
	closer    func() error
	writeSize int         // bytes to write at a time
	noFsync   atomic.Bool // see AllowNoFsync

	folders  flushedFolders
	renameMu sync.Mutex // held from checking that a name is free until the rename to it
}

var (
	_ backend.Backend     = (*Backend)(nil)
	_ backend.RangeLister = (*Backend)(nil)
)

// Open returns the store in dir, which must exist. It reads nothing and does not check
// whether dir holds a repository.
func Open(dir string) (*Backend, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, failure("open", dir, "", err, hintOpen(err))
	}
	d := newRootDisk(root)
	return newBackend(dir, d, rand.Reader, d.close), nil
}

func newBackend(dir string, d disk, random io.Reader, closer func() error) *Backend {
	return &Backend{dir: dir, disk: d, random: random, closer: closer, writeSize: defaultWriteSize}
}

// Close closes the folder. No other method may run at the same time or be called
// afterwards.
func (b *Backend) Close() error { return b.closer() }

// Dir returns the folder as given to Create or Open.
func (b *Backend) Dir() string { return b.dir }

// checkCall makes the checks that every operation on a file begins with.
func (b *Backend) checkCall(ctx context.Context, op, name string) error {
	if err := backend.ValidName(name); err != nil {
		return failure(op, b.dir, "", err, "")
	}
	if err := ctx.Err(); err != nil {
		return b.opError(op, name, "", err)
	}
	return nil
}
