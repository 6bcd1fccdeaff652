package device

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/snap-backup/snap/device/protocol/plist"
)

// PairOptions are options of Pair.
type PairOptions struct {
	Now    time.Time // when the certificates become valid
	Random io.Reader // must be cryptographic
	// Poll is how often Pair asks whether the user tapped Trust; 0 means every
	// second.
	Poll time.Duration
	// Wait limits how long Pair waits for the user to act on the device; 0 means
	// until the context ends.
	Wait time.Duration
	// On, if not nil, is called when a state begins: Locked or DialogPending while
	// the user has to act on the device, and Trusted at the end.
	On func(Trust)
	// KeyBits is the size of the keys; 0 means one that all devices accept.
	KeyBits int
}

// wirelessDomain holds EnableWifiConnections.
const wirelessDomain = "com.apple.mobile.wireless_lockdown"

// Pair makes a device trust this computer. It waits for the user to unlock the
// device and tap Trust. It changes nothing if the device trusts this computer
// already. usbmuxd stores the pairing record, so all programs on this computer
// share it.
func (m *Mux) Pair(ctx context.Context, e Entry, opt PairOptions) error {
	if opt.Poll == 0 {
		opt.Poll = time.Second
	}
	if opt.KeyBits == 0 {
		opt.KeyBits = keyBits
	}
	if opt.On == nil {
		opt.On = func(Trust) {}
	}
	s, err := m.Session(ctx, e)
	if err == nil {
		opt.On(Trusted)
		return s.Close()
	}
	// Pairing does not help if the device is managed or the error is of no known
	// kind. In all other states it helps.
	if t := trustOf(err); t == Unknown || t == Managed {
		return err
	}
	if errors.Is(err, ErrLocked) {
		// The pairing record of a locked device is valid, unless awaitUnlock finds that
		// it is stale.
		if err := m.awaitUnlock(ctx, e, opt); !errors.Is(err, ErrStalePairing) {
			return err
		}
	}
	r, err := m.askForTrust(ctx, e, opt)
	if err != nil {
		return fmt.Errorf("pair with %s: %w", e.UDID, err)
	}
	if err := m.saveRecord(ctx, e, r); err != nil {
		return fmt.Errorf("pair with %s: it trusts this computer now, but usbmuxd did not store the pairing record: %w", e.UDID, err)
	}
	if s, err = m.sessionWith(ctx, e, r); err != nil {
		return fmt.Errorf("pair with %s: it is paired, but the first session failed: %w", e.UDID, err)
	}
	opt.On(Trusted)
	return s.Close()
}

// awaitUnlock waits until a device that is paired, but locked, accepts a session.
func (m *Mux) awaitUnlock(ctx context.Context, e Entry, opt PairOptions) error {
	opt.On(Locked)
	waitCtx := ctx
	if opt.Wait > 0 {
		var cancel context.CancelFunc
		waitCtx, cancel = context.WithTimeout(ctx, opt.Wait)
		defer cancel()
	}
	for {
		if err := pause(waitCtx, opt.Poll); err != nil {
			return fmt.Errorf("pair with %s: %w", e.UDID, waitEnded(ctx, ErrLocked))
		}
		s, err := m.Session(waitCtx, e)
		if err == nil {
			opt.On(Trusted)
			return s.Close()
		}
		if waitCtx.Err() == nil && !errors.Is(err, ErrLocked) {
			return err
		}
	}
}

// waitEnded adds to err why waiting for the user ended: ctx ended, or the time
// limit passed.
func waitEnded(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w", err, ctx.Err())
	}
	return fmt.Errorf("%w: the user did not respond on the device in time", err)
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

// askForTrust sends Pair requests with one record until the device accepts it or
// the user refuses. It returns the record.
func (m *Mux) askForTrust(ctx context.Context, e Entry, opt PairOptions) (*pairingRecord, error) {
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
	r, err := newRecord(pub, opt)
	if err != nil {
		return nil, err
	}
	r.SystemBUID = buid.String("BUID")
	if mac, err := s.Value(ctx, "", "WiFiAddress"); err == nil {
		r.WiFiMACAddress, _ = mac.(string)
	}
	request := map[string]any{
		"PairRecord":      r.public(),
		"ProtocolVersion": "2",
		"PairingOptions":  map[string]any{"ExtendedPairingErrors": true},
	}
	state := Unknown
	waitCtx := ctx
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
				waitCtx, cancel = context.WithTimeout(ctx, opt.Wait)
				defer cancel()
			}
			if now != state {
				state = now
				opt.On(now)
			}
		case errors.Is(err, ErrGone) && state != Unknown:
			// Devices close connections that wait for the user for too long.
		default:
			return nil, err
		}
		if pause(waitCtx, opt.Poll) != nil {
			return nil, waitEnded(ctx, err)
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

// EnableWiFi lets this computer reach a paired device by Wi-Fi.
func (m *Mux) EnableWiFi(ctx context.Context, e Entry) error {
	s, err := m.Session(ctx, e)
	if err != nil {
		return err
	}
	defer s.Close()
	return s.SetValue(ctx, wirelessDomain, "EnableWifiConnections", true)
}

// Unpair removes the pairing from device and computer. If the device refuses this
// computer, Unpair removes the pairing from the computer only.
func (m *Mux) Unpair(ctx context.Context, e Entry) error {
	r, err := m.readRecord(ctx, e)
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
		return fmt.Errorf("unpair %s: the device no longer trusts this computer, but %w", e.UDID, err)
	}
	return nil
}

func (m *Mux) unpairDevice(ctx context.Context, e Entry, r *pairingRecord) error {
	s, err := m.sessionWith(ctx, e, r)
	if err != nil {
		return err
	}
	defer s.Close()
	_, err = s.ask(ctx, "Unpair", map[string]any{
		"PairRecord":      r.public(),
		"ProtocolVersion": "2",
	})
	if err == nil {
		s.id = "" // the pairing and with it the session have ended
	}
	return err
}
