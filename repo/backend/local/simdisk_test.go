package local

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/snap-backup/snap/repo/backend"
)

// machine is a simulated computer with one disk. For every file and folder it has
// the current and the flushed state.
type machine struct {
	mu     sync.Mutex
	root   *node
	starts int // number of processes
}

// node is a file or a folder; a file may have several names.
type node struct {
	isDir         bool
	data, flushed []byte           // of a file
	now, durable  map[string]*node // of a folder
}

func newDir() *node {
	return &node{isDir: true, now: map[string]*node{}, durable: map[string]*node{}}
}

func newMachine() *machine { return &machine{root: newDir()} }

// find returns the node of a name.
func (m *machine) find(name string) (*node, error) {
	n := m.root
	if name == "." {
		return n, nil
	}
	for element := range strings.SplitSeq(name, "/") {
		if !n.isDir {
			return nil, syscall.ENOTDIR
		}
		if n = n.now[element]; n == nil {
			return nil, syscall.ENOENT
		}
	}
	return n, nil
}

// setEntry sets an entry of a folder.
func (m *machine) setEntry(name string, n *node) error {
	dir, err := m.find(path.Dir(name))
	switch {
	case err != nil:
		return err
	case !dir.isDir:
		return syscall.ENOTDIR
	case dir.now[path.Base(name)] != nil:
		return syscall.EEXIST
	}
	dir.now[path.Base(name)] = n
	return nil
}

// loss decides which changes that were not flushed survive a power cut.
type loss struct {
	name string
	// entry reports whether a changed entry of a folder survives.
	entry func() bool
	// data returns the content of a file after the power cut.
	data func(flushed, now []byte) []byte
}

func flushedData(flushed, _ []byte) []byte { return flushed }
func currentData(_, now []byte) []byte     { return now }

// losses returns the extreme cases, and random cases between them.
func losses(seeds int) []loss {
	list := []loss{
		{"everything not flushed is lost", func() bool { return false }, flushedData},
		{"entries survive, content not flushed is lost", func() bool { return true }, flushedData},
		{"nothing is lost", func() bool { return true }, currentData},
	}
	for seed := range seeds {
		rng := rand.New(rand.NewPCG(uint64(seed), 7))
		list = append(list, loss{
			name:  fmt.Sprintf("partly lost, seed %d", seed),
			entry: func() bool { return rng.IntN(2) == 0 },
			data: func(flushed, now []byte) []byte {
				switch rng.IntN(4) {
				case 0:
					return flushed
				case 1:
					return now
				case 2:
					return now[:rng.IntN(len(now)+1)]
				}
				// The length reached the disk, the bytes did not.
				return append(bytes.Clone(flushed[:min(len(flushed), len(now))]), make([]byte, max(0, len(now)-len(flushed)))...)
			},
		})
	}
	return list
}

// afterPowerCut returns the machine after a power cut.
func (m *machine) afterPowerCut(l loss) *machine {
	m.mu.Lock()
	defer m.mu.Unlock()
	found := make(map[*node]*node)
	var survive func(n *node) *node
	survive = func(n *node) *node {
		if found[n] != nil {
			return found[n]
		}
		if !n.isDir {
			data := n.flushed
			if !bytes.Equal(n.data, n.flushed) {
				data = l.data(n.flushed, n.data)
			}
			found[n] = &node{data: data, flushed: data}
			return found[n]
		}
		after := newDir()
		found[n] = after
		all := maps.Clone(n.durable)
		maps.Copy(all, n.now)
		for _, name := range slices.Sorted(maps.Keys(all)) {
			child := n.durable[name]
			if n.now[name] != child && l.entry() {
				child = n.now[name]
			}
			if child != nil {
				after.now[name] = survive(child)
			}
		}
		after.durable = maps.Clone(after.now)
		return after
	}
	return &machine{root: survive(m.root), starts: m.starts}
}

// trouble is the kind of fault at one call of a process.
type trouble int

const (
	none        trouble = iota
	killBefore          // the process dies before the call
	killAfter           // the process dies after the call
	failBefore          // the call fails; half of a write is done
	failAfter           // the call succeeds and returns an error
	forgetFlush         // a flush does nothing and returns no error
)

var errKilled = errors.New("simulation: the process is dead")

// process is a process on a machine. It implements disk.
type process struct {
	*machine
	at      int // number of the call with trouble, from 1
	trouble trouble
	err     error // for failBefore and failAfter
	noLinks bool  // the file system has no hard links
	dead    bool
	calls   []string
}

var _ disk = (*process)(nil)

