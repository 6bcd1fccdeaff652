package device

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/danielpaulus/go-ios/ios"
	"github.com/snap-backup/snap/device/protocol/plist"
)

// PairOptions are what Pair takes from outside.
type PairOptions struct {
	Now    time.Time // the certificates' begin
	Random io.Reader // must be cryptographic
	// Poll is how often the device is asked whether somebody tapped Trust; 0
	// means every second.
	Poll time.Duration
	// Wait is how long somebody has for doing what the device wants, counted
	// from when it first wants something; 0: as long as the context lasts.
	Wait time.Duration
	// On, if not nil, is told each state once when it begins: Locked and
	// DialogPending while somebody has to do something on the device.
	On func(Trust)
}

// wirelessDomain holds EnableWifiConnections.
const wirelessDomain = "com.apple.mobile.wireless_lockdown"

// Pair makes a device trust this computer. It waits, as long as ctx lasts, for
// somebody to unlock the device and tap Trust. A device that trusts it already
// is left as it is. The pair record is kept by usbmuxd, so all programs on this
// computer share it.
func (m *Mux) Pair(ctx context.Context, e Entry, opt PairOptions) error {
	if opt.Poll == 0 {
		opt.Poll = time.Second
	}
	if opt.On == nil {
		opt.On = func(Trust) {}
	}
	s, err := m.Session(ctx, e)
	if err == nil {
		opt.On(Trusted)
		return s.Close()
	}
	// The other states, a damaged record among them, are what pairing mends. A
	// device that is only locked keeps its record.
	if t := trustOf(err); t == Unknown || t == Managed {
		return err
	}
	if errors.Is(err, ErrLocked) {
		if err := m.awaitUnlock(ctx, e, opt); !errors.Is(err, ErrStalePairing) {
			return err
		}
	}
	r, err := m.askForTrust(ctx, e, opt)
	if err != nil {
		return fmt.Errorf("pair with %s: %w", e.UDID, err)
	}
	if err := m.saveRecord(ctx, e, r); err != nil {
		return fmt.Errorf("pair with %s: it trusts this computer now, but usbmuxd did not keep the pair record: %w", e.UDID, err)
	}
	if s, err = m.sessionWith(ctx, e, r); err != nil {
		return fmt.Errorf("pair with %s: paired, but the first session failed: %w", e.UDID, err)
	}
	opt.On(Trusted)
	return s.Close()
}

// awaitUnlock waits until a device that is paired, but locked, lets a session
// start.
func (m *Mux) awaitUnlock(ctx context.Context, e Entry, opt PairOptions) error {
	opt.On(Locked)
	patience := ctx
	if opt.Wait > 0 {
		var cancel context.CancelFunc
		patience, cancel = context.WithTimeout(ctx, opt.Wait)
		defer cancel()
	}
	for {
		if err := pause(patience, opt.Poll); err != nil {
			return fmt.Errorf("pair with %s: %w", e.UDID, patienceOver(ctx, ErrLocked))
		}
		s, err := m.Session(patience, e)
		if err == nil {
			opt.On(Trusted)
			return s.Close()
		}
		if patience.Err() == nil && !errors.Is(err, ErrLocked) {
			return err
		}
	}
}

// patienceOver is what err comes to when nobody did what the device wants: the
// end of ctx, or of the time that somebody had.
func patienceOver(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w", err, ctx.Err())
	}
	return fmt.Errorf("%w, and nobody did anything about it in time", err)
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// askForTrust sends Pair requests with one record until the device accepts it
// or somebody refuses, and returns the record.
func (m *Mux) askForTrust(ctx context.Context, e Entry, opt PairOptions) (*ios.PairRecord, error) {
	buid, err := m.ask(ctx, "ReadBUID", nil)
	if err != nil {
		return nil, err
	}
	s, err := m.lockdown(ctx, e)
	if err != nil {
		return nil, err
	}
	defer func() { s.Close() }()
	key, err := s.Value(ctx, "", "DevicePublicKey")
	if err != nil {
		return nil, err
	}
	pub, _ := key.([]byte)
	r, err := newRecord(pub, opt.Now, opt.Random)
	if err != nil {
		return nil, err
	}
	r.SystemBUID = buid.String("BUID")
	if mac, err := s.Value(ctx, "", "WiFiAddress"); err == nil {
		r.WiFiMACAddress, _ = mac.(string)
	}
	request := map[string]any{
		"PairRecord": map[string]any{
			"DeviceCertificate": r.DeviceCertificate, "HostCertificate": r.HostCertificate, "RootCertificate": r.RootCertificate,
			"HostID": r.HostID, "SystemBUID": r.SystemBUID,
		},
		"ProtocolVersion": "2",
		"PairingOptions":  map[string]any{"ExtendedPairingErrors": true},
	}
	state := Unknown
	patience := ctx
	for {
		d, err := s.ask(ctx, "Pair", request)
		if err == nil {
			r.EscrowBag = d.Data("EscrowBag")
			return r, nil
		}
		now := trustOf(err)
		switch {
		case now == Locked || now == DialogPending:
			if state == Unknown && opt.Wait > 0 {
				var cancel context.CancelFunc
				patience, cancel = context.WithTimeout(ctx, opt.Wait)
				defer cancel()
			}
			if now != state {
				state = now
				opt.On(now)
			}
		case errors.Is(err, ErrGone) && state != Unknown:
			// Devices end conversations that wait for a person too long.
		default:
			return nil, err
		}
		if pause(patience, opt.Poll) != nil {
			return nil, patienceOver(ctx, err)
		}
		if s.broken {
			s.Close()
			next, err := m.lockdown(ctx, e)
			if err != nil {
				return nil, err
			}
			s = next
		}
	}
}

// EnableWiFi lets a paired device be reached by Wi-Fi.
func (m *Mux) EnableWiFi(ctx context.Context, e Entry) error {
	s, err := m.Session(ctx, e)
	if err != nil {
		return err
	}
	defer s.Close()
	return s.SetValue(ctx, wirelessDomain, "EnableWifiConnections", true)
}

// Unpair makes device and computer forget each other. If the device does not
// listen to this computer any more, this computer forgets it all the same.
func (m *Mux) Unpair(ctx context.Context, e Entry) error {
	r, err := m.pairRecord(ctx, e)
	if errors.Is(err, ErrNotPaired) {
		return fmt.Errorf("unpair %s: %w", e.UDID, err)
	}
	if err == nil {
		err = m.unpairDevice(ctx, e, r)
	}
	var refused *Refusal
	if err != nil && !errors.As(err, &refused) && !errors.Is(err, ErrStalePairing) && !errors.Is(err, plist.ErrFormat) {
		return fmt.Errorf("unpair %s: nothing was changed: %w", e.UDID, err)
	}
	if err := m.deleteRecord(ctx, e); err != nil {
		return fmt.Errorf("unpair %s: the device forgot this computer, but %w", e.UDID, err)
	}
	return nil
}

func (m *Mux) unpairDevice(ctx context.Context, e Entry, r *ios.PairRecord) error {
	s, err := m.sessionWith(ctx, e, r)
	if err != nil {
		return err
	}
	defer s.Close()
	_, err = s.ask(ctx, "Unpair", map[string]any{
		"PairRecord": map[string]any{
			"DeviceCertificate": r.DeviceCertificate, "HostCertificate": r.HostCertificate, "RootCertificate": r.RootCertificate,
			"HostID": r.HostID, "SystemBUID": r.SystemBUID,
		},
		"ProtocolVersion": "2",
	})
	if err == nil {
		s.id = "" // the device ends the session with the pairing
	}
	return err
}
