// Package catalog holds the paths of a backup folder that is not on a disk: the
// paths of a snapshot, and the paths of files that a device has sent.
//
// A Set holds the files of a snapshot. A Catalog is a Set and the changes of a
// device: files received, moved and removed. Memory grows with the number of
// paths, about 120 bytes each, not with the size of content. Neither writes to
// the repository.
package catalog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"strings"
	"time"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/device/blob"
	"github.com/snap-backup/snap/repo/tree"
)

const (
	// maxFiles bounds the files of one backup. Devices with many files have a
	// million.
	maxFiles = 8 << 20
	// maxOthers bounds the files that are not blobs, and the folders.
	maxOthers = 1 << 16

	snapshotDir = "Snapshot"
)

// ErrTooMany says that a device has created more names than any backup has.
var ErrTooMany = errors.New("the device creates more names than any backup has")

// InSnapshot returns the rest of a path below the folder Snapshot, in which
// devices put the files that they send before they move them.
func InSnapshot(path string) (rest string, ok bool) {
	return strings.CutPrefix(path, snapshotDir+"/")
}

// SnapshotPath returns the path below the folder Snapshot at which a device puts a file
// before it moves the file to path.
func SnapshotPath(path string) string { return snapshotDir + "/" + path }

// Catalog holds the paths of the parent that still exist, and the paths of
// received files. Paths are relative to the device's folder.
type Catalog struct {
	parent  *Set     // nil if there is none
	dropped []uint64 // bitmap of blobs of the parent that were removed or replaced

	moved, arrived blobTable // received blobs: at their final path, and in Snapshot
	others         pathTable[other]
	dirs           pathTable[tree.Entry]

	files []File // all that were ever received
	ids   []chunk.ID
	sums  []Sum // by number of the file; valid if its state has Summed

	overfull bool
}

// Overfull reports whether a method has returned ErrTooMany.
func (n *Catalog) Overfull() bool { return n.overfull }

func (n *Catalog) tooMany() error {
	n.overfull = true
	return ErrTooMany
}

// Sum is the SHA-1 of a file.
type Sum [20]byte

// File is a file that was received. It takes 24 bytes, plus its chunk IDs.
type File struct {
	Size  int64
	At    int64 // position of its IDs in Catalog.ids, or of its content in the spool
	n     uint8 // number of IDs
	level uint8
	State State
}

// State says where a received file is stored or listed.
type State uint8

// The states, which can be combined.
const (
	Spooled State = 1 << iota // its content is in the spool
	Saved                     // it is in the record of the unfinished backup
	Summed                    // its Sum is known
	Short                     // it is an SQLite database that is cut off or broken
	Zeros                     // it begins with zeros only
)

// Spooled reports whether the content is in the spool.
func (f *File) Spooled() bool { return f.State&Spooled != 0 }

// blobTable holds the numbers of blobs by ID, in one map for each folder.
type blobTable [256]map[blob.ID]uint32

func (a *blobTable) get(id blob.ID) (uint32, bool) {
	n, ok := a[id[0]][id]
	return n, ok
}

func (a *blobTable) put(id blob.ID, n uint32) {
	if a[id[0]] == nil {
		a[id[0]] = map[blob.ID]uint32{}
	}
	a[id[0]][id] = n
}

func (a *blobTable) drop(id blob.ID) { delete(a[id[0]], id) }

// pathTable holds values by path, in one map for each folder.
type pathTable[V any] struct {
	folders map[string]map[string]V // by folder and name
	count   int
}

func newPathTable[V any]() pathTable[V] { return pathTable[V]{folders: map[string]map[string]V{}} }

// split returns the folder of a path, "" for the top, and the name in it.
func split(path string) (folder, name string) {
	i := strings.LastIndexByte(path, '/')
	return path[:max(i, 0)], path[i+1:]
}

func (t *pathTable[V]) get(path string) (V, bool) {
	folder, name := split(path)
	v, ok := t.folders[folder][name]
	return v, ok
}

func (t *pathTable[V]) put(path string, v V) {
	folder, name := split(path)
	names := t.folders[folder]
	if names == nil {
		names = map[string]V{}
		t.folders[folder] = names
	}
	before := len(names)
	names[name] = v
	t.count += len(names) - before
}

func (t *pathTable[V]) drop(path string) {
	folder, name := split(path)
	names := t.folders[folder]
	before := len(names)
	delete(names, name)
	t.count -= before - len(names)
	if len(names) == 0 {
		delete(t.folders, folder)
	}
}

// dropAll drops all paths for which drop returns true.
func (t *pathTable[V]) dropAll(drop func(path string) bool) {
	for path := range t.all() {
		if drop(path) {
			t.drop(path)
		}
	}
}

func (t *pathTable[V]) all() iter.Seq2[string, V] {
	return func(yield func(string, V) bool) {
		for folder, names := range t.folders {
			for name, v := range names {
				if !yield(strings.TrimPrefix(folder+"/"+name, "/"), v) {
					return
				}
			}
		}
	}
}

