// Package memory is a backend in memory, for tests. It fulfils the contract of
// backend.Backend, except that files do not outlive the process. A test can clone a
// store, change the original, and return to the clone later. The package never touches a disk.
package memory

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/snap-backup/snap/repo/backend"
)

// Backend is a store in memory. Use [New]; it must not be copied.
type Backend struct {
	mu      sync.RWMutex
	files   map[string]file
	names   []string       // of files, sorted
	folders map[string]int // number of files below a folder
	clock   func() time.Time
}

type file struct {
	data     []byte // never changes, so clones share it
	modified time.Time
}

// New returns an empty store.
func New() *Backend {
	return &Backend{files: make(map[string]file), folders: make(map[string]int), clock: time.Now}
}

// SetClock sets the clock of the store, which tells when files were put. It is not part
// of the contract. By default the clock is time.Now.
func (b *Backend) SetClock(now func() time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.clock = now
}

// Clone returns an independent store with the same files and clock. Contents are
// shared, not copied.
func (b *Backend) Clone() *Backend {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return &Backend{files: maps.Clone(b.files), names: slices.Clone(b.names), folders: maps.Clone(b.folders), clock: b.clock}
}

// Set stores a copy of data under a valid name and replaces an existing file. It is not
// part of the contract. Tests use it to damage a store.
func (b *Backend) Set(name string, data []byte) error {
	if err := backend.ValidName(name); err != nil {
		return fmt.Errorf("set: %w", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.set(name, data)
	return nil
}

func (b *Backend) set(name string, data []byte) {
	if _, ok := b.files[name]; !ok {
		for folder := range foldersOf(name) {
			b.folders[folder]++
		}
		i, _ := slices.BinarySearch(b.names, name)
		b.names = slices.Insert(b.names, i, name)
	}
	b.files[name] = file{append(make([]byte, 0, len(data)), data...), b.clock().Round(0)}
}

// Put implements [backend.Backend].
func (b *Backend) Put(ctx context.Context, name string, data []byte) error {
	if err := allowed(ctx, name); err != nil {
		return fmt.Errorf("put: %w", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	_, taken := b.files[name]
	for folder := range foldersOf(name) {
		_, isFile := b.files[folder]
		taken = taken || isFile
	}
	if taken || b.folders[name] > 0 {
		return fmt.Errorf("put %s: %w", name, backend.ErrExist)
	}
	b.set(name, data)
	return nil
}

// ReadAt implements [backend.Backend].
func (b *Backend) ReadAt(ctx context.Context, name string, p []byte, off int64) (int, error) {
	f, err := b.get(ctx, "read", name)
	if err != nil {
		return 0, err
	}
	data := f.data
	if off < 0 {
		return 0, fmt.Errorf("read %s: %w", name, errNegativeOffset)
	}
	if len(p) == 0 {
		return 0, nil
	}
	if off >= int64(len(data)) {
		return 0, io.EOF
	}
	n := copy(p, data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

var errNegativeOffset = errors.New("negative offset")

// Stat implements [backend.Backend].
func (b *Backend) Stat(ctx context.Context, name string) (backend.Info, error) {
	f, err := b.get(ctx, "stat", name)
	if err != nil {
		return backend.Info{}, err
	}
	return f.info(name), nil
}

func (f file) info(name string) backend.Info {
	return backend.Info{Name: name, Size: int64(len(f.data)), Modified: f.modified}
}

// List implements [backend.Backend]. It shows the files that exist when it is called.
func (b *Backend) List(ctx context.Context, prefix string, fn func(backend.Info) error) error {
	if err := backend.ValidPrefix(prefix); err != nil {
		return fmt.Errorf("list: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("list: %w", err)
	}
	for _, info := range b.snapshot(prefix) {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("list: %w", err)
		}
		if err := fn(info); err != nil {
			return err
		}
	}
	return nil
}

func (b *Backend) snapshot(prefix string) []backend.Info {
	b.mu.RLock()
	defer b.mu.RUnlock()
	var infos []backend.Info
	first, _ := slices.BinarySearch(b.names, prefix)
	for _, name := range b.names[first:] {
		if !strings.HasPrefix(name, prefix) {
			break
		}
		infos = append(infos, b.files[name].info(name))
	}
	return infos
}

// Delete implements [backend.Backend].
func (b *Backend) Delete(ctx context.Context, name string) error {
	if err := allowed(ctx, name); err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.files[name]; !ok {
		return fmt.Errorf("delete %s: %w", name, backend.ErrNotExist)
	}
	delete(b.files, name)
	i, _ := slices.BinarySearch(b.names, name)
	b.names = slices.Delete(b.names, i, i+1)
	for folder := range foldersOf(name) {
		if b.folders[folder]--; b.folders[folder] == 0 {
			delete(b.folders, folder)
		}
	}
	return nil
}

func (b *Backend) get(ctx context.Context, op, name string) (file, error) {
	if err := allowed(ctx, name); err != nil {
		return file{}, fmt.Errorf("%s: %w", op, err)
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	f, ok := b.files[name]
	if !ok {
		return file{}, fmt.Errorf("%s %s: %w", op, name, backend.ErrNotExist)
	}
	return f, nil
}

func allowed(ctx context.Context, name string) error {
	if err := backend.ValidName(name); err != nil {
		return err
	}
	return ctx.Err()
}

// foldersOf yields "a" and "a/b" for "a/b/c".
func foldersOf(name string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for i := range len(name) {
			if name[i] == '/' && !yield(name[:i]) {
				return
			}
		}
	}
}

var _ backend.Backend = (*Backend)(nil)
