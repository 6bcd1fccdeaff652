package simulator

import (
	"path"
	"slices"
	"strings"
	"sync"
	"time"
)

// Bounds of what a host can store on a device through AFC. It is for lock files
// and a few small lists, not for content.
const (
	maxFileBytes = 64 << 20 // of all files together
	maxNodes     = 10000
	maxPath      = 1024
)

// node is a file or a directory.
type node struct {
	dir     bool
	gone    bool // removed, while a handle may still exist
	data    []byte
	changed time.Time
	locker  *handle // who holds the exclusive lock
	readers map[*handle]struct{}
}

// fileSystem is what AFC shows: paths to nodes, kept in memory.
type fileSystem struct {
	mu    sync.Mutex
	now   func() time.Time
	nodes map[string]*node
	bytes int // of all files
}

func newFileSystem(now func() time.Time) *fileSystem {
	f := &fileSystem{now: now, nodes: map[string]*node{}}
	for _, dir := range []string{"/", "/Books", "/DCIM", "/Downloads", "/iTunes_Control", "/iTunes_Control/iTunes"} {
		f.nodes[dir] = &node{dir: true, changed: now()}
	}
	return f
}

// clean makes a path absolute; nothing leads out of the root.
func clean(p string) (string, afcStatus) {
	if p == "" || len(p) > maxPath {
		return "", afcInvalidArgument
	}
	return path.Clean("/" + p), afcOK
}

// find returns a node. f.mu must be held, as for all methods in small letters.
func (f *fileSystem) find(p string) (*node, afcStatus) {
	p, status := clean(p)
	if status != afcOK {
		return nil, status
	}
	if n := f.nodes[p]; n != nil {
		return n, afcOK
	}
	return nil, afcNotFound
}

// create makes a node whose directory exists.
func (f *fileSystem) create(p string, dir bool) (*node, afcStatus) {
	p, status := clean(p)
	if status != afcOK {
		return nil, status
	}
	if f.nodes[p] != nil {
		return nil, afcExists
	}
	if parent := f.nodes[path.Dir(p)]; parent == nil || !parent.dir {
		return nil, afcNotFound
	}
	if len(f.nodes) >= maxNodes {
		return nil, afcNoSpace
	}
	n := &node{dir: dir, changed: f.now()}
	f.nodes[p] = n
	return n, afcOK
}

// mkdir makes a directory with those above it, as AFC does.
func (f *fileSystem) mkdir(p string) afcStatus {
	p, status := clean(p)
	if status != afcOK {
		return status
	}
	if n := f.nodes[p]; n != nil {
		if n.dir {
			return afcOK
		}
		return afcExists
	}
	if status := f.mkdir(path.Dir(p)); status != afcOK {
		return status
	}
	_, status = f.create(p, true)
	return status
}

// resize sets the length of a file.
func (f *fileSystem) resize(n *node, size int) afcStatus {
	switch {
	case n.dir:
		return afcIsDirectory
	case n.gone:
		return afcNotFound
	case size < 0 || size > maxFileBytes || f.bytes-len(n.data)+size > maxFileBytes:
		return afcNoSpace
	}
	f.bytes += size - len(n.data)
	if size <= len(n.data) {
		clear(n.data[size:])
		n.data = n.data[:size]
	} else {
		n.data = append(n.data, make([]byte, size-len(n.data))...)
	}
	n.changed = f.now()
	return afcOK
}

// writeAt writes into a file, which grows if need be.
func (f *fileSystem) writeAt(n *node, b []byte, at int64) afcStatus {
	if at < 0 || at > maxFileBytes {
		return afcNoSpace
	}
	if end := int(at) + len(b); end > len(n.data) {
		if status := f.resize(n, end); status != afcOK {
			return status
		}
	}
	if n.gone {
		return afcNotFound
	}
	copy(n.data[at:], b)
	n.changed = f.now()
	return afcOK
}

// list returns the names in a directory.
func (f *fileSystem) list(p string) ([]string, afcStatus) {
	p, status := clean(p)
	if status != afcOK {
		return nil, status
	}
	n := f.nodes[p]
	switch {
	case n == nil:
		return nil, afcNotFound
	case !n.dir:
		return nil, afcReadError
	}
	var names []string
	for other := range f.nodes {
		if other != "/" && path.Dir(other) == p {
			names = append(names, path.Base(other))
		}
	}
	slices.Sort(names)
	return names, afcOK
}

// remove removes a node; a directory with content only with all.
func (f *fileSystem) remove(p string, all bool) afcStatus {
	p, status := clean(p)
	if status != afcOK {
		return status
	}
	if f.nodes[p] == nil {
		return afcNotFound
	}
	if p == "/" {
		return afcPermission
	}
	inside := p + "/"
	for other := range f.nodes {
		if strings.HasPrefix(other, inside) {
			if !all {
				return afcNotEmpty
			}
			f.unlink(other)
		}
	}
	f.unlink(p)
	return afcOK
}

func (f *fileSystem) unlink(p string) {
	n := f.nodes[p]
	f.bytes -= len(n.data)
	n.gone = true
	delete(f.nodes, p)
}

// rename moves a node with what is below it; a file at the target is replaced.
func (f *fileSystem) rename(from, to string) afcStatus {
	from, status := clean(from)
	if status != afcOK {
		return status
	}
	if to, status = clean(to); status != afcOK {
		return status
	}
	n, target, parent := f.nodes[from], f.nodes[to], f.nodes[path.Dir(to)]
	switch {
	case n == nil || parent == nil || !parent.dir:
		return afcNotFound
	case from == to:
		return afcOK
	case from == "/" || strings.HasPrefix(to, from+"/"):
		return afcInvalidArgument
	case target != nil && (target.dir || n.dir):
		return afcExists
	}
	if target != nil {
		f.unlink(to)
	}
	moved := map[string]*node{to: n}
	delete(f.nodes, from)
	for other, below := range f.nodes {
		if rest, ok := strings.CutPrefix(other, from+"/"); ok {
			moved[to+"/"+rest] = below
			delete(f.nodes, other)
		}
	}
	for p, n := range moved {
		f.nodes[p] = n
	}
	return afcOK
}

// ReadFile returns the content of a file as AFC shows it.
func (d *Device) ReadFile(p string) ([]byte, bool) {
	d.files.mu.Lock()
	defer d.files.mu.Unlock()
	n, status := d.files.find(p)
	if status != afcOK || n.dir {
		return nil, false
	}
	return slices.Clone(n.data), true
}

// WriteFile puts a file, with the directories above it, where AFC shows it. It
// reports whether there was room.
func (d *Device) WriteFile(p string, data []byte) bool {
	f := d.files
	f.mu.Lock()
	defer f.mu.Unlock()
	full, status := clean(p)
	if status != afcOK || f.mkdir(path.Dir(full)) != afcOK {
		return false
	}
	n, status := f.find(full)
	if status == afcNotFound {
		n, status = f.create(full, false)
	}
	return status == afcOK && f.resize(n, 0) == afcOK && f.writeAt(n, data, 0) == afcOK
}
