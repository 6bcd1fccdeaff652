package backup2

import (
	"fmt"

	"github.com/snap-backup/snap/device/protocol/devicelink"
)

const (
	// maxWarnings limits the warnings that a hostile device can cause.
	maxWarnings = 200
	// reportBytes is how many bytes of a long file pass between two reports.
	reportBytes = 4 << 20
)

// watch counts progress for an Observer, which may be nil.
type watch struct {
	o        Observer
	phase    Phase
	progress Progress
	pending  int // bytes since the last report
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

// heard notes that the device sent its first message.
func (w *watch) heard(rekeying bool) {
	switch {
	case w.phase != PhaseWaiting:
	case rekeying:
		w.enter(PhaseRekeying)
	default:
		w.enter(PhasePreparing)
	}
}

// percent takes the device's progress from element i of m.
func (w *watch) percent(m devicelink.Message, i int) {
	if p, ok := m.Real(i); ok && p > 0 {
		w.progress.Percent = min(p, 100)
	}
}

func (w *watch) bytes(n int) {
	w.progress.Bytes += int64(n)
	if w.pending += n; w.pending >= reportBytes {
		w.report()
	}
}

func (w *watch) file() {
	w.progress.Files++
	w.report()
}

func (w *watch) report() {
	w.pending = 0
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
		text = "more warnings follow, which are not shown"
	}
	w.o.Warning(text)
}
