package backup2

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"

	"github.com/snap-backup/snap/device/protocol/devicelink"
)

// maxRefused is how many paths outside its scope a device may name before the
// session ends. Correct devices name none.
const maxRefused = 100

// operation is a backup, restore or password change while the device's requests
// are served.
type operation struct {
	*Session
	ctx      context.Context // of calls to folder
	folder   Folder
	scope    *scope
	report   *reporter
	hidden   string // path of a file that is hidden from the device until the device sends it
	rekeying bool
	refused  int
	unsent   int             // files that the device asked for and did not get
	ended    bool            // the device ended the connection between two requests
	complain func(Complaint) // may be nil
	// failed is the first failure to store what the device sent. The operation
	// then fails even if the device reports success.
	failed error
}

var (
	errStopped = errors.New("the session was stopped")
	errEnded   = errors.New("the device ended the session")
)

// serve serves requests until the device sends its result. An error is an error of
// the link.
func (r *operation) serve() (response, error) {
	for {
		m, err := r.next()
		if err != nil {
			return response{}, err
		}
		last, ok, err := readResponse(m)
		if ok || err != nil {
			return last, err
		}
		if err := r.answer(m); err != nil {
			return response{}, err
		}
		r.report.flush()
	}
}

// next waits for a request.
func (r *operation) next() (devicelink.Message, error) {
	if !r.conn.setWaiting(true) {
		return nil, errStopped
	}
	m, err := r.link.ReadMessage()
	r.conn.setWaiting(false)
	if err != nil {
		r.ended = !errors.Is(err, devicelink.ErrFormat) && !errors.Is(err, os.ErrDeadlineExceeded)
		return nil, err
	}
	r.report.received(r.rekeying)
	return m, nil
}

// answer serves m and answers it exactly once, unless the link fails. Some requests
// have two names, from different versions of iOS.
func (r *operation) answer(m devicelink.Message) error {
	switch m.Name() {
	case "DLMessageDownloadFiles":
		return r.download(m)
	case "DLMessageUploadFiles":
		return r.upload(m)
	case "DLContentsOfDirectory", "DLMessageContentsOfDirectory":
		return r.list(m)
	case "DLMessageCreateDirectory":
		return r.mkdir(m)
	case "DLMessageMoveFiles", "DLMessageMoveItems":
		return r.move(m)
	case "DLMessageRemoveFiles", "DLMessageRemoveItems":
		return r.remove(m)
	case "DLMessageCopyItem":
		return r.copy(m)
	case "DLMessageGetFreeDiskSpace":
		return r.space()
	case "DLMessagePurgeDiskSpace":
		return r.purge(m)
	case "DLMessagePing", devicelink.ProcessMessage: // have no answer
		return nil
	case devicelink.DisconnectName:
		r.ended = true
		reason, _ := m.Text(1)
		if reason == "" || reason == devicelink.NoText {
			return errEnded
		}
		return fmt.Errorf("%w: %q", errEnded, printable(reason))
	}
	r.report.warn("the device sent the unknown request %q", printable(m.Name()))
	return r.link.WriteStatus(devicelink.StatusFailed, "unknown request", nil)
}

// malformed answers a malformed request.
func (r *operation) malformed(m devicelink.Message) error {
	r.report.warn("the device sent a malformed %q, which was refused", printable(m.Name()))
	return r.link.WriteStatus(devicelink.StatusFailed, "malformed request", nil)
}

// refuse counts a path outside the device's scope. After maxRefused of them it
// returns an error, which ends the session.
func (r *operation) refuse(path string, why error) error {
	r.refused++
	r.report.warn("refused %q: %v", printable(path), why)
	if r.refused > maxRefused {
		return protocolError("it named %d paths that it may not use, the last one %q", r.refused, printable(path))
	}
	return nil
}

// status returns the status code and text that the device gets for an error.
func status(err error) (code int64, text string) {
	switch {
	case err == nil:
		return devicelink.StatusOK, ""
	case errors.Is(err, errPath):
		return devicelink.StatusFailed, "Operation not permitted"
	case errors.Is(err, fs.ErrNotExist):
		return devicelink.StatusNoFile, "No such file or directory"
	case errors.Is(err, ErrNoSpace):
		return devicelink.StatusNoSpace, "No space left on device"
	case errors.Is(err, fs.ErrExist):
		return devicelink.StatusExists, "File exists"
	}
	return devicelink.StatusIO, "Input/output error"
}

func (r *operation) writeStatus(err error) error {
	code, text := status(err)
	return r.link.WriteStatus(code, text, nil)
}

