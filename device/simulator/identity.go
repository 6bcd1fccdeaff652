package simulator

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
	"time"

	"github.com/snap-backup/snap/device/protocol/plist"
)

// keyBits is the size of the keys of devices and hosts.
const keyBits = 2048

func newKey() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, keyBits) }

// publicKey returns lockdownd's DevicePublicKey: PKCS #1 in PEM.
func (d *Device) publicKey() ([]byte, error) {
	key, err := d.key()
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(&key.PublicKey)}), nil
}

// certificates are the certificates of a pairing, in DER.
type certificates struct{ device, host, root []byte }

// certify creates the certificates of a new host for a device's key, as a host
// does before it pairs. Host and root have the same key.
func certify(device *rsa.PublicKey, host *rsa.PrivateKey, now time.Time) (certificates, error) {
	template := func(ca bool) *x509.Certificate {
		// Random, so that certificates with the same key differ.
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
	var c certificates
	for _, part := range []struct {
		der *[]byte
		key *rsa.PublicKey
		ca  bool
	}{{&c.root, &host.PublicKey, true}, {&c.host, &host.PublicKey, false}, {&c.device, device, false}} {
		der, err := x509.CreateCertificate(rand.Reader, template(part.ca), template(true), part.key, host)
		if err != nil {
			return c, fmt.Errorf("certificate of a pairing: %w", err)
		}
		*part.der = der
	}
	return c, nil
}

func certificatePEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func keyPEM(key *rsa.PrivateKey) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
}

// pairWithNewHost creates a host that the device trusts, and returns its pair
// record.
func (d *Device) pairWithNewHost(buid string, hostKey *rsa.PrivateKey) ([]byte, error) {
	key, err := d.key()
	if err != nil {
		return nil, err
	}
	certs, err := certify(&key.PublicKey, hostKey, d.spec.Now())
	if err != nil {
		return nil, err
	}
	host := trustedHost{id: newUUID(), buid: buid, certs: certs, escrow: newEscrowBag()}
	if err := d.addHost(host); err != nil {
		return nil, err
	}
	return plist.EncodeXML(map[string]any{
		"HostID":            host.id,
		"SystemBUID":        buid,
		"HostCertificate":   certificatePEM(certs.host),
		"HostPrivateKey":    keyPEM(hostKey),
		"RootCertificate":   certificatePEM(certs.root),
		"RootPrivateKey":    keyPEM(hostKey),
		"DeviceCertificate": certificatePEM(certs.device),
		"EscrowBag":         host.escrow,
		"WiFiMACAddress":    d.spec.WiFiAddress,
	})
}

func newEscrowBag() []byte {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails
	return b
}

var errHostCertificate = errors.New("the host has a certificate of another pairing")

// tlsConfig returns the device's side of TLS with a host. The host may have the
// host's or the root's certificate of the pairing.
func (d *Device) tlsConfig(h trustedHost) (*tls.Config, error) {
	key, err := d.key()
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{h.certs.device}, PrivateKey: key}},
		ClientAuth:   tls.RequireAnyClientCert,
		MinVersion:   tls.VersionTLS10,
		MaxVersion:   d.tlsMax(),
		// A session ticket is not bound to the pairing.
		SessionTicketsDisabled: true,
		VerifyPeerCertificate: func(shown [][]byte, _ [][]*x509.Certificate) error {
			if len(shown) > 0 && (bytes.Equal(shown[0], h.certs.host) || bytes.Equal(shown[0], h.certs.root)) {
				return nil
			}
			d.Violate("TLS: %v", errHostCertificate)
			return errHostCertificate
		},
	}, nil
}
