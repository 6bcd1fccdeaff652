package virtual

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/repo/tree"
)

// What devices' files and folders get as modes, as idevicebackup2 makes them.
const (
	fileMode = 0o644
	dirMode  = 0o755
)

// maxFiles bounds the files of one run. Devices with many files have a million.
const maxFiles = 8 << 20

// maxOthers bounds the names that no device uses.
const maxOthers = 1 << 16

var errTooMany = errors.New("the device makes more names than any backup has")

const snapshotDir = "Snapshot"

// names is the catalogue of a run: the names of the parent that are still there
// and those of files that were received. Paths are below the device's folder.
type names struct {
	old  *set     // nil without parent
	gone []uint64 // bitmap of blobs of old that were removed or replaced

	moved, arrived area // blobs at their place, and in Snapshot/
	others         map[string]other
	dirs           map[string]tree.Entry

	files []file // all that was ever received
	ids   []chunk.ID
}

// file is one file that was received. It takes 24 bytes, and its chunks' IDs.
type file struct {
	size  int64
	at    int64 // of its IDs in names.ids, or in the spool
	n     uint8 // IDs
	level uint8
	state state
}

type state uint8

const (
	spooled state = 1 << iota // the content lies in the spool
	saved                     // the record of the unfinished run has it
)

// area is blobs by ID, divided by their folder.
type area [256]map[fileID]uint32

func (a *area) get(id fileID) (uint32, bool) {
	n, ok := a[id[0]][id]
	return n, ok
}

func (a *area) put(id fileID, n uint32) {
	if a[id[0]] == nil {
		a[id[0]] = map[fileID]uint32{}
	}
	a[id[0]][id] = n
}

func (a *area) drop(id fileID) { delete(a[id[0]], id) }

// other is a file that is no blob: received, or the parent's.
type other struct {
	file uint32
	old  *tree.Entry // nil if received
}

func newNames(old *set) *names {
	n := &names{others: map[string]other{}, dirs: map[string]tree.Entry{}}
	n.setOld(old)
	return n
}

func (n *names) setOld(old *set) {
	n.old = old
	if old == nil {
		return
	}
	n.gone = make([]uint64, (len(old.blobs)+63)/64)
	for path, e := range old.others {
		if e.Kind == tree.Dir {
			n.dirs[path] = *e
			continue
		}
		n.others[path] = other{old: e}
	}
	for b := range 256 {
		if old.flat {
			break
		}
		if dir := byteName(byte(b)); old.first[b] < old.first[b+1] {
			if _, ok := n.dirs[dir]; !ok {
				n.dirs[dir] = tree.Entry{Path: dir, Kind: tree.Dir, Mode: dirMode}
			}
		}
	}
}

// oldBlob returns the number of a blob of the parent that still has its name.
func (n *names) oldBlob(id fileID) (int, bool) {
	i := n.old.find(id)
	return i, i >= 0 && n.gone[i/64]&(1<<(i%64)) == 0
}

func (n *names) dropOld(id fileID) {
	if i := n.old.find(id); i >= 0 {
		n.gone[i/64] |= 1 << (i % 64)
	}
}

// found is what lies under a name: a received file, or one of the parent.
type found struct {
	file  *file
	entry *tree.Entry
	blob  int // of the parent, -1 if entry says
}

// lookup finds a file.
func (n *names) lookup(path string) (found, bool) {
	if rest, ok := strings.CutPrefix(path, snapshotDir+"/"); ok {
		if id, ok := blobID(rest, false); ok {
			return n.received(n.arrived.get(id))
		}
	} else if id, ok := blobID(path, false); ok {
		if i, ok := n.oldBlob(id); ok {
			return found{blob: i}, true
		}
		return n.received(n.moved.get(id))
	}
	o, ok := n.others[path]
	if ok && o.old != nil {
		return found{entry: o.old, blob: -1}, true
	}
	return n.received(o.file, ok)
}

func (n *names) received(i uint32, ok bool) (found, bool) {
	if !ok {
		return found{}, false
	}
	return found{file: &n.files[i], blob: -1}, true
}

