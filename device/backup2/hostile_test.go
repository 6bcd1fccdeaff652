package backup2

import (
	"io"
	"net"
	"time"
)

// replay is a connection on which the device has said everything already.
type replay struct {
	net.Conn
	r io.Reader
	w io.Writer
}

func (r *replay) Read(b []byte) (int, error) { return r.r.Read(b) }
func (r *replay) Write(b []byte) (int, error) {
	if r.w == nil {
		return len(b), nil
	}
	return r.w.Write(b)
}
func (r *replay) Close() error                     { return nil }
func (r *replay) SetReadDeadline(time.Time) error  { return nil }
func (r *replay) SetWriteDeadline(time.Time) error { return nil }
