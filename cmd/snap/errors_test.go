package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/device"
	"github.com/snap-backup/snap/device/drill"
	"github.com/snap-backup/snap/device/host"
	"github.com/snap-backup/snap/device/ingest"
	"github.com/snap-backup/snap/device/materialize"
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/folder"
	"github.com/snap-backup/snap/device/mobilesync/keybag"
	"github.com/snap-backup/snap/device/protocol/backup2"
	"github.com/snap-backup/snap/device/protocol/stream"
	"github.com/snap-backup/snap/internal/abandoned"
	"github.com/snap-backup/snap/internal/keyring"
	"github.com/snap-backup/snap/look"
	"github.com/snap-backup/snap/look/extract"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/local"
	"github.com/snap-backup/snap/repo/backend/rest"
	"github.com/snap-backup/snap/repo/backend/s3"
	"github.com/snap-backup/snap/repo/mirror"
	"github.com/snap-backup/snap/repo/protect"
)

// Every kind of error keeps its code and hint when it is wrapped, and docs/json.md
// explains the code.
func TestExitCodes(t *testing.T) {
	for _, test := range []struct {
		err  error
		code int
		hint string
	}{
		{errors.New("anything"), 1, ""},
		{usageError{errors.New("x")}, 2, "snap help"},
		{advised{usageError{errors.New("x")}, "do y"}, 2, "do y"},
		{advised{keybag.ErrWrongPassword, "do y"}, 20, "do y"},
		{repo.ErrNotFound, 10, "snap init"},
		{crypto.ErrRecoveryTypo, 12, "group by group"},
		{repo.ErrWrongPassword, 12, "try again"},
		{repo.ErrDamaged, 13, "snap check"},
		{&repo.DamageError{File: "packs/x", Err: errors.New("x")}, 13, "snap check"},
		{&repo.DamageError{File: "packs/", Err: errors.New("x")}, 13, "nothing was changed"},
		{backend.ErrNotFolder, 13, "snap check"},
		{ingest.ErrChanged, 14, "wait until"},
		{&ingest.UnreadableError{First: os.ErrPermission}, 1, "check who owns the folder"},
		{ingest.ErrIncomplete, 14, "let the backup finish"},
		{&folder.ChangedError{Path: "x"}, 14, "wait until"},
		{&ingest.IncompleteError{}, 14, "let the backup finish"},
		{repo.ErrNoSnapshot, 15, "snap snapshots"},
		{repo.ErrAmbiguous, 15, "more digits"},
		{repo.ErrExists, 16, "another folder"},
		{materialize.ErrTargetExists, 16, "another target"},
		{backend.ErrNoSpace, 17, "free some space"},
		{repo.ErrUnsupported, 18, ""},
		{mobilesync.ErrNoBackup, 19, "Manifest.plist"},
		{keybag.ErrWrongPassword, 20, "another password"},
		{materialize.ErrLocked, 21, "import the backup again"},
		{device.ErrNoMux, 22, "usbmuxd"},
		{fmt.Errorf("%w: %w", device.ErrNoMux, fs.ErrPermission), 22, "usbmuxd"},
		{device.ErrNotFound, 22, "snap devices"},
		{device.ErrAmbiguous, 22, "UDID"},
		{device.ErrGone, 22, "connect the device again"},
		{device.ErrDialogPending, 23, "tap Trust"},
		{device.ErrLocked, 23, "unlock"},
		{&device.Refusal{Code: "EscrowLocked"}, 23, "unlock"},
		{device.ErrNotPaired, 23, "snap device pair DEVICE"},
		{device.ErrStalePairing, 23, "snap device pair DEVICE\" again"},
		{device.ErrDenied, 23, "snap device pair DEVICE\" again and tap Trust"},
		{device.ErrManaged, 23, "manages"},
		{device.ErrNeedsCable, 23, "by cable"},
		{host.ErrTooManyNames, 28, "starts afresh"},
		{device.ErrSyncBusy, 25, "Finder"},
		{device.ErrBusy, 1, "other programs"},
		{stream.ErrTimeout, 1, "reconnect the device"},
		{context.Canceled, 130, "to continue"},
		{fs.ErrPermission, 1, "Full Disk Access"},
	} {
		for _, err := range []error{test.err, fmt.Errorf("a: %w", fmt.Errorf("b: %w", test.err)), silentError{test.err}} {
			if code, hint := classify("", err); code != test.code || !strings.Contains(hint, test.hint) {
				t.Errorf("%v: code %d, hint %q", err, code, hint)
			}
		}
		if code := fmt.Sprintf(" %d ", test.code); !strings.Contains(documented, code) {
			t.Errorf("docs/json.md does not explain code %d", test.code)
		}
	}
}