// content returns where a received file lies in the repository.
func (n *names) content(f *file) tree.Content {
	return tree.Content{Size: f.size, Level: f.level, IDs: n.ids[f.at : f.at+int64(f.n)]}
}

// keep notes a file that was stored.
func (n *names) keep(c *tree.Content, st state) (uint32, error) {
	f := file{size: c.Size, at: int64(len(n.ids)), n: uint8(len(c.IDs)), level: c.Level, state: st}
	n.ids = append(n.ids, c.IDs...)
	return n.add(f)
}

func (n *names) add(f file) (uint32, error) {
	if len(n.files) >= maxFiles {
		return 0, errTooMany
	}
	n.files = append(n.files, f)
	return uint32(len(n.files) - 1), nil
}

// put gives a received file a name, in place of what has it.
func (n *names) put(path string, f uint32, now time.Time) error {
	if _, ok := n.dirs[path]; ok {
		return fmt.Errorf("%s is a folder: %w", path, fs.ErrExist)
	}
	if err := n.parents(path, now); err != nil {
		return err
	}
	if rest, ok := strings.CutPrefix(path, snapshotDir+"/"); ok {
		if id, ok := blobID(rest, false); ok {
			n.arrived.put(id, f)
			return nil
		}
	} else if id, ok := blobID(path, false); ok {
		n.dropOld(id)
		n.moved.put(id, f)
		return nil
	}
	if _, there := n.others[path]; !there && len(n.others) >= maxOthers {
		return errTooMany
	}
	n.others[path] = other{file: f}
	return nil
}

// numberOf returns the received file under a name.
func (n *names) numberOf(path string) (uint32, bool) {
	if rest, ok := strings.CutPrefix(path, snapshotDir+"/"); ok {
		if id, ok := blobID(rest, false); ok {
			return n.arrived.get(id)
		}
	} else if id, ok := blobID(path, false); ok {
		return n.moved.get(id)
	}
	o, ok := n.others[path]
	return o.file, ok && o.old == nil
}

// parents makes the folders above a path.
func (n *names) parents(path string, now time.Time) error {
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		return n.mkdir(path[:i], now)
	}
	return nil
}

func (n *names) mkdir(path string, now time.Time) error {
	if path == "" {
		return nil
	}
	if _, ok := n.dirs[path]; ok {
		return nil
	}
	if _, ok := n.lookup(path); ok {
		return fmt.Errorf("%s is a file: %w", path, fs.ErrExist)
	}
	if err := n.parents(path, now); err != nil {
		return err
	}
	if len(n.dirs) >= maxOthers {
		return errTooMany
	}
	n.dirs[path] = tree.Entry{Path: path, Kind: tree.Dir, Mode: dirMode, ModTime: now.UnixNano()}
	return nil
}

// move renames a received file. Devices move nothing else.
func (n *names) move(from, to string, now time.Time) error {
	f, ok := n.numberOf(from)
	if !ok {
		if _, there := n.lookup(from); !there {
			if _, dir := n.dirs[from]; !dir {
				return fmt.Errorf("%s: %w", from, fs.ErrNotExist)
			}
		}
		return fmt.Errorf("move %s: only files that this backup has brought can be moved: %w", from, errors.ErrUnsupported)
	}
	if from == to {
		return nil
	}
	if err := n.put(to, f, now); err != nil {
		return err
	}
	n.removeFile(from)
	return nil
}

// removeFile removes the name of a file and reports whether there was one.
func (n *names) removeFile(path string) bool {
	if _, ok := n.lookup(path); !ok {
		return false
	}
	if rest, ok := strings.CutPrefix(path, snapshotDir+"/"); ok {
		if id, ok := blobID(rest, false); ok {
			n.arrived.drop(id)
			return true
		}
	} else if id, ok := blobID(path, false); ok {
		n.dropOld(id)
		n.moved.drop(id)
		return true
	}
	delete(n.others, path)
	return true
}

