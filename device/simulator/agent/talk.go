package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/snap-backup/snap/device/protocol/devicelink"
)

// Error codes of MBErrorDomain.
const (
	codeGeneric      = 1
	codeSeveral      = 2
	codeExists       = 3
	codeNoFile       = 4
	codeNotDir       = 5
	codeIsDir        = 6
	codeLoop         = 7
	codePlist        = 11
	codeLink         = 100
	codeHostFull     = 105
	codeCancelled    = 202
	codeIncompatible = 203
	codeNoBackup     = 204
	codeDamaged      = 205
	codePassword     = 207
	codeLocked       = 208
)

// failure is an error that the host is told in the Response.
type failure struct {
	code int64
	text string
}

func (f *failure) Error() string { return fmt.Sprintf("error %d: %s", f.code, f.text) }

func fail(code int64, format string, args ...any) error {
	return &failure{code, fmt.Sprintf(format, args...)}
}

var (
	// errOver ends a conversation that needs no more words.
	errOver = errors.New("the conversation is over")
	// errCut ends one that a Script cut.
	errCut = fmt.Errorf("%w: the link was cut on purpose", errOver)
	// errLeft says that the host said goodbye in the middle.
	errLeft = fmt.Errorf("%w: the host left", errOver)
)

// talk is one conversation.
type talk struct {
	agent  *Agent
	ctx    context.Context
	wire   *wire
	link   *devicelink.Conn
	script *script
	run    *Run
	quirks quirks
	reboot bool // after the Response
}

