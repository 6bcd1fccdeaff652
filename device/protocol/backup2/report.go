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

// reporter counts progress and reports it to an Observer, which may be nil.
type reporter struct {
	o        Observer
	phase    Phase
	progress Progress
	pending  int // bytes since the last report
	warnings int
}

func newReporter(o Observer) *reporter { return &reporter{o: o} }

func (w *reporter) setPhase(p Phase) {
	if w.phase == p {
		return
	}
	w.phase = p
	if w.o != nil {
		w.o.Phase(p)
	}
}

// received sets the phase when a message of the device has arrived. Only the
// first message has an effect.
func (w *reporter) received(rekeying bool) {
	switch {
	case w.phase != PhaseWaiting:
	case rekeying:
		w.setPhase(PhaseRekeying)
	default:
		w.setPhase(PhasePreparing)
	}
}

// percent sets the progress to the percentage in element i of m.
func (w *reporter) percent(m devicelink.Message, i int) {
	if p, ok := m.Real(i); ok && p > 0 {
		w.progress.Percent = min(p, 100)
	}
}

func (w *reporter) bytes(n int) {
	w.progress.Bytes += int64(n)
	if w.pending += n; w.pending >= reportBytes {
		w.flush()
	}
}

func (w *reporter) file() {
	w.progress.Files++
	w.flush()
}

func (w *reporter) flush() {
	w.pending = 0
	if w.o != nil {
		w.o.Progress(w.progress)
	}
}

func (w *reporter) warn(format string, v ...any) {
	if w.warnings++; w.o == nil || w.warnings > maxWarnings {
		return
	}
	text := safe(fmt.Sprintf(format, v...))
	if w.warnings == maxWarnings {
		text = "more warnings follow, which are not shown"
	}
	w.o.Warning(text)
}
