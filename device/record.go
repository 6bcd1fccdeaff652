package device

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/snap-backup/snap/device/protocol/plist"
	"github.com/snap-backup/snap/device/protocol/stream"
)

// pairingRecord is a computer's data about its pairing with a device. It
// contains private keys.
type pairingRecord struct {
	HostID, SystemBUID, WiFiMACAddress string
	EscrowBag                          []byte
	HostCertificate, HostPrivateKey    []byte // PEM, like all fields below
	RootCertificate, RootPrivateKey    []byte
	DeviceCertificate                  []byte
}

// Format keeps the keys out of printed text, with any verb.
func (pairingRecord) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "pairingRecord(hidden)") }

// LogValue keeps the keys out of structured logs.
func (pairingRecord) LogValue() slog.Value { return slog.StringValue("pairingRecord(hidden)") }

// readRecord returns usbmuxd's pairing record for a device.
func (m *Mux) readRecord(ctx context.Context, e Entry) (*pairingRecord, error) {
	// Other programs save records under the UDID with a dash, even if usbmuxd
	// lists the device without it.
	names := []string{e.UDID}
	if e.serial != "" && e.serial != e.UDID {
		names = append(names, e.serial)
	}
	for _, name := range names {
		d, err := m.ask(ctx, "ReadPairRecord", map[string]any{"PairRecordID": name})
		var refused muxResult
		if errors.As(err, &refused) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return parseRecord(d.Data("PairRecordData"))
	}
	return nil, ErrNotPaired
}

func parseRecord(b []byte) (*pairingRecord, error) {
	d, err := stream.Decode(b)
	if err != nil {
		// The error must not contain b, which has private keys.
		return nil, fmt.Errorf("pairing record of usbmuxd: %w", err)
	}
	r := &pairingRecord{
		HostID: d.String("HostID"), SystemBUID: d.String("SystemBUID"), WiFiMACAddress: d.String("WiFiMACAddress"), EscrowBag: d.Data("EscrowBag"),
		HostCertificate: d.Data("HostCertificate"), HostPrivateKey: d.Data("HostPrivateKey"),
		RootCertificate: d.Data("RootCertificate"), RootPrivateKey: d.Data("RootPrivateKey"), DeviceCertificate: d.Data("DeviceCertificate"),
	}
	if r.HostID == "" {
		return nil, fmt.Errorf("%w: its pairing record has no host ID", ErrStalePairing)
	}
	return r, nil
}

// public returns the parts of a record that are sent to the device.
func (r *pairingRecord) public() map[string]any {
	return map[string]any{
		"DeviceCertificate": r.DeviceCertificate, "HostCertificate": r.HostCertificate, "RootCertificate": r.RootCertificate,
		"HostID": r.HostID, "SystemBUID": r.SystemBUID,
	}
}

// saveRecord stores a pairing record in usbmuxd.
func (m *Mux) saveRecord(ctx context.Context, e Entry, r *pairingRecord) error {
	dict := r.public()
	dict["HostPrivateKey"], dict["RootPrivateKey"] = r.HostPrivateKey, r.RootPrivateKey
	if r.WiFiMACAddress != "" {
		dict["WiFiMACAddress"] = r.WiFiMACAddress
	}
	if len(r.EscrowBag) > 0 {
		dict["EscrowBag"] = r.EscrowBag
	}
	b, err := plist.EncodeXML(dict)
	if err != nil {
		return err
	}
	_, err = m.ask(ctx, "SavePairRecord", map[string]any{"PairRecordID": e.UDID, "PairRecordData": b, "DeviceID": e.Link().ID})
	return err
}

// deleteRecord deletes usbmuxd's pairing record for a device, if it has one.
func (m *Mux) deleteRecord(ctx context.Context, e Entry) error {
	var refused muxResult
	for _, name := range []string{e.UDID, e.serial} {
		if name == "" {
			continue
		}
		if _, err := m.ask(ctx, "DeletePairRecord", map[string]any{"PairRecordID": name}); err != nil && !errors.As(err, &refused) {
			return err
		}
		if e.serial == e.UDID {
			break
		}
	}
	if _, err := m.readRecord(ctx, e); err == nil {
		return fmt.Errorf("usbmuxd kept the pairing record of %s; check that this user may delete it", e.UDID)
	}
	return nil
}
