package ingest

import (
	"bytes"
	"io/fs"
	"slices"
	"time"

	"github.com/snap-backup/snap/device/blob"
	"github.com/snap-backup/snap/device/mobilesync/folder"
	"github.com/snap-backup/snap/repo/tree"
)

// items are the entries of the folder, from which the entries of the tree are made. They
// take 72 bytes each, since a backup can have a million of them.
type items struct {
	flat  bool // the layout of the folder
	pages [][]item
	n     int
	names []string      // paths of what is not a blob
	odd   []folder.File // files that are not part of the backup
}

// item is a file or folder. The path of a blob is its ID.
type item struct {
	size       int64
	seconds    int64 // the time of the last change
	inode      uint64
	changeTime int64
	nanosecond uint32
	row        int32   // in the manifest, -1 if none
	name       int32   // in items.names, or in items.odd if the file is odd; -1 for a blob
	id         blob.ID // of a blob
	mode       uint16  // permissions
	dir, odd   bool
}

const itemsPerPage = 4096 // large slices would be copied as they grow

func (l *items) len() int { return l.n }

func (l *items) at(i int) *item { return &l.pages[i/itemsPerPage][i%itemsPerPage] }

func (l *items) add(f folder.File) {
	it := item{
		size: f.Size, seconds: f.ModTime.Unix(), nanosecond: uint32(f.ModTime.Nanosecond()),
		inode: f.Inode, changeTime: f.ChangeTime, row: -1, name: -1,
		mode: uint16(f.Mode.Perm()), dir: f.Dir, odd: f.Skipped != "",
	}
	var isBlob bool
	switch it.id, isBlob = blob.ParsePath(f.Path, l.flat); {
	case it.odd:
		it.name = int32(len(l.odd))
		l.odd = append(l.odd, f)
	case !isBlob:
		it.name = int32(len(l.names))
		l.names = append(l.names, f.Path)
	}
	if l.n%itemsPerPage == 0 {
		l.pages = append(l.pages, make([]item, 0, itemsPerPage))
	}
	last := &l.pages[len(l.pages)-1]
	*last = append(*last, it)
	l.n++
}

func (l *items) path(it *item) string {
	switch {
	case it.odd:
		return l.odd[it.name].Path
	case it.name >= 0:
		return l.names[it.name]
	}
	return it.id.Path(l.flat)
}

// file returns an item as it was added. Of its mode, only the permissions and whether it is
// a folder are kept, unless it is odd.
func (l *items) file(it *item) folder.File {
	if it.odd {
		return l.odd[it.name]
	}
	f := folder.File{
		Path: l.path(it), Dir: it.dir, Mode: fs.FileMode(it.mode), Size: it.size,
		ModTime: time.Unix(it.seconds, int64(it.nanosecond)), Inode: it.inode, ChangeTime: it.changeTime,
	}
	if it.dir {
		f.Mode |= fs.ModeDir
	}
	return f
}

func (it *item) modTime() tree.Time { return tree.At(time.Unix(it.seconds, int64(it.nanosecond))) }

// finder finds items by their paths, each once.
type finder struct {
	list  *items
	blobs []int32          // numbers of blobs, by ID
	named map[string]int32 // numbers of the others, by path
	taken []bool           // by number
	left  int
}

func (l *items) finder() *finder {
	f := &finder{list: l, blobs: make([]int32, 0, l.n), named: map[string]int32{}, taken: make([]bool, l.n), left: l.n}
	for i := range l.n {
		if it := l.at(i); it.name < 0 {
			f.blobs = append(f.blobs, int32(i))
		} else {
			f.named[l.path(it)] = int32(i)
		}
	}
	byID := func(a, b int32) int { return compareIDs(&l.at(int(a)).id, &l.at(int(b)).id) }
	if !slices.IsSortedFunc(f.blobs, byID) { // a walk adds them in order, but take must not depend on that
		slices.SortFunc(f.blobs, byID)
	}
	return f
}

// take finds an item that has not been taken yet.
func (f *finder) take(path string) (*item, bool) {
	var i int32
	if id, ok := blob.ParsePath(path, f.list.flat); ok {
		at, found := slices.BinarySearchFunc(f.blobs, id, func(i int32, id blob.ID) int { return compareIDs(&f.list.at(int(i)).id, &id) })
		if found {
			i = f.blobs[at]
		} else if i, found = f.named[path]; !found { // a link with the name of a blob
			return nil, false
		}
	} else if i, ok = f.named[path]; !ok {
		return nil, false
	}
	if f.taken[i] {
		return nil, false
	}
	f.taken[i] = true
	f.left--
	return f.list.at(int(i)), true
}

func compareIDs(a, b *blob.ID) int { return bytes.Compare(a[:], b[:]) }
