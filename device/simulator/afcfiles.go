package simulator

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"time"
)

const (
	maxHandles = 256     // of one connection
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

// afcSession is one connection to AFC.
type afcSession struct {
	dev     *Device
	fs      *fileSystem
	handles map[uint64]*handle
	last    uint64
}

func status(code afcStatus) afcPacket {
	return afcPacket{op: afcStatusReply, args: binary.LittleEndian.AppendUint64(nil, uint64(code))}
}

func number(op afcOperation, n uint64) afcPacket {
	return afcPacket{op: op, args: binary.LittleEndian.AppendUint64(nil, n)}
}

// strings makes a payload of texts that end with a zero byte each.
func texts(list ...string) afcPacket {
	p := afcPacket{op: afcDataReply}
	for _, s := range list {
		p.payload = append(append(p.payload, s...), 0)
	}
	return p
}

// answer carries out one request.
func (s *afcSession) answer(p afcPacket) afcPacket {
	s.fs.mu.Lock()
	defer s.fs.mu.Unlock()
	switch p.op {
	case afcReadDir, afcRemove, afcRemoveAll, afcMakeDir, afcStat:
		return s.byPath(p.op, text(p.args))
	case afcTruncate, afcSetTime, afcOpen:
		n, rest, ok := p.numbers(1)
		if !ok {
			return status(afcInvalidArgument)
		}
		return s.byPathAndNumber(p.op, text(rest), n[0])
	case afcRename:
		from := text(p.args)
		if len(p.args) <= len(from) {
			return status(afcInvalidArgument)
		}
		return status(s.fs.rename(from, text(p.args[len(from)+1:])))
	case afcDeviceInfo:
		number := func(domain, key string) string { return fmt.Sprint(s.dev.Value(domain, key)) }
		return texts("Model", s.dev.text("", "ProductType"), "FSTotalBytes", number(DomainDiskUsage, "TotalDataCapacity"),
			"FSFreeBytes", number(DomainDiskUsage, "TotalDataAvailable"), "FSBlockSize", "4096")
	case afcRead, afcWrite, afcSeek, afcTell, afcClose, afcSetSize, afcLock:
		n, _, ok := p.numbers(1)
		if !ok {
			return status(afcInvalidArgument)
		}
		h := s.handles[n[0]]
		if h == nil {
			s.dev.Violate("%s: operation %#x on a file that is not open", AFC, uint64(p.op))
			return status(afcInvalidArgument)
		}
		if p.op == afcClose {
			s.close(h)
			delete(s.handles, n[0])
			return status(afcOK)
		}
		return s.byHandle(p, h)
	}
	s.dev.Log(AFC, "unsupported", fmt.Sprintf("operation %#x", uint64(p.op)))
	return status(afcUnsupported)
}

func (s *afcSession) byPath(op afcOperation, p string) afcPacket {
	switch op {
	case afcReadDir:
		names, code := s.fs.list(p)
		if code != afcOK {
			return status(code)
		}
		return texts(append([]string{".", ".."}, names...)...)
	case afcMakeDir:
		s.dev.Log(AFC, "mkdir", p)
		return status(s.fs.mkdir(p))
	case afcStat:
		n, code := s.fs.find(p)
		if code != afcOK {
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
	s.dev.Log(AFC, "remove", p)
	return status(s.fs.remove(p, op == afcRemoveAll))
}

func (s *afcSession) byPathAndNumber(op afcOperation, p string, n uint64) afcPacket {
	if op == afcOpen {
		return s.open(p, n)
	}
	node, code := s.fs.find(p)
	switch {
	case code != afcOK:
		return status(code)
	case op == afcTruncate:
		return status(s.fs.resize(node, int(min(n, 1<<31-1))))
	}
	node.changed = time.Unix(0, int64(n))
	return status(afcOK)
}

// open opens a file in one of the modes 1 to 6: read, read and write, write
// from empty, both from empty, append, read and append. All but the first make
// the file if it is missing.
func (s *afcSession) open(p string, mode uint64) afcPacket {
	h := &handle{read: mode != 3 && mode != 5, write: mode != 1, append: mode >= 5}
	if mode < 1 || mode > 6 {
		return status(afcInvalidArgument)
	}
	if len(s.handles) == maxHandles {
		return status(afcNoResources)
	}
	n, code := s.fs.find(p)
	if code == afcNotFound && h.write {
		n, code = s.fs.create(p, false)
	}
	switch {
	case code != afcOK:
		return status(code)
	case n.dir:
		return status(afcIsDirectory)
	case mode == 3 || mode == 4:
		if code := s.fs.resize(n, 0); code != afcOK {
			return status(code)
		}
	}
	h.node = n
	h.path, _ = clean(p)
	if h.path == SyncLockFile {
		s.dev.syncOpen(1)
	}
	s.last++
	s.handles[s.last] = h
	s.dev.Log(AFC, "open", h.path)
	return number(afcOpenReply, s.last)
}

func (s *afcSession) byHandle(p afcPacket, h *handle) afcPacket {
	n, rest, _ := p.numbers(1)
	arg := func(i int) uint64 {
		if n, _, ok := p.numbers(i + 1); ok {
			return n[i]
		}
		return 0
	}
	switch p.op {
	case afcTell:
		return number(afcTellReply, uint64(h.at))
	case afcWrite:
		if !h.write {
			return status(afcPermission)
		}
		if h.append {
			h.at = int64(len(h.node.data))
		}
		data := p.payload
		if len(data) == 0 {
			data = rest // some hosts send everything as arguments
		}
		code := s.fs.writeAt(h.node, data, h.at)
		if code == afcOK {
			h.at += int64(len(data))
		}
		return status(code)
	}
	if want := map[afcOperation]int{afcSeek: 3}[p.op]; len(n)*8+len(rest) < max(want, 2)*8 {
		return status(afcInvalidArgument)
	}
	switch p.op {
	case afcRead:
		if !h.read {
			return status(afcPermission)
		}
		left := h.node.data[min(h.at, int64(len(h.node.data))):]
		data := left[:min(uint64(len(left)), arg(1), maxRead)]
		h.at += int64(len(data))
		return afcPacket{op: afcDataReply, payload: append([]byte(nil), data...)}
	case afcSeek:
		at := int64(arg(2))
		switch arg(1) {
		case 1:
			at += h.at
		case 2:
			at += int64(len(h.node.data))
		}
		if arg(1) > 2 || at < 0 || at > maxFileBytes {
			return status(afcInvalidArgument)
		}
		h.at = at
		return status(afcOK)
	case afcSetSize:
		if !h.write {
			return status(afcPermission)
		}
		return status(s.fs.resize(h.node, int(min(arg(1), 1<<31-1))))
	}
	return status(s.lock(h, arg(1)))
}

// Kinds of locks, as flock has them, with the bit for "do not wait".
const (
	lockShared    = 1 | 4
	lockExclusive = 2 | 4
	lockRelease   = 8 | 4
)

// takesSyncLock reports whether a request to lock is for the sync lock.
func (s *afcSession) takesSyncLock(p afcPacket) bool {
	n, _, ok := p.numbers(2)
	if !ok || s.handles[n[0]] == nil {
		return false
	}
	return s.handles[n[0]].path == SyncLockFile && n[1] == lockExclusive
}

func (s *afcSession) lock(h *handle, kind uint64) afcStatus {
	n := h.node
	switch kind {
	case lockRelease:
		if n.locker != h && !n.shares(h) {
			s.dev.Violate("%s: %s is unlocked without a lock", AFC, h.path)
		}
		s.unlock(h)
		return afcOK
	case lockShared, lockExclusive:
	default:
		s.dev.Violate("%s: lock of unknown kind %d", AFC, kind)
		return afcInvalidArgument
	}
	free := true
	if h.path == SyncLockFile && kind == lockExclusive {
		free = s.dev.syncTryLock()
	}
	others := len(n.readers)
	if n.shares(h) {
		others--
	}
	if !free || n.locker != nil && n.locker != h || kind == lockExclusive && others > 0 {
		s.dev.Log(AFC, "lock busy", h.path)
		return afcWouldBlock
	}
	s.unlock(h)
	if kind == lockExclusive {
		n.locker = h
		if h.path == SyncLockFile {
			s.dev.syncLocked(true)
		}
	} else {
		if n.readers == nil {
			n.readers = map[*handle]struct{}{}
		}
		n.readers[h] = struct{}{}
	}
	s.dev.Log(AFC, "lock", h.path)
	return afcOK
}

func (n *node) shares(h *handle) bool {
	_, ok := n.readers[h]
	return ok
}

// unlock gives back what h holds, if anything.
func (s *afcSession) unlock(h *handle) {
	if h.node.shares(h) {
		delete(h.node.readers, h)
		s.dev.Log(AFC, "unlock", h.path)
	}
	if h.node.locker == h {
		h.node.locker = nil
		if h.path == SyncLockFile {
			s.dev.syncLocked(false)
		}
		s.dev.Log(AFC, "unlock", h.path)
	}
}

func (s *afcSession) close(h *handle) {
	s.unlock(h)
	if h.path == SyncLockFile {
		s.dev.syncOpen(-1)
	}
	s.dev.Log(AFC, "close", h.path)
}

// end closes what a connection leaves open.
func (s *afcSession) end(byHost bool) {
	s.fs.mu.Lock()
	defer s.fs.mu.Unlock()
	for _, h := range s.handles {
		held := h.node.locker == h && h.path == SyncLockFile
		s.close(h)
		if held {
			s.dev.syncLost(byHost)
		}
	}
}
