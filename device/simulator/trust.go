package simulator

import (
	"github.com/snap-backup/snap/device/simulator/pairing"
)

// Trust is a device's answer to a host that wants to pair.
type Trust = pairing.Answer

// The answers.
const (
	TrustAsk    = pairing.Ask    // the device shows the Trust dialog; see AnswerTrust
	TrustAlways = pairing.Always // the owner taps "Trust" at once
	TrustNever  = pairing.Never  // the owner taps "Don't Trust" at once
)

// SetTrust sets the answer to hosts that want to pair. Trusted hosts stay trusted.
func (d *Device) SetTrust(t Trust) { d.hosts.SetPolicy(t) }

// SetManaged sets whether a profile forbids pairing with further hosts.
func (d *Device) SetManaged(managed bool) { d.hosts.SetManaged(managed) }

// TrustDialog reports whether the device shows the Trust dialog.
func (d *Device) TrustDialog() bool { return d.hosts.Dialog() }

// AnswerTrust taps "Trust" (yes is true) or "Don't Trust" for the host that asks next.
// A refusal holds for that host until the device is attached again. If another host
// asks, or the same host with a new identifier, the device shows the dialog again.
func (d *Device) AnswerTrust(yes bool) { d.hosts.Tap(yes) }

// ForgetHosts removes all trusted hosts. A reset of a device's settings has this effect.
func (d *Device) ForgetHosts() { d.hosts.Forget() }
