package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/device"
	"github.com/snap-backup/snap/device/drill"
	"github.com/snap-backup/snap/device/host"
	"github.com/snap-backup/snap/device/ingest"
	"github.com/snap-backup/snap/device/materialize"
	"github.com/snap-backup/snap/device/mobilesync"
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

// Exit codes. A code that restic also has gets the same number as in restic.
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
	exitAttention    = 32
	exitDanger       = 33
	exitInterrupted  = 130
	exitPipe         = 141 // the reader of the output has stopped: died of SIGPIPE
)

// kind maps a kind of error to an exit code and a hint, which says what to do next.
type kind struct {
	fits func(error) bool
	code int
	hint string
}

// kinds is the only place that maps errors to exit codes and hints; docs/guide.md has
// the same table. The groups are tried in this order, and the first kind that fits an
// error counts. The order within a group does not matter.
var kinds = [][]kind{outcomes, storeCauses, damagedFiles, contentCauses, deviceCauses, lastResorts}

// outcomes describe how a command ended, whatever caused it.
var outcomes = []kind{
	{is(host.ErrHalfRestored), exitHalfRestored, "leave the device as it is and run the same command again; if the device does not start, erase it with Finder, iTunes or Apple Devices first"},
	{is(errAttention), exitAttention, ""},
	{is(errDanger), exitDanger, ""},
	{is(errMistakes), exitError, ""},
	{is(errPassword), exitWrongBackup, "try again with the backup password that the device had when the snapshot was made"},
	{isA[storedLocked], exitWrongBackup, ""},
	{isA[importedLocked], exitLocked, `it is complete; keep the password with "snap device password set DEVICE" or SNAP_BACKUP_PASSWORD, and import again`},
	{isA[notKeptError], exitPartial, ""},
	{isA[interruption], exitInterrupted, ""},
	{isA[outputError], exitError, "the command itself has done what it should; only its output is incomplete"},
	{isCanceled, exitInterrupted, hintContinue},
	{is(errPartial), exitPartial, "the others are complete"},
	{is(errStoredDamaged), exitPartial, `the other files were stored, and the snapshot displaces no earlier one; "snap restore --allow-incomplete SNAPSHOT" restores them`},
	{is(errDrillFailed), exitPartial, `an earlier snapshot may pass; "snap show SNAPSHOT" shows what was found`},
	{is(drill.ErrNoPassword), exitWrongBackup, `store the password with "snap device password set DEVICE"; without it, "snap drill --to FOLDER SNAPSHOT" rehearses writing the backup folder`},
	{is(drill.ErrOld), exitUnfit, `"snap drill --to FOLDER SNAPSHOT" rehearses writing the backup folder`},
	{isA[usageError], exitUsage, `"snap help" lists the commands`},
	{is(errFlawed), exitDamaged, "everything else was written; an earlier snapshot may have these files intact"},
	{is(errUnsound), exitPartial, `"snap show SNAPSHOT" lists what was found; "snap snapshots" lists earlier snapshots`},
	{is(errUnverified), exitPartial, "run the same command again: it continues where this one ended"},
	{is(errLostBackup), exitDamaged, `"snap check --read-data" shows what is damaged; "snap repair --from COPY" restores what a copy has`},
	{is(errUnread), exitDamaged, `"snap check" shows what is damaged; "snap repair --from COPY" restores what a copy has`},
	{is(errNotSent), exitDamaged, `everything else was restored; "snap check --read-data" shows what is damaged`},
	{is(errLacking), exitDamaged, `everything else was written; "snap check --read-data" shows what is damaged, and "snap repair --from COPY" restores what a copy has; an earlier snapshot may have these files intact`},
	{is(errLostPart), exitDamaged, `"snap check" shows what is lost; "snap repair --from COPY" restores what a copy has`},
}

