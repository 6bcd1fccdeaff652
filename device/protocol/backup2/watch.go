package backup2

import (
	"fmt"

	"github.com/snap-backup/snap/device/protocol/devicelink"
)

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
