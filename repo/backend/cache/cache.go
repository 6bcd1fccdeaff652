// Package cache keeps copies of a repository's files in a folder of this computer, so
// that commands ask a store far away less often.
//
// # What it keeps
//
// Files that are named by the hash of their bytes, so that they never change: key slots,
// index files, snapshot records, the ledger, prune lists, certificates and kept passwords,
// packs with metadata, and some of the packs that this computer has put. They are kept as they are in the store, sealed.
// Locks, records of unfinished backups, parity and files without a hash are not kept.
//
// # What it promises
//
// The store decides what exists: List, Stat, Put and Delete always ask it. A copy counts
// only if the hash of its bytes is its name, so a damaged or forged one is the same as
// none. The folder can be deleted at any time, several processes can use it, and if it
// cannot be written, all works as without it.
//
// What it cannot promise: a file that the store has lost or damaged since it was copied
// can still be read. So commands that check or repair a store use no cache.
package cache

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/snap-backup/snap/crypto/blake"
	"github.com/snap-backup/snap/repo/backend"
	"golang.org/x/sync/singleflight"
)

const (
	configName    = "config"
	maxConfigSize = 64 << 10
	packsFolder   = "packs/"
	afterPacks    = "packs0" // is after all packs and before all other folders
	locksFolder   = "locks/"
	// maxKept bounds the length of a pack that is kept, in bytes.
	maxKept = 64 << 20
	// maxPacks bounds the bytes of the packs that a process keeps of those that it puts. The
	// next backup encodes new versions of files as deltas to what is in them.
	maxPacks = 256 << 20
	// touchAfter is how long after its last use a copy counts as used again. The time of
	// a file tells when its copy was used.
	touchAfter = time.Hour
	// aheadFor is how long what Survey has found is used. A backup of a device can take
	// hours.
	aheadFor = time.Minute
)

// folders are those whose files are kept. Of the packs, those are kept that ReadKept reads,
// and some of those that Put stores.
var folders = []string{"keys/", "configs/", "index/", "snapshots/", "secrets/", "prunes/", "certificates/", "ledger/"}

// surveyed are the folders that Survey lists.
var surveyed = append([]string{locksFolder, "runs/", "checks/", "parity/", "healing/", "mirrored/"}, folders...)

// Backend is a store with a cache.
type Backend struct {
	backend.Backend // the store

	dir    string
	fetch  singleflight.Group
	refuse sync.Map     // names of packs that could not be kept
	proven sync.Map     // names of packs whose copies have the right hash
	packs  atomic.Int64 // bytes of the packs that this process has put

	mu     sync.Mutex
	config []byte                    // that New has read; nil if this process has changed it
	locks  map[string][]byte         // that this process has put
	ahead  map[string][]backend.Info // files of folders, from Survey
	until  time.Time                 // when ahead is too old to be used
}

// New puts a cache in front of a store. root is the folder of the caches of all
// repositories; the one for this repository is named by the hash of its config, which
// contains the repository's ID. New fails if config cannot be read or the folder cannot be
// made; then the store can be used without a cache.
func New(ctx context.Context, store backend.Backend, root string) (*Backend, error) {
	config, err := backend.ReadAll(ctx, store, configName, maxConfigSize)
	if err != nil {
		return nil, err
	}
	sum := blake.Sum(config)
	b := &Backend{Backend: store, dir: filepath.Join(root, hex.EncodeToString(sum[:16])), config: config, locks: map[string][]byte{}}
	if err := prepare(root, b.dir); err != nil {
		return nil, fmt.Errorf("make the cache folder: %w", err)
	}
	return b, nil
}

// Direct returns the store.
func (b *Backend) Direct() backend.Backend { return b.Backend }

// keeps reports whether copies of a file are kept.
func keeps(name string) bool {
	if !backend.IsHashed(name) || backend.ValidName(name) != nil {
		return false
	}
	for _, folder := range folders {
		if strings.HasPrefix(name, folder) {
			return true
		}
	}
	return false
}

func isPack(name string) bool {
	return strings.HasPrefix(name, packsFolder) && backend.IsHashed(name) && backend.ValidName(name) == nil
}