// storeCauses are reasons why a repository or mirror could not be used.
var storeCauses = []kind{
	{is(keyring.ErrUnavailable), exitError, ""},
	{is(s3.ErrNoBucket), exitError, `check the address; "snap init -o s3.make-bucket=true" makes the bucket, too`},
	{is(s3.ErrNoKeys), exitError, "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile of ~/.aws with -o s3.profile=NAME"},
	{is(s3.ErrNoObjectLock), exitError, `use a bucket with Object Lock; "snap init --lock 30d -o s3.make-bucket=true" makes one`},
	{is(protect.ErrOff), exitError, `"snap protect --lock 30d" protects it from now on`},
	{is(protect.ErrTampered), exitDamaged, `nothing was removed; "snap protect --restore-hidden TIME" brings back the files of a time before the first removal that you did not make`},
	{is(errNoProtection), exitError, `see "snap help protect"; "snap serve --append-only" guards a folder`},
	{is(s3.ErrRefused), exitError, "check the access key, the region (-o s3.region) and the clock of this computer; what was stored is kept"},
	{is(rest.ErrRefused), exitError, "set SNAP_REST_USER and SNAP_REST_PASSWORD to a user of the server and its password; what was stored is kept"},
	{is(rest.ErrForbidden), exitError, "check the address: a server can let each user use only the folder of the user's name"},
	{isA[x509.UnknownAuthorityError], exitError, "-o rest.ca-file=FILE or -o s3.ca-file=FILE names the authority; -o rest.fingerprint=SHA256 trusts the certificate with the fingerprint that the server has shown"},
	{is(rest.ErrNoFolder), exitNoRepo, `check the address, or create a repository with "snap init"`},
	{is(backend.ErrAppendOnly), exitRefused, `nothing that was stored is lost; run this command on the server itself, or as a user of it who may remove files`},
	{is(backend.ErrOutOfReach), exitError, "check the network and the address; what was stored is kept, and the same command goes on where this one ended"},
	{is(repo.ErrNotFound), exitNoRepo, `check -r, SNAP_REPOSITORY and "snap config show", or create a repository with "snap init"`},
	{is(backend.ErrNotFolder), exitDamaged, `nothing else was changed; if the folder is lost, "snap check" then says how to go on`},
	{isDamagedFolder, exitDamaged, "nothing was changed"},
	{is(repo.ErrLocked), exitInUse, ""},
	{is(errBlocked), exitInUse, ""},
	{is(repo.ErrLockLost), exitInUse, "what was done is kept; run the same command again"},
	{is(crypto.ErrRecoveryTypo), exitWrongPass, "compare it with the written recovery key, group by group"},
	{is(repo.ErrWrongPassword), exitWrongPass, "nothing was changed; try again, or use another password or the recovery key"},
	{is(keybag.ErrWrongPassword), exitWrongBackup, "try again with another password"},
	{backend.IsNoSpace, exitNoSpace, "free some space and run the same command again; complete files are kept"},
	{is(mirror.ErrRefused), exitRefused, ""},
	{is(repo.ErrNoSnapshots), exitRefused, `nothing was removed; if all snapshots were forgotten, "snap prune --allow-empty" removes their data; if their records were lost, "snap repair --from COPY --missing-snapshots" brings back those of a copy`},
	{is(repo.ErrSameRepository), exitUsage, `choose another target; "snap mirror TARGET" makes exact copies`},
	{is(mirror.ErrDamaged), exitDamaged, `for the repository: "snap check --read-data" shows what is affected; what is damaged there comes back from the mirror with "snap repair --from TARGET"; for the mirror: "snap mirror --check --heal TARGET" replaces damaged files`},
	{is(mirror.ErrChanging), exitError, "what was copied is kept; run the command again with the password, so that a prune waits for it"},
	{is(errOutOfDate), exitError, `"snap mirror TARGET" updates it`},
	{is(errUnjudged), exitError, `run "snap mirror --ask-password TARGET" once; later runs need no password`},
	{is(repo.ErrOtherRepository), exitError, "nothing was changed"},
	{is(repo.ErrUnsupported), exitUnsupported, "nothing was changed"},
	{is(local.ErrNoFsync), exitError, "nothing was lost; with --no-fsync or SNAP_NO_FSYNC=1 the command works without fsync"},
}

