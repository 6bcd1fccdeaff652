// Package wire sends requests to stores that speak HTTP, and says what goes wrong on the way.
// The packages of such stores share it: [NewTransport] makes the connections, [Client]
// reads files and listings, and [ConnectionError] classifies what is no answer.
//
// It does not know the protocol of any store: its users say which answers are those of
// their server, and what refusals mean. It repeats nothing.
package wire

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/snap-backup/snap/repo/backend/limit"
)

const (
	// DialTimeout is how long making a connection may take.
	DialTimeout = 30 * time.Second

	defaultConnections = 5
	defaultStall       = 5 * time.Minute
)

// TransportOptions are the settings of connections. The zero value has the defaults.
type TransportOptions struct {
	// CAFile is a file with certificates, in PEM, of authorities that are trusted besides
	// those of the system.
	CAFile string
	// Fingerprint is the SHA-256 of the certificate of the server, in hex. If it is set,
	// that certificate is trusted, and no other.
	Fingerprint string
	// ClientCert and ClientKey are files with a certificate and its key, in PEM, by which
	// the server knows this client.
	ClientCert, ClientKey string
	// Connections is the maximum number of connections. 0 means 5, as in restic: more
	// seldom help, and disturb others on a line of a home.
	Connections int
	// Stall is how long no byte may move on a connection during a request. 0 means 5
	// minutes, as in restic: a system may hold several megabytes that were sent, which
	// take minutes on a slow line.
	Stall time.Duration
	// Limits are those of all connections of the process; nil for none.
	Limits *limit.Limits
}

// NewTransport returns a transport of HTTP/1.1 that does not change the bytes of files.
func NewTransport(o TransportOptions) (*http.Transport, error) {
	connections := cmp.Or(max(0, o.Connections), defaultConnections)
	dialer := &net.Dialer{Timeout: DialTimeout, KeepAlive: DialTimeout}
	stall := cmp.Or(max(0, o.Stall), defaultStall)
	config, err := o.tls()
	if err != nil {
		return nil, err
	}
	handshake := DialTimeout
	if o.Limits != nil {
		handshake = stall // with several connections, a low limit makes certificates slow
	}
	return &http.Transport{
		Proxy: http.ProxyFromEnvironment,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return o.Limits.Conn(&stallConn{conn, stall}), nil // time that a limit costs is no stall
		},
		MaxConnsPerHost:     connections,
		MaxIdleConnsPerHost: connections,
		IdleConnTimeout:     time.Minute,
		TLSHandshakeTimeout: handshake,
		DisableCompression:  true, // the bytes are those of the file
		TLSClientConfig:     config,
	}, nil
}

func (o TransportOptions) tls() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.CAFile != "" {
		pem, err := os.ReadFile(o.CAFile)
		if err != nil {
			return nil, fmt.Errorf("certificates of authorities: %w", err)
		}
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool() // not every system has one
		}
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s has no certificate in PEM", o.CAFile)
		}
		config.RootCAs = pool
	}
	if o.Fingerprint != "" {
		want, err := ParseFingerprint(o.Fingerprint)
		if err != nil {
			return nil, err
		}
		// The fingerprint takes the place of authorities, names and dates.
		config.InsecureSkipVerify = true
		config.VerifyConnection = func(s tls.ConnectionState) error { return checkFingerprint(s, want) }
	}
	if (o.ClientCert == "") != (o.ClientKey == "") {
		return nil, errors.New("a certificate of this client and its key are only of use together")
	}
	if o.ClientCert != "" {
		pair, err := tls.LoadX509KeyPair(o.ClientCert, o.ClientKey)
		if err != nil {
			return nil, fmt.Errorf("certificate of this client: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// ParseFingerprint reads the SHA-256 of a certificate: 64 hex digits, with or without colons.
func ParseFingerprint(s string) ([]byte, error) {
	b, err := hex.DecodeString(strings.ReplaceAll(s, ":", ""))
	if err != nil || len(b) != sha256.Size {
		return nil, errors.New("a fingerprint is the SHA-256 of a certificate: 64 hex digits, with or without colons")
	}
	return b, nil
}

// FingerprintError says that a server has another certificate than was expected.
type FingerprintError struct{ Got string }

func (e *FingerprintError) Error() string {
	return "the certificate of the server is another one: its fingerprint is " + e.Got
}

func checkFingerprint(s tls.ConnectionState, want []byte) error {
	if len(s.PeerCertificates) == 0 {
		return errors.New("the server has no certificate")
	}
	got := sha256.Sum256(s.PeerCertificates[0].Raw)
	if subtle.ConstantTimeCompare(got[:], want) != 1 {
		return &FingerprintError{hex.EncodeToString(got[:])}
	}
	return nil
}

// stallConn is a connection on which each byte extends the deadline. Deadlines apply to
// calls that are running: what is sent also extends the wait for an answer.
type stallConn struct {
	net.Conn
	stall time.Duration
}

func (c *stallConn) Read(p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(c.stall)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

func (c *stallConn) Write(p []byte) (int, error) {
	if err := c.SetDeadline(time.Now().Add(c.stall)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}
