package simulator

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"time"
)

// sessionTLS is the TLS of one session of lockdownd. Unlike that of a service it
// ends before its connection does.
type sessionTLS struct {
	*tls.Conn
	records *recordConn
}

func startSession(ctx context.Context, c net.Conn, conf *tls.Config) (*sessionTLS, error) {
	records, ok := c.(*recordConn)
	if !ok {
		records = &recordConn{Conn: c, in: bufio.NewReader(c)}
	}
	records.whole = true
	secure, err := startTLS(ctx, records, conf)
	if err != nil {
		return nil, err
	}
	return &sessionTLS{secure, records}, nil
}

// end says that TLS is over, and takes the host's word that it is, if the host
// says so before it goes on in the clear. It reports whether the host keeps to
// that.
func (s *sessionTLS) end() bool {
	_ = s.CloseWrite()
	defer func() {
		s.records.whole, s.records.left = false, 0
		_ = s.records.SetDeadline(time.Time{}) // CloseWrite left one
	}()
	for {
		next, err := s.records.in.Peek(1)
		if err != nil || next[0] < recordFirst || next[0] > recordLast {
			return true // the end, or a message: its length begins with 0
		}
		n, err := s.Read(make([]byte, 1))
		if errors.Is(err, io.EOF) {
			return true
		}
		if err != nil || n > 0 {
			return false
		}
	}
}

// The first byte of a record of TLS.
const (
	recordFirst  = 20
	recordLast   = 24
	recordHeader = 5 // bytes
)

// recordConn gives TLS no byte of what may come behind its last record.
type recordConn struct {
	net.Conn
	in    *bufio.Reader
	whole bool // no read goes beyond a record
	left  int  // of the present record
}

func (c *recordConn) Read(p []byte) (int, error) {
	if c.whole && c.left == 0 {
		head, err := c.in.Peek(recordHeader)
		if err != nil {
			return 0, err
		}
		c.left = recordHeader + int(binary.BigEndian.Uint16(head[recordHeader-2:]))
	}
	if c.whole {
		p = p[:min(len(p), c.left)]
	}
	n, err := c.in.Read(p)
	if c.whole {
		c.left -= n
	}
	return n, err
}
