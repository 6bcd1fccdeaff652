package memconn

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// room is how many bytes a stream holds until its writer waits.
const room = 256 << 10

// stream carries bytes in one direction.
type stream struct {
	mu             sync.Mutex
	changed        *sync.Cond
	buf            []byte
	begin          int // where the unread bytes in buf begin
	reader, writer end
}

// end is one side of a stream.
type end struct {
	closed   bool
	deadline time.Time
	timer    *time.Timer
}

func failed(op string, err error) error {
	return &net.OpError{Op: op, Net: "memory", Addr: addr{}, Err: err}
}

func newStream() *stream {
	s := &stream{}
	s.changed = sync.NewCond(&s.mu)
	return s
}

func (e *end) expired() bool { return !e.deadline.IsZero() && !time.Now().Before(e.deadline) }

// set sets the deadline of one side of s.
func (e *end) set(s *stream, t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.timer != nil {
		e.timer.Stop()
		e.timer = nil
	}
	e.deadline = t
	if !t.IsZero() && !e.closed {
		e.timer = time.AfterFunc(time.Until(t), func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.changed.Broadcast()
		})
	}
	s.changed.Broadcast()
}

func (e *end) close(s *stream) {
	if e.timer != nil {
		e.timer.Stop()
		e.timer = nil
	}
	e.closed = true
	s.changed.Broadcast()
}

func (s *stream) closeReader() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.buf, s.begin = nil, 0
	s.reader.close(s)
}

func (s *stream) closeWriter() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writer.close(s)
}

func (s *stream) receive(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.reader.closed:
			return 0, failed("read", net.ErrClosed)
		case s.reader.expired():
			return 0, failed("read", os.ErrDeadlineExceeded)
		case len(p) == 0:
			return 0, nil
		case s.begin < len(s.buf):
			n := copy(p, s.buf[s.begin:])
			if s.begin += n; s.begin == len(s.buf) {
				s.buf, s.begin = s.buf[:0], 0
			}
			s.changed.Broadcast()
			return n, nil
		case s.writer.closed:
			return 0, io.EOF
		}
		s.changed.Wait()
	}
}

func (s *stream) send(p []byte) (n int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch free := room - (len(s.buf) - s.begin); {
		case s.writer.closed:
			return n, failed("write", net.ErrClosed)
		case s.reader.closed:
			return n, failed("write", syscall.EPIPE)
		case s.writer.expired():
			return n, failed("write", os.ErrDeadlineExceeded)
		case len(p) == 0:
			return n, nil
		case free > 0:
			if s.begin > 0 && len(s.buf)+min(free, len(p)) > cap(s.buf) {
				s.buf, s.begin = s.buf[:copy(s.buf, s.buf[s.begin:])], 0
			}
			part := p[:min(free, len(p))]
			s.buf = append(s.buf, part...)
			n, p = n+len(part), p[len(part):]
			s.changed.Broadcast()
			continue
		}
		s.changed.Wait()
	}
}
