package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/snap-backup/snap/device/protocol/devicelink"
)

// Step names a point that an operation reaches.
type Step string

// The steps of a backup, in their order; StepBegin and StepResponse are those
// of every operation.
const (
	StepBegin     Step = "begin"     // nothing has been said; a passcode would be asked for
	StepStatus    Step = "status"    // Status.plist is to be fetched
	StepScan      Step = "scan"      // what is on the device is to be looked at
	StepManifest  Step = "manifest"  // the old manifests are to be fetched
	StepListing   Step = "listing"   // the host's folders are to be listed
	StepFinishing Step = "finishing" // a broken run is to be brought to its end
	StepSpace     Step = "space"
	StepFolders   Step = "folders"
	StepUploading Step = "uploading" // the Status.plist that says so
	StepUpload    Step = "upload"    // each batch of files
	StepManifests Step = "manifests" // the new manifests are to be sent
	StepMoving    Step = "moving"
	StepMove      Step = "move" // each batch
	StepRemoving  Step = "removing"
	StepRemove    Step = "remove" // each batch
	StepFinished  Step = "finished"
	StepVerify    Step = "verify"
	StepResponse  Step = "response"
)

// The steps of a restore besides StepBegin, StepStatus, StepManifest and
// StepResponse, and of a change of password.
const (
	StepCopy   Step = "copy"
	StepFiles  Step = "files" // each batch
	StepKeybag Step = "keybag"
)

var allSteps = []Step{StepBegin, StepStatus, StepScan, StepManifest, StepListing, StepFinishing, StepSpace, StepFolders, StepUploading,
	StepUpload, StepManifests, StepMoving, StepMove, StepRemoving, StepRemove, StepFinished, StepVerify, StepResponse, StepCopy,
	StepFiles, StepKeybag}

// Action is what goes wrong.
type Action string

// The actions.
const (
	Cut       Action = "cut"       // the link ends without a word
	Bye       Action = "bye"       // the device says DLMessageDisconnect
	Fail      Action = "fail"      // a Response with the error Code: 208 locked, 202 cancelled, …
	Wait      Action = "wait"      // silence for the time For
	Ping      Action = "ping"      // DLMessagePing
	Unknown   Action = "unknown"   // a message that nobody knows
	ReadError Action = "readerror" // the first file of the batch cannot be read from half of it on
	Twice     Action = "twice"     // the first file of the batch is sent twice
	Huge      Action = "huge"      // Bytes are declared as the batch's total, or at StepSpace as what is needed
	Attack    Action = "attack"    // what Name says, see Attacks
)

var allActions = []Action{Cut, Bye, Fail, Wait, Ping, Unknown, ReadError, Twice, Huge, Attack}

// Fault is one thing that goes wrong, once.
type Fault struct {
	At    Step  // where; empty for a Cut After bytes
	Nth   int   // the how many-th time that At is reached; 0 means the first
	After int64 // bytes of the conversation, both ways, after which a Cut without At comes
	Do    Action

	Code  int64
	For   time.Duration
	Bytes int64
	Name  string
}

// Script is all that goes wrong.
type Script []Fault

var errScript = errors.New("a script that cannot be played")

func (s Script) check() error {
	for _, f := range s {
		if err := f.check(); err != nil {
			return fmt.Errorf("%w: %s: %w", errScript, f, err)
		}
	}
	return nil
}

func (f Fault) check() error {
	switch {
	case !slices.Contains(allActions, f.Do):
		return fmt.Errorf("no action %q", f.Do)
	case f.At == "" && (f.Do != Cut || f.After <= 0):
		return errors.New("it needs a step, or is a cut after some bytes")
	case f.At != "" && !slices.Contains(allSteps, f.At):
		return fmt.Errorf("no step %q", f.At)
	case f.Nth < 0 || f.For < 0 || f.Bytes < 0:
		return errors.New("a number below zero")
	case f.Do == Fail && f.Code <= 0:
		return errors.New("it needs an error code")
	case f.Do == Attack && attackNamed(f.Name) == nil:
		return fmt.Errorf("no attack %q", f.Name)
	}
	return nil
}