// ReadFile implements [backend.FileReader].
func (b *Backend) ReadFile(ctx context.Context, name string, limit int64) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if data := b.remembered(name); data != nil && int64(len(data)) <= limit {
		return data, nil
	}
	if !keeps(name) {
		return backend.ReadAll(ctx, b.Backend, name, limit)
	}
	if data, ok := b.copyOf(name, limit); ok {
		return data, nil
	}
	data, err := backend.ReadAll(ctx, b.Backend, name, limit)
	if err != nil {
		return nil, err
	}
	b.keep(name, data)
	return data, nil
}

// remembered returns a file from memory: the config that New has read, or a lock that this
// process has put.
func (b *Backend) remembered(name string) []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	if name == configName {
		return slices.Clone(b.config)
	}
	return slices.Clone(b.locks[name])
}

// ReadAt implements [backend.Backend].
func (b *Backend) ReadAt(ctx context.Context, name string, p []byte, off int64) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if isPack(name) && b.readCopy(name, p, off) {
		return len(p), nil
	}
	return b.Backend.ReadAt(ctx, name, p, off)
}

// Kept implements [backend.Keeper].
func (b *Backend) Kept(folder string) []string {
	if backend.ValidPrefix(folder) != nil || folder == "" {
		return nil
	}
	entries, _ := os.ReadDir(b.path(folder))
	var names []string
	for _, e := range entries {
		if name := folder + e.Name(); keeps(name) {
			names = append(names, name)
		}
	}
	return names
}

// ReadKept implements [backend.Keeper].
func (b *Backend) ReadKept(ctx context.Context, name string, p []byte, off int64) (int, error) {
	if _, refused := b.refuse.Load(name); refused || !isPack(name) || b.readCopy(name, p, off) {
		return b.ReadAt(ctx, name, p, off)
	}
	// Readers of several blocks of one pack wait for the same copy.
	got, err, _ := b.fetch.Do(name, func() (any, error) {
		data, err := backend.ReadAll(ctx, b.Backend, name, maxKept)
		if err != nil && ctx.Err() == nil || err == nil && !b.keep(name, data) {
			b.refuse.Store(name, true) // do not fetch it for each block
		}
		return data, err
	})
	data, _ := got.([]byte)
	if err != nil || off < 0 || off+int64(len(p)) > int64(len(data)) {
		// Another reader's context may have ended, the pack may be too large, or shorter
		// than it should be: ask the store.
		return b.Backend.ReadAt(ctx, name, p, off)
	}
	return copy(p, data[off:]), nil
}

// List implements [backend.Backend]. It removes the copies of files that are gone.
func (b *Backend) List(ctx context.Context, prefix string, fn func(backend.Info) error) error {
	list := b.Backend.List
	if files, ok := b.takeAhead(prefix); ok {
		list = func(ctx context.Context, _ string, fn func(backend.Info) error) error {
			for _, f := range files {
				if ctx.Err() != nil {
					break
				}
				if err := fn(f); err != nil {
					return err
				}
			}
			return ctx.Err()
		}
	}
	exist := map[string]bool{}
	err := list(ctx, prefix, func(f backend.Info) error {
		exist[f.Name] = true
		return fn(f)
	})
	if err == nil && prefix != "" {
		b.sweep(prefix, exist)
	}
	return err
}

// Survey implements [backend.Surveyor]. Packs are between the folders of records, and there
// can be many.
func (b *Backend) Survey(ctx context.Context) error {
	store, ok := b.Backend.(backend.RangeLister)
	if !ok {
		return nil
	}
	ahead := map[string][]backend.Info{}
	for _, folder := range surveyed {
		ahead[folder] = nil
	}
	note := func(f backend.Info) error {
		folder, _, _ := strings.Cut(f.Name, "/")
		if _, ok := ahead[folder+"/"]; ok {
			ahead[folder+"/"] = append(ahead[folder+"/"], f)
		}
		return nil
	}
	b.setAhead(nil)
	// Prune lists and snapshots must be listed before the index, see store.Store.LoadIndex
	// and repo.Repo.FindIndexed.
	err := store.ListRange(ctx, afterPacks, "", note)
	if errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	if err == nil {
		err = store.ListRange(ctx, "", packsFolder, note)
	}
	if err != nil {
		return err
	}
	b.setAhead(ahead)
	return nil
}

func (b *Backend) setAhead(ahead map[string][]backend.Info) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ahead, b.until = ahead, time.Now().Add(aheadFor)
}

// takeAhead returns what Survey has found in a folder, once.
func (b *Backend) takeAhead(prefix string) (files []backend.Info, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	files, ok = b.ahead[prefix]
	delete(b.ahead, prefix)
	return files, ok && time.Now().Before(b.until)
}

