package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/device"
	"github.com/snap-backup/snap/device/host"
	"github.com/snap-backup/snap/device/ingest"
	"github.com/snap-backup/snap/device/materialize"
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/keybag"
	"github.com/snap-backup/snap/device/protocol/backup2"
	"github.com/snap-backup/snap/device/protocol/stream"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/mirror"
)

// Exit codes. Those that restic has too have restic's numbers.
const (
	exitOK           = 0
	exitError        = 1
	exitUsage        = 2
	exitPartial      = 3
	exitNoRepo       = 10
	exitInUse        = 11
	exitWrongPass    = 12
	exitDamaged      = 13
	exitIncomplete   = 14
	exitNoSnapshot   = 15
	exitExists       = 16
	exitNoSpace      = 17
	exitUnsupported  = 18
	exitNoBackup     = 19
	exitWrongBackup  = 20
	exitLocked       = 21
	exitNoDevice     = 22
	exitUntrusted    = 23
	exitRefused      = 24
	exitDeviceBusy   = 25
	exitCancelled    = 26
	exitLinkLost     = 27
	exitDeviceError  = 28
	exitUnfit        = 29
	exitHalfRestored = 30
	exitNoRoom       = 31
	exitInterrupted  = 130
)

// kinds is the one place where an error's kind becomes an exit code and what
// to do next. The first that fits counts. docs/guide.md has the same table.
var kinds = []struct {
	fits func(error) bool
	code int
	hint string
}{
	{is(host.ErrHalfRestored), exitHalfRestored, "leave the device as it is and run the same command again; if it does not start, it has to be erased with Finder, iTunes or Apple Devices first"},
	{is(errPassword), exitWrongBackup, "try again, with the backup password that the device had when the snapshot was made"},
	{isStoredLocked, exitWrongBackup, ""},
	{isInterruption, exitInterrupted, ""},
	{is(context.Canceled), exitInterrupted, hintGoOn},
	{is(errPartial), exitPartial, "the others are complete"},
	{isUsage, exitUsage, `"snap help COMMAND" explains a command`},
	{is(repo.ErrNotFound), exitNoRepo, `check -r or SNAP_REPOSITORY, or make a repository with "snap init"`},
	{is(repo.ErrLocked), exitInUse, `wait for it (--retry-lock 10m does), or see "snap unlock"; nothing was changed`},
	{is(repo.ErrLockLost), exitInUse, "no snapshot was made; run the same command again: what was stored is found, if it is still there"},
	{is(crypto.ErrRecoveryTypo), exitWrongPass, "compare it with what was written down, group by group"},
	{is(repo.ErrWrongPassword), exitWrongPass, "nothing was changed; try again, or use another password or the recovery key"},
	{is(keybag.ErrWrongPassword), exitWrongBackup, "nothing was stored; try again (\"snap import --opaque\" stores the backup locked)"},
	{backend.IsNoSpace, exitNoSpace, "free some space and run the same command again: what is complete is kept"},
	{is(mirror.ErrRefused), exitRefused, ""},
	{is(repo.ErrSameRepository), exitUsage, `choose another target; "snap mirror" keeps exact copies`},
	{is(mirror.ErrDamaged), exitDamaged, `in the repository: "snap check --read-data" tells what suffers; on the mirror: "snap mirror --check --heal" copies sound files over`},
	{is(mirror.ErrChanging), exitError, "run it again, with the password, so that a prune waits; what was copied is kept"},
	{is(errOutOfDate), exitError, `"snap mirror TARGET" brings it up to date`},

	{is(repo.ErrOtherRepository), exitError, "nothing was changed"},
	{is(repo.ErrUnsupported), exitUnsupported, "nothing was changed"},
	{isUnopened("config"), exitDamaged, "without it nothing can be read: copy the file of that name from a mirror or another copy of this repository into its place"},
	{isUnopened("keys/"), exitDamaged, "open the repository with another key, such as the recovery key; then remove the damaged file and add a new key (\"snap key add\"); or copy keys/ from a mirror or another copy of this repository"},
	{is(errLostPart), exitDamaged, `"snap check" tells what; "snap repair --from COPY" brings back what another copy has`},
	{is(repo.ErrDamaged), exitDamaged, `"snap check --read-data" tells what is damaged and which snapshots suffer`},
	{is(ingest.ErrChanged), exitIncomplete, "wait until the backup has ended and run the command again; no snapshot was made"},
	{is(ingest.ErrIncomplete), exitIncomplete, "let the backup finish and try again, or take it as it is with --allow-incomplete; nothing was stored"},
	{is(materialize.ErrLocked), exitLocked, "import the backup again with its backup password, or give it back without --decrypt"},
	{is(mobilesync.ErrNoBackup), exitNoBackup, "give the folder that holds Manifest.plist, or a folder of such folders"},
	{is(repo.ErrPinned), exitError, `nothing was forgotten; "snap unpin" lets it go`},
	{is(repo.ErrLastSnapshot), exitError, "nothing was forgotten; --allow-last removes it all the same"},
	{is(repo.ErrChanged), exitError, `"snap snapshots" shows what it is now; then run the command again`},
	{is(repo.ErrNoSnapshot), exitNoSnapshot, `"snap snapshots" lists what is there`},
	{is(repo.ErrAmbiguous), exitNoSnapshot, "give more digits of the ID, or a UDID"},
	{is(device.ErrNoMux), exitNoDevice, device.MuxHint(runtime.GOOS)},
	{is(device.ErrNotFound), exitNoDevice, `connect it by cable and unlock it; "snap devices" lists what is connected`},
	{is(device.ErrAmbiguous), exitNoDevice, "give more of the UDID or the whole name"},
	{is(device.ErrGone), exitNoDevice, "connect the device again, unlock it, and run the same command again"},
	{is(device.ErrDialogPending), exitUntrusted, "unlock the device, tap Trust and enter its passcode, then run the same command again"},
	{is(device.ErrLocked), exitUntrusted, "unlock the device and run the same command again"},
	{is(device.ErrNotPaired), exitUntrusted, `connect it by cable and run "snap device pair DEVICE"`},
	{is(device.ErrStalePairing), exitUntrusted, `connect it by cable and run "snap device pair DEVICE" again`},
	{is(device.ErrDenied), exitUntrusted, `run "snap device pair DEVICE" again and tap Trust; if it does not ask, connect it anew, or reset it in Settings, General, Transfer or Reset, Reset Location & Privacy`},
	{is(device.ErrManaged), exitUntrusted, "ask whoever manages the device to allow pairing with this computer"},
	{is(device.ErrNeedsCable), exitUntrusted, "connect the device by cable once"},
	{is(host.ErrInUse), exitDeviceBusy, "wait until it has ended, and run the same command again"},
	{is(host.ErrNoRoom), exitNoRoom, "nothing on the device was changed; free some storage on it, or go on with --ignore-space if what is there is replaced"},
	{is(host.ErrRefused), exitUnfit, "nothing on the device was changed"},
	{is(host.ErrCancelledOnDevice), exitCancelled, "run the same command again when you are ready"},
	{is(backup2.ErrNoSpace), exitNoSpace, ""},
	{is(backup2.ErrLocked), exitUntrusted, ""},
	{is(backup2.ErrWrongPassword), exitWrongBackup, ""},
	{is(backup2.ErrCancelled), exitCancelled, "run the same command again when you are ready"},
	{isDeviceError, exitDeviceError, ""},
	{is(backup2.ErrLinkLost), exitLinkLost, "check the cable or the Wi-Fi connection, unlock the device, and run the same command again"},
	{isProtocolError, exitDeviceError, "restart the device and run the same command again"},
	{is(device.ErrSyncBusy), exitDeviceBusy, "wait until Finder, iTunes or the other program has ended, and run the same command again"},
	{is(device.ErrBusy), exitError, "close other programs that use the device, or connect it anew"},
	{is(stream.ErrTimeout), exitError, "unlock the device, connect it anew, and run the same command again; restart it if that does not help"},
	{is(errNothingThere), exitNoSnapshot, `"snap ls SNAPSHOT" lists the domains, "snap ls -R SNAPSHOT" all files`},
	{is(repo.ErrLastKey), exitError, `add another key first, with "snap key add"`},
	{is(repo.ErrNoKey), exitNoSnapshot, `"snap key list" lists the keys`},
	{is(repo.ErrKeyExists), exitExists, `nothing was changed; "snap key list" lists the keys`},
	{is(repo.ErrExists), exitExists, "use it as it is, or choose another folder"},
	{is(materialize.ErrTargetExists), exitExists, "choose another target, or replace it with --replace"},
	{is(os.ErrPermission), exitError, "on macOS, give the terminal Full Disk Access in System Settings, Privacy & Security; elsewhere check who owns the folder"},
}

