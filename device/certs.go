package device

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"strings"
)

// keyBits is the size of the keys of a pairing that all devices accept.
const keyBits = 2048

// newRecord makes the keys and certificates of a pairing: an authority, which
// signs a certificate for this computer and a certificate for the device's
// public key. The device sends the escrow bag later.
func newRecord(devicePublicKey []byte, opt PairOptions) (*pairingRecord, error) {
	device, err := parsePublicKey(devicePublicKey)
	if err != nil {
		return nil, err
	}
	root, err := rsa.GenerateKey(opt.Random, opt.KeyBits)
	if err != nil {
		return nil, err
	}
	host, err := rsa.GenerateKey(opt.Random, opt.KeyBits)
	if err != nil {
		return nil, err
	}
	id, err := newID(opt.Random)
	if err != nil {
		return nil, err
	}
	template := func(ca bool) *x509.Certificate {
		c := &x509.Certificate{
			SerialNumber: big.NewInt(1),
			// A device whose clock is slow must accept the certificate, too.
			NotBefore: opt.Now.AddDate(0, 0, -1), NotAfter: opt.Now.AddDate(10, 0, 0),
			SignatureAlgorithm: x509.SHA256WithRSA, BasicConstraintsValid: true, IsCA: ca,
			KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		}
		if ca {
			c.KeyUsage = x509.KeyUsageCertSign
		}
		return c
	}
	r := &pairingRecord{HostID: id, RootPrivateKey: pemKey(root), HostPrivateKey: pemKey(host)}
	ca := template(true)
	for _, c := range []struct {
		to  *[]byte
		of  *x509.Certificate
		key *rsa.PublicKey
	}{
		{&r.RootCertificate, ca, &root.PublicKey}, {&r.HostCertificate, template(false), &host.PublicKey}, {&r.DeviceCertificate, template(false), device},
	} {
		der, err := x509.CreateCertificate(opt.Random, c.of, ca, c.key, root)
		if err != nil {
			return nil, fmt.Errorf("make a certificate: %w", err)
		}
		*c.to = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	}
	return r, nil
}

var errDeviceKey = errors.New("the device sent no usable public key")

func parsePublicKey(b []byte) (*rsa.PublicKey, error) {
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, errDeviceKey
	}
	key, err := x509.ParsePKCS1PublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errDeviceKey, err)
	}
	if n := key.N.BitLen(); n < 1024 || n > 8192 {
		return nil, fmt.Errorf("%w: it has %d bits", errDeviceKey, n)
	}
	return key, nil
}

func pemKey(k *rsa.PrivateKey) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(k)})
}

// newID makes a random UUID in capitals.
func newID(random io.Reader) (string, error) {
	var b [16]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return "", fmt.Errorf("make an ID: %w", err)
	}
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return strings.ToUpper(fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])), nil
}