// damagedFiles are files that every command needs.
var damagedFiles = []kind{
	{isDamaged("config"), exitDamaged, "copy this file from a mirror or another copy of this repository; without one, \"snap repair config\" puts it back or makes a new one, with which everything can be read"},
	{isDamaged("keys/"), exitDamaged, `"snap repair" heals it if there is parity, and "snap repair --from COPY" if there is a copy; otherwise open the repository with another key, such as the recovery key, remove the damaged file and add a new key ("snap key add")`},
}

// contentCauses are reasons why snapshots, keys or backups could not be used.
var contentCauses = []kind{
	{is(repo.ErrDamaged), exitDamaged, `"snap check --read-data" shows what is damaged and which snapshots are affected`},
	{is(ingest.ErrChanged), exitIncomplete, "no snapshot was made; wait until the backup has ended and run the command again"},
	{is(ingest.ErrUnreadable), exitError, "no snapshot was made; check who owns the folder, whether the disk fails and, on macOS, whether the terminal has Full Disk Access (System Settings, Privacy & Security)"},
	{is(ingest.ErrIncomplete), exitIncomplete, "no snapshot was made; let the backup finish and try again"},
	{is(materialize.ErrLocked), exitLocked, "import the backup again with its backup password"},
	{is(look.ErrLocked), exitLocked, `give the backup password with SNAP_BACKUP_PASSWORD, or keep it with "snap device password set DEVICE"`},
	{is(look.ErrNotDecrypted), exitLocked, `"snap show SNAPSHOT" may say why; set SNAP_BACKUP_PASSWORD to try the backup password`},
	{is(look.ErrNoFile), exitNoSnapshot, `"snap ls SNAPSHOT" lists the domains, "snap ls -R SNAPSHOT" all files`},
	{is(errBinary), exitUsage, "nothing of it is lost: write it to a file with > FILE, or to a program with |"},
	{is(mobilesync.ErrDeadLink), exitNoBackup, "connect the disk that the link leads to, or remove the link"},
	{is(mobilesync.ErrNoManifest), exitNoBackup, "back up the device again, or move the folder away"},
	{is(mobilesync.ErrNoBackup), exitNoBackup, "name the folder that has Manifest.plist, or a folder of such folders"},
	{is(repo.ErrPinned), exitError, `nothing was forgotten; "snap unpin SNAPSHOT" removes the pin`},
	{is(repo.ErrLastSnapshot), exitError, `nothing was forgotten; "snap forget --allow-last SNAPSHOT" removes it anyway`},
	{is(repo.ErrChanged), exitError, `"snap snapshots" shows the current state; then run the command again`},
	{is(repo.ErrNoSnapshot), exitNoSnapshot, `"snap snapshots" lists the snapshots`},
	{is(errNoUnfinished), exitNoSnapshot, "nothing was changed; the next backup starts from the last snapshot"},
	{is(repo.ErrAmbiguous), exitNoSnapshot, "give more digits of the ID, or a UDID"},
	{is(errNoFile), exitNoSnapshot, "the names of the files in the folders of the repository are their IDs"},
	{is(errNoLock), exitNoSnapshot, `"snap unlock" lists the locks`},
	{is(repo.ErrLastKey), exitError, `add another key first with "snap key add"`},
	{is(repo.ErrKeyInUse), exitUsage, "nothing was changed; open the repository with a key that is to stay"},
	{is(repo.ErrUnprovenKeys), exitError, "run this command with one of the keys that are to stay; that shows that it opens the repository"},
	{is(repo.ErrNoKey), exitNoSnapshot, `"snap key list" lists the keys`},
	{is(repo.ErrKeyExists), exitExists, `nothing was changed; "snap key list" lists the keys`},
	{is(repo.ErrExists), exitExists, "use the existing repository, or choose another folder"},
	{is(errNotEmpty), exitExists, ""},
	{is(materialize.ErrTargetExists), exitExists, "choose another target"},
	{is(extract.ErrTargetExists), exitExists, "nothing was replaced; choose another target, or remove this one"},
	{is(materialize.ErrFileTooLarge), exitError, "choose another target: FAT drives hold files of less than 4 GiB; exFAT, NTFS, APFS and ext4 hold larger ones"},
	{is(abandoned.ErrInUse), exitInUse, "wait until it has ended, or choose another target"},
	{is(errNoFiles), exitNoSnapshot, `"snap ls SNAPSHOT" lists the domains, "snap ls -R SNAPSHOT" all files`},
}

