package backup2

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/snap-backup/snap/device/protocol/devicelink"
)

// Kinds of failures, for errors.Is. [ErrNoSpace] is also a kind.
var (
	// ErrLocked: the device is locked, or its passcode was not entered.
	ErrLocked = errors.New("the device is locked")
	// ErrWrongPassword: the backup password is wrong or missing.
	ErrWrongPassword = errors.New("wrong backup password")
	// ErrCancelled: the user cancelled on the device, or the context ended.
	ErrCancelled = errors.New("cancelled")
	// ErrDamaged: the backup in the Folder is missing or damaged.
	ErrDamaged = errors.New("the backup is incomplete or damaged")
	// ErrIncompatible: the device does not support the backup, or this program's
	// version of the protocol.
	ErrIncompatible = errors.New("incompatible")
	// ErrNotReady: the device must finish something else first.
	ErrNotReady = errors.New("the device is not ready")
	// ErrLinkLost: the connection ended, or the device was silent for too long,
	// before it sent its result.
	ErrLinkLost = errors.New("the connection to the device was lost")
)

// CodeHostFull is the code of a [DeviceError] if there is too little space on the
// computer.
const CodeHostFull = 105

// DeviceError is an error that a device reports at the end of an operation.
type DeviceError struct {
	Code        int64  // of Apple's MBErrorDomain
	Description string // text of the device, safe to print; may be empty
	// Cause is an earlier failure on the computer, if there was one. The
	// device's error does not describe it.
	Cause error
}

func (e *DeviceError) Error() string {
	s := fmt.Sprintf("the device reports error %d", e.Code)
	if c := codes[e.Code]; c.meaning != "" {
		s += ": " + c.meaning
	}
	if e.Description != "" {
		s += fmt.Sprintf(" (%q)", e.Description)
	}
	if e.Cause != nil {
		s += "; before that: " + e.Cause.Error()
	}
	return s
}

// Unwrap returns the error's kind and its cause.
func (e *DeviceError) Unwrap() []error {
	var all []error
	if kind := codes[e.Code].kind; kind != nil {
		all = append(all, kind)
	}
	if e.Cause != nil {
		all = append(all, e.Cause)
	}
	return all
}

// Hint says what the user can do, in one or two sentences.
func (e *DeviceError) Hint() string {
	if c := codes[e.Code]; c.hint != "" {
		return c.hint
	}
	return "Restart the device and try again."
}

type code struct {
	meaning, hint string
	kind          error
}

const (
	hintRetry  = "Try again; if it fails again, restart the device first."
	hintUnlock = "Unlock the device, keep it awake, try again, and enter its passcode on it when it asks."
	hintLink   = "Check the cable or the Wi-Fi connection and try again."
	hintBackup = "Back up again, with \"snap backup --full\" if it fails again. To restore, choose another snapshot."
	hintDevice = "Check that the device has free storage, restart it, and try again."
	hintSetup  = "Finish setting up the device first, then try again."
)

// codes are known error codes of Apple's MBErrorDomain.
var codes = map[int64]code{
	1:            {"an unspecified failure", hintRetry, nil},
	2:            {"several failures", hintRetry, nil},
	3:            {"a file exists already", "An interrupted backup probably left a file system snapshot on the device. Restart the device and try again.", nil},
	4:            {"a file is missing", hintBackup, ErrDamaged},
	5:            {"a path is not a folder", hintBackup, nil},
	6:            {"a path is a folder", hintBackup, nil},
	7:            {"links form a loop", hintBackup, nil},
	9:            {"a file changed while it was read", "Leave the device alone while it is backed up, and try again.", nil},
	10:           {"a property list cannot be written", hintBackup, nil},
	11:           {"a property list cannot be read", hintBackup, ErrDamaged},
	25:           {"it is being restored from iCloud", "Wait until the restore from iCloud is finished, then try again.", ErrNotReady},
	100:          {"the connection failed, or the computer refused a request", hintLink, nil},
	101:          {"it cannot read one of its files", hintDevice, nil},
	102:          {"it cannot write one of its files", "Restart the device, check that it has free storage, and try again.", nil},
	103:          {"a file of the backup could not be read on the computer", "Check the storage that holds the backup.", nil},
	104:          {"files could not be stored on the computer or read on the device", "Check the storage that holds the backup; then restart the device and try again.", nil},
	CodeHostFull: {"not enough space on the computer", "Free space where the backup is stored and try again.", ErrNoSpace},
	106:          {"not enough space on the device", "Free space on the device and try again.", ErrNoSpace},
	202:          {"cancelled on the device", "Start again when you are ready.", ErrCancelled},
	203:          {"the device's version of iOS does not support the backup", "Update the device: a backup cannot be restored to an older iOS than it was made with.", ErrIncompatible},
	204:          {"there is no complete backup", hintBackup, ErrDamaged},
	205:          {"the backup is damaged", hintBackup, ErrDamaged},
	207:          {"wrong backup password, or a password is required", "Check the backup password and try again. If it is forgotten, it can only be cleared on the device: Settings, General, Transfer or Reset, Reset All Settings.", ErrWrongPassword},
	208:          {"it is locked, or its passcode was not entered", hintUnlock, ErrLocked},
	210:          {"no account is set up", hintSetup, ErrNotReady},
	212:          {"it is not set up yet", hintSetup, ErrNotReady},
	241:          {"its data is protected until it is unlocked", hintUnlock, ErrLocked},
}

// ProtocolError says that the device violated the protocol. The connection is
// closed.
type ProtocolError struct{ Err error }

func (e *ProtocolError) Error() string {
	return "the device violated the backup protocol: " + e.Err.Error()
}
func (e *ProtocolError) Unwrap() error { return e.Err }

func protocolError(format string, v ...any) error {
	return &ProtocolError{fmt.Errorf(format, v...)}
}

// linkError adds the kind to an error of the connection.
func linkError(err error) error {
	var protocol *ProtocolError
	switch {
	case errors.As(err, &protocol):
		return err
	case errors.Is(err, devicelink.ErrFormat):
		return &ProtocolError{err}
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%w: the device was silent for too long: %w", ErrLinkLost, err)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.ErrClosedPipe):
		return ErrLinkLost // the text of err says nothing more
	}
	return fmt.Errorf("%w: %w", ErrLinkLost, err)
}

// cancelled returns the error of a call whose context ended.
func cancelled(ctx context.Context) error {
	return fmt.Errorf("%w: %w", ErrCancelled, context.Cause(ctx))
}

// maxText limits a text of the device in messages, in bytes.
const maxText = 300

// printable makes a text of the device short and safe for terminals and logs.
func printable(s string) string {
	if len(s) > maxText {
		cut := maxText
		for cut > 0 && !utf8.RuneStart(s[cut]) {
			cut--
		}
		s = s[:cut] + "…"
	}
	return safe(s)
}

// safe replaces characters that terminals may interpret.
func safe(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '\uFFFD'
		}
		return r
	}, s)
}
