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

// sessionTLS is the TLS connection of a session of lockdownd. It can end before the
// connection below it.
type sessionTLS struct {
	*tls.Conn
	records *recordConn
}

func startSession(ctx context.Context, c net.Conn, conf *tls.Config) (*sessionTLS, error) {
	records, ok := c.(*recordConn)
	if !ok {
		records = &recordConn{Conn: c, in: bufio.NewReader(c)}
	}
	records.bounded = true
	secure, err := startTLS(ctx, records, conf)
	if err != nil {
		return nil, err
	}
	return &sessionTLS{secure, records}, nil
}

// end ends TLS. The host may send a close_notify before it continues unencrypted, but
// need not. end returns false if the host sends anything else through TLS.
func (s *sessionTLS) end() bool {
	_ = s.CloseWrite()
	defer func() {
		s.records.bounded, s.records.left = false, 0
		_ = s.records.SetDeadline(time.Time{}) // remove the deadline that CloseWrite set
	}()
	for {
		next, err := s.records.in.Peek(1)
		if err != nil || next[0] < recordFirst || next[0] > recordLast {
			return true // nothing, or a message, whose length begins with 0
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

// The range of the first byte of a TLS record, and the length of a record's header.
const (
	recordFirst  = 20
	recordLast   = 24
	recordHeader = 5 // bytes
)

// recordConn keeps TLS from reading bytes that follow the last TLS record.
type recordConn struct {
	net.Conn
	in      *bufio.Reader
	bounded bool // no read crosses the end of a record
	left    int  // number of bytes left in the current record
}

func (c *recordConn) Read(p []byte) (int, error) {
	if c.bounded && c.left == 0 {
		head, err := c.in.Peek(recordHeader)
		if err != nil {
			return 0, err
		}
		c.left = recordHeader + int(binary.BigEndian.Uint16(head[recordHeader-2:]))
	}
	if c.bounded {
		p = p[:min(len(p), c.left)]
	}
	n, err := c.in.Read(p)
	if c.bounded {
		c.left -= n
	}
	return n, err
}