func (t *talk) serve() error {
	if err := t.link.OfferVersion(t.agent.opts.Version); err != nil {
		return t.broken(fmt.Errorf("greeting: %w", err))
	}
	for greeted := false; ; {
		m, err := t.link.ReadMessage()
		if errors.Is(err, io.EOF) || t.reboot && errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return t.broken(err)
		}
		switch m.Name() {
		case devicelink.DisconnectName:
			return nil
		case devicelink.ProcessMessage:
		default:
			t.agent.violate("a message %q that answers nothing", m.Name())
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
				return t.broken(err)
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

func (t *talk) hello(request map[string]any) error {
	versions, _ := request["SupportedProtocolVersions"].([]any)
	for _, v := range versions {
		if r, ok := v.(float64); ok && (r == 2.0 || r == 2.1) {
			return t.respond(map[string]any{"ErrorCode": 0, "ProtocolVersion": 2.1})
		}
	}
	t.agent.violate("Hello with the versions %v, want reals", versions)
	return t.respond(map[string]any{"ErrorCode": 1, "ErrorDescription": "no common version"})
}

func (t *talk) respond(response map[string]any) error {
	response["MessageName"] = "Response"
	return t.link.WriteMessage(devicelink.ProcessMessage, response)
}

// operate does what the host asks for and tells it how that went.
func (t *talk) operate(name string, request map[string]any) error {
	t.run = &Run{Operation: name, Code: -1}
	t.agent.mu.Lock()
	t.agent.runs = append(t.agent.runs, t.run)
	t.agent.mu.Unlock()
	var err error
	switch name {
	case "Backup":
		err = t.backup(request)
	case "Restore":
		err = t.restore(request)
	case "ChangePassword":
		err = t.changePassword(request)
	case "Info", "List", "Unback", "Extract":
		err = t.outdated(request)
	case "EnableCloudBackup", "EraseDevice", "Remove":
		err = fail(codeGeneric, "%s is not supported", name)
	default:
		t.agent.violate("an operation %q", name)
		err = fail(codeGeneric, "%q is not supported", name)
	}
	return t.finish(err)
}

// unlocked begins an operation that needs the device's files.
func (t *talk) unlocked() error {
	if err := t.at(StepBegin); err != nil {
		return err
	}
	if t.agent.opts.Locked != nil && t.agent.opts.Locked() {
		return fail(codeLocked, "%s", describe(codeLocked))
	}
	return nil
}

// outdated is what came of operations that look for the manifest of iOS 9.
func (t *talk) outdated(request map[string]any) error {
	dir, err := t.folderOf(request)
	if err != nil {
		return err
	}
	if _, err := t.download(dir+"/Manifest.mbdb", io.Discard); err != nil {
		return err
	}
	return fail(codeDamaged, "Manifest.mbdb is not there")
}

func (t *talk) finish(err error) error {
	if err == nil {
		err = t.at(StepResponse)
	}
	var f *failure
	response := map[string]any{"ErrorCode": 0}
	switch {
	case err == nil:
		t.agent.note(t.run, func(r *Run) { r.Code = 0 })
	case errors.As(err, &f):
		response["ErrorCode"], response["ErrorDescription"] = f.code, f.text
		t.agent.note(t.run, func(r *Run) { r.Code, r.Err = f.code, f.text })
	default:
		t.agent.note(t.run, func(r *Run) { r.Err = err.Error() })
		return t.broken(err)
	}
	if err := t.respond(response); err != nil {
		return t.broken(err)
	}
	if t.reboot = t.reboot && f == nil; t.reboot {
		return t.wire.SetReadDeadline(time.Now().Add(untilReboot))
	}
	return nil
}

// untilReboot is how long a host has for its goodbye after a restore.
const untilReboot = 2 * time.Second

// broken judges an error of the link.
func (t *talk) broken(err error) error {
	if t.wire.wasCut() {
		return errCut
	}
	if errors.Is(err, devicelink.ErrFormat) {
		t.agent.violate("%v", err)
	}
	return err
}

// ask sends a request and waits for the answer.
func (t *talk) ask(name string, args ...any) (devicelink.Status, error) {
	if err := t.link.WriteMessage(append([]any{name}, args...)...); err != nil {
		return devicelink.Status{}, err
	}
	return t.answer(name)
}

// answer reads the answer to a request. The host may also say goodbye.
func (t *talk) answer(name string) (devicelink.Status, error) {
	m, err := t.link.ReadMessage()
	if err != nil {
		return devicelink.Status{}, fmt.Errorf("waiting for the answer to %s: %w", name, unexpected(err))
	}
	if m.Name() == devicelink.DisconnectName {
		return devicelink.Status{}, errLeft
	}
	code, ok := m.Int(1)
	text, isText := m.Text(2)
	if m.Name() != devicelink.StatusResponse || !ok || !isText || len(m) != 4 {
		return devicelink.Status{}, fmt.Errorf("%w: %s is answered by %q of %d elements", devicelink.ErrFormat, name, m.Name(), len(m))
	}
	if text == devicelink.NoText {
		text = ""
	}
	return devicelink.Status{Code: code, Text: text, Payload: m[3]}, nil
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// want is ask for requests that have to succeed, or to fail with one of codes.
func (t *talk) want(codes []int64, name string, args ...any) error {
	s, err := t.ask(name, args...)
	if err != nil {
		return err
	}
	return accept(s, codes, name)
}

func accept(s devicelink.Status, codes []int64, name string) error {
	if s.Code == devicelink.StatusOK || slices.Contains(codes, s.Code) {
		return nil
	}
	code := s.Code
	text := s.Text
	if code == devicelink.StatusMulti {
		for path, one := range perPath(s.Payload) {
			if code = one; text == "" || text == "Multi status" {
				text = path
			}
		}
	}
	return fail(domainCode(code), "%s: the host answers %d %s", name, s.Code, text)
}

// perPath returns the codes in the payload of a Multi status.
func perPath(payload any) map[string]int64 {
	codes := map[string]int64{}
	files, _ := payload.(map[string]any)
	for _, path := range slices.Sorted(maps.Keys(files)) {
		one, _ := files[path].(map[string]any)
		if code, ok := devicelink.Int(one["DLFileErrorCode"]); ok {
			codes[path] = code
		}
	}
	return codes
}

// domainCode is what a device makes of the code of an answer.
func domainCode(status int64) int64 {
	switch status {
	case devicelink.StatusNoFile:
		return codeNoFile
	case devicelink.StatusExists:
		return codeExists
	case devicelink.StatusNotDir:
		return codeNotDir
	case -9:
		return codeIsDir
	case -10:
		return codeLoop
	case devicelink.StatusNoSpace:
		return codeHostFull
	}
	return codeLink
}

// sleep waits, unless the conversation is cancelled.
func (t *talk) sleep(d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-t.ctx.Done():
		return t.ctx.Err()
	}
}