// hintGoOn is for commands that store.
const hintGoOn = "what was stored so far is kept: run the same command again to go on"

// interruption is a Ctrl-C, and what a person should know then.
type interruption struct{ hint string }

func (interruption) Error() string        { return "interrupted" }
func (interruption) Is(target error) bool { return target == context.Canceled }
func (i interruption) Hint() string       { return i.hint }

func isInterruption(err error) bool {
	var i interruption
	return errors.As(err, &i)
}

// orInterrupted returns err, or what to say if it comes from a Ctrl-C.
func orInterrupted(ctx context.Context, err error, hint string) error {
	if err == nil || ctx.Err() == nil || isInterruption(err) || errors.Is(err, host.ErrHalfRestored) {
		return err
	}
	return interruption{hint}
}

func is(target error) func(error) bool {
	return func(err error) bool { return errors.Is(err, target) }
}

// isUnopened reports whether a repository cannot be opened since a file of it is
// damaged whose name begins like that. No other command can tell more then.
func isUnopened(name string) func(error) bool {
	return func(err error) bool {
		var e *repo.DamageError
		return errors.As(err, &e) && strings.HasPrefix(e.File, name)
	}
}

func isUsage(err error) bool {
	var u usageError
	// Cobra has no types for these.
	return errors.As(err, &u) || strings.HasPrefix(err.Error(), "unknown command") || strings.HasPrefix(err.Error(), "if any flags in the group")
}

