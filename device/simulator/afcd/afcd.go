// Package afcd is the file service of a simulated device: AFC on files in memory.
//
// It tells a SyncLock what happens to the lock file. It never touches the files
// of this machine, and nothing a host sends makes it allocate without bound.
package afcd

import (
	"context"
	"errors"
	"net"
)

// SyncLock follows how hosts lock the lock file.
type SyncLock interface {
	// AwaitRequest waits a moment until a host has announced that it will lock.
	AwaitRequest(context.Context)
	// TryLock reports whether the file may be locked.
	TryLock() bool
	// Opened counts handles of the file.
	Opened(by int)
	SetLocked(bool)
	// Lost says that the connection with the lock has ended.
	Lost(byHost bool)
}

// Server serves the files of a device.
type Server struct {
	Files    *Files
	Info     func() []string // names and values of OpDeviceInfo, alternating
	Sync     SyncLock
	SyncFile string // the lock file

	Log     func(kind, detail string)
	Violate func(format string, args ...any)
}

// Serve serves a connection until it ends. byHost then reports whether the host
// has ended it.
func (s *Server) Serve(ctx context.Context, conn net.Conn, byHost func() bool) {
	x := &session{Server: s, handles: map[uint64]*handle{}}
	for {
		p, err := ReadPacket(conn)
		if err != nil {
			if errors.Is(err, errFormat) {
				s.Violate("%v", err)
			}
			break
		}
		if p.Op == OpLock && x.takesSyncLock(p) {
			s.Sync.AwaitRequest(ctx)
		}
		reply := x.answer(p)
		reply.Number = p.Number
		if _, err := conn.Write(reply.Append(nil)); err != nil {
			break
		}
	}
	x.end(byHost())
}
