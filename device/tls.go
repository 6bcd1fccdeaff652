package device

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"

	"github.com/snap-backup/snap/device/protocol/stream"
)

// secure wraps a connection to a device in TLS, with the certificate of the
// pairing record. The certificates have no names that could be verified. The
// host ID shows that the device knows this computer, and the private key
// proves this computer's identity. Devices up to iOS 9 use TLS 1.0 and
// exchange keys by RSA.
func secure(ctx context.Context, c net.Conn, r *pairingRecord) (net.Conn, error) {
	cert, err := tls.X509KeyPair(r.HostCertificate, r.HostPrivateKey)
	if err != nil {
		return nil, fmt.Errorf("%w: the certificate of its pairing record is damaged: %w", ErrStalePairing, err)
	}
	t := tls.Client(c, &tls.Config{
		Certificates:       []tls.Certificate{cert},
		InsecureSkipVerify: true,
		MinVersion:         tls.VersionTLS10,
		CipherSuites:       cipherSuites(),
	})
	if err := stream.Do(ctx, c, stream.Timeout, func() error { return t.HandshakeContext(ctx) }); err != nil {
		return nil, fmt.Errorf("encrypt the connection: %w", err)
	}
	return t, nil
}

// cipherSuites returns Go's cipher suites, followed by old ones with AES.
func cipherSuites() []uint16 {
	var out []uint16
	for _, s := range tls.CipherSuites() {
		out = append(out, s.ID)
	}
	return append(out, tls.TLS_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_RSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_RSA_WITH_AES_128_CBC_SHA, tls.TLS_RSA_WITH_AES_256_CBC_SHA)
}
