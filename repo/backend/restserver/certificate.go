package restserver

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// OwnCertificate returns the certificate in a file that has its key, too. If the file does
// not exist, it makes a certificate that signs itself and is valid for 20 years: clients know
// it by its fingerprint.
func OwnCertificate(path string, hosts []string, now time.Time) (tls.Certificate, error) {
	both, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		if both, err = makeCertificate(hosts, now); err == nil {
			err = writePrivate(path, both)
		}
		if errors.Is(err, os.ErrExist) { // another server was faster
			both, err = os.ReadFile(path)
		}
	}
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("the certificate of this server: %w", err)
	}
	c, err := tls.X509KeyPair(both, both)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// writePrivate writes a new file that only its owner can read. It appears complete.
func writePrivate(path string, b []byte) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	temp, err := writeTemp(dir, b, nil)
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(temp) }() // it is gone after a rename
	if err := os.Link(temp, path); err == nil || errors.Is(err, os.ErrExist) {
		return err
	}
	return os.Rename(temp, path) // a file system without links
}

// makeCertificate makes a certificate and its key, in PEM.
func makeCertificate(hosts []string, now time.Time) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	c := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "snap serve"},
		NotBefore:    now.Add(-24 * time.Hour), // for clients whose clock is behind
		NotAfter:     now.AddDate(20, 0, 0),
		KeyUsage:     x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IsCA:         true, BasicConstraintsValid: true, // so that clients can name it as the authority that they trust
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			c.IPAddresses = append(c.IPAddresses, ip)
		} else if h != "" {
			c.DNSNames = append(c.DNSNames, h)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	for _, b := range []*pem.Block{{Type: "CERTIFICATE", Bytes: der}, {Type: "PRIVATE KEY", Bytes: private}} {
		if err := pem.Encode(&out, b); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), nil
}

// Fingerprint returns the SHA-256 of a certificate in its binary form, in hex.
func Fingerprint(c tls.Certificate) string {
	sum := sha256.Sum256(c.Certificate[0])
	return hex.EncodeToString(sum[:])
}

// CertificateFiles gives the certificate of two files to TLS. It reads them again when they
// change: programs renew certificates.
type CertificateFiles struct {
	cert, key string
	warn      func(error)

	mu     sync.Mutex
	stamps [2]stamp
	now    tls.Certificate
}

// OpenCertificate reads a certificate and its key. warn is called if they cannot be used
// later; the certificate from before then stays.
func OpenCertificate(cert, key string, warn func(error)) (*CertificateFiles, error) {
	c := &CertificateFiles{cert: cert, key: key, warn: warn}
	return c, c.read()
}

func (c *CertificateFiles) read() error {
	var stamps [2]stamp
	for i, name := range []string{c.cert, c.key} {
		info, err := os.Stat(name)
		if err != nil {
			return err
		}
		stamps[i] = stamp{info.Size(), info.ModTime()}
	}
	if stamps == c.stamps {
		return nil
	}
	c.stamps = stamps // files with mistakes are not read again until they change
	now, err := tls.LoadX509KeyPair(c.cert, c.key)
	if err != nil {
		return fmt.Errorf("%s and %s: %w", c.cert, c.key, err)
	}
	c.now = now
	return nil
}

// Get is for [tls.Config.GetCertificate].
func (c *CertificateFiles) Get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.read(); err != nil {
		c.warn(fmt.Errorf("the certificate stays as it was: %w", err))
	}
	now := c.now
	return &now, nil
}
