package repotest

import (
	"errors"
	"testing"

	"github.com/snap-backup/snap/internal/faultpoint"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/crash"
	"github.com/snap-backup/snap/repo/backend/fault"
	"github.com/snap-backup/snap/repo/backend/memory"
)

// faultModes are the ways in which step n of a run can fail.
var faultModes = []struct {
	name string
	plan func(n int) fault.Plan
}{
	{"refused", func(n int) fault.Plan { return fault.Once(n, fault.ErrInjected) }},
	{"done but reported as failed", func(n int) fault.Plan { return fault.OnceAfter(n, fault.ErrInjected) }},
	{"all refused from here on", func(n int) fault.Plan { return fault.From(n, fault.ErrInjected) }},
}

// retries finds out whether the file that step n reads is read again later.
type retries struct {
	n     int
	name  string
	again bool
}

func (r *retries) plan(c fault.Call) fault.Action {
	reads := c.Op == fault.ReadAt || c.Op == fault.Stat
	if c.N == r.n && reads {
		r.name = c.Name
	}
	r.again = r.again || c.N > r.n && reads && c.Name == r.name
	return fault.Action{}
}

// A Run is an operation that a test makes fail, many times. Each time it starts with a
// fresh copy of Base.
type Run struct {
	Base *memory.Backend
	Do   func(be backend.Backend) error
	// Least is the minimum number of steps of Do if nothing fails. The test fails if Do
	// has fewer, since it might test nothing.
	Least int
	// Want is how many steps fail in each way unless SNAP_TEST_ALL is set.
	Want int
	// Notices says that Do returns an error, or reads the file again, for at least half of
	// the steps that fail, in each way of failing. If all steps are tried, EveryFault
	// verifies this.
	Notices bool
}

// Steps returns the numbers of the steps that a test makes fail. The first step is 1.
func (run Run) Steps(t testing.TB) []int {
	t.Helper()
	count := fault.New(run.Base.Clone())
	if err := run.Do(count); err != nil || count.Count() < run.Least {
		t.Fatalf("without a fault, the run had %d steps, want at least %d: %v", count.Count(), run.Least, err)
	}
	steps := faultpoint.Choose(t, count.Count(), run.Want)
	for i := range steps {
		steps[i]++
	}
	return steps
}

// EveryFault makes each step of Do fail in every way. It calls judge with the resulting
// repository and the error of Do.
func EveryFault(t *testing.T, run Run, judge func(be *memory.Backend, err error) error) {
	t.Helper()
	for _, mode := range faultModes {
		noticed, steps := 0, run.Steps(t)
		for _, n := range steps {
			be := run.Base.Clone()
			read := retries{n: n}
			store := fault.New(be, mode.plan(n), read.plan)
			err := run.Do(store)
			if store.Count() < n {
				if err != nil {
					t.Fatalf("without a fault: %v", err)
				}
				continue // Do had fewer steps this time
			}
			if err == nil && mode.name == "all refused from here on" {
				t.Fatalf("step %d, %s: no error", n, mode.name)
			}
			if err != nil && !errors.Is(err, fault.ErrInjected) {
				t.Errorf("step %d, %s: the error hides its cause: %v", n, mode.name, err)
			}
			if err != nil || read.again {
				noticed++
			}
			if jerr := judge(be, err); jerr != nil {
				t.Fatalf("step %d, %s (error %v): %v", n, mode.name, err, jerr)
			}
		}
		if run.Notices && faultpoint.All() && noticed < len(steps)/2 {
			t.Errorf("%s: only %d of %d faults caused an error", mode.name, noticed, len(steps))
		}
	}
}

// EveryCrash kills the process that runs Do at each of its changes. It calls judge with
// the repository after a restart.
func EveryCrash(t *testing.T, run Run, judge func(be *memory.Backend) error) {
	t.Helper()
	crashes(t, run, 4, false, judge)
}

// EveryTear is EveryCrash on a disk that does not write files atomically: the file that
// was being written may be damaged.
func EveryTear(t *testing.T, run Run, judge func(be *memory.Backend) error) {
	t.Helper()
	crashes(t, run, 8, true, judge)
}

func crashes(t *testing.T, run Run, outcomes int, torn bool, judge func(be *memory.Backend) error) {
	t.Helper()
	count := crash.New(run.Base.Clone(), crash.Plan{})
	if err := run.Do(count); err != nil || count.Changes() < run.Least {
		t.Fatalf("without a crash, the run made %d changes, want at least %d: %v", count.Changes(), run.Least, err)
	}
	rng := faultpoint.Rand(t)
	for _, point := range faultpoint.Choose(t, count.Changes(), run.Want) {
		seeds := []uint64{uint64(rng.IntN(outcomes))}
		if faultpoint.All() {
			seeds = nil
			for seed := range uint64(outcomes) {
				seeds = append(seeds, seed)
			}
		}
		for _, seed := range seeds {
			process := crash.New(run.Base.Clone(), crash.Plan{At: point + 1, Seed: seed, Torn: torn})
			err := run.Do(process)
			if !process.Crashed() {
				if err != nil {
					t.Fatalf("without a crash: %v", err)
				}
				continue
			}
			if !errors.Is(err, crash.ErrCrashed) {
				t.Fatalf("%s: its error was %v", process.Outcome(), err)
			}
			if err := judge(process.Reboot()); err != nil {
				t.Fatalf("%s: %v", process.Outcome(), err)
			}
		}
	}
}

// PutSizes returns the sizes of the files that an operation puts.
func PutSizes(base *memory.Backend, do func(backend.Backend) error) ([]int, error) {
	var sizes []int
	be := fault.New(base.Clone(), func(c fault.Call) fault.Action {
		if c.Op == fault.Put {
			sizes = append(sizes, c.Size)
		}
		return fault.Action{}
	})
	return sizes, do(be)
}