// deviceCauses are reasons why a device could not be used.
var deviceCauses = []kind{
	{is(device.ErrNoMux), exitNoDevice, device.MuxHint(runtime.GOOS)},
	{is(device.ErrNotFound), exitNoDevice, `connect it by cable and unlock it; "snap devices" lists the connected devices`},
	{is(device.ErrAmbiguous), exitNoDevice, "give more of the UDID, or the complete name"},
	{is(device.ErrGone), exitNoDevice, "connect the device again, unlock it, and run the same command again"},
	{is(device.ErrDialogPending), exitUntrusted, "unlock the device, tap Trust, enter its passcode, and run the same command again"},
	{is(device.ErrLocked), exitUntrusted, "unlock the device and run the same command again"},
	{is(device.ErrNotPaired), exitUntrusted, `connect it by cable and run "snap device pair DEVICE"`},
	{is(device.ErrStalePairing), exitUntrusted, `connect it by cable and run "snap device pair DEVICE" again`},
	{is(device.ErrDenied), exitUntrusted, `run "snap device pair DEVICE" again and tap Trust; if the device does not ask, reconnect it, or use Settings, General, Transfer or Reset, Reset Location & Privacy on it`},
	{is(device.ErrManaged), exitUntrusted, "ask the organisation that manages the device to allow pairing with this computer"},
	{is(device.ErrNeedsCable), exitUntrusted, "connect the device by cable once"},
	{is(host.ErrInUse), exitDeviceBusy, "wait until it has ended, and run the same command again"},
	{is(host.ErrNoRoom), exitNoRoom, "nothing on the device was changed; free some storage on it"},
	{is(host.ErrDamaged), exitUnfit, `nothing on the device was changed; choose an earlier snapshot ("snap snapshots" marks damaged ones with !)`},
	{is(host.ErrRefused), exitUnfit, "nothing on the device was changed"},
	{is(host.ErrTooManyNames), exitDeviceError, "restart the device and run the same command again: it starts afresh"},
	{is(host.ErrCancelledOnDevice), exitCancelled, "run the same command again when you are ready"},
	{is(backup2.ErrNoSpace), exitNoSpace, ""},
	{is(backup2.ErrLocked), exitUntrusted, ""},
	{is(backup2.ErrWrongPassword), exitWrongBackup, ""},
	{is(backup2.ErrCancelled), exitCancelled, "run the same command again when you are ready"},
}

// lastResorts are for errors whose cause is not known more precisely.
var lastResorts = []kind{
	{isA[*backup2.DeviceError], exitDeviceError, ""},
	{is(backup2.ErrLinkLost), exitLinkLost, "check the cable or the Wi-Fi connection, unlock the device, and run the same command again"},
	{isA[*backup2.ProtocolError], exitDeviceError, "restart the device and run the same command again"},
	{is(device.ErrSyncBusy), exitDeviceBusy, "wait until Finder, iTunes or the other program has ended, and run the same command again"},
	{is(device.ErrBusy), exitError, "close other programs that use the device, or reconnect it"},
	{is(stream.ErrTimeout), exitError, "unlock and reconnect the device, and run the same command again; restart the device if that does not help"},
	{is(os.ErrPermission), exitError, "on macOS, give the terminal Full Disk Access in System Settings, Privacy & Security; elsewhere check who owns the folder"},
}