// call runs one system call under the machine's lock. half, if not nil, is the
// effect of a failing call.
func (p *process) call(what string, effect, half func() error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dead {
		return errKilled
	}
	p.calls = append(p.calls, what)
	if len(p.calls) != p.at {
		return effect()
	}
	switch p.trouble {
	case killBefore:
		p.dead = true
		return errKilled
	case killAfter:
		_ = effect()
		p.dead = true
		return errKilled
	case failBefore:
		if half != nil {
			_ = half()
		}
		return p.err
	case failAfter:
		if err := effect(); err != nil {
			return err
		}
		return p.err
	case forgetFlush:
		if isFlush(what) {
			return nil
		}
	}
	return effect()
}

func isFlush(what string) bool { return strings.HasPrefix(what, "flush") }

func (p *process) create(name string) (file, error) {
	n := &node{}
	if err := p.call("create "+label(name), func() error { return p.setEntry(name, n) }, nil); err != nil {
		return nil, err
	}
	return &simFile{p, n}, nil
}

func (p *process) mkdir(name string) error {
	return p.call("mkdir "+name, func() error { return p.setEntry(name, newDir()) }, nil)
}

func (p *process) link(from, to string) error {
	return p.call("link "+label(from)+" "+to, func() error {
		if p.noLinks {
			return syscall.EPERM
		}
		n, err := p.find(from)
		if err != nil {
			return err
		}
		return p.setEntry(to, n)
	}, nil)
}

func (p *process) rename(from, to string) error {
	return p.call("rename "+label(from)+" "+to, func() error {
		n, err := p.find(from)
		if err != nil {
			return err
		}
		dir, err := p.find(path.Dir(to))
		if err != nil {
			return err
		}
		dir.now[path.Base(to)] = n
		return p.unlink(from)
	}, nil)
}

func (p *process) remove(name string) error {
	return p.call("remove "+label(name), func() error { return p.unlink(name) }, nil)
}

func (p *process) unlink(name string) error {
	if _, err := p.find(name); err != nil {
		return err
	}
	dir, err := p.find(path.Dir(name))
	if err != nil {
		return err
	}
	delete(dir.now, path.Base(name))
	return nil
}

func (p *process) syncDir(name string) error {
	return p.call("flush folder "+name, func() error {
		n, err := p.find(name)
		if err != nil {
			return err
		}
		n.durable = maps.Clone(n.now)
		return nil
	}, nil)
}

func (p *process) open(name string) (content, error) {
	var n *node
	err := p.call("open "+name, func() (err error) {
		if n, err = p.find(name); err == nil && n.isDir {
			err = backend.ErrNotRegular
		}
		return err
	}, nil)
	if err != nil {
		return nil, err
	}
	return simContent{bytes.NewReader(n.data)}, nil
}

func (p *process) lstat(name string) (info fs.FileInfo, err error) {
	err = p.call("lstat "+label(name), func() error {
		n, err := p.find(name)
		info = simInfo{path.Base(name), n}
		return err
	}, nil)
	return info, err
}

func (p *process) sameInfo(x, y fs.FileInfo) bool { return x.(simInfo).node == y.(simInfo).node }

func (p *process) readDir(name string) (entries []fs.DirEntry, err error) {
	err = p.call("list "+name, func() error {
		n, err := p.find(name)
		if err != nil {
			return err
		}
		for name, child := range n.now {
			entries = append(entries, fs.FileInfoToDirEntry(simInfo{name, child}))
		}
		return nil
	}, nil)
	return entries, err
}

// label hides the random part of temporary names.
func label(name string) string {
	if strings.HasPrefix(name, tmpPrefix) {
		return "TEMP"
	}
	return name
}

type simFile struct {
	p *process
	n *node
}

func (f *simFile) Write(data []byte) (int, error) {
	write := func(data []byte) func() error {
		return func() error {
			f.n.data = append(f.n.data, data...)
			return nil
		}
	}
	if err := f.p.call("write", write(data), write(data[:len(data)/2])); err != nil {
		return 0, err
	}
	return len(data), nil
}

func (f *simFile) Sync() error {
	return f.p.call("flush file", func() error { f.n.flushed = f.n.data; return nil }, nil)
}

func (f *simFile) Close() error { return f.p.call("close", func() error { return nil }, nil) }

type simContent struct{ *bytes.Reader }

func (simContent) Close() error { return nil }

type simInfo struct {
	name string
	node *node
}

func (i simInfo) Name() string       { return i.name }
func (i simInfo) Size() int64        { return int64(len(i.node.data)) }
func (i simInfo) ModTime() time.Time { return time.Unix(1700000000, 0) }
func (i simInfo) IsDir() bool        { return i.node.isDir }
func (i simInfo) Sys() any           { return nil }
func (i simInfo) Mode() fs.FileMode {
	if i.node.isDir {
		return fs.ModeDir | 0o700
	}
	return 0o600
}
