package simulator

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

// Trust is a device's answer to a host that pairs.
type Trust int

const (
	TrustAsk    Trust = iota // asks its owner, see AnswerTrust
	TrustAlways              // the owner taps "Trust" at once
	TrustNever               // the owner taps "Don't Trust" at once
)

// maxHosts bounds how many hosts a device trusts.
const maxHosts = 64

// trustedHost is a paired host.
type trustedHost struct {
	id, buid string
	certs    certificates
	escrow   []byte
}

// trustState is the trusted hosts and the state of the dialog.
type trustState struct {
	policy  Trust
	hosts   map[string]trustedHost
	showing bool   // the dialog
	answer  *bool  // what the owner tapped
	told    string // the host that was refused
}

// Errors of lockdownd.
const (
	errInvalidHostID     = "InvalidHostID"
	errPasswordProtected = "PasswordProtected"
	errDialogPending     = "PairingDialogResponsePending"
	errUserDenied        = "UserDeniedPairing"
	errManaged           = "MCProtected"
	errNotHere           = "PairingProhibitedOverThisConnection"
	errInvalidPairRecord = "InvalidPairRecord"
)

// SetTrust sets the answer to hosts that pair. Trusted hosts stay trusted.
func (d *Device) SetTrust(t Trust) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.trust.policy, d.trust.answer = t, nil
}

// SetManaged sets whether a profile forbids pairing with further hosts.
func (d *Device) SetManaged(managed bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.spec.Managed = managed
}

// TrustDialog reports whether the device shows the Trust dialog.
func (d *Device) TrustDialog() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.trust.showing
}

// AnswerTrust taps "Trust" or "Don't Trust" for the host that asks next. A refusal
// holds for that host until the device is attached again. Another host, or one
// with a new identifier, makes the device ask again.
func (d *Device) AnswerTrust(yes bool) {
	d.mu.Lock()
	d.trust.answer, d.trust.showing, d.trust.told = &yes, false, ""
	d.mu.Unlock()
	d.Log("trust", "answer", fmt.Sprint(yes))
}

// ForgetHosts removes all trusted hosts, as a reset of the settings does.
func (d *Device) ForgetHosts() {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.trust.hosts)
	d.trust.answer = nil
}

// reconnected drops a refusal when a cable is plugged in.
func (d *Device) reconnected() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.trust.answer != nil && !*d.trust.answer {
		d.trust.answer = nil
	}
}

func (d *Device) host(id string) (trustedHost, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	h, ok := d.trust.hosts[id]
	return h, ok
}

var errHosts = errors.New("the device trusts too many hosts")

func (d *Device) addHost(h trustedHost) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.trust.hosts[h.id]; !ok && len(d.trust.hosts) >= maxHosts {
		return errHosts
	}
	d.trust.answer = nil
	d.trust.hosts[h.id] = h
	return nil
}

// mayPair returns the error for a host that pairs, "" if it may.
func (d *Device) mayPair(hostID string, over Transport) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := &d.trust
	_, known := t.hosts[hostID]
	switch {
	case over == Network:
		return errNotHere
	case d.spec.Managed && !known:
		return errManaged
	case d.lock.state != Unlocked:
		return errPasswordProtected
	case known || t.policy == TrustAlways:
		return ""
	case t.policy == TrustNever:
		return errUserDenied
	case t.answer != nil && *t.answer:
		t.answer = nil // it is for one host
		return ""
	case t.answer != nil && (t.told == "" || t.told == hostID):
		t.told = hostID
		return errUserDenied
	}
	t.answer, t.showing = nil, true
	return errDialogPending
}

// pair answers the request Pair.
func (d *Device) pair(request map[string]any, over Transport) map[string]any {
	record, ok := request["PairRecord"].(map[string]any)
	if !ok {
		d.Violate("Pair without a PairRecord")
		return fault(errInvalidPairRecord)
	}
	host, err := d.readPairRecord(record)
	if err != nil {
		d.Violate("Pair: %v", err)
		return fault(errInvalidPairRecord)
	}
	if refusal := d.mayPair(host.id, over); refusal != "" {
		return fault(refusal)
	}
	if before, ok := d.host(host.id); ok {
		host.escrow = before.escrow
	}
	if err := d.addHost(host); err != nil {
		return fault(errInvalidPairRecord)
	}
	d.Log("trust", "paired", host.id)
	return map[string]any{"EscrowBag": host.escrow}
}

// readPairRecord checks the pair record of a host.
func (d *Device) readPairRecord(record map[string]any) (trustedHost, error) {
	h := trustedHost{escrow: newEscrowBag()}
	h.id, _ = record["HostID"].(string)
	h.buid, _ = record["SystemBUID"].(string)
	if h.id == "" || len(h.id) > 256 || len(h.buid) > 256 {
		return h, errors.New("no HostID")
	}
	key, err := d.key()
	if err != nil {
		return h, err
	}
	for name, der := range map[string]*[]byte{
		"DeviceCertificate": &h.certs.device, "HostCertificate": &h.certs.host, "RootCertificate": &h.certs.root,
	} {
		data, _ := record[name].([]byte)
		block, _ := pem.Decode(data)
		if block == nil {
			return h, fmt.Errorf("%s is not in PEM", name)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return h, fmt.Errorf("%s: %w", name, err)
		}
		if name == "DeviceCertificate" {
			if public, ok := cert.PublicKey.(*rsa.PublicKey); !ok || !public.Equal(&key.PublicKey) {
				return h, errors.New("DeviceCertificate is not for the device's key")
			}
		}
		*der = block.Bytes
	}
	return h, nil
}

// validatePair answers the request ValidatePair.
func (d *Device) validatePair(request map[string]any) map[string]any {
	record, _ := request["PairRecord"].(map[string]any)
	id, _ := record["HostID"].(string)
	host, ok := d.host(id)
	if !ok {
		return fault(errInvalidHostID)
	}
	data, _ := record["HostCertificate"].([]byte)
	if block, _ := pem.Decode(data); block != nil && !bytes.Equal(block.Bytes, host.certs.host) {
		return fault(errInvalidPairRecord)
	}
	return map[string]any{}
}

// unpair answers the request Unpair.
func (d *Device) unpair(request map[string]any) map[string]any {
	record, _ := request["PairRecord"].(map[string]any)
	id, _ := record["HostID"].(string)
	if _, ok := d.host(id); !ok {
		return fault(errInvalidHostID)
	}
	d.mu.Lock()
	delete(d.trust.hosts, id)
	d.mu.Unlock()
	d.Log("trust", "unpaired", id)
	return map[string]any{}
}

// fault returns an error answer of lockdownd.
func fault(name string) map[string]any { return map[string]any{"Error": name} }