// commandHints replace the hint of a kind of error in one command, since only this
// command has the flag that they name.
var commandHints = []struct {
	command string // without "snap"
	err     error
	hint    string
}{
	{"backup", repo.ErrLockLost, hintLockLost},
	{"import", repo.ErrLockLost, hintLockLost},
	{"import", keybag.ErrWrongPassword, "no snapshot of this backup was made; try again, or store it locked with --opaque"},
	{"import", ingest.ErrUnreadable, "no snapshot was made; check who owns the folder, whether the disk fails and, on macOS, whether the terminal has Full Disk Access (System Settings, Privacy & Security); or store what can be read with --allow-incomplete"},
	{"import", ingest.ErrNoManifest, "no snapshot of this backup was made; if no backup is running, the file was deleted: put it back from another copy of the folder, or move the folder away and back up the device again; --allow-incomplete stores what is left, without the names of the files"},
	{"import", ingest.ErrIncomplete, "no snapshot of this backup was made; let the backup finish and try again, or store it anyway with --allow-incomplete"},
	{"backup", ingest.ErrIncomplete, "no snapshot was made; run the same command again, or store what the device sends with --allow-incomplete"},
	{"materialize", materialize.ErrLocked, "import the backup again with its backup password, or materialize it without --decrypt"},
	{"materialize", backend.ErrNoSpace, "free some space there and run the same command again, or choose another target"},
	{"materialize", materialize.ErrTargetExists, "choose another target, or replace it with --replace"},
	{"forget", repo.ErrLastSnapshot, "nothing was forgotten; --allow-last removes it anyway"},
	{"key remove", repo.ErrKeyInUse, "nothing was changed; open the repository with a key that is to stay, or use --yes"},
	{"restore", host.ErrNoRoom, "nothing on the device was changed; free some storage on it, or use --ignore-space if the restore replaces what is on it"},
	{"restore", host.ErrDamaged, `nothing on the device was changed; choose an earlier snapshot ("snap snapshots" marks damaged ones with !), or restore what there is with --allow-incomplete`},
}

// hintLockLost is the hint of commands that make snapshots.
const hintLockLost = "no snapshot was made; run the same command again: it reuses stored data that still exists"

// readers are commands that change nothing, so there is nothing to continue.
var readers = map[string]bool{
	"cat": true, "config check": true, "config show": true, "device info": true, "devices": true, "diff": true, "key list": true,
	"ls": true, "show": true, "snapshots": true, "stats": true, "status": true, "version": true,
}

// hintContinue is the hint of interrupted commands that store something.
const hintContinue = "what was stored is kept; run the same command again to continue"

// interruption says that Ctrl-C ended a command. Its hint says what was kept.
type interruption struct{ hint string }

func (interruption) Error() string        { return "interrupted" }
func (interruption) Is(target error) bool { return target == context.Canceled }
func (i interruption) Hint() string       { return i.hint }

// orInterrupted returns err, or an interruption if Ctrl-C caused it.
func orInterrupted(ctx context.Context, err error, hint string) error {
	if err == nil || ctx.Err() == nil || isA[interruption](err) || errors.Is(err, host.ErrHalfRestored) {
		return err
	}
	return interruption{hint}
}

func is(target error) func(error) bool {
	return func(err error) bool { return errors.Is(err, target) }
}

func isA[E error](err error) bool {
	var e E
	return errors.As(err, &e)
}

// isCanceled reports whether Ctrl-C ended a command that has no message of its own
// for this case.
func isCanceled(err error) bool {
	return errors.Is(err, context.Canceled) && !isA[interruption](err)
}

// isDamaged returns a function that reports whether an error is about a damaged file
// whose name begins with prefix.
func isDamaged(prefix string) func(error) bool {
	return func(err error) bool {
		var e *repo.DamageError
		return errors.As(err, &e) && strings.HasPrefix(e.File, prefix)
	}
}

