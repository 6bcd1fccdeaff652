package device

import "errors"

// Kinds of refusals. A caller decides on them with errors.Is.
var (
	ErrGone          = errors.New("the device is not connected any more")
	ErrNotFound      = errors.New("no such device is connected")
	ErrAmbiguous     = errors.New("several devices fit")
	ErrLocked        = errors.New("the device is locked")
	ErrNotPaired     = errors.New("the device does not trust this computer yet")
	ErrStalePairing  = errors.New("the device does not trust this computer any more")
	ErrDialogPending = errors.New("the device asks whether to trust this computer")
	ErrDenied        = errors.New("somebody chose not to trust this computer")
	ErrManaged       = errors.New("the organisation that manages the device forbids it")
	ErrNeedsCable    = errors.New("the device pairs by cable only")
	ErrNoService     = errors.New("the device has no such service")
	ErrBusy          = errors.New("the device runs too many services at the same time")
	ErrMissing       = errors.New("the device has no such value")
)

// ErrNone is ErrNotFound, where nothing is connected at all.
var ErrNone error = noDevice{}

type noDevice struct{}

func (noDevice) Error() string        { return "no device is connected" }
func (noDevice) Is(target error) bool { return target == ErrNotFound }

// refusals are the error texts of lockdownd that mean something to a caller.
var refusals = map[string]error{
	"PasswordProtected":                   ErrLocked,
	"EscrowLocked":                        ErrLocked,
	"InvalidHostID":                       ErrStalePairing,
	"InvalidPairRecord":                   ErrStalePairing,
	"MissingHostID":                       ErrStalePairing,
	"PairingDialogResponsePending":        ErrDialogPending,
	"UserDeniedPairing":                   ErrDenied,
	"MCProtected":                         ErrManaged,
	"MCChallengeRequired":                 ErrManaged,
	"ServiceProhibited":                   ErrManaged,
	"PairingProhibitedOverThisConnection": ErrNeedsCable,
	"InvalidService":                      ErrNoService,
	"ServiceLimit":                        ErrBusy,
	"MissingValue":                        ErrMissing,
}

// Refusal is an error that a device sent. It wraps one of the errors above
// where it means that.
type Refusal struct {
	Code string // in the device's words, such as InvalidHostID
}

func (r *Refusal) Error() string {
	if r.Code == "EscrowLocked" {
		return "the device has not been unlocked since it was switched on (EscrowLocked)"
	}
	if kind := refusals[r.Code]; kind != nil {
		return kind.Error() + " (" + r.Code + ")"
	}
	return "the device refuses: " + r.Code
}

func (r *Refusal) Unwrap() error { return refusals[r.Code] }

// maxCode bounds an error text that is passed on.
const maxCode = 200

func refusal(code string) error {
	if len(code) > maxCode {
		code = code[:maxCode]
	}
	return &Refusal{code}
}
