package lab

import (
	"context"
	"sync"
	"time"

	"github.com/snap-backup/snap/device/simulator"
	"github.com/snap-backup/snap/device/simulator/agent"
	"github.com/snap-backup/snap/device/simulator/devicefiles"
	"github.com/snap-backup/snap/device/simulator/faults"
	"github.com/snap-backup/snap/device/simulator/synthetic"
)

// Device is a simulated device with its backup agent.
type Device struct {
	*simulator.Device
	Agent *agent.Agent

	lab      *Lab
	password string // the first backup password
	content  []*devicefiles.Folder
	series   *synthetic.Series
	folder   string // the backup folder with the content of the day
	links    []*simulator.Link

	mu       sync.Mutex
	asks     bool          // the device asks for its passcode before each operation
	enter    chan struct{} // closed when the passcode is entered; nil if the device does not ask
	early    bool          // the passcode was entered before the device asked
	timedOut bool          // the passcode was not entered in time
	last     faults.Step   // the last step that was reported
}

// Folder returns the unencrypted backup folder that holds the content of the day.
func (d *Device) Folder() string { return d.folder }

func (d *Device) tell(kind EventKind, text string) {
	if d.lab.opts.On != nil {
		d.lab.opts.On(Event{d.Name(), kind, text})
	}
}

// step reports a step of the agent. The agent waits until step returns.
func (d *Device) step(s faults.Step) {
	run := d.Agent.LastRun()
	if s == faults.StepBegin {
		d.tell(EventStep, run.Operation+" begins")
		return
	}
	d.mu.Lock()
	again := d.last == s // the next batch of the same step
	d.last = s
	d.mu.Unlock()
	if !again {
		d.tell(EventStep, string(s))
	}
}

// locked reports whether an operation must end with error 208.
func (d *Device) locked() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.timedOut || d.Lock() == simulator.NotYetUnlocked
}

// askPasscode waits for the passcode if AskPasscode is on or the screen is locked.
// ctx ends when the computer disconnects.
func (d *Device) askPasscode(ctx context.Context) {
	d.mu.Lock()
	d.timedOut = false
	if !d.asks && d.Lock() != simulator.Locked {
		d.mu.Unlock()
		return
	}
	enter := make(chan struct{})
	d.enter = enter
	if d.early {
		d.endPrompt()
	}
	d.mu.Unlock()
	d.Notify("com.apple.LocalAuthentication.ui.presented")
	d.tell(EventPasscode, "it asks for its passcode")
	timer := time.NewTimer(d.lab.opts.Patience)
	defer timer.Stop()
	select {
	case <-enter:
	case <-timer.C:
		d.tell(EventPasscode, "its passcode was not entered in time")
	case <-ctx.Done():
	}
	d.mu.Lock()
	if d.enter != nil {
		d.enter, d.timedOut = nil, true
	}
	d.mu.Unlock()
	d.Notify("com.apple.LocalAuthentication.ui.dismissed")
}

// endPrompt ends the passcode prompt. d.mu must be held.
func (d *Device) endPrompt() {
	close(d.enter)
	d.enter, d.early = nil, false
	if d.Lock() == simulator.Locked {
		d.SetLock(simulator.Unlocked)
	}
}

// AskPasscode sets whether the device asks for its passcode before each backup,
// restore and password change.
func (d *Device) AskPasscode(on bool) {
	d.SetPasscode(on)
	d.mu.Lock()
	d.asks, d.early = on, false
	d.mu.Unlock()
}

// Asking reports whether the device is waiting for its passcode.
func (d *Device) Asking() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.enter != nil
}

// EnterPasscode enters the passcode. It reports whether the device is asking for it.
// If not, the passcode is entered as soon as the device asks.
func (d *Device) EnterPasscode() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.enter == nil {
		d.early = true
		return false
	}
	d.endPrompt()
	return true
}

// Unlock unlocks the screen. This also enters the passcode if the device asks for it.
func (d *Device) Unlock() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.SetLock(simulator.Unlocked)
	if d.enter != nil {
		d.endPrompt()
	}
}

// wouldAsk reports whether the next operation will wait for the passcode.
func (d *Device) wouldAsk() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.asks || d.enter != nil || d.Lock() == simulator.Locked
}