// The hint of some errors depends on the command. The code does not.
func TestHintsOfCommands(t *testing.T) {
	for _, test := range []struct {
		command string
		err     error
		code    int
		hint    string
	}{
		{"", usageError{errors.New("x")}, 2, `"snap help" lists the commands`},
		{"device pair", usageError{errors.New("x")}, 2, `"snap help device pair" explains this command`},
		{"import", errors.New("anything"), 1, ""},
		{"import", &ingest.IncompleteError{}, 14, "store it anyway with --allow-incomplete"},
		{"import", &ingest.IncompleteError{NoManifest: true}, 14, "put it back from another copy of the folder"},
		{"import", keybag.ErrWrongPassword, 20, "locked with --opaque"},
		{"import", advised{keybag.ErrWrongPassword, "do y"}, 20, "do y"},
		{"import", fmt.Errorf("%w: %w", repo.ErrWrongPassword, keybag.ErrWrongPassword), 12, "recovery key"},
		{"backup", &ingest.IncompleteError{}, 14, "with --allow-incomplete"},
		{"materialize", materialize.ErrTargetExists, 16, "--replace"},
		{"materialize", materialize.ErrLocked, 21, "without --decrypt"},
		{"forget", repo.ErrLastSnapshot, 1, "nothing was forgotten; --allow-last"},
		{"prune", repo.ErrNoSnapshots, 24, "nothing was removed; if all snapshots were forgotten"},
		{"restore", host.ErrNoRoom, 31, "--ignore-space"},
		{"status", errAttention, 32, ""},
		{"status", errDanger, 33, ""},
		{"restore", host.ErrDamaged, 29, "--allow-incomplete"},
		{"restore", fmt.Errorf("%w: %w", host.ErrHalfRestored, host.ErrDamaged), 30, "leave the device"},
	} {
		if code, hint := classify(test.command, test.err); code != test.code || !strings.Contains(hint, test.hint) {
			t.Errorf("%s: %v: code %d, hint %q", test.command, test.err, code, hint)
		}
	}
}

// The order of kinds within a group does not matter: each error belongs to at most
// one kind of a group.
func TestKindsOfAGroupAreDistinct(t *testing.T) {
	for _, err := range errorExamples {
		for _, group := range kinds {
			var fits []string
			for _, k := range group {
				if k.fits(err) {
					fits = append(fits, fmt.Sprintf("code %d, hint %q", k.code, k.hint))
				}
			}
			if len(fits) > 1 {
				t.Errorf("%v belongs to several kinds: %s", err, strings.Join(fits, "; "))
			}
		}
	}
	// Every kind has an example.
	for _, group := range kinds {
		for _, k := range group {
			if !slices.ContainsFunc(errorExamples, k.fits) {
				t.Errorf("no example has code %d, hint %q", k.code, k.hint)
			}
		}
	}
}

