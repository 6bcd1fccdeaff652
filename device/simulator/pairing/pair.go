package pairing

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

// Pair answers the request Pair.
func (s *Hosts) Pair(request map[string]any, byNetwork, unlocked bool) map[string]any {
	record, ok := request["PairRecord"].(map[string]any)
	if !ok {
		s.violate("Pair without a PairRecord")
		return Refusal(errInvalidPairRecord)
	}
	host, err := s.readPairRecord(record)
	if err != nil {
		s.violate("Pair: %v", err)
		return Refusal(errInvalidPairRecord)
	}
	if refusal := s.refusal(host.ID, byNetwork, unlocked); refusal != "" {
		return Refusal(refusal)
	}
	if before, ok := s.Host(host.ID); ok {
		host.EscrowBag = before.EscrowBag
	}
	if err := s.Add(host); err != nil {
		return Refusal(errInvalidPairRecord)
	}
	s.log("paired", host.ID)
	return map[string]any{"EscrowBag": host.EscrowBag}
}

// readPairRecord checks the pair record of a host.
func (s *Hosts) readPairRecord(record map[string]any) (Host, error) {
	h := Host{EscrowBag: newEscrowBag()}
	h.ID, _ = record["HostID"].(string)
	h.BUID, _ = record["SystemBUID"].(string)
	if h.ID == "" || len(h.ID) > 256 || len(h.BUID) > 256 {
		return h, errors.New("no HostID, or an identifier is too long")
	}
	key, err := s.key()
	if err != nil {
		return h, err
	}
	for name, der := range map[string]*[]byte{
		"DeviceCertificate": &h.Certificates.Device, "HostCertificate": &h.Certificates.Host, "RootCertificate": &h.Certificates.Root,
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

// Validate answers the request ValidatePair.
func (s *Hosts) Validate(request map[string]any) map[string]any {
	record, _ := request["PairRecord"].(map[string]any)
	id, _ := record["HostID"].(string)
	host, ok := s.Host(id)
	if !ok {
		return Refusal(InvalidHostID)
	}
	data, _ := record["HostCertificate"].([]byte)
	if block, _ := pem.Decode(data); block != nil && !bytes.Equal(block.Bytes, host.Certificates.Host) {
		return Refusal(errInvalidPairRecord)
	}
	return map[string]any{}
}

// Unpair answers the request Unpair.
func (s *Hosts) Unpair(request map[string]any) map[string]any {
	record, _ := request["PairRecord"].(map[string]any)
	id, _ := record["HostID"].(string)
	if _, ok := s.Host(id); !ok {
		return Refusal(InvalidHostID)
	}
	s.mu.Lock()
	delete(s.hosts, id)
	s.mu.Unlock()
	s.log("unpaired", id)
	return map[string]any{}
}

// refusal returns the error for a host that wants to pair, or "" if it may pair.
func (s *Hosts) refusal(hostID string, byNetwork, unlocked bool) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, known := s.hosts[hostID]
	switch {
	case byNetwork:
		return errNotHere
	case s.managed && !known:
		return errManaged
	case !unlocked:
		return PasswordProtected
	case known || s.policy == Always:
		return ""
	case s.policy == Never:
		return errUserDenied
	case s.answer != nil && *s.answer:
		s.answer = nil // the answer is for one host only
		return ""
	case s.answer != nil && (s.refused == "" || s.refused == hostID):
		s.refused = hostID
		return errUserDenied
	}
	s.answer, s.showing = nil, true
	return errDialogPending
}

// Refusal returns an error answer of lockdownd.
func Refusal(name string) map[string]any { return map[string]any{"Error": name} }
