package pairing

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"sync"
	"time"

	"github.com/snap-backup/snap/device/protocol/plist"
)

// The sizes of keys in bits. Real devices and hosts have keys of keyBits. A key of
// quickBits takes a tenth of the time to make, and a fifth to sign with.
const (
	keyBits   = 2048
	quickBits = 1024
)

// Key returns the key of all devices and hosts of this process. They share one, because
// making a key takes long. Hosts tell devices apart by their UDIDs.
var Key = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, keyBits) })

// QuickKey returns a smaller key, for devices without TLS and for tests. Other programs may
// refuse it.
var QuickKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, quickBits) })

// PublicKey returns lockdownd's value DevicePublicKey: the key as PKCS #1 in PEM.
func (s *Hosts) PublicKey() ([]byte, error) {
	key, err := s.key()
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(&key.PublicKey)}), nil
}

// Certificates are the certificates of a pairing, in DER.
type Certificates struct{ Device, Host, Root []byte }

// Certify creates the certificates of a new pairing from the device's and the host's
// key. A host does this before it pairs. The host's and the root certificate have the
// same key.
func Certify(device *rsa.PublicKey, host *rsa.PrivateKey, now time.Time) (Certificates, error) {
	template := func(ca bool) *x509.Certificate {
		// The serial number is random, so that certificates with the same key differ.
		serial := new(big.Int).SetBytes(newEscrowBag()[:16])
		t := &x509.Certificate{
			SerialNumber:          serial,
			Subject:               pkix.Name{},
			NotBefore:             now.Add(-time.Hour),
			NotAfter:              now.AddDate(10, 0, 0),
			BasicConstraintsValid: true,
			IsCA:                  ca,
			KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		}
		if ca {
			t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
		}
		return t
	}
	var c Certificates
	for _, part := range []struct {
		der *[]byte
		key *rsa.PublicKey
		ca  bool
	}{{&c.Root, &host.PublicKey, true}, {&c.Host, &host.PublicKey, false}, {&c.Device, device, false}} {
		der, err := x509.CreateCertificate(rand.Reader, template(part.ca), template(true), part.key, host)
		if err != nil {
			return c, fmt.Errorf("certificate of a pairing: %w", err)
		}
		*part.der = der
	}
	return c, nil
}

// CertificatePEM encodes a certificate.
func CertificatePEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// KeyPEM encodes a key.
func KeyPEM(key *rsa.PrivateKey) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
}

// PairNew creates a host with the device's key, makes the device trust it, and returns its
// pair record.
func (s *Hosts) PairNew(buid, wifi string, now time.Time) ([]byte, error) {
	key, err := s.key()
	if err != nil {
		return nil, err
	}
	certs, err := Certify(&key.PublicKey, key, now)
	if err != nil {
		return nil, err
	}
	host := Host{ID: NewID(), BUID: buid, Certificates: certs, EscrowBag: newEscrowBag()}
	if err := s.Add(host); err != nil {
		return nil, err
	}
	return plist.EncodeXML(map[string]any{
		"HostID":            host.ID,
		"SystemBUID":        buid,
		"HostCertificate":   CertificatePEM(certs.Host),
		"HostPrivateKey":    KeyPEM(key),
		"RootCertificate":   CertificatePEM(certs.Root),
		"RootPrivateKey":    KeyPEM(key),
		"DeviceCertificate": CertificatePEM(certs.Device),
		"EscrowBag":         host.EscrowBag,
		"WiFiMACAddress":    wifi,
	})
}

func newEscrowBag() []byte {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails
	return b
}

// ErrHostCertificate means that a host uses the certificate of another pairing.
var ErrHostCertificate = errors.New("the host has a certificate of another pairing")

// TLS returns the device's configuration for TLS with a host. version is the newest
// version of TLS to use. The host may present the host's or the root certificate of
// the pairing.
func (s *Hosts) TLS(h Host, version uint16) (*tls.Config, error) {
	key, err := s.key()
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{h.Certificates.Device}, PrivateKey: key}},
		ClientAuth:   tls.RequireAnyClientCert,
		MinVersion:   tls.VersionTLS10,
		MaxVersion:   version,
		// Session tickets are not bound to the pairing, so the device gives none.
		SessionTicketsDisabled: true,
		VerifyPeerCertificate: func(shown [][]byte, _ [][]*x509.Certificate) error {
			if len(shown) > 0 && (bytes.Equal(shown[0], h.Certificates.Host) || bytes.Equal(shown[0], h.Certificates.Root)) {
				return nil
			}
			s.violate("TLS: %v", ErrHostCertificate)
			return ErrHostCertificate
		},
	}, nil
}
