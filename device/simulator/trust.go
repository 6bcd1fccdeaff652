package simulator

import (
	"github.com/snap-backup/snap/device/simulator/pairing"
)

// Trust is a device's answer to a host that pairs.
type Trust = pairing.Answer

// The answers.
const (
	TrustAsk    = pairing.Ask    // the device shows the Trust dialog; see AnswerTrust
	TrustAlways = pairing.Always // the owner taps "Trust" at once
	TrustNever  = pairing.Never  // the owner taps "Don't Trust" at once
)

// SetTrust sets the answer to hosts that pair. Trusted hosts stay trusted.
func (d *Device) SetTrust(t Trust) { d.hosts.SetPolicy(t) }

// SetManaged sets whether a profile forbids pairing with further hosts.
func (d *Device) SetManaged(managed bool) { d.hosts.SetManaged(managed) }

// TrustDialog reports whether the device shows the Trust dialog.
func (d *Device) TrustDialog() bool { return d.hosts.Dialog() }

// AnswerTrust taps "Trust" or "Don't Trust" for the host that asks next. A refusal
// holds for that host until the device is attached again. Another host, or one
// with a new identifier, makes the device ask again.
func (d *Device) AnswerTrust(yes bool) { d.hosts.Tap(yes) }

// ForgetHosts removes all trusted hosts, as a reset of the settings does.
func (d *Device) ForgetHosts() { d.hosts.Forget() }
