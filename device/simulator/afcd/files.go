package afcd

import (
	"path"
	"slices"
	"strings"
	"sync"
	"time"
)

// Limits of what a host can store. Here AFC serves only lock files and a few small
// lists, no content.
const (
	maxFileBytes = 64 << 20 // bytes of all files together
	maxNodes     = 10000
	maxPath      = 1024
)

// node is a file or a directory.
type node struct {
	dir     bool
	removed bool // removed from its folder; handles may still exist
	data    []byte
	changed time.Time
	locker  *handle // the handle with the exclusive lock
	readers map[*handle]struct{}
}

// Files holds the files of a device in memory. NewFiles makes one.
type Files struct {
	mu    sync.Mutex
	now   func() time.Time
	nodes map[string]*node
	bytes int // total size of all files
}

// NewFiles returns the folders of a new device.
func NewFiles(now func() time.Time) *Files {
	f := &Files{now: now, nodes: map[string]*node{}}
	for _, dir := range []string{"/", "/Books", "/DCIM", "/Downloads", "/iTunes_Control", "/iTunes_Control/iTunes"} {
		f.nodes[dir] = &node{dir: true, changed: now()}
	}
	return f
}

// clean makes a path absolute. The result is never outside of the root.
func clean(p string) (string, Status) {
	if p == "" || len(p) > maxPath {
		return "", InvalidArgument
	}
	return path.Clean("/" + p), OK
}

// find returns the node at a path. This and all other unexported methods need f.mu
// held.
func (f *Files) find(p string) (*node, Status) {
	p, status := clean(p)
	if status != OK {
		return nil, status
	}
	if n := f.nodes[p]; n != nil {
		return n, OK
	}
	return nil, NotFound
}

// create creates a node. Its directory must exist.
func (f *Files) create(p string, dir bool) (*node, Status) {
	p, status := clean(p)
	if status != OK {
		return nil, status
	}
	if f.nodes[p] != nil {
		return nil, Exists
	}
	if parent := f.nodes[path.Dir(p)]; parent == nil || !parent.dir {
		return nil, NotFound
	}
	if len(f.nodes) >= maxNodes {
		return nil, NoSpace
	}
	n := &node{dir: dir, changed: f.now()}
	f.nodes[p] = n
	return n, OK
}

// mkdir creates a directory and its parents, as AFC does.
func (f *Files) mkdir(p string) Status {
	p, status := clean(p)
	if status != OK {
		return status
	}
	if n := f.nodes[p]; n != nil {
		if n.dir {
			return OK
		}
		return Exists
	}
	if status := f.mkdir(path.Dir(p)); status != OK {
		return status
	}
	_, status = f.create(p, true)
	return status
}

// resize sets the length of a file.
func (f *Files) resize(n *node, size int) Status {
	switch {
	case n.dir:
		return IsDirectory
	case n.removed:
		return NotFound
	case size < 0 || size > maxFileBytes || f.bytes-len(n.data)+size > maxFileBytes:
		return NoSpace
	}
	f.bytes += size - len(n.data)
	if size <= len(n.data) {
		clear(n.data[size:])
		n.data = n.data[:size]
	} else {
		n.data = append(n.data, make([]byte, size-len(n.data))...)
	}
	n.changed = f.now()
	return OK
}

// writeAt writes to a file, which grows if necessary.
func (f *Files) writeAt(n *node, b []byte, at int64) Status {
	if at < 0 || at > maxFileBytes {
		return NoSpace
	}
	if end := int(at) + len(b); end > len(n.data) {
		if status := f.resize(n, end); status != OK {
			return status
		}
	}
	if n.removed {
		return NotFound
	}
	copy(n.data[at:], b)
	n.changed = f.now()
	return OK
}

// list returns the names in a directory.
func (f *Files) list(p string) ([]string, Status) {
	p, status := clean(p)
	if status != OK {
		return nil, status
	}
	n := f.nodes[p]
	switch {
	case n == nil:
		return nil, NotFound
	case !n.dir:
		return nil, ReadError
	}
	var names []string
	for other := range f.nodes {
		if other != "/" && path.Dir(other) == p {
			names = append(names, path.Base(other))
		}
	}
	slices.Sort(names)
	return names, OK
}

// remove removes a node. If all is set, it also removes a directory that is not
// empty.
func (f *Files) remove(p string, all bool) Status {
	p, status := clean(p)
	if status != OK {
		return status
	}
	if f.nodes[p] == nil {
		return NotFound
	}
	if p == "/" {
		return Permission
	}
	inside := p + "/"
	for other := range f.nodes {
		if strings.HasPrefix(other, inside) {
			if !all {
				return NotEmpty
			}
			f.unlink(other)
		}
	}
	f.unlink(p)
	return OK
}

func (f *Files) unlink(p string) {
	n := f.nodes[p]
	f.bytes -= len(n.data)
	n.removed = true
	delete(f.nodes, p)
}

// rename moves a node and everything below it. It replaces a file at the target.
func (f *Files) rename(from, to string) Status {
	from, status := clean(from)
	if status != OK {
		return status
	}
	if to, status = clean(to); status != OK {
		return status
	}
	n, target, parent := f.nodes[from], f.nodes[to], f.nodes[path.Dir(to)]
	switch {
	case n == nil || parent == nil || !parent.dir:
		return NotFound
	case from == to:
		return OK
	case from == "/" || strings.HasPrefix(to, from+"/"):
		return InvalidArgument
	case target != nil && (target.dir || n.dir):
		return Exists
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
	return OK
}

// ReadFile returns the content of a file. ok is false if the file does not exist.
func (f *Files) ReadFile(p string) (data []byte, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, status := f.find(p)
	if status != OK || n.dir {
		return nil, false
	}
	return slices.Clone(n.data), true
}

// WriteFile writes a file and creates its directories. It returns false if there
// was not enough space.
func (f *Files) WriteFile(p string, data []byte) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	full, status := clean(p)
	if status != OK || f.mkdir(path.Dir(full)) != OK {
		return false
	}
	n, status := f.find(full)
	if status == NotFound {
		n, status = f.create(full, false)
	}
	return status == OK && f.resize(n, 0) == OK && f.writeAt(n, data, 0) == OK
}