// isDamagedFolder reports whether an error is about a folder of the repository that is
// missing. The error itself says what to do.
func isDamagedFolder(err error) bool {
	var e *repo.DamageError
	return errors.As(err, &e) && (e.File == "packs/" || e.File == "snapshots/")
}

// advised is an error with a hint that replaces the hint of its kind.
type advised struct {
	error
	hint string
}

func (e advised) Unwrap() error { return e.error }
func (e advised) Hint() string  { return e.hint }

// kindOf returns the kind of an error.
func kindOf(err error) kind {
	for _, group := range kinds {
		for _, k := range group {
			if k.fits(err) {
				return k
			}
		}
	}
	return kind{fits: func(error) bool { return false }, code: exitError}
}

// classify returns the exit code and the hint for an error of a command, such as
// "device pair". The hint of an advised error comes first, then the hint of the
// command, then that of the kind, then the error's own hint, such as one for a
// device's error code.
func classify(command string, err error) (code int, hint string) {
	k := kindOf(err)
	var better advised
	if errors.As(err, &better) {
		return k.code, better.hint
	}
	if k.code == exitUsage && command != "" && isA[usageError](err) {
		return k.code, fmt.Sprintf("\"snap help %s\" explains this command", command)
	}
	for _, h := range commandHints {
		if h.command == command && k.fits(h.err) && errors.Is(err, h.err) {
			return k.code, h.hint
		}
	}
	var h interface{ Hint() string }
	if k.hint == "" && errors.As(err, &h) {
		return k.code, h.Hint()
	}
	return k.code, k.hint
}

// silentError is an error that has already been reported; only its exit code matters.
type silentError struct{ error }

func (e silentError) Unwrap() error { return e.error }

// report prints an error and returns the exit code.
func (a *app) report(ctx context.Context, err error) int {
	if err == nil {
		return exitOK
	}
	var silent silentError
	if errors.As(err, &silent) {
		code, _ := classify(a.command, err)
		return code
	}
	kept := hintContinue
	if readers[a.command] {
		kept = nothingDone
	}
	err = orInterrupted(ctx, err, kept)
	code, hint := classify(a.command, err)
	a.printError(err, code, hint)
	return code
}

func (a *app) printError(err error, code int, hint string) {
	if a.json {
		printLine(a.stderr, jsonError{err.Error(), code, hint})
		return
	}
	w := a.messages()
	lead := paint(w, bad, "snap:") + " "
	for line := range strings.Lines(err.Error()) {
		if line = strings.TrimRight(strings.ReplaceAll(line, "\t", "  "), "\n "); line != "" {
			fmt.Fprintln(w, lead+clean(line))
			lead = "      "
		}
	}
	if hint != "" {
		fmt.Fprintf(w, "      %s\n", paint(w, faint, hint))
	}
}

// jsonError is an error with --json.
type jsonError struct {
	Error string `json:"error"`
	Code  int    `json:"code"`
	Hint  string `json:"hint,omitempty"`
}

// warn prints a problem that does not end the command. With --json every line of
// standard error is an object.
func (a *app) warn(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if a.json {
		printLine(a.stderr, struct {
			Warning string `json:"warning"`
		}{text})
		return
	}
	w := a.messages()
	fmt.Fprintf(w, "snap: %s %s\n", paint(w, caution, "warning:"), clean(text))
}

// printLine writes a value as one line of JSON.
func printLine(w io.Writer, v any) {
	// A failure to write to standard error cannot be reported.
	_ = encode(w, v, "")
}

// detail prints a note with --verbose.
func (a *app) detail(format string, args ...any) {
	if a.verbose {
		a.remark("%s", clean(fmt.Sprintf(format, args...)))
	}
}

// remark prints a note, unless --quiet or --json is given.
func (a *app) remark(format string, args ...any) {
	if !a.quiet && !a.json {
		fmt.Fprintf(a.messages(), format+"\n", args...)
	}
}