// changed forgets what Survey has found in the folder of a file.
func (b *Backend) changed(name string) {
	folder, _, _ := strings.Cut(name, "/")
	_, _ = b.takeAhead(folder + "/")
}

// Put implements [backend.Backend]. It keeps what it has put.
func (b *Backend) Put(ctx context.Context, name string, data []byte) error {
	b.changed(name)
	if err := b.Backend.Put(ctx, name, data); err != nil {
		return err
	}
	if keeps(name) || isPack(name) && b.packs.Add(int64(len(data))) <= maxPacks {
		b.keep(name, data)
	}
	if strings.HasPrefix(name, locksFolder) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.locks[name] = slices.Clone(data)
	}
	return nil
}

// Delete implements [backend.Backend].
func (b *Backend) Delete(ctx context.Context, name string) error {
	b.changed(name)
	err := b.Backend.Delete(ctx, name)
	if err == nil || errors.Is(err, backend.ErrNotExist) {
		b.drop(name)
	}
	return err
}

// Free implements [backend.Freer].
func (b *Backend) Free(ctx context.Context) (int64, error) {
	if store, ok := b.Backend.(backend.Freer); ok {
		return store.Free(ctx)
	}
	return 0, errors.ErrUnsupported
}

// AllowNoFsync implements [backend.NoFsyncer].
func (b *Backend) AllowNoFsync() {
	if store, ok := b.Backend.(backend.NoFsyncer); ok {
		store.AllowNoFsync()
	}
}

func (b *Backend) path(name string) string { return filepath.Join(b.dir, filepath.FromSlash(name)) }

// copyOf returns the bytes of a file from the cache.
func (b *Backend) copyOf(name string, limit int64) ([]byte, bool) {
	path := b.path(name)
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() || info.Size() > limit {
		return nil, false
	}
	data, err := os.ReadFile(path)
	if err != nil || !hasName(name, data) {
		b.drop(name)
		return nil, false
	}
	touch(path, info)
	return data, true
}

// readCopy reads from the copy of a pack. It hashes the copy when this process uses it for
// the first time.
func (b *Backend) readCopy(name string, p []byte, off int64) bool {
	if off < 0 {
		return false
	}
	if _, ok := b.proven.Load(name); !ok {
		if _, ok := b.copyOf(name, maxKept); !ok {
			return false
		}
		b.proven.Store(name, true)
	}
	f, err := os.Open(b.path(name))
	if err != nil {
		b.proven.Delete(name)
		return false
	}
	defer f.Close() //nolint:errcheck // read only
	n, err := f.ReadAt(p, off)
	return n == len(p) && (err == nil || errors.Is(err, io.EOF))
}

// keep stores a copy of a file, unless its bytes are wrong. It reports whether it has.
func (b *Backend) keep(name string, data []byte) bool {
	if !hasName(name, data) {
		return false
	}
	path := b.path(name)
	if os.MkdirAll(filepath.Dir(path), 0o700) != nil {
		return false
	}
	f, err := os.CreateTemp(filepath.Dir(path), "new-*")
	if err != nil {
		return false
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err == nil
}

func (b *Backend) drop(name string) {
	b.mu.Lock()
	delete(b.locks, name)
	if name == configName {
		b.config = nil
	}
	b.mu.Unlock()
	if keeps(name) || isPack(name) {
		b.proven.Delete(name)
		_ = os.Remove(b.path(name))
	}
}

// sweep removes the copies of files of a folder that do not exist in the store.
func (b *Backend) sweep(prefix string, exist map[string]bool) {
	if backend.ValidPrefix(prefix) != nil {
		return
	}
	_ = filepath.WalkDir(b.path(prefix), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil
		}
		rel, err := filepath.Rel(b.dir, path)
		if name := filepath.ToSlash(rel); err == nil && backend.IsHashed(name) && !exist[name] {
			b.drop(name)
		}
		return nil
	})
}

// hasName reports whether the last element of name is the hash of data.
func hasName(name string, data []byte) bool {
	sum := blake.Sum(data)
	return strings.HasSuffix(name, "/"+hex.EncodeToString(sum[:]))
}

// touch notes that a copy was used.
func touch(path string, info fs.FileInfo) {
	if now := time.Now(); now.Sub(info.ModTime()) > touchAfter {
		_ = os.Chtimes(path, now, now)
	}
}
