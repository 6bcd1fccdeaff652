// Package afcd is the file service of a simulated device: AFC on files in memory.
//
// The package tells a SyncLock how hosts open and lock SyncFile. It never touches the
// files of this machine, and it uses bounded memory whatever a host sends.
package afcd

import (
	"context"
	"errors"
	"net"
)

// SyncLock is told how hosts use SyncFile, and decides who may lock it.
type SyncLock interface {
	// AwaitRequest waits briefly for a host to announce that it will lock the file.
	AwaitRequest(context.Context)
	// TryLock reports whether the file may be locked.
	TryLock() bool
	// Opened adds n to the number of open handles of the file.
	Opened(n int)
	SetLocked(bool)
	// Lost says that the connection that held the lock has ended.
	Lost(byHost bool)
}

// Server serves the files of a device.
type Server struct {
	Files    *Files
	Info     func() []string // returns names and values for OpDeviceInfo, alternating
	Sync     SyncLock
	SyncFile string // path of the file that a host locks to take the sync lock

	Log     func(kind, detail string)
	Violate func(format string, args ...any)
}

// Serve serves a connection until it ends. Serve then calls byHost, which reports
// whether the host ended the connection.
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
