// Package mberror has the errors of Apple's MBErrorDomain. A device reports them in
// backups, restores and password changes.
//
// The package does not use the host's table of these errors, so that tests can find
// mistakes in that table.
package mberror

import (
	"fmt"
	"strconv"
)

// Error codes.
const (
	Generic      = 1
	Several      = 2
	Exists       = 3
	NoFile       = 4
	NotDir       = 5
	IsDir        = 6
	Loop         = 7
	Plist        = 11
	Link         = 100
	HostFull     = 105
	Cancelled    = 202
	Incompatible = 203
	NoBackup     = 204
	Damaged      = 205
	Password     = 207
	Locked       = 208
)

var descriptions = map[int64]string{
	Generic:      "Unknown error",
	Several:      "Multiple errors",
	Exists:       "Failed to create snapshot: File exists",
	NoFile:       "No such file or directory",
	9:            "File changed while being read",
	10:           "Error encoding a property list",
	Plist:        "Error decoding a property list",
	25:           "A restore from iCloud is in progress",
	Link:         "Device link failure",
	101:          "Error reading from the device",
	102:          "Error writing to the device",
	103:          "Error reading from the host",
	104:          "Multiple errors uploading files",
	HostFull:     "Insufficient free disk space on drive to back up",
	106:          "Insufficient free disk space on device",
	Cancelled:    "User cancelled",
	Incompatible: "Incompatible version",
	NoBackup:     "No complete backup",
	Damaged:      "Backup damaged",
	Password:     "Invalid password",
	Locked:       "Device locked",
	210:          "No account",
	212:          "Setup is not finished",
	241:          "Protection class is not available",
}

// Describe returns the text that a device sends with a code.
func Describe(code int64) string {
	if text, ok := descriptions[code]; ok {
		return text
	}
	return "Error " + strconv.FormatInt(code, 10)
}

// Error is an error that the device reports to the host in its response.
type Error struct {
	Code int64
	Text string
}

func (e *Error) Error() string { return fmt.Sprintf("error %d: %s", e.Code, e.Text) }

// Of returns the error with a code and its usual text.
func Of(code int64) error { return &Error{code, Describe(code)} }

// Errorf returns an error with a code and a text.
func Errorf(code int64, format string, args ...any) error {
	return &Error{code, fmt.Sprintf(format, args...)}
}
