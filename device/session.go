package device

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"

	"github.com/snap-backup/snap/device/protocol/plist"
	"github.com/snap-backup/snap/device/protocol/stream"
)

// lockdownPort is lockdownd's port on every device.
const lockdownPort = 62078

// label is snap's name in requests.
const label = "snap"

// Session is a connection to lockdownd. Devices close idle sessions, so a Session
// must not be kept open during a backup. One goroutine may use it at a time.
type Session struct {
	mux    *Mux
	entry  Entry
	record *pairingRecord // nil: not paired
	conn   *stream.Conn
	id     string
	broken bool // the connection failed
}

// Session opens a session with a paired device. The error can be ErrNotPaired,
// ErrStalePairing, ErrLocked or another Refusal.
func (m *Mux) Session(ctx context.Context, e Entry) (*Session, error) {
	r, err := m.readRecord(ctx, e)
	if err != nil {
		return nil, fmt.Errorf("device %s: %w", e.UDID, err)
	}
	return m.sessionWith(ctx, e, r)
}

func (m *Mux) sessionWith(ctx context.Context, e Entry, r *pairingRecord) (*Session, error) {
	s, err := m.lockdown(ctx, e)
	if err != nil {
		return nil, err
	}
	s.record = r
	if err := s.start(ctx); err != nil {
		s.conn.Close()
		return nil, fmt.Errorf("device %s: %w", e.UDID, err)
	}
	return s, nil
}

// lockdown connects without a session. A device then sends only a few values,
// such as its name.
func (m *Mux) lockdown(ctx context.Context, e Entry) (*Session, error) {
	c, err := m.connect(ctx, e.Link(), lockdownPort)
	if err != nil {
		return nil, fmt.Errorf("device %s: %w", e.UDID, err)
	}
	return &Session{mux: m, entry: e, conn: stream.New(c)}, nil
}

func (s *Session) start(ctx context.Context) error {
	d, err := s.ask(ctx, "StartSession", map[string]any{"HostID": s.record.HostID, "SystemBUID": s.record.SystemBUID, "ProtocolVersion": "2"})
	if err != nil {
		return fmt.Errorf("start a session: %w", err)
	}
	s.id = d.String("SessionID")
	if !d.Bool("EnableSessionSSL") {
		return nil
	}
	t, err := secure(ctx, s.conn.Raw(), s.record)
	if err != nil {
		return fmt.Errorf("start a session: %w", err)
	}
	s.conn = stream.New(t)
	return nil
}

// ask sends a request and returns the answer. The error is a Refusal if the
// device refuses.
func (s *Session) ask(ctx context.Context, request string, fields map[string]any) (stream.Dict, error) {
	msg := map[string]any{"Label": label, "Request": request}
	for k, v := range fields {
		msg[k] = v
	}
	d, err := s.conn.Ask(ctx, msg)
	if err != nil {
		s.broken = true
		return nil, gone(err)
	}
	return checkReply(d, request)
}

// checkReply returns an error if d is a refusal or answers another request.
func checkReply(d stream.Dict, request string) (stream.Dict, error) {
	if code := d.String("Error"); code != "" {
		return d, refusal(code)
	}
	// Devices sometimes omit Request.
	if got := d.String("Request"); got != "" && got != request {
		return nil, fmt.Errorf("%w: the device did not answer %s but another request", plist.ErrFormat, request)
	}
	if e, ok := d["Error"]; ok {
		return nil, refusal(fmt.Sprintf("error of type %T", e))
	}
	return d, nil
}

// gone wraps an error in ErrGone if it means that the connection ended.
func gone(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		return fmt.Errorf("%w: %w", ErrGone, err)
	}
	return err
}

// Value returns a value of a domain; "" is the general domain. The error is
// ErrMissing if the device does not have the value.
func (s *Session) Value(ctx context.Context, domain, key string) (any, error) {
	d, err := s.get(ctx, domain, key)
	if err == nil && !d.Has("Value") {
		err = ErrMissing
	}
	if err != nil {
		return nil, fmt.Errorf("get %s %s: %w", domain, key, err)
	}
	return d["Value"], nil
}

// Values returns all values of a domain.
func (s *Session) Values(ctx context.Context, domain string) (stream.Dict, error) {
	d, err := s.get(ctx, domain, "")
	if err != nil {
		return nil, fmt.Errorf("get all values of %q: %w", domain, err)
	}
	return d.Dict("Value"), nil
}

func (s *Session) get(ctx context.Context, domain, key string) (stream.Dict, error) {
	fields := map[string]any{}
	if domain != "" {
		fields["Domain"] = domain
	}
	if key != "" {
		fields["Key"] = key
	}
	return s.ask(ctx, "GetValue", fields)
}

// SetValue changes a value of the device.
func (s *Session) SetValue(ctx context.Context, domain, key string, value any) error {
	_, err := s.ask(ctx, "SetValue", map[string]any{"Domain": domain, "Key": key, "Value": value})
	if err != nil {
		return fmt.Errorf("set %s %s: %w", domain, key, err)
	}
	return nil
}

// StartService starts a service and connects to it, with TLS if the device asks
// for it. With escrow, some services, such as mobilebackup2, start even while the
// screen is locked. The device must have been unlocked once since it was switched
// on.
func (s *Session) StartService(ctx context.Context, name string, escrow bool) (net.Conn, error) {
	c, err := s.startService(ctx, name, escrow)
	if err != nil {
		return nil, fmt.Errorf("device %s: start %s: %w", s.entry.UDID, name, err)
	}
	return c, nil
}

func (s *Session) startService(ctx context.Context, name string, escrow bool) (net.Conn, error) {
	fields := map[string]any{"Service": name}
	if escrow && s.record != nil && len(s.record.EscrowBag) > 0 {
		fields["EscrowBag"] = s.record.EscrowBag
	}
	d, err := s.ask(ctx, "StartService", fields)
	if err != nil {
		return nil, err
	}
	port, ok := d.Int("Port")
	if !ok || port < 1 || port > 65535 {
		return nil, fmt.Errorf("%w: the device sent port %v", plist.ErrFormat, d["Port"])
	}
	c, err := s.mux.connect(ctx, s.entry.Link(), uint16(port))
	if err != nil || !d.Bool("EnableServiceSSL") {
		return c, err
	}
	if s.record == nil {
		c.Close()
		return nil, ErrNotPaired
	}
	t, err := secure(ctx, c, s.record)
	if err != nil {
		c.Close()
		return nil, err
	}
	if err := t.SetDeadline(time.Time{}); err != nil {
		c.Close()
		return nil, err
	}
	return t, nil
}

// goodbyeTimeout is how long Close waits for the device.
const goodbyeTimeout = 2 * time.Second

// Close ends the session. It may be called after a failure and after the context
// of the session ended.
func (s *Session) Close() error {
	if s.id != "" && !s.broken {
		ctx, cancel := context.WithTimeout(context.Background(), goodbyeTimeout)
		defer cancel()
		// Closing the connection ends the session as well.
		_, _ = s.ask(ctx, "StopSession", map[string]any{"SessionID": s.id})
		s.id = ""
	}
	return s.conn.Close()
}

// Service opens a session, starts a service, and ends the session.
func (m *Mux) Service(ctx context.Context, e Entry, name string, escrow bool) (net.Conn, error) {
	s, err := m.Session(ctx, e)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	return s.StartService(ctx, name, escrow)
}
