package device

import "errors"

// Trust is how far a device lets this computer in.
type Trust string

// The states of trust.
const (
	Trusted       Trust = "trusted"
	Locked        Trust = "locked" // it may trust this computer: nobody has unlocked it since it was switched on
	DialogPending Trust = "dialog"
	Denied        Trust = "denied"
	Stale         Trust = "stale"
	Managed       Trust = "managed"
	NotPaired     Trust = "not-paired"
	NeedsCable    Trust = "needs-cable"
	Unknown       Trust = "unknown"
)

// trustOf reads a state out of the error of a session or a pairing.
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

// Words says what the state means and what to do, for people.
func (t Trust) Words() string {
	switch t {
	case Trusted:
		return "it trusts this computer"
	case Locked:
		return "it is locked: unlock it"
	case DialogPending:
		return "it asks whether to trust this computer: unlock it, tap Trust, and enter its passcode"
	case Denied:
		return `somebody chose "Don't Trust" on it: pair again and tap Trust`
	case Stale:
		return "it does not trust this computer any more, since its trust was reset: pair again"
	case Managed:
		return "the organisation that manages it does not let it trust this computer"
	case NotPaired:
		return "it does not trust this computer yet: pair"
	case NeedsCable:
		return "it pairs by cable only: connect it by cable"
	}
	return "it did not tell whether it trusts this computer"
}
