package backup2

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// BackupRequest asks a device to back itself up.
type BackupRequest struct {
	UDID string // of the device, with its dash; also the name of its folder
	// Full asks for all files. Newer devices ignore the option and continue the
	// previous backup if it has a Status.plist, so Full also hides this file from
	// the device.
	Full bool
	// Backup calls Complain, if it is not nil, for each complaint of the device. For a
	// complaint about a file, it does so after the Folder has committed the file.
	Complain func(Complaint)
}

// Complaint is a problem that a device reports without ending its backup.
type Complaint struct {
	// Path names the file in the Folder that did not arrive completely. It is empty
	// if the complaint is not about a file.
	Path string
	// Origin is the file's name on the device, and Text the device's description of
	// the problem. Both are safe to print.
	Origin, Text string
}

// Backup makes the device back up into the Folder. If it returns nil, the device
// has verified the backup and reported success.
//
// The error is or wraps a *DeviceError, a *ProtocolError, ErrLinkLost or
// ErrCancelled, or an error of the Folder. The Folder then contains the files that
// were received completely. The Status.plist in it says in which state the backup
// is.
func (s *Session) Backup(ctx context.Context, q BackupRequest, folder Folder, o Observer) error {
	if err := checkIdentifier(q.UDID); err != nil {
		return err
	}
	fields := map[string]any{"TargetIdentifier": q.UDID}
	if q.Full {
		fields["Options"] = map[string]any{"ForceFullBackup": true}
	}
	r := &operation{folder: folder, scope: newScope(false, q.UDID), report: newReporter(o), complain: q.Complain}
	if q.Full {
		r.hidden = q.UDID + "/Status.plist"
	}
	return s.run(ctx, "Backup", "backup", fields, r)
}

// RestoreOptions are options of a restore. The zero value is the safest choice. All
// options are sent, since the defaults of devices are not the zero values.
type RestoreOptions struct {
	SystemFiles   bool // also restore system files
	NoReboot      bool // do not restart the device at the end
	CopyBackup    bool // let the device copy its own backup first
	ResetSettings bool // do not preserve the device's settings
	// RemoveOthers removes apps and data that are not in the backup.
	RemoveOthers bool
}

// RestoreRequest asks a device to restore a backup.
type RestoreRequest struct {
	Target   string // UDID of the device
	Source   string // identifier of the backup's folder; "" for Target
	Options  RestoreOptions
	Password []byte // of the backup, if it is encrypted
	// ApplicationIDs restricts the restore to these apps, if the device supports
	// that.
	ApplicationIDs []string
}

// RestoreResult is how a restore ended.
type RestoreResult struct {
	// Rebooted says that the connection ended after files were sent but before the
	// device's result, as if the device restarted at once. The restore is probably
	// complete; only the device shows whether it is.
	Rebooted bool
	// Missing counts the files that the device asked for and did not get.
	Missing  int
	Progress Progress
}

// restartPercent is the percentage of a restore from which a lost connection means
// that the device restarts, and not that its cable was disconnected.
const restartPercent = 90

// Restore makes the device restore a backup from the Folder, which changes only if
// CopyBackup is set. Errors are as for Backup. After an error the device may have a
// part of the backup.
func (s *Session) Restore(ctx context.Context, q RestoreRequest, folder Folder, o Observer) (RestoreResult, error) {
	if q.Source == "" {
		q.Source = q.Target
	}
	for _, id := range []string{q.Target, q.Source} {
		if err := checkIdentifier(id); err != nil {
			return RestoreResult{}, err
		}
	}
	options := map[string]any{
		"RestoreSystemFiles":      q.Options.SystemFiles,
		"RestoreShouldReboot":     !q.Options.NoReboot,
		"RestoreDontCopyBackup":   !q.Options.CopyBackup,
		"RestorePreserveSettings": !q.Options.ResetSettings,
		"RemoveItemsNotRestored":  q.Options.RemoveOthers,
	}
	if len(q.Password) > 0 {
		options["Password"] = string(q.Password)
	}
	fields := map[string]any{"TargetIdentifier": q.Target, "SourceIdentifier": q.Source, "Options": options}
	if len(q.ApplicationIDs) > 0 {
		fields["ApplicationIDs"] = q.ApplicationIDs
	}
	r := &operation{folder: folder, scope: newScope(true, slices.Compact([]string{q.Target, q.Source})...), report: newReporter(o)}
	err := s.run(ctx, "Restore", "restore", fields, r)
	result := RestoreResult{Missing: r.unsent, Progress: r.report.progress}
	if errors.Is(err, ErrLinkLost) && r.ended && !q.Options.NoReboot && r.report.phase == PhaseSending &&
		(result.Progress.Percent == 0 || result.Progress.Percent >= restartPercent) {
		result.Rebooted = true
		return result, nil
	}
	return result, err
}

// ChangePassword sets the password of the device's backups (old is empty), changes
// it, or turns off encryption (new is empty). The device may ask for its passcode.
// It wraps the keys of the backup in the Folder with the new password. If the
// Folder has no backup, the next backup is full.
func (s *Session) ChangePassword(ctx context.Context, udid string, old, new []byte, folder Folder, o Observer) error {
	if err := checkIdentifier(udid); err != nil {
		return err
	}
	fields := map[string]any{"TargetIdentifier": udid}
	if len(old) > 0 {
		fields["OldPassword"] = string(old)
	}
	if len(new) > 0 {
		fields["NewPassword"] = string(new)
	}
	if len(fields) == 1 {
		return errors.New("change the backup password: the old and the new password are empty")
	}
	r := &operation{folder: folder, scope: newScope(false, udid), report: newReporter(o), rekeying: true}
	return s.run(ctx, "ChangePassword", "change the backup password", fields, r)
}

// run sends a request and serves the device until the device sends its result. op
// is the name of the operation, for errors.
func (s *Session) run(ctx context.Context, name, op string, fields map[string]any, r *operation) error {
	if s.unusable {
		return fmt.Errorf("%s: the session has ended", op)
	}
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("%s: %w", op, cancelled(ctx))
	}
	work, end := s.guard(ctx)
	defer end()
	r.Session, r.ctx = s, work
	r.report.setPhase(PhaseWaiting)
	err := s.send(name, fields)
	var last response
	if err == nil {
		last, err = r.serve()
	}
	if err != nil {
		err = linkError(err)
		if ctx.Err() != nil {
			err = cancelled(ctx)
		}
		s.abandon(err)
		if r.failed != nil {
			err = fmt.Errorf("%w; before that: %w", err, r.failed)
		}
		return fmt.Errorf("%s: %w", op, err)
	}
	switch {
	case last.code != 0:
		return fmt.Errorf("%s: %w", op, &DeviceError{Code: last.code, Description: s.o.inUnits(last.description), Cause: r.failed})
	case r.failed != nil:
		return fmt.Errorf("%s: the device reported success, but: %w", op, r.failed)
	case last.description != "":
		r.complaint(Complaint{Text: s.o.inUnits(last.description)})
	}
	return nil
}
