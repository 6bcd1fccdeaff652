package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/snap-backup/snap/device/protocol/devicelink"
	"github.com/snap-backup/snap/device/simulator/faults"
	"github.com/snap-backup/snap/device/simulator/hostfiles"
	"github.com/snap-backup/snap/device/simulator/mberror"
)

// session is one conversation with a host.
type session struct {
	*hostfiles.Client
	agent  *Agent
	ctx    context.Context
	conn   *faults.Conn
	link   *devicelink.Conn
	faults *faults.Player
	run    *Run
	quirks quirks
	reboot bool // the device restarts after the response
}

func (t *session) serve() error {
	if err := t.link.OfferVersion(t.agent.opts.Version); err != nil {
		return t.linkError(fmt.Errorf("greeting: %w", err))
	}
	for greeted := false; ; {
		m, err := t.link.ReadMessage()
		if errors.Is(err, io.EOF) || t.reboot && errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return t.linkError(err)
		}
		switch m.Name() {
		case devicelink.DisconnectName:
			return nil
		case devicelink.ProcessMessage:
		default:
			t.agent.violate("an unexpected message %q", m.Name())
			continue
		}
		request, ok := m.Dict(1)
		if !ok {
			t.agent.violate("a %s without a dictionary", m.Name())
			continue
		}
		name, _ := request["MessageName"].(string)
		if name == "Hello" {
			if err := t.hello(request); err != nil {
				return t.linkError(err)
			}
			greeted = true
			continue
		}
		if !greeted {
			t.agent.violate("%s before Hello", name)
		}
		if err := t.operate(name, request); err != nil {
			return err
		}
	}
}

func (t *session) hello(request map[string]any) error {
	versions, _ := request["SupportedProtocolVersions"].([]any)
	for _, v := range versions {
		if r, ok := v.(float64); ok && (r == 2.0 || r == 2.1) {
			return t.respond(map[string]any{"ErrorCode": 0, "ProtocolVersion": 2.1})
		}
	}
	t.agent.violate("Hello has the versions %v, but not the real 2.0 or 2.1", versions)
	return t.respond(map[string]any{"ErrorCode": 1, "ErrorDescription": "no common version"})
}

func (t *session) respond(response map[string]any) error {
	response["MessageName"] = "Response"
	return t.link.WriteMessage(devicelink.ProcessMessage, response)
}

// operate executes a request and sends the response.
func (t *session) operate(name string, request map[string]any) error {
	t.run = &Run{Operation: name, Code: -1}
	t.agent.mu.Lock()
	t.agent.runs = append(t.agent.runs, t.run)
	t.agent.mu.Unlock()
	var err error
	if t.agent.opts.Rehearsal != nil && name != "Restore" {
		return t.finish(mberror.Errorf(mberror.Generic, "%s is not supported", name))
	}
	switch name {
	case "Backup":
		err = t.backup(request)
	case "Restore":
		err = t.restore(request)
	case "ChangePassword":
		err = t.changePassword(request)
	case "Info", "List", "Unback", "Extract":
		err = t.serveOld(request)
	case "EnableCloudBackup", "EraseDevice", "Remove":
		err = mberror.Errorf(mberror.Generic, "%s is not supported", name)
	default:
		t.agent.violate("an unknown operation %q", name)
		err = mberror.Errorf(mberror.Generic, "%q is not supported", name)
	}
	return t.finish(err)
}

// beginUnlocked begins an operation that reads the device's files. It returns an error if
// the device is locked.
func (t *session) beginUnlocked() error {
	if err := t.reach(faults.StepBegin); err != nil {
		return err
	}
	if t.agent.opts.Locked != nil && t.agent.opts.Locked() {
		return mberror.Of(mberror.Locked)
	}
	return nil
}

// serveOld executes operations of iOS 9 and earlier, which read Manifest.mbdb.
func (t *session) serveOld(request map[string]any) error {
	dir, err := t.folderOf(request)
	if err != nil {
		return err
	}
	if _, err := t.Download(dir+"/Manifest.mbdb", io.Discard); err != nil {
		return err
	}
	return mberror.Errorf(mberror.Damaged, "Manifest.mbdb is missing")
}

func (t *session) finish(err error) error {
	if err == nil {
		err = t.reach(faults.StepResponse)
	}
	var f *mberror.Error
	response := map[string]any{"ErrorCode": 0}
	switch {
	case err == nil:
		t.agent.note(t.run, func(r *Run) { r.Code = 0 })
	case errors.As(err, &f):
		response["ErrorCode"], response["ErrorDescription"] = f.Code, f.Text
		t.agent.note(t.run, func(r *Run) { r.Code, r.Err = f.Code, f.Text })
	default:
		t.agent.note(t.run, func(r *Run) { r.Err = err.Error() })
		return t.linkError(err)
	}
	if err := t.respond(response); err != nil {
		return t.linkError(err)
	}
	if t.reboot = t.reboot && f == nil; t.reboot {
		return t.conn.SetReadDeadline(time.Now().Add(untilReboot))
	}
	return nil
}

// untilReboot is how long the device waits for a goodbye after a restore.
const untilReboot = 2 * time.Second

// linkError returns the error of a conversation whose link failed with err. If the host
// broke the protocol, linkError records a violation.
func (t *session) linkError(err error) error {
	if t.conn.WasCut() {
		return hostfiles.ErrCut
	}
	if errors.Is(err, devicelink.ErrFormat) {
		t.agent.violate("%v", err)
	}
	return err
}

// sleep waits for d, or until the conversation is cancelled.
func (t *session) sleep(d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-t.ctx.Done():
		return t.ctx.Err()
	}
}
