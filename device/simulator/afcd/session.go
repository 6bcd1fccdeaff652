package afcd

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"time"
)

const (
	maxHandles = 256     // open files of one connection
	maxRead    = 4 << 20 // bytes in one reply
)

// handle is an open file.
type handle struct {
	node   *node
	path   string
	at     int64
	read   bool
	write  bool
	append bool
}

// session is one connection of a host.
type session struct {
	*Server
	handles map[uint64]*handle
	last    uint64
}

func status(code Status) Packet {
	return Packet{Op: OpStatusReply, Args: binary.LittleEndian.AppendUint64(nil, uint64(code))}
}

func number(op Operation, n uint64) Packet {
	return Packet{Op: op, Args: binary.LittleEndian.AppendUint64(nil, n)}
}

// texts returns a reply with the strings of list, each followed by a zero byte.
func texts(list ...string) Packet {
	p := Packet{Op: OpDataReply}
	for _, s := range list {
		p.Payload = append(append(p.Payload, s...), 0)
	}
	return p
}

// answer carries out one request.
func (s *session) answer(p Packet) Packet {
	s.Files.mu.Lock()
	defer s.Files.mu.Unlock()
	switch p.Op {
	case OpReadDir, OpRemove, OpRemoveAll, OpMakeDir, OpStat:
		return s.byPath(p.Op, text(p.Args))
	case OpTruncate, OpSetTime, OpOpen:
		n, rest, ok := p.Numbers(1)
		if !ok {
			return status(InvalidArgument)
		}
		return s.byPathAndNumber(p.Op, text(rest), n[0])
	case OpRename:
		from := text(p.Args)
		if len(p.Args) <= len(from) {
			return status(InvalidArgument)
		}
		return status(s.Files.rename(from, text(p.Args[len(from)+1:])))
	case OpDeviceInfo:
		return texts(s.Info()...)
	case OpRead, OpWrite, OpSeek, OpTell, OpClose, OpSetSize, OpLock:
		n, _, ok := p.Numbers(1)
		if !ok {
			return status(InvalidArgument)
		}
		h := s.handles[n[0]]
		if h == nil {
			s.Violate("operation %#x on a file that is not open", uint64(p.Op))
			return status(InvalidArgument)
		}
		if p.Op == OpClose {
			s.close(h)
			delete(s.handles, n[0])
			return status(OK)
		}
		return s.byHandle(p, h)
	}
	s.Log("unsupported", fmt.Sprintf("operation %#x", uint64(p.Op)))
	return status(Unsupported)
}

func (s *session) byPath(op Operation, p string) Packet {
	switch op {
	case OpReadDir:
		names, code := s.Files.list(p)
		if code != OK {
			return status(code)
		}
		return texts(append([]string{".", ".."}, names...)...)
	case OpMakeDir:
		s.Log("mkdir", p)
		return status(s.Files.mkdir(p))
	case OpStat:
		n, code := s.Files.find(p)
		if code != OK {
			return status(code)
		}
		kind, links := "S_IFREG", "1"
		if n.dir {
			kind, links = "S_IFDIR", "2"
		}
		at := strconv.FormatInt(n.changed.UnixNano(), 10)
		return texts("st_size", strconv.Itoa(len(n.data)), "st_blocks", strconv.Itoa((len(n.data)+511)/512),
			"st_nlink", links, "st_ifmt", kind, "st_mtime", at, "st_birthtime", at)
	}
	s.Log("remove", p)
	return status(s.Files.remove(p, op == OpRemoveAll))
}

func (s *session) byPathAndNumber(op Operation, p string, n uint64) Packet {
	if op == OpOpen {
		return s.open(p, n)
	}
	node, code := s.Files.find(p)
	switch {
	case code != OK:
		return status(code)
	case op == OpTruncate:
		return status(s.Files.resize(node, int(min(n, 1<<31-1))))
	}
	node.changed = time.Unix(0, int64(n))
	return status(OK)
}

// open opens a file in one of the modes 1 to 6: read; read and write; truncate and
// write; truncate, read and write; append; append and read. All modes except 1
// create the file if it is missing.
func (s *session) open(p string, mode uint64) Packet {
	h := &handle{read: mode != 3 && mode != 5, write: mode != 1, append: mode >= 5}
	if mode < 1 || mode > 6 {
		return status(InvalidArgument)
	}
	if len(s.handles) == maxHandles {
		return status(NoResources)
	}
	n, code := s.Files.find(p)
	if code == NotFound && h.write {
		n, code = s.Files.create(p, false)
	}
	switch {
	case code != OK:
		return status(code)
	case n.dir:
		return status(IsDirectory)
	case mode == 3 || mode == 4:
		if code := s.Files.resize(n, 0); code != OK {
			return status(code)
		}
	}
	h.node = n
	h.path, _ = clean(p)
	if h.path == s.SyncFile {
		s.Sync.Opened(1)
	}
	s.last++
	s.handles[s.last] = h
	s.Log("open", h.path)
	return number(OpOpenReply, s.last)
}