// errorExamples has an error of every kind.
var errorExamples = []error{
	s3.ErrNoBucket, s3.ErrNoKeys, s3.ErrRefused, s3.ErrNoObjectLock, protect.ErrOff, protect.ErrTampered, errNoProtection, rest.ErrRefused, rest.ErrForbidden, x509.UnknownAuthorityError{}, rest.ErrNoFolder, backend.ErrAppendOnly, backend.ErrOutOfReach, errNotEmpty,
	errAttention, errDanger, errMistakes, keyring.ErrUnavailable, host.ErrHalfRestored, errPassword, storedLocked{&repo.Snapshot{}}, importedLocked{&repo.Snapshot{}}, interruption{}, context.Canceled, errPartial, errStoredDamaged, errUnsound, errLostBackup, errFlawed, usageError{errors.New("x")}, errLostPart, errLacking, errNotSent, errUnread, notKeptError{},
	repo.ErrNotFound, repo.ErrLocked, repo.ErrLockLost, crypto.ErrRecoveryTypo, repo.ErrWrongPassword, keybag.ErrWrongPassword, backend.ErrNoSpace,
	drill.ErrNoPassword, drill.ErrOld, errDrillFailed, outputError{errors.New("x")}, errUnverified, errBlocked, errNoFile, errNoLock, local.ErrNoFsync, repo.ErrUnprovenKeys, materialize.ErrFileTooLarge, abandoned.ErrInUse,
	mirror.ErrRefused, repo.ErrNoSnapshots, &mirror.RefusedError{}, repo.ErrSameRepository, mirror.ErrDamaged, mirror.ErrChanging, errOutOfDate, errUnjudged, repo.ErrOtherRepository,
	repo.ErrUnsupported, &repo.DamageError{File: "config", Err: errors.New("x")}, &repo.DamageError{File: "keys/x", Err: errors.New("x")}, repo.ErrDamaged, &repo.DamageError{File: "packs/", Err: errors.New("x")}, backend.ErrNotFolder,
	ingest.ErrChanged, ingest.ErrUnreadable, ingest.ErrIncomplete, &ingest.IncompleteError{NoManifest: true}, materialize.ErrLocked, mobilesync.ErrDeadLink, mobilesync.ErrNoManifest, mobilesync.ErrNoBackup, repo.ErrPinned, repo.ErrLastSnapshot, repo.ErrChanged,
	repo.ErrNoSnapshot, repo.ErrAmbiguous, repo.ErrLastKey, repo.ErrKeyInUse, repo.ErrNoKey, repo.ErrKeyExists, repo.ErrExists, materialize.ErrTargetExists, errNoFiles, errNoUnfinished,
	look.ErrLocked, look.ErrNotDecrypted, look.ErrNoFile, errBinary, extract.ErrTargetExists,
	device.ErrNoMux, device.ErrNotFound, device.ErrNone, device.ErrAmbiguous, device.ErrGone, device.ErrDialogPending, device.ErrLocked,
	&device.Refusal{Code: "EscrowLocked"}, device.ErrNotPaired, device.ErrStalePairing, device.ErrDenied, device.ErrManaged, device.ErrNeedsCable,
	device.ErrSyncBusy, device.ErrBusy, host.ErrInUse, host.ErrNoRoom, host.ErrDamaged, host.ErrRefused, host.ErrCancelledOnDevice, host.ErrTooManyNames, backup2.ErrNoSpace, backup2.ErrLocked,
	backup2.ErrWrongPassword, backup2.ErrCancelled, &backup2.DeviceError{Code: 1}, &backup2.DeviceError{Code: 207}, backup2.ErrLinkLost,
	&backup2.ProtocolError{}, stream.ErrTimeout, os.ErrPermission,
}

// Ctrl-C in a command that only reads leaves nothing to continue.
func TestInterruptedReaders(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for command, want := range map[string]string{"snapshots": nothingDone, "import": hintContinue, "check": hintContinue} {
		var out strings.Builder
		a := &app{stderr: &out, command: command}
		if code := a.report(ctx, context.Canceled); code != exitInterrupted || !strings.Contains(out.String(), want) {
			t.Errorf("%s: code %d, %q", command, code, &out)
		}
	}
	for command := range readers {
		if cmd, rest, err := newTree().Find(strings.Fields(command)); err != nil || len(rest) > 0 || !cmd.Runnable() {
			t.Errorf("%q is no command", command)
		}
	}
}

// Text from a device or a repository cannot control the terminal, and continuation
// lines of a long error are indented.
func TestErrorsAreSafeToShow(t *testing.T) {
	var out strings.Builder
	a := &app{stderr: &out}
	if code := a.report(context.Background(), fmt.Errorf("a\x1b[2J:\n\tb: %w", os.ErrPermission)); code != exitError {
		t.Errorf("code %d", code)
	}
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	if len(lines) != 3 || !strings.HasPrefix(lines[0], "snap: a") || !strings.HasPrefix(lines[1], "        b") || strings.Contains(out.String(), "\x1b") {
		t.Errorf("got %q", lines)
	}
}
