package device

import "errors"

// Kinds of refusals, for errors.Is.
var (
	ErrGone          = errors.New("the device is no longer connected")
	ErrNotFound      = errors.New("no such device is connected")
	ErrAmbiguous     = errors.New("several devices match")
	ErrLocked        = errors.New("the device is locked")
	ErrNotPaired     = errors.New("the device does not trust this computer yet")
	ErrStalePairing  = errors.New("the device does not trust this computer any more")
	ErrDialogPending = errors.New("the device asks whether to trust this computer")
	ErrDenied        = errors.New("the user chose not to trust this computer")
	ErrManaged       = errors.New("the organisation that manages the device forbids it")
	ErrNeedsCable    = errors.New("the device can be paired by cable only")
	ErrNoService     = errors.New("the device has no such service")
	ErrBusy          = errors.New("the device already runs too many services")
	ErrMissing       = errors.New("the device has no such value")
)

// ErrNone says that no device is connected at all. It is an ErrNotFound.
var ErrNone error = noDevice{}

type noDevice struct{}

func (noDevice) Error() string        { return "no device is connected" }
func (noDevice) Is(target error) bool { return target == ErrNotFound }

// refusals are those error texts of lockdownd that callers distinguish.
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

// Refusal is an error that a device sent. It wraps one of the errors above if
// the code is known.
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
	return "the device refused: " + r.Code
}

func (r *Refusal) Unwrap() error { return refusals[r.Code] }

// maxCode limits the length of an error text that a device sent.
const maxCode = 200

func refusal(code string) error {
	if len(code) > maxCode {
		code = code[:maxCode]
	}
	return &Refusal{code}
}
