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

// maxRefused is how many paths that are not its own a device may name until the
// session ends. Sound devices name none.
const maxRefused = 100

// run is one operation: the device asks, the Folder answers.
type run struct {
	*Session
	ctx      context.Context // of calls to folder
	folder   Folder
	scope    *scope
	watch    *watch
	hidden   string // a file that is not shown until the device has sent it
	rekeying bool
	refused  int
	unsent   int  // files that the device asked for and did not get
	ended    bool // the device ended the connection between two requests
	// failed is the first failure to store what the device sent. After it no
	// run can be good, whatever the device thinks.
	failed error
}

var (
	errStopped = errors.New("the session was told to stop")
	errLeft    = errors.New("the device ended the conversation")
)

// serve answers requests until the device says how it went. Its error is one
// of the link.
func (r *run) serve() (response, error) {
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
		r.watch.tell()
	}
}

// next waits for a request.
func (r *run) next() (devicelink.Message, error) {
	if !r.gate.wait(true) {
		return nil, errStopped
	}
	m, err := r.link.ReadMessage()
	r.gate.wait(false)
	if err != nil {
		r.ended = !errors.Is(err, devicelink.ErrFormat) && !errors.Is(err, os.ErrDeadlineExceeded)
		return nil, err
	}
	r.watch.heard(r.rekeying)
	return m, nil
}

// answer does what m asks for and answers it exactly once, unless the link
// fails. Requests that came under two names over the years have both.
func (r *run) answer(m devicelink.Message) error {
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
	case "DLMessagePing", devicelink.ProcessMessage: // nobody waits for an answer
		return nil
	case devicelink.DisconnectName:
		r.ended = true
		reason, _ := m.Text(1)
		if reason == "" || reason == devicelink.NoText {
			return errLeft
		}
		return fmt.Errorf("%w: %q", errLeft, printable(reason))
	}
	r.watch.warn("the device asks for %q, which is unknown", printable(m.Name()))
	return r.link.WriteStatus(devicelink.StatusFailed, "unknown request", nil)
}

// malformed answers a request that lacks what it must have.
func (r *run) malformed(m devicelink.Message) error {
	r.watch.warn("a malformed %q of the device was refused", printable(m.Name()))
	return r.link.WriteStatus(devicelink.StatusFailed, "malformed request", nil)
}

// refuse counts a path that is not the device's own; the error ends the
// session.
func (r *run) refuse(path string, why error) error {
	r.refused++
	r.watch.warn("refused %q: %v", printable(path), why)
	if r.refused > maxRefused {
		return protocolError("it named %d paths that are not its own, the last %q", r.refused, printable(path))
	}
	return nil
}

// status is what the device is told of an error.
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

func (r *run) writeStatus(err error) error {
	code, text := status(err)
	return r.link.WriteStatus(code, text, nil)
}

// change does one change to the Folder. It returns how it failed, which the
// device is told, and an error that ends the session. check is scope's.
func (r *run) change(what, path string, check func(string) error, do func() error) (failure, err error) {
	if failure = check(path); failure != nil {
		return failure, r.refuse(path, failure)
	}
	if failure = do(); failure != nil {
		failure = fmt.Errorf("%s %q: %w", what, path, failure)
	}
	return failure, nil
}

// lose notes a failure after which the run cannot be good.
func (r *run) lose(err error) {
	if err != nil && r.failed == nil {
		r.failed = err
	}
}

func (r *run) mkdir(m devicelink.Message) error {
	path, ok := m.Text(1)
	if !ok {
		return r.malformed(m)
	}
	failure, err := r.change("make folder", path, r.scope.write, func() error { return r.folder.Mkdir(r.ctx, path) })
	if err != nil {
		return err
	}
	if failure != nil && !errors.Is(failure, errPath) {
		r.watch.warn("%v", failure)
	}
	return r.writeStatus(failure)
}

func (r *run) move(m devicelink.Message) error {
	moves, ok := m.Dict(1)
	if !ok {
		return r.malformed(m)
	}
	r.watch.percent(m, 3)
	var first error
	for _, from := range slices.Sorted(maps.Keys(moves)) {
		to, ok := moves[from].(string)
		if !ok {
			return r.malformed(m)
		}
		failure, err := r.relocate("move", from, to, r.scope.write, r.folder.Move)
		if err != nil {
			return err
		}
		if first == nil {
			first = failure
		}
	}
	return r.writeStatus(first)
}

func (r *run) copy(m devicelink.Message) error {
	from, ok := m.Text(1)
	to, ok2 := m.Text(2)
	if !ok || !ok2 {
		return r.malformed(m)
	}
	failure, err := r.relocate("copy", from, to, r.scope.read, r.folder.Copy)
	if err != nil {
		return err
	}
	return r.writeStatus(failure)
}

// relocate moves or copies.
func (r *run) relocate(what, from, to string, check func(string) error, do func(ctx context.Context, from, to string) error) (failure, err error) {
	if failure = check(from); failure != nil {
		return failure, r.refuse(from, failure)
	}
	failure, err = r.change(what+" to", to, r.scope.target, func() error { return do(r.ctx, from, to) })
	switch {
	case err != nil || errors.Is(failure, errPath):
		return failure, err
	case failure != nil:
		r.watch.warn("%v", failure)
		if !errors.Is(failure, fs.ErrNotExist) { // which the device may expect
			r.lose(failure)
		}
		return failure, nil
	}
	if r.scope.done(to) {
		r.watch.warn("the device put a backup aside as %q", to)
	} else {
		r.watch.enter(PhaseFinishing)
	}
	return nil, nil
}

func (r *run) remove(m devicelink.Message) error {
	paths, ok := m.Texts(1)
	if !ok {
		return r.malformed(m)
	}
	r.watch.percent(m, 3)
	r.watch.enter(PhaseFinishing)
	var first error
	for _, path := range paths {
		failure, err := r.change("remove", path, r.scope.write, func() error { return r.folder.Remove(r.ctx, path) })
		if err != nil {
			return err
		}
		if errors.Is(failure, fs.ErrNotExist) {
			continue // it is gone, as it should be
		}
		if failure != nil && !errors.Is(failure, errPath) {
			r.watch.warn("%v", failure)
		}
		if first == nil {
			first = failure
		}
	}
	return r.writeStatus(first)
}

func (r *run) space() error {
	free, err := r.folder.Space(r.ctx)
	if err != nil {
		// The device then goes on without a check.
		r.watch.warn("free space is unknown: %v", err)
		return r.link.WriteStatus(devicelink.StatusFailed, "Operation not supported", int64(0))
	}
	return r.link.WriteStatus(devicelink.StatusOK, "", max(free, 0))
}

func (r *run) purge(m devicelink.Message) error {
	want, ok := m.Int(1)
	if !ok || want < 0 {
		return r.malformed(m)
	}
	freed, err := r.folder.Purge(r.ctx, want)
	if err != nil && !errors.Is(err, errors.ErrUnsupported) {
		r.watch.warn("make room: %v", err)
	}
	if err != nil || freed <= 0 {
		r.watch.warn("the device asks for %d bytes of room, and no more can be made", want)
		return r.link.WriteStatus(devicelink.StatusFailed, "Operation not supported", nil)
	}
	return r.link.WriteStatus(devicelink.StatusOK, "", freed)
}
