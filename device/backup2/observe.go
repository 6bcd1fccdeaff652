package backup2

import (
	"fmt"

	"github.com/snap-backup/snap/device/devicelink"
)

// Phase is what a session is about, as far as it can be told from what the
// device asks for.
type Phase string

const (
	// PhaseWaiting lasts from the request to the device's first word. Since
	// iOS 16 the device asks for its passcode meanwhile, for up to half an
	// hour; it says nothing before that is entered.
	PhaseWaiting Phase = "waiting for the device"
	// PhasePreparing is the device comparing its files with the backup, which
	// can be minutes of silence.
	PhasePreparing Phase = "preparing"
	PhaseReceiving Phase = "receiving files"
	PhaseSending   Phase = "sending files"
	// PhaseFinishing is the device ordering what has come.
	PhaseFinishing Phase = "finishing"
	// PhaseVerifying is the device checking the new backup. It can still fail.
	PhaseVerifying Phase = "verifying"
	// PhaseRekeying is the device sealing the backup's keys anew.
	PhaseRekeying Phase = "changing the password"
)

// Progress is how far a session has come.
type Progress struct {
	// Percent is what the device says, above 0 and up to 100; 0 while unknown.
	Percent float64
	// Files and Bytes count what was received and sent, metadata included.
	Files, Bytes int64
}

// Observer is told how a session goes on. Its methods are called by the
// goroutine that runs the session, which waits for them.
type Observer interface {
	// Phase is called when a phase begins.
	Phase(Phase)
	// Progress is called after every file and every few megabytes of a long one.
	Progress(Progress)
	// Warning is called for what went wrong and did not end the session. The
	// text is safe to print; their number is bounded.
	Warning(text string)
}

const (
	// maxWarnings bounds what a hostile device can have said to the observer.
	maxWarnings = 200
	// tellBytes is how much of a long file moves between two tellings.
	tellBytes = 4 << 20
)

// watch keeps count for an Observer, which may be nil.
type watch struct {
	o        Observer
	phase    Phase
	progress Progress
	untold   int // bytes
	warnings int
}

func newWatch(o Observer) *watch { return &watch{o: o} }

func (w *watch) enter(p Phase) {
	if w.phase == p {
		return
	}
	w.phase = p
	if w.o != nil {
		w.o.Phase(p)
	}
}

// heard notes that the device said something.
func (w *watch) heard(rekeying bool) {
	switch {
	case w.phase != PhaseWaiting:
	case rekeying:
		w.enter(PhaseRekeying)
	default:
		w.enter(PhasePreparing)
	}
}

// percent takes what the device says of its progress in element i.
func (w *watch) percent(m devicelink.Message, i int) {
	if p, ok := m.Real(i); ok && p > 0 {
		w.progress.Percent = min(p, 100)
	}
}

func (w *watch) bytes(n int) {
	w.progress.Bytes += int64(n)
	if w.untold += n; w.untold >= tellBytes {
		w.tell()
	}
}

func (w *watch) file() {
	w.progress.Files++
	w.tell()
}

func (w *watch) tell() {
	w.untold = 0
	if w.o != nil {
		w.o.Progress(w.progress)
	}
}

func (w *watch) warn(format string, v ...any) {
	if w.warnings++; w.o == nil || w.warnings > maxWarnings {
		return
	}
	text := safe(fmt.Sprintf(format, v...))
	if w.warnings == maxWarnings {
		text = "there are more warnings, which are left out"
	}
	w.o.Warning(text)
}
