package restserver

import (
	"net/http"
	"time"
)

// answer remembers what was sent, and cuts off clients that are too slow.
type answer struct {
	http.ResponseWriter
	pace           time.Duration
	status         int
	sent, received int64
}

// Unwrap lets [http.ResponseController] find the connection.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// WriteHeader implements [http.ResponseWriter].
func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
	a.ResponseWriter.WriteHeader(status)
}

// Write implements [http.ResponseWriter].
func (a *answer) Write(p []byte) (int, error) {
	if a.status == 0 {
		a.status = http.StatusOK
	}
	n, err := a.ResponseWriter.Write(p)
	a.sent += int64(n)
	return n, err
}

// begin ends the deadlines of the request before. If there is a body, the client must send the
// beginning of it in time, also if nobody reads it.
func (a *answer) begin(body bool) {
	conn := http.NewResponseController(a.ResponseWriter)
	_ = conn.SetWriteDeadline(time.Time{}) // not supported by all writers of tests
	if body {
		_ = conn.SetReadDeadline(time.Now().Add(a.pace))
	}
}

// hurry sets the time until which the client must have taken what is written next.
func (a *answer) hurry() {
	_ = http.NewResponseController(a.ResponseWriter).SetWriteDeadline(time.Now().Add(a.pace)) // not supported by all writers of tests
}

// send writes p piece by piece. The client must take each in time.
func (a *answer) send(p []byte) error {
	for {
		a.hurry()
		n, err := a.Write(p[:min(len(p), paceSize)])
		if p = p[n:]; err != nil || len(p) == 0 {
			return err
		}
	}
}