// other is a file that is not a blob: received, or the parent's.
type other struct {
	file   uint32
	parent *tree.Entry // nil if received
}

// New returns a catalog with the paths of parent, which may be nil.
func New(parent *Set) *Catalog {
	n := &Catalog{parent: parent, others: newPathTable[other](), dirs: newPathTable[tree.Entry]()}
	if parent == nil {
		return n
	}
	n.dropped = make([]uint64, (len(parent.blobs)+63)/64)
	for path, e := range parent.others {
		if e.Kind == tree.Dir {
			n.dirs.put(path, *e)
			continue
		}
		n.others.put(path, other{parent: e})
	}
	for b := range 256 {
		if parent.flat {
			break
		}
		if dir := ByteName(byte(b)); parent.first[b] < parent.first[b+1] {
			if _, ok := n.dirs.get(dir); !ok {
				n.dirs.put(dir, tree.Entry{Path: dir, Kind: tree.Dir, Mode: blob.DirMode})
			}
		}
	}
	return n
}

func (n *Catalog) isDropped(i int) bool { return n.dropped[i/64]&(1<<(i%64)) != 0 }

// parentBlob returns the number of a blob of the parent that still has its path.
func (n *Catalog) parentBlob(id blob.ID) (int, bool) {
	i := n.parent.find(id)
	return i, i >= 0 && !n.isDropped(i)
}

func (n *Catalog) dropParent(id blob.ID) {
	if i := n.parent.find(id); i >= 0 {
		n.dropped[i/64] |= 1 << (i % 64)
	}
}

// Found is the file at a path: a received one, or one of the parent.
type Found struct {
	File  *File // nil if it is the parent's
	Sum   *Sum  // nil if it is not known
	entry *tree.Entry
	blob  int // number in the parent; -1 if File or entry is set
}

// Lookup finds a file.
func (n *Catalog) Lookup(path string) (Found, bool) {
	if rest, ok := InSnapshot(path); ok {
		if id, ok := blob.ParsePath(rest, false); ok {
			return n.received(n.arrived.get(id))
		}
	} else if id, ok := blob.ParsePath(path, false); ok {
		if i, ok := n.parentBlob(id); ok {
			return Found{blob: i}, true
		}
		return n.received(n.moved.get(id))
	}
	o, ok := n.others.get(path)
	if ok && o.parent != nil {
		return Found{entry: o.parent, blob: -1}, true
	}
	return n.received(o.file, ok)
}

func (n *Catalog) received(i uint32, ok bool) (Found, bool) {
	if !ok {
		return Found{}, false
	}
	found := Found{File: &n.files[i], blob: -1}
	if found.File.State&Summed != 0 {
		found.Sum = &n.sums[i]
	}
	return found, true
}

// Size returns the length of a file in bytes.
func (n *Catalog) Size(f Found) int64 {
	switch {
	case f.File != nil:
		return f.File.Size
	case f.entry != nil:
		return blob.Size(f.entry)
	}
	return n.parent.blobs[f.blob].size()
}

// Entry returns the entry of a file of the parent.
func (n *Catalog) Entry(ctx context.Context, f Found) (*tree.Entry, error) {
	if f.entry != nil {
		return f.entry, nil
	}
	return n.parent.entry(ctx, f.blob)
}

// Content returns the content of a received file that is not in the spool.
func (n *Catalog) Content(f *File) tree.Content {
	return tree.Content{Size: f.Size, Level: f.level, IDs: n.ids[f.At : f.At+int64(f.n)]}
}

// Stored returns the number of chunk IDs of all files that were added. The IDs
// of files added later have higher positions.
func (n *Catalog) Stored() int { return len(n.ids) }

// StoredAfter reports whether a received file has chunk IDs at position count
// or later.
func (n *Catalog) StoredAfter(f *File, count int) bool { return f.At+int64(f.n) > int64(count) }

// Add adds a stored file, which has no path yet, and returns its number.
func (n *Catalog) Add(c *tree.Content, st State) (uint32, error) {
	f := File{Size: c.Size, At: int64(len(n.ids)), n: uint8(len(c.IDs)), level: c.Level, State: st}
	n.ids = append(n.ids, c.IDs...)
	return n.add(f)
}

// AddSpooled adds a file in the spool, which has no path yet, and returns its
// number.
func (n *Catalog) AddSpooled(at, size int64, st State) (uint32, error) {
	return n.add(File{Size: size, At: at, State: Spooled | st})
}

func (n *Catalog) add(f File) (uint32, error) {
	if len(n.files) >= maxFiles {
		return 0, n.tooMany()
	}
	n.files = append(n.files, f)
	return uint32(len(n.files) - 1), nil
}

