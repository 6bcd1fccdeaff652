package device

import (
	"context"
	"errors"
	"fmt"

	"github.com/danielpaulus/go-ios/ios"
	"github.com/snap-backup/snap/device/protocol/plist"
	"github.com/snap-backup/snap/device/protocol/stream"
)

// pairRecord returns what this computer keeps of its pairing with a device.
func (m *Mux) pairRecord(ctx context.Context, e Entry) (*ios.PairRecord, error) {
	// Other programs save records under the UDID with dash, whatever usbmuxd
	// calls the device.
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

func parseRecord(b []byte) (*ios.PairRecord, error) {
	d, err := stream.Decode(b)
	if err != nil {
		// Not the bytes: a record holds private keys.
		return nil, fmt.Errorf("pair record of usbmuxd: %w", err)
	}
	r := &ios.PairRecord{
		HostID: d.String("HostID"), SystemBUID: d.String("SystemBUID"), WiFiMACAddress: d.String("WiFiMACAddress"), EscrowBag: d.Data("EscrowBag"),
		HostCertificate: d.Data("HostCertificate"), HostPrivateKey: d.Data("HostPrivateKey"),
		RootCertificate: d.Data("RootCertificate"), RootPrivateKey: d.Data("RootPrivateKey"), DeviceCertificate: d.Data("DeviceCertificate"),
	}
	if r.HostID == "" {
		return nil, fmt.Errorf("%w: its pair record names no host", ErrStalePairing)
	}
	return r, nil
}

// saveRecord lets usbmuxd keep a pair record.
func (m *Mux) saveRecord(ctx context.Context, e Entry, r *ios.PairRecord) error {
	dict := map[string]any{
		"HostID": r.HostID, "SystemBUID": r.SystemBUID,
		"HostCertificate": r.HostCertificate, "HostPrivateKey": r.HostPrivateKey,
		"RootCertificate": r.RootCertificate, "RootPrivateKey": r.RootPrivateKey, "DeviceCertificate": r.DeviceCertificate,
	}
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

// deleteRecord lets usbmuxd forget a pair record. One that is not there is
// fine.
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
	if _, err := m.pairRecord(ctx, e); err == nil {
		return fmt.Errorf("usbmuxd keeps the pair record of %s (may this user delete it?)", e.UDID)
	}
	return nil
}