// String returns what ParseFault reads.
func (f Fault) String() string {
	where := "@" + strconv.FormatInt(f.After, 10)
	if f.At != "" {
		where = string(f.At)
		if f.Nth > 1 {
			where += ":" + strconv.Itoa(f.Nth)
		}
	}
	switch f.Do {
	case Fail:
		return fmt.Sprintf("%s=%s %d", where, f.Do, f.Code)
	case Wait:
		return fmt.Sprintf("%s=%s %s", where, f.Do, f.For)
	case Huge:
		return fmt.Sprintf("%s=%s %d", where, f.Do, f.Bytes)
	case Attack:
		return fmt.Sprintf("%s=%s %s", where, f.Do, f.Name)
	}
	return where + "=" + string(f.Do)
}

// ParseFault reads a fault as people write it: "upload:3=cut", "begin=fail 208",
// "begin=wait 90s", "space=huge 1000000000000", "upload=attack upload-dotdot",
// "@50000=cut".
func ParseFault(text string) (Fault, error) {
	f, err := parseFault(text)
	if err == nil {
		err = f.check()
	}
	if err != nil {
		return Fault{}, fmt.Errorf("fault %q: %w", text, err)
	}
	return f, nil
}

func parseFault(text string) (f Fault, err error) {
	where, what, ok := strings.Cut(text, "=")
	if !ok {
		return f, errors.New(`want "STEP=ACTION"`)
	}
	if bytes, ok := strings.CutPrefix(where, "@"); ok {
		if f.After, err = strconv.ParseInt(bytes, 10, 64); err != nil {
			return f, err
		}
	} else {
		step, nth, numbered := strings.Cut(where, ":")
		f.At = Step(step)
		if numbered {
			if f.Nth, err = strconv.Atoi(nth); err != nil {
				return f, err
			}
			if f.Nth == 1 {
				f.Nth = 0
			}
		}
	}
	action, value, _ := strings.Cut(what, " ")
	f.Do = Action(action)
	switch f.Do {
	case Fail:
		f.Code, err = strconv.ParseInt(value, 10, 64)
	case Wait:
		f.For, err = time.ParseDuration(value)
	case Huge:
		f.Bytes, err = strconv.ParseInt(value, 10, 64)
	case Attack:
		f.Name = value
	default:
		if value != "" {
			err = fmt.Errorf("%s takes no value", f.Do)
		}
	}
	return f, err
}

// script is a Script that is being played. What has happened does not happen
// again, in later conversations neither.
type script struct {
	mu     sync.Mutex
	left   Script
	seen   map[Step]int
	cutAt  int64 // bytes; 0 means never
	passed int64
}

func newScript(s Script) *script {
	p := &script{seen: map[Step]int{}}
	for _, f := range s {
		if f.At == "" {
			p.cutAt = f.After
		} else {
			p.left = append(p.left, f)
		}
	}
	return p
}

// due returns what goes wrong now.
func (s *script) due(step Step) Script {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen[step]++
	var now Script
	s.left = slices.DeleteFunc(s.left, func(f Fault) bool {
		hit := f.At == step && s.seen[step] == max(f.Nth, 1)
		if hit {
			now = append(now, f)
		}
		return hit
	})
	return now
}

// pass counts bytes and reports how many of n may still pass before the cut,
// which happens once.
func (s *script) pass(n int) (may int, cut bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cutAt > 0 && s.passed+int64(n) >= s.cutAt {
		may = int(s.cutAt - s.passed)
		s.cutAt = 0
		return may, true
	}
	s.passed += int64(n)
	return n, false
}

// wire is the connection under a conversation. It cuts itself by the script.
type wire struct {
	net.Conn
	script *script

	early []byte // read before its time; only known to the conversation

	mu  sync.Mutex
	cut bool
}

// present returns a context that ends when the host leaves, or says anything,
// at a time when a host has nothing to say. end has to be called.
func (w *wire) present(ctx context.Context) (_ context.Context, end func()) {
	ctx, cancel := context.WithCancel(ctx)
	var b [1]byte
	n := 0
	var reading sync.WaitGroup
	reading.Go(func() {
		var err error
		if n, err = w.Conn.Read(b[:]); !errors.Is(err, os.ErrDeadlineExceeded) {
			cancel()
		}
	})
	return ctx, func() {
		_ = w.SetReadDeadline(time.Unix(1, 0))
		reading.Wait()
		_ = w.SetReadDeadline(time.Time{})
		w.early = append(w.early, b[:n]...)
		cancel()
	}
}