// change calls fn, which changes the Folder. If check, a method of scope, refuses
// path, change does not call fn. failure is reported to the device; err ends the
// session.
func (r *operation) change(what, path string, check func(string) error, fn func() error) (failure, err error) {
	if failure = check(path); failure != nil {
		return failure, r.refuse(path, failure)
	}
	if failure = fn(); failure != nil {
		failure = fmt.Errorf("%s %q: %w", what, path, failure)
	}
	return failure, nil
}

func (r *operation) complaint(c Complaint) {
	if r.complain != nil {
		r.complain(c)
	}
}

// recordFailure records a failure after which the operation must not succeed.
func (r *operation) recordFailure(err error) {
	if err != nil && r.failed == nil {
		r.failed = err
	}
}

func (r *operation) mkdir(m devicelink.Message) error {
	path, ok := m.Text(1)
	if !ok {
		return r.malformed(m)
	}
	failure, err := r.change("make folder", path, r.scope.checkWrite, func() error { return r.folder.Mkdir(r.ctx, path) })
	if err != nil {
		return err
	}
	if failure != nil && !errors.Is(failure, errPath) {
		r.report.warn("%v", failure)
	}
	return r.writeStatus(failure)
}

func (r *operation) move(m devicelink.Message) error {
	moves, ok := m.Dict(1)
	if !ok {
		return r.malformed(m)
	}
	r.report.percent(m, 3)
	var first error
	for _, from := range slices.Sorted(maps.Keys(moves)) {
		to, ok := moves[from].(string)
		if !ok {
			return r.malformed(m)
		}
		failure, err := r.relocate("move", from, to, r.scope.checkWrite, r.folder.Move)
		if err != nil {
			return err
		}
		if first == nil {
			first = failure
		}
	}
	return r.writeStatus(first)
}

func (r *operation) copy(m devicelink.Message) error {
	from, ok := m.Text(1)
	to, ok2 := m.Text(2)
	if !ok || !ok2 {
		return r.malformed(m)
	}
	failure, err := r.relocate("copy", from, to, r.scope.checkRead, r.folder.Copy)
	if err != nil {
		return err
	}
	return r.writeStatus(failure)
}

// relocate calls fn, which moves or copies a file or folder. check, a method of
// scope, decides whether the device may name the old path. what is the operation,
// for errors.
func (r *operation) relocate(what, from, to string, check func(string) error, fn func(ctx context.Context, from, to string) error) (failure, err error) {
	if failure = check(from); failure != nil {
		return failure, r.refuse(from, failure)
	}
	failure, err = r.change(what+" to", to, r.scope.checkTarget, func() error { return fn(r.ctx, from, to) })
	switch {
	case err != nil || errors.Is(failure, errPath):
		return failure, err
	case failure != nil:
		r.report.warn("%v", failure)
		if !errors.Is(failure, fs.ErrNotExist) { // the device may know that the file is missing
			r.recordFailure(failure)
		}
		return failure, nil
	}
	if r.scope.addTarget(to) {
		r.report.warn("the device renamed or copied a backup to %q", to)
	} else {
		r.report.setPhase(PhaseFinishing)
	}
	return nil, nil
}

func (r *operation) remove(m devicelink.Message) error {
	paths, ok := m.Texts(1)
	if !ok {
		return r.malformed(m)
	}
	r.report.percent(m, 3)
	r.report.setPhase(PhaseFinishing)
	var first error
	for _, path := range paths {
		failure, err := r.change("remove", path, r.scope.checkWrite, func() error { return r.folder.Remove(r.ctx, path) })
		if err != nil {
			return err
		}
		if errors.Is(failure, fs.ErrNotExist) {
			continue // the file has already been removed
		}
		if failure != nil && !errors.Is(failure, errPath) {
			r.report.warn("%v", failure)
		}
		if first == nil {
			first = failure
		}
	}
	return r.writeStatus(first)
}

func (r *operation) space() error {
	free, err := r.folder.Space(r.ctx)
	if err != nil {
		// After this answer the device continues without checking the space.
		r.report.warn("free space is unknown: %v", err)
		return r.link.WriteStatus(devicelink.StatusFailed, "Operation not supported", int64(0))
	}
	return r.link.WriteStatus(devicelink.StatusOK, "", max(free, 0))
}

func (r *operation) purge(m devicelink.Message) error {
	want, ok := m.Int(1)
	if !ok || want < 0 {
		return r.malformed(m)
	}
	freed, err := r.folder.Purge(r.ctx, want)
	if err != nil && !errors.Is(err, errors.ErrUnsupported) {
		r.report.warn("freeing space failed: %v", err)
	}
	if err != nil || freed <= 0 {
		r.report.warn("the device asked to free %s, which is not possible", r.o.bytes(want))
		return r.link.WriteStatus(devicelink.StatusFailed, "Operation not supported", nil)
	}
	return r.link.WriteStatus(devicelink.StatusOK, "", freed)
}
