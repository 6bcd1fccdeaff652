package simulator

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Memory is what a mux keeps from one run to the next. It holds the private keys
// of simulated hosts.
type Memory struct {
	BUID    string            `json:"buid"`
	Records map[string][]byte `json:"records"` // pair records by UDID
}

// Memory returns what there is to keep.
func (s *Simulator) Memory() Memory {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Memory{s.buid, maps.Clone(s.records)}
}

// Remember makes a new mux know what another one has kept. It comes before
// Serve.
func (s *Simulator) Remember(m Memory) error {
	if m.BUID == "" {
		return errors.New("simulated usbmuxd: what was kept names no host")
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

// DeviceMemory is what a device keeps from one run to the next: its key, and the
// hosts that it trusts.
type DeviceMemory struct {
	Key   []byte       `json:"key"` // PEM
	Hosts []HostMemory `json:"hosts"`
}

// HostMemory is a host that a device trusts.
type HostMemory struct {
	ID     string `json:"id"`
	BUID   string `json:"buid"`
	Device []byte `json:"device"` // certificates, DER
	Host   []byte `json:"host"`
	Root   []byte `json:"root"`
	Escrow []byte `json:"escrow"`
}

// Memory returns what there is to keep.
func (d *Device) Memory() (DeviceMemory, error) {
	key, err := d.key()
	if err != nil {
		return DeviceMemory{}, err
	}
	m := DeviceMemory{Key: keyPEM(key)}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, h := range d.trust.hosts {
		m.Hosts = append(m.Hosts, HostMemory{h.id, h.buid, h.certs.device, h.certs.host, h.certs.root, h.escrow})
	}
	slices.SortFunc(m.Hosts, func(a, b HostMemory) int { return strings.Compare(a.ID, b.ID) })
	return m, nil
}

// Remember makes a new device trust the hosts of another run. The key is that of
// its Spec; see DeviceMemory.PrivateKey.
func (d *Device) Remember(m DeviceMemory) error {
	for _, h := range m.Hosts {
		if err := d.addHost(trustedHost{h.ID, h.BUID, certificates{h.Device, h.Host, h.Root}, h.Escrow}); err != nil {
			return err
		}
	}
	return nil
}

// PrivateKey returns the device's key, for Spec.
func (m DeviceMemory) PrivateKey() (*rsa.PrivateKey, error) {
	block, _ := pem.Decode(m.Key)
	if block == nil {
		return nil, errors.New("simulated device: the key that was kept is not in PEM")
	}
	key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("simulated device: the key that was kept: %w", err)
	}
	return key, nil
}
