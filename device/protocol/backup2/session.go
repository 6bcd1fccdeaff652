package backup2

import (
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/snap-backup/snap/device/protocol/devicelink"
)

// Options are the limits of a session. Zero means the default.
type Options struct {
	// Idle limits the wait for a request: the device prepares for minutes, and
	// waits for its passcode for up to half an hour. Default 40 minutes.
	Idle time.Duration
	// Busy limits the wait for more of a message or file. Default 5 minutes.
	Busy time.Duration
	// Write limits the wait until the device accepts what is sent. Default 5
	// minutes.
	Write time.Duration
	// Greeting limits the exchange of greetings. Default 1 minute.
	Greeting time.Duration
	// Grace is how long the current request may take after the context ended. Then
	// the connection is closed. Default 5 seconds.
	Grace time.Duration
	// MaxMessage is the longest request, in bytes. Default 16 MiB: enough for a
	// list of half a million names.
	MaxMessage int
	// Bytes formats a number of bytes for people. If nil, all digits are shown.
	Bytes func(int64) string
}

func (o *Options) bytes(n int64) string {
	if o.Bytes == nil {
		return fmt.Sprintf("%d bytes", n)
	}
	return o.Bytes(n)
}

// byteCount matches a number of bytes in a device's text.
var byteCount = regexp.MustCompile(`\b([0-9]{6,18})( bytes)?\b`)

// inUnits formats the large numbers in a device's text about bytes.
func (o *Options) inUnits(text string) string {
	if o.Bytes == nil || !strings.Contains(text, "bytes") {
		return text
	}
	return byteCount.ReplaceAllStringFunc(text, func(s string) string {
		n, err := strconv.ParseInt(strings.TrimSuffix(s, " bytes"), 10, 64)
		if err != nil {
			return s
		}
		return o.Bytes(n)
	})
}

func (o *Options) fill() {
	for _, d := range []struct {
		of     *time.Duration
		normal time.Duration
	}{{&o.Idle, 40 * time.Minute}, {&o.Busy, 5 * time.Minute}, {&o.Write, 5 * time.Minute}, {&o.Greeting, time.Minute}, {&o.Grace, 5 * time.Second}} {
		if *d.of <= 0 {
			*d.of = d.normal
		}
	}
	if o.MaxMessage <= 0 {
		o.MaxMessage = 16 << 20
	}
}

// goodbye limits how long the last message may take.
const goodbye = 2 * time.Second

// Session is a connection to the backup service of a device. One goroutine may use
// it at a time.
type Session struct {
	conn     *interruptConn
	link     *devicelink.Conn
	o        Options
	unusable bool
}

// Dial greets the backup service at the other end of conn. The session owns conn
// from now on; Dial closes it on failure.
func Dial(ctx context.Context, conn net.Conn, o Options) (*Session, error) {
	s := newSession(conn, o)
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	err := s.greet()
	if !stop() {
		err = cancelled(ctx)
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("greet the device's backup service: %w", err)
	}
	return s, nil
}

func newSession(conn net.Conn, o Options) *Session {
	o.fill()
	c := &interruptConn{Conn: conn}
	return &Session{conn: c, o: o, link: devicelink.New(c, devicelink.Options{
		Idle: o.Idle, Busy: o.Busy, Write: o.Write, MaxMessage: o.MaxMessage,
	})}
}

func (s *Session) greet() error {
	s.conn.setLimit(s.o.Greeting)
	defer s.conn.setLimit(0)
	if _, err := s.link.AcceptVersion(); err != nil {
		return linkError(err)
	}
	if err := s.send("Hello", map[string]any{"SupportedProtocolVersions": []float64{2.0, 2.1}}); err != nil {
		return linkError(err)
	}
	m, err := s.link.ReadMessage()
	if err != nil {
		return linkError(err)
	}
	r, ok, err := readResponse(m)
	switch {
	case err != nil:
		return err
	case !ok:
		return protocolError("%q instead of an answer to the greeting", printable(m.Name()))
	case r.code == 1:
		return fmt.Errorf("%w: the device speaks another version of the backup protocol", ErrIncompatible)
	case r.code != 0:
		return &DeviceError{Code: r.code, Description: r.description}
	}
	return nil
}

// send sends a request.
func (s *Session) send(name string, fields map[string]any) error {
	fields["MessageName"] = name
	return s.link.WriteMessage(devicelink.ProcessMessage, fields)
}

// Close sends a goodbye if possible, and closes the connection.
func (s *Session) Close() error {
	s.conn.setLimit(goodbye)
	if !s.unusable {
		s.unusable = true
		s.link.Disconnect() // best effort
	}
	if err := s.link.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// abandon closes the connection after err. It says goodbye first, unless the
// connection is lost.
func (s *Session) abandon(err error) {
	s.conn.setLimit(goodbye)
	if !errors.Is(err, ErrLinkLost) {
		s.link.Disconnect() // best effort
	}
	s.unusable = true
	s.link.Close()
}

// response is the device's result of an operation.
type response struct {
	code        int64
	description string
}

// readResponse reads the response m. It returns false if m is another message.
func readResponse(m devicelink.Message) (response, bool, error) {
	fields, ok := m.Dict(1)
	if name, _ := fields["MessageName"].(string); !ok || m.Name() != devicelink.ProcessMessage || name != "Response" {
		return response{}, false, nil
	}
	code, ok := devicelink.Int(fields["ErrorCode"])
	if !ok {
		return response{}, true, protocolError("a response without ErrorCode")
	}
	description, _ := fields["ErrorDescription"].(string)
	return response{code, printable(description)}, true, nil
}

// guard ends the session when ctx ends. A session that waits for the device's next
// request wakes at once; otherwise it has Grace to finish the current request.
// work is the context of calls to the Folder. The caller must call end.
func (s *Session) guard(ctx context.Context) (work context.Context, end func()) {
	work, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	s.conn.stopOn(ctx.Done())
	done, finished := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(finished)
		select {
		case <-done:
			return
		case <-ctx.Done():
		}
		s.conn.interrupt()
		t := time.NewTimer(s.o.Grace)
		defer t.Stop()
		select {
		case <-done:
		case <-t.C:
			cancel(context.Cause(ctx))
			s.link.Close()
		}
	}()
	return work, func() {
		close(done)
		<-finished
		cancel(context.Canceled)
	}
}