// SetSum sets the SHA-1 of a file.
func (n *Catalog) SetSum(number uint32, sum Sum) {
	for len(n.sums) <= int(number) {
		n.sums = append(n.sums, Sum{})
	}
	n.sums[number] = sum
	n.files[number].State |= Summed
}

// File returns a received file by its number.
func (n *Catalog) File(number uint32) *File { return &n.files[number] }

// All goes through all files that were ever received.
func (n *Catalog) All() iter.Seq[*File] {
	return func(yield func(*File) bool) {
		for i := range n.files {
			if !yield(&n.files[i]) {
				return
			}
		}
	}
}

// Put gives a received file a path. It replaces any file that has the path.
func (n *Catalog) Put(path string, f uint32, now time.Time) error {
	if _, ok := n.dirs.get(path); ok {
		return fmt.Errorf("%s is a folder: %w", path, fs.ErrExist)
	}
	if err := n.parents(path, now); err != nil {
		return err
	}
	if rest, ok := InSnapshot(path); ok {
		if id, ok := blob.ParsePath(rest, false); ok {
			n.arrived.put(id, f)
			return nil
		}
	} else if id, ok := blob.ParsePath(path, false); ok {
		n.dropParent(id)
		n.moved.put(id, f)
		return nil
	}
	if _, exists := n.others.get(path); !exists && n.others.count >= maxOthers {
		return n.tooMany()
	}
	n.others.put(path, other{file: f})
	return nil
}

// Number returns the number of the received file at a path.
func (n *Catalog) Number(path string) (uint32, bool) {
	if rest, ok := InSnapshot(path); ok {
		if id, ok := blob.ParsePath(rest, false); ok {
			return n.arrived.get(id)
		}
	} else if id, ok := blob.ParsePath(path, false); ok {
		return n.moved.get(id)
	}
	o, ok := n.others.get(path)
	return o.file, ok && o.parent == nil
}

// parents makes the folders above a path.
func (n *Catalog) parents(path string, now time.Time) error {
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		return n.Mkdir(path[:i], now)
	}
	return nil
}

// Mkdir makes a folder and those above it. It is no error if the folder exists.
func (n *Catalog) Mkdir(path string, now time.Time) error {
	if path == "" {
		return nil
	}
	if _, ok := n.dirs.get(path); ok {
		return nil
	}
	if _, ok := n.Lookup(path); ok {
		return fmt.Errorf("%s is a file: %w", path, fs.ErrExist)
	}
	if err := n.parents(path, now); err != nil {
		return err
	}
	if n.dirs.count >= maxOthers {
		return n.tooMany()
	}
	n.dirs.put(path, tree.Entry{Path: path, Kind: tree.Dir, Mode: blob.DirMode, ModTime: tree.At(now)})
	return nil
}

// Dir returns the entry of a folder.
func (n *Catalog) Dir(path string) (tree.Entry, bool) {
	return n.dirs.get(path)
}

// Move renames a received file. Devices move nothing else.
func (n *Catalog) Move(from, to string, now time.Time) error {
	f, ok := n.Number(from)
	if !ok {
		if _, exists := n.Lookup(from); !exists {
			if _, dir := n.dirs.get(from); !dir {
				return fmt.Errorf("%s: %w", from, fs.ErrNotExist)
			}
		}
		return fmt.Errorf("move %s: only files that the device sent in this backup can be moved: %w", from, errors.ErrUnsupported)
	}
	if from == to {
		return nil
	}
	if err := n.Put(to, f, now); err != nil {
		return err
	}
	n.RemoveFile(from)
	return nil
}

// RemoveFile removes the path of a file and reports whether there was one.
func (n *Catalog) RemoveFile(path string) bool {
	if _, ok := n.Lookup(path); !ok {
		return false
	}
	if rest, ok := InSnapshot(path); ok {
		if id, ok := blob.ParsePath(rest, false); ok {
			n.arrived.drop(id)
			return true
		}
	} else if id, ok := blob.ParsePath(path, false); ok {
		n.dropParent(id)
		n.moved.drop(id)
		return true
	}
	n.others.drop(path)
	return true
}

// Remove removes a file, or a folder with everything in it; "" is the top. It
// reports whether there was one.
func (n *Catalog) Remove(path string) bool {
	if n.RemoveFile(path) {
		return true
	}
	if _, ok := n.dirs.get(path); !ok && path != "" {
		return false
	}
	below := func(p string) bool { return path == "" || p == path || strings.HasPrefix(p, path+"/") }
	n.dirs.dropAll(below)
	n.others.dropAll(below)
	for b := range 256 {
		dir := ByteName(byte(b))
		if below(snapshotDir + "/" + dir) {
			n.arrived[b] = nil
		}
		if below(dir) {
			n.moved[b] = nil
			if n.parent != nil {
				for i := n.parent.first[b]; i < n.parent.first[b+1]; i++ {
					n.dropped[i/64] |= 1 << (i % 64)
				}
			}
		}
	}
	return true
}