func (w *wire) Read(p []byte) (n int, err error) {
	if len(w.early) > 0 {
		n = copy(p, w.early)
		w.early = w.early[n:]
	} else {
		n, err = w.Conn.Read(p)
	}
	may, cut := w.script.pass(n)
	if cut {
		w.cutNow()
		return may, errCut
	}
	return n, err
}

func (w *wire) Write(p []byte) (int, error) {
	may, cut := w.script.pass(len(p))
	if !cut {
		return w.Conn.Write(p)
	}
	n, err := w.Conn.Write(p[:may])
	w.cutNow()
	return n, errors.Join(err, errCut)
}

func (w *wire) cutNow() {
	w.mu.Lock()
	w.cut = true
	w.mu.Unlock()
	_ = w.Conn.Close() // that is the point
}

func (w *wire) wasCut() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.cut
}

// quirks are the faults that the next batch has.
type quirks struct {
	readError, twice bool
	total            int64 // declared, when over 0
}

// at reaches a step: it is counted, told, and what is due happens.
func (t *talk) at(step Step) error {
	if err := t.ctx.Err(); err != nil {
		return err
	}
	t.agent.note(t.run, func(r *Run) {
		if n := len(r.Steps); n == 0 || r.Steps[n-1] != step {
			r.Steps = append(r.Steps, step)
		}
	})
	if t.agent.opts.OnStep != nil {
		t.agent.opts.OnStep(step)
	}
	if step == StepBegin && t.agent.opts.OnBegin != nil {
		present, end := t.wire.present(t.ctx)
		t.agent.opts.OnBegin(present)
		end()
	}
	for _, f := range t.script.due(step) {
		if err := t.suffer(f); err != nil {
			return err
		}
	}
	return nil
}

func (t *talk) suffer(f Fault) error {
	switch f.Do {
	case Cut:
		t.wire.cutNow()
		return errCut
	case Bye:
		if err := t.link.Disconnect(); err != nil {
			return err
		}
		return errOver
	case Fail:
		return fail(f.Code, "%s", describe(f.Code))
	case Wait:
		return t.sleep(f.For)
	case Ping:
		return t.link.WriteMessage("DLMessagePing", "are you there")
	case Unknown:
		s, err := t.ask("DLMessageOfTheFuture", map[string]any{"Hello": 1})
		if err == nil && s.Code == devicelink.StatusOK {
			t.agent.violate("the host says that it did what an unknown message asks for")
		}
		return err
	case ReadError:
		t.quirks.readError = true
	case Twice:
		t.quirks.twice = true
	case Huge:
		t.quirks.total = f.Bytes
	case Attack:
		return attackNamed(f.Name)(t, f)
	}
	return nil
}

// describe returns what a device says with an error code.
func describe(code int64) string {
	for _, e := range []struct {
		code int64
		text string
	}{
		{codeGeneric, "Unknown error"},
		{codeSeveral, "Multiple errors"},
		{codeExists, "Failed to create snapshot: File exists"},
		{codeNoFile, "No such file or directory"},
		{9, "File changed while being read"},
		{10, "Error encoding a property list"},
		{codePlist, "Error decoding a property list"},
		{25, "A restore from iCloud is in progress"},
		{codeLink, "Device link failure"},
		{101, "Error reading from the device"},
		{102, "Error writing to the device"},
		{103, "Error reading from the host"},
		{104, "Multiple errors uploading files"},
		{codeHostFull, "Insufficient free disk space on drive to back up"},
		{106, "Insufficient free disk space on device"},
		{codeCancelled, "User cancelled"},
		{codeIncompatible, "Incompatible version"},
		{codeNoBackup, "No complete backup"},
		{codeDamaged, "Backup damaged"},
		{codePassword, "Invalid password"},
		{codeLocked, "Device locked"},
		{210, "No account"},
		{212, "Setup is not finished"},
		{241, "Protection class is not available"},
	} {
		if e.code == code {
			return e.text
		}
	}
	return "Error " + strconv.FormatInt(code, 10)
}