// remove removes a file, or a folder with all that is in it.
func (n *names) remove(path string) bool {
	if n.removeFile(path) {
		return true
	}
	if _, ok := n.dirs[path]; !ok && path != "" {
		return false
	}
	below := func(p string) bool { return path == "" || p == path || strings.HasPrefix(p, path+"/") }
	maps.DeleteFunc(n.dirs, func(p string, _ tree.Entry) bool { return below(p) })
	maps.DeleteFunc(n.others, func(p string, _ other) bool { return below(p) })
	for b := range 256 {
		dir := byteName(byte(b))
		if below(snapshotDir + "/" + dir) {
			n.arrived[b] = nil
		}
		if below(dir) {
			n.moved[b] = nil
			if n.old != nil {
				for i := n.old.first[b]; i < n.old.first[b+1]; i++ {
					n.gone[i/64] |= 1 << (i % 64)
				}
			}
		}
	}
	return true
}

// allReceived returns the names of all files that were received.
func (n *names) allReceived() []string {
	var out []string
	for b := range 256 {
		for id := range n.arrived[b] {
			out = append(out, snapshotDir+"/"+blobPath(id, false))
		}
		for id := range n.moved[b] {
			out = append(out, blobPath(id, false))
		}
	}
	for path, o := range n.others {
		if o.old == nil {
			out = append(out, path)
		}
	}
	return out
}

// receivedBlobs counts the blobs that were received, and of all received files
// those in the spool.
func (n *names) receivedBlobs() (files, bytes, waiting int64) {
	for _, a := range []*area{&n.arrived, &n.moved} {
		for b := range a {
			for _, f := range a[b] {
				files++
				bytes += n.files[f].size
				if n.files[f].state&spooled != 0 {
					waiting++
				}
			}
		}
	}
	for _, o := range n.others {
		if o.old == nil && n.files[o.file].state&spooled != 0 {
			waiting++
		}
	}
	return files, bytes, waiting
}

func byteName(b byte) string {
	const digits = "0123456789abcdef"
	return string([]byte{digits[b>>4], digits[b&15]})
}

// byteOf is the inverse of byteName.
func byteOf(name string) (byte, bool) {
	if len(name) != 2 {
		return 0, false
	}
	b := 0
	for i := range 2 {
		d := strings.IndexByte("0123456789abcdef", name[i])
		if d < 0 {
			return 0, false
		}
		b = b<<4 | d
	}
	return byte(b), true
}

// item is one name of a folder.
type item struct {
	name string // one element
	dir  *tree.Entry
	size int64
}

// list returns what is in a folder; "" is the top.
func (n *names) list(dir string) ([]item, error) {
	_, ok := n.dirs[dir]
	if !ok && dir != "" {
		return nil, fmt.Errorf("%s: %w", dir, fs.ErrNotExist)
	}
	var out []item
	if rest, ok := strings.CutPrefix(dir, snapshotDir+"/"); ok {
		if b, ok := byteOf(rest); ok {
			out = n.blobItems(out, n.arrived[b])
		}
	} else if b, ok := byteOf(dir); ok {
		out = n.blobItems(out, n.moved[b])
		if n.old != nil {
			for i := n.old.first[b]; i < n.old.first[int(b)+1]; i++ {
				if n.gone[i/64]&(1<<(i%64)) == 0 {
					out = append(out, item{name: blobPath(n.old.blobs[i].id, true), size: n.old.blobs[i].size()})
				}
			}
		}
	}
	// There are few others, and few folders.
	for path, o := range n.others {
		if name, ok := child(dir, path); ok {
			size := int64(0)
			if o.old != nil {
				size = blobSize(o.old)
			} else {
				size = n.files[o.file].size
			}
			out = append(out, item{name: name, size: size})
		}
	}
	for path, e := range n.dirs {
		if name, ok := child(dir, path); ok {
			out = append(out, item{name: name, dir: &e})
		}
	}
	slices.SortFunc(out, func(a, b item) int { return strings.Compare(a.name, b.name) })
	return out, nil
}

func (n *names) blobItems(out []item, blobs map[fileID]uint32) []item {
	for id, f := range blobs {
		out = append(out, item{name: blobPath(id, true), size: n.files[f].size})
	}
	return out
}

// child returns the name of what lies directly in a folder.
func child(dir, path string) (string, bool) {
	if dir != "" {
		rest, ok := strings.CutPrefix(path, dir+"/")
		if !ok {
			return "", false
		}
		path = rest
	}
	return path, path != "" && !strings.Contains(path, "/")
}
