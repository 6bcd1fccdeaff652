package simulator

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"

	"github.com/snap-backup/snap/device/simulator/pairing"
)

// Memory is the state that a Simulator keeps between runs. It contains the private
// keys of simulated hosts.
type Memory struct {
	BUID    string            `json:"buid"`
	Records map[string][]byte `json:"records"` // pair records by UDID
}

// Memory returns the state to keep.
func (s *Simulator) Memory() Memory {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Memory{s.buid, maps.Clone(s.records)}
}

// Remember restores the state that Memory returned in an earlier run. Call it before
// Serve.
func (s *Simulator) Remember(m Memory) error {
	if m.BUID == "" {
		return errors.New("simulated usbmuxd: the saved state has no BUID")
	}
	s.mu.Lock()
	s.buid = m.BUID
	s.mu.Unlock()
	for udid, record := range m.Records {
		if err := s.SetPairRecord(udid, record); err != nil {
			return fmt.Errorf("simulated usbmuxd: %w", err)
		}
	}
	return nil
}

// DeviceMemory is the state that a device keeps between runs: its key and the trusted
// hosts.
type DeviceMemory struct {
	Key   []byte       `json:"key"` // PEM
	Hosts []HostMemory `json:"hosts"`
}

// HostMemory is a host that a device trusts.
type HostMemory struct {
	ID     string `json:"id"`
	BUID   string `json:"buid"`
	Device []byte `json:"device"` // certificate in DER, as are Host and Root
	Host   []byte `json:"host"`
	Root   []byte `json:"root"`
	Escrow []byte `json:"escrow"`
}

// Memory returns the state to keep.
func (d *Device) Memory() (DeviceMemory, error) {
	key, err := d.key()
	if err != nil {
		return DeviceMemory{}, err
	}
	m := DeviceMemory{Key: pairing.KeyPEM(key)}
	for _, h := range d.hosts.All() {
		m.Hosts = append(m.Hosts, HostMemory{h.ID, h.BUID, h.Certificates.Device, h.Certificates.Host, h.Certificates.Root, h.EscrowBag})
	}
	return m, nil
}

// Remember makes a new device trust the hosts of an earlier run. It does not set the
// device's key: set Spec.Key to m.PrivateKey() before.
func (d *Device) Remember(m DeviceMemory) error {
	for _, h := range m.Hosts {
		if err := d.hosts.Add(pairing.Host{ID: h.ID, BUID: h.BUID, Certificates: pairing.Certificates{Device: h.Device, Host: h.Host, Root: h.Root}, EscrowBag: h.Escrow}); err != nil {
			return err
		}
	}
	return nil
}

// PrivateKey returns the device's key, for Spec.Key.
func (m DeviceMemory) PrivateKey() (*rsa.PrivateKey, error) {
	block, _ := pem.Decode(m.Key)
	if block == nil {
		return nil, errors.New("simulated device: the saved key is not in PEM")
	}
	key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("simulated device: the saved key: %w", err)
	}
	return key, nil
}
