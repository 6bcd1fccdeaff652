package device

import "errors"

// Trust says whether a device accepts this computer.
type Trust string

// The states of trust.
const (
	Trusted       Trust = "trusted"
	Locked        Trust = "locked" // its screen is locked, or it was not unlocked since it was switched on
	DialogPending Trust = "dialog"
	Denied        Trust = "denied"
	Stale         Trust = "stale"
	Managed       Trust = "managed"
	NotPaired     Trust = "not-paired"
	NeedsCable    Trust = "needs-cable"
	Unknown       Trust = "unknown"
)

// trustOf returns the state of trust that follows from an error of a session
// or a pairing.
func trustOf(err error) Trust {
	if err == nil {
		return Trusted
	}
	for _, t := range []struct {
		kind  error
		trust Trust
	}{
		{ErrLocked, Locked}, {ErrDialogPending, DialogPending}, {ErrDenied, Denied}, {ErrStalePairing, Stale},
		{ErrManaged, Managed}, {ErrNotPaired, NotPaired}, {ErrNeedsCable, NeedsCable},
	} {
		if errors.Is(err, t.kind) {
			return t.trust
		}
	}
	return Unknown
}

// Words describes the state to the user and says what to do.
func (t Trust) Words() string {
	switch t {
	case Trusted:
		return "it trusts this computer"
	case Locked:
		return "it is locked: unlock it"
	case DialogPending:
		return "it asks whether to trust this computer: unlock it, tap Trust, and enter its passcode"
	case Denied:
		return `the user chose "Don't Trust" on it: pair again and tap Trust`
	case Stale:
		return "it does not trust this computer any more, because its trust settings were reset: pair again"
	case Managed:
		return "the organisation that manages it does not allow it to trust this computer"
	case NotPaired:
		return "it does not trust this computer yet: pair"
	case NeedsCable:
		return "it can be paired by cable only: connect it by cable"
	}
	return "it is unknown whether it trusts this computer"
}
