package wire

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/snap-backup/snap/repo/backend"
)

// Error is an error whose text is for people. The errors that it wraps say what it means for
// callers.
type Error struct {
	Text string
	Is   []error
}

func (e *Error) Error() string   { return e.Text }
func (e *Error) Unwrap() []error { return e.Is }

// OutOfReach returns an error that says that a store is out of reach for now.
func OutOfReach(text string) error {
	return &backend.TemporaryError{Err: &Error{text, []error{backend.ErrOutOfReach}}}
}

// ConnectionError returns the error for an answer that did not come, or only in part. It
// wraps no io.EOF or io.ErrUnexpectedEOF: to callers, those are about a file that is too
// short.
func ConnectionError(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err
	}
	if why := untrusted(err); why != "" {
		return &Error{why, []error{err, backend.ErrOutOfReach}}
	}
	e := &Error{"the store does not answer: " + err.Error(), []error{err, backend.ErrOutOfReach}}
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		// The last is what a sender sees if a receiver has noticed the end first.
		e = &Error{"the store has closed the connection", []error{backend.ErrOutOfReach}}
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		// The caller's context goes on, so a limit of the connection has ended.
		e = &Error{"the store does not answer in time", []error{backend.ErrOutOfReach}}
	}
	return &backend.TemporaryError{Err: e}
}

// untrusted says why a server is not the one that was meant; "" if that is not the reason
// of err. Repeating does not help.
func untrusted(err error) string {
	var (
		unknown  x509.UnknownAuthorityError
		name     x509.HostnameError
		invalid  x509.CertificateInvalidError
		noServer tls.RecordHeaderError
		other    *FingerprintError
	)
	switch {
	case errors.As(err, &other):
		return other.Error() + " (compare it with that of the server; if they differ, somebody is between this computer and the server)"
	case errors.As(err, &unknown):
		return "the certificate of the store is signed by an unknown authority (name a file with the certificate of that authority)"
	case errors.As(err, &name):
		return "the certificate of the store is for another host: " + Clean(name.Error())
	case errors.As(err, &invalid):
		return "the certificate of the store is not valid: " + Clean(invalid.Error()) + " (check the clock of this computer)"
	case strings.Contains(err.Error(), "tls: certificate required"): // an alert of TLS 1.3
		return "the store asks for a certificate of this client (name files with it and its key)"
	case errors.As(err, &noServer), strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return "the store does not speak https on this port (check the port, or write http:// in the address)"
	}
	return ""
}

// IsNetwork reports whether err is about a connection.
func IsNetwork(err error) bool {
	_, ok := errors.AsType[net.Error](err)
	return ok
}

// maxRetryAfter bounds the wait that a store can ask for.
const maxRetryAfter = 5 * time.Minute

// RetryAfter returns the wait that a store asks for. Stores send seconds; a date would need
// equal clocks.
func RetryAfter(header string) time.Duration {
	n, err := strconv.ParseUint(strings.TrimSpace(header), 10, 31)
	if err != nil {
		return 0
	}
	return min(time.Duration(n)*time.Second, maxRetryAfter)
}

// Clean shortens text of a server, and removes what a terminal would obey.
func Clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > 300 {
		s = strings.ToValidUTF8(s[:300], "") + "…"
	}
	return s
}
