package device

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"

	"github.com/danielpaulus/go-ios/ios"
	"github.com/snap-backup/snap/device/protocol/stream"
)

// secure wraps a stream to a device in TLS, with the certificate of the pair
// record. Neither side has a name to verify: the device shows that it knows
// this computer by the host ID, and this computer that it is the one by its
// key. Devices up to iOS 9 know TLS 1.0 only, and exchange keys by RSA.
func secure(ctx context.Context, c net.Conn, r *ios.PairRecord) (net.Conn, error) {
	cert, err := tls.X509KeyPair(r.HostCertificate, r.HostPrivateKey)
	if err != nil {
		return nil, fmt.Errorf("%w: the certificate of its pair record is damaged: %w", ErrStalePairing, err)
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

// cipherSuites are Go's, and after them the old ones with AES.
func cipherSuites() []uint16 {
	var out []uint16
	for _, s := range tls.CipherSuites() {
		out = append(out, s.ID)
	}
	return append(out, tls.TLS_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_RSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_RSA_WITH_AES_128_CBC_SHA, tls.TLS_RSA_WITH_AES_256_CBC_SHA)
}