func (s *session) byHandle(p Packet, h *handle) Packet {
	n, rest, _ := p.Numbers(1)
	arg := func(i int) uint64 {
		if n, _, ok := p.Numbers(i + 1); ok {
			return n[i]
		}
		return 0
	}
	switch p.Op {
	case OpTell:
		return number(OpTellReply, uint64(h.at))
	case OpWrite:
		if !h.write {
			return status(Permission)
		}
		if h.append {
			h.at = int64(len(h.node.data))
		}
		data := p.Payload
		if len(data) == 0 {
			data = rest // some hosts send the data as arguments
		}
		code := s.Files.writeAt(h.node, data, h.at)
		if code == OK {
			h.at += int64(len(data))
		}
		return status(code)
	}
	if want := map[Operation]int{OpSeek: 3}[p.Op]; len(n)*8+len(rest) < max(want, 2)*8 {
		return status(InvalidArgument)
	}
	switch p.Op {
	case OpRead:
		if !h.read {
			return status(Permission)
		}
		left := h.node.data[min(h.at, int64(len(h.node.data))):]
		data := left[:min(uint64(len(left)), arg(1), maxRead)]
		h.at += int64(len(data))
		return Packet{Op: OpDataReply, Payload: append([]byte(nil), data...)}
	case OpSeek:
		at := int64(arg(2))
		switch arg(1) {
		case 1:
			at += h.at
		case 2:
			at += int64(len(h.node.data))
		}
		if arg(1) > 2 || at < 0 || at > maxFileBytes {
			return status(InvalidArgument)
		}
		h.at = at
		return status(OK)
	case OpSetSize:
		if !h.write {
			return status(Permission)
		}
		return status(s.Files.resize(h.node, int(min(arg(1), 1<<31-1))))
	}
	return status(s.lock(h, arg(1)))
}

// Kinds of locks: the numbers of flock, with the bit for "do not wait" set.
const (
	lockShared    = 1 | 4
	lockExclusive = 2 | 4
	lockRelease   = 8 | 4
)

// takesSyncLock reports whether a request is for the sync lock.
func (s *session) takesSyncLock(p Packet) bool {
	n, _, ok := p.Numbers(2)
	if !ok || s.handles[n[0]] == nil {
		return false
	}
	return s.handles[n[0]].path == s.SyncFile && n[1] == lockExclusive
}

func (s *session) lock(h *handle, kind uint64) Status {
	n := h.node
	switch kind {
	case lockRelease:
		if n.locker != h && !n.shares(h) {
			s.Violate("%s is unlocked without a lock", h.path)
		}
		s.unlock(h)
		return OK
	case lockShared, lockExclusive:
	default:
		s.Violate("lock of unknown kind %d", kind)
		return InvalidArgument
	}
	free := true
	if h.path == s.SyncFile && kind == lockExclusive {
		free = s.Sync.TryLock()
	}
	others := len(n.readers)
	if n.shares(h) {
		others--
	}
	if !free || n.locker != nil && n.locker != h || kind == lockExclusive && others > 0 {
		s.Log("lock busy", h.path)
		return WouldBlock
	}
	s.unlock(h)
	if kind == lockExclusive {
		n.locker = h
		if h.path == s.SyncFile {
			s.Sync.SetLocked(true)
		}
	} else {
		if n.readers == nil {
			n.readers = map[*handle]struct{}{}
		}
		n.readers[h] = struct{}{}
	}
	s.Log("lock", h.path)
	return OK
}

func (n *node) shares(h *handle) bool {
	_, ok := n.readers[h]
	return ok
}

// unlock releases the locks of h.
func (s *session) unlock(h *handle) {
	if h.node.shares(h) {
		delete(h.node.readers, h)
		s.Log("unlock", h.path)
	}
	if h.node.locker == h {
		h.node.locker = nil
		if h.path == s.SyncFile {
			s.Sync.SetLocked(false)
		}
		s.Log("unlock", h.path)
	}
}

func (s *session) close(h *handle) {
	s.unlock(h)
	if h.path == s.SyncFile {
		s.Sync.Opened(-1)
	}
	s.Log("close", h.path)
}

// end closes the files that the connection left open.
func (s *session) end(byHost bool) {
	s.Files.mu.Lock()
	defer s.Files.mu.Unlock()
	for _, h := range s.handles {
		held := h.node.locker == h && h.path == s.SyncFile
		s.close(h)
		if held {
			s.Sync.Lost(byHost)
		}
	}
}