// isDeviceError reports whether a device said how something failed.
func isDeviceError(err error) bool {
	var e *backup2.DeviceError
	return errors.As(err, &e)
}

func isProtocolError(err error) bool {
	var e *backup2.ProtocolError
	return errors.As(err, &e)
}

// advised is an error of which the place that made it knows better what to do
// than its kind does.
type advised struct {
	error
	hint string
}

func (e advised) Unwrap() error { return e.error }
func (e advised) Hint() string  { return e.hint }

// classify returns the exit code and the hint for an error. What a device says
// has hints of its own, where the kind has none.
func classify(err error) (code int, hint string) {
	for _, k := range kinds {
		if !k.fits(err) {
			continue
		}
		var better advised
		if errors.As(err, &better) {
			return k.code, better.hint
		}
		// Some know better what to do.
		var h interface{ Hint() string }
		if k.hint == "" && errors.As(err, &h) {
			return k.code, h.Hint()
		}
		return k.code, k.hint
	}
	var h interface{ Hint() string }
	if errors.As(err, &h) {
		return exitError, h.Hint()
	}
	return exitError, ""
}

// silentError has been reported already; only its code matters.
type silentError struct{ error }

func (e silentError) Unwrap() error { return e.error }

// report prints an error and returns the exit code.
func (a *app) report(ctx context.Context, err error) int {
	if err == nil {
		return exitOK
	}
	var silent silentError
	if errors.As(err, &silent) {
		code, _ := classify(err)
		return code
	}
	err = orInterrupted(ctx, err, hintGoOn)
	code, hint := classify(err)
	a.printError(err, code, hint)
	return code
}

func (a *app) printError(err error, code int, hint string) {
	if a.json {
		printLine(a.stderr, jsonError{err.Error(), code, hint})
		return
	}
	lead := "snap: "
	for line := range strings.Lines(err.Error()) {
		if line = strings.TrimRight(strings.ReplaceAll(line, "\t", "  "), "\n "); line != "" {
			fmt.Fprintln(a.stderr, lead+clean(line))
			lead = "      "
		}
	}
	if hint != "" {
		fmt.Fprintf(a.stderr, "      %s\n", hint)
	}
}

// jsonError is how an error looks with --json.
type jsonError struct {
	Error string `json:"error"`
	Code  int    `json:"code"`
	Hint  string `json:"hint,omitempty"`
}

// warn prints a remark that does not end the command. With --json every line
// of standard error is an object.
func (a *app) warn(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if a.json {
		printLine(a.stderr, struct {
			Warning string `json:"warning"`
		}{text})
		return
	}
	fmt.Fprintf(a.stderr, "snap: warning: %s\n", clean(text))
}

// printLine writes a value as one line of JSON.
func printLine(w io.Writer, v any) {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	// There is nobody left to tell of a failure to write to standard error.
	_ = enc.Encode(v)
}

// detail prints what only --verbose tells.
func (a *app) detail(format string, args ...any) {
	if a.verbose {
		a.remark("%s", clean(fmt.Sprintf(format, args...)))
	}
}

// remark prints something good to know, unless quiet.
func (a *app) remark(format string, args ...any) {
	if !a.quiet && !a.json {
		fmt.Fprintf(a.stderr, format+"\n", args...)
	}
}
