package simulator

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

// Trust is what a device says to a host that asks to pair.
type Trust int

const (
	TrustAsk    Trust = iota // asks its owner, see AnswerTrust
	TrustAlways              // the owner taps "Trust" at once
	TrustNever               // the owner taps "Don't Trust" at once
)

// maxHosts bounds how many hosts a device trusts.
const maxHosts = 64

// trustedHost is a host as the device knows it from pairing.
type trustedHost struct {
	id, buid string
	certs    certificates
	escrow   []byte
}

// trustState is whom the device trusts and what its dialog shows.
type trustState struct {
	policy  Trust
	hosts   map[string]trustedHost
	showing bool   // the dialog is on the screen
	answer  *bool  // what the owner tapped
	told    string // the host that was told that it is no
}

// Answers of lockdownd to hosts that it does not serve.
const (
	errInvalidHostID     = "InvalidHostID"
	errPasswordProtected = "PasswordProtected"
	errDialogPending     = "PairingDialogResponsePending"
	errUserDenied        = "UserDeniedPairing"
	errManaged           = "MCProtected"
	errNotHere           = "PairingProhibitedOverThisConnection"
	errInvalidPairRecord = "InvalidPairRecord"
)

// SetTrust changes what the device says to hosts that ask to pair. Those that it
// trusts already stay trusted.
func (d *Device) SetTrust(t Trust) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.trust.policy, d.trust.answer = t, nil
}

// SetManaged says whether a profile forbids pairing with further hosts.
func (d *Device) SetManaged(managed bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.spec.Managed = managed
}

// TrustDialog reports whether the device asks its owner whether to trust.
func (d *Device) TrustDialog() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.trust.showing
}

// AnswerTrust is the owner's tap on "Trust" or "Don't Trust"; the host that asks
// next learns of it. A refusal holds for that host until the device is attached
// anew; for another one, or one that calls itself differently in its next
// attempt, the owner is asked again.
func (d *Device) AnswerTrust(yes bool) {
	d.mu.Lock()
	d.trust.answer, d.trust.showing, d.trust.told = &yes, false, ""
	d.mu.Unlock()
	d.Log("trust", "answer", fmt.Sprint(yes))
}

// ForgetHosts makes the device trust nobody any more, as a reset of its settings
// does; pair records of hosts are then stale.
func (d *Device) ForgetHosts() {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.trust.hosts)
	d.trust.answer = nil
}

// reconnected is called when a cable is plugged in.
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

var errHosts = errors.New("the device trusts as many hosts as it can")

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

// mayPair decides over a host that asks to pair; "" means yes.
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
		t.answer = nil // good for one host
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

// readPairRecord checks what a host wants to be known by.
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

// fault is an answer of lockdownd that says what it does not do.
func fault(name string) map[string]any { return map[string]any{"Error": name} }
