package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/backendtest"
)

// change is one Put, or one Delete if data is nil.
type change struct {
	name string
	data []byte
}

var plainScript = []change{
	{"config", []byte("the configuration")},
	{"packs/ab/one", bytes.Repeat([]byte("first pack "), 50)},
	{"packs/ab/two", bytes.Repeat([]byte("second pack "), 40)},
	{"packs/cd/three", bytes.Repeat([]byte("third pack "), 30)},
	{"packs/ab/one", nil},
	{"config", nil},
}

// repeatScript asks for what is there, or gone, already.
var repeatScript = []change{
	{"packs/ab/one", []byte("one")},
	{"packs/ab/one", []byte("another one")},
	{"packs/ab/one", nil},
	{"packs/ab/one", nil},
	{"packs/ab/one", []byte("one more")},
	{"packs/ab/never", nil},
	{"keys/empty", []byte{}},
}

// expectation keeps what a name may hold: one of several contents, nil being
// absence.
type expectation map[string][][]byte

func (e expectation) of(name string) [][]byte {
	if e[name] == nil {
		return [][]byte{nil}
	}
	return e[name]
}

// run makes the changes of a script and works out from the contract what may
// be found afterwards.
func (e expectation) run(b *Backend, script []change) {
	for _, c := range script {
		before := e.of(c.name)
		if c.data == nil {
			err := b.Delete(context.Background(), c.name)
			if err == nil || errors.Is(err, backend.ErrNotExist) {
				e[c.name] = [][]byte{nil}
			} else {
				e[c.name] = append(slices.Clone(before), nil)
			}
			continue
		}
		switch err := b.Put(context.Background(), c.name, c.data); {
		case err == nil:
			e[c.name] = [][]byte{c.data}
		case errors.Is(err, backend.ErrExist):
			e[c.name] = slices.DeleteFunc(slices.Clone(before), func(data []byte) bool { return data == nil })
		case slices.ContainsFunc(before, func(data []byte) bool { return data == nil }):
			e[c.name] = append(slices.Clone(before), c.data)
		}
	}
}

// judge compares a store with what may be found in it.
func (e expectation) judge(b *Backend) error {
	found := make(map[string]int64)
	err := b.List(context.Background(), "", func(info backend.Info) error {
		found[info.Name] = info.Size
		return nil
	})
	if err != nil {
		return err
	}
	for name := range found {
		if e[name] == nil {
			return fmt.Errorf("%s is there and nobody put it", name)
		}
	}
	for name, may := range e {
		size, listed := found[name]
		got, err := backend.ReadAll(context.Background(), b, name, 1<<30)
		if listed != (err == nil) || int64(len(got)) != size {
			return fmt.Errorf("%s: listed %v with %d bytes, read %d bytes, %v", name, listed, size, len(got), err)
		}
		ok := slices.ContainsFunc(may, func(want []byte) bool {
			return listed == (want != nil) && bytes.Equal(want, got)
		})
		if !ok {
			return fmt.Errorf("%s is there: %v, with %d bytes: none of the %d states that it may have", name, listed, len(got), len(may))
		}
	}
	return nil
}

// start runs a new program on the machine.
func start(p *process) *Backend {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.starts++
	seed := [32]byte{byte(p.starts)} // no two programs on a machine choose the same names
	b := newBackend("disk", p, &lockedReader{r: rand.NewChaCha8(seed)}, func() error { return nil })
	b.piece = 200 // so that one file takes several writes
	return b
}

type lockedReader struct {
	mu sync.Mutex
	r  io.Reader
}

func (l *lockedReader) Read(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.r.Read(p)
}

// retry puts everything once more on a machine that had trouble, and then cuts
// the power: whatever the answer was, it must be true afterwards.
func (e expectation) retry(m *machine, noLinks bool) error {
	b := start(&process{machine: m, noLinks: noLinks})
	for name, may := range e {
		for _, data := range may {
			if data == nil {
				continue
			}
			err := b.Put(context.Background(), name, data)
			if err != nil && !errors.Is(err, backend.ErrExist) {
				return fmt.Errorf("put again: %w", err)
			}
		}
	}
	again := make(expectation)
	for name, may := range e {
		there := slices.DeleteFunc(slices.Clone(may), func(data []byte) bool { return data == nil })
		if len(there) > 0 {
			again[name] = there
		}
	}
	if _, err := b.RemoveStale(context.Background(), time.Now()); err != nil {
		return err
	}
	if tmp, err := m.find(tmpFolder); err == nil && len(tmp.now) > 0 {
		return fmt.Errorf("%d temporary files are left after RemoveStale", len(tmp.now))
	}
	if err := again.judge(b); err != nil {
		return fmt.Errorf("after putting again: %w", err)
	}
	for _, l := range losses(1) {
		if err := again.judge(start(&process{machine: m.afterPowerCut(l)})); err != nil {
			return fmt.Errorf("after putting again and another power cut (%s): %w", l.name, err)
		}
	}
	return nil
}

// attempt runs a script in a process with trouble and judges every state that
// a power cut after it can leave. reached is false if the script needs fewer
// calls than p.at.
func attempt(p *process, script []change, seeds int) (reached bool, err error) {
	e := make(expectation)
	e.run(start(p), script)
	if len(p.calls) < p.at {
		return false, nil
	}
	what := p.calls[p.at-1]
	for _, l := range losses(seeds) {
		m := p.afterPowerCut(l)
		err := e.judge(start(&process{machine: m}))
		if err == nil {
			err = e.retry(m, p.noLinks)
		}
		if err != nil {
			return true, fmt.Errorf("call %d, %q, then power cut (%s): %w", p.at, what, l.name, err)
		}
	}
	// The process had trouble, but the power stayed on.
	if err := e.judge(start(&process{machine: p.machine})); err != nil {
		return true, fmt.Errorf("call %d, %q, seen by the next process: %w", p.at, what, err)
	}
	if left, err := p.find(tmpFolder); err == nil && !p.dead && len(left.now) > 0 {
		switch what {
		case "create TEMP", "remove TEMP": // these cannot be cleaned up after
		default:
			return true, fmt.Errorf("call %d, %q: %d temporary files are left", p.at, what, len(left.now))
		}
	}
	if err := e.retry(p.machine, p.noLinks); err != nil {
		return true, fmt.Errorf("call %d, %q, next process: %w", p.at, what, err)
	}
	return true, nil
}

func TestTroubleAtEveryCall(t *testing.T) {
	const seeds = 8
	scripts := map[string][]change{"plain": plainScript, "repeat": repeatScript}
	troubles := map[string]process{
		"killed before": {trouble: killBefore},
		"killed after":  {trouble: killAfter},
		"fault before":  {trouble: failBefore, err: syscall.EIO},
		"fault after":   {trouble: failAfter, err: syscall.EIO},
		"disk full":     {trouble: failBefore, err: syscall.ENOSPC},
	}
	for scriptName, script := range scripts {
		for troubleName, proto := range troubles {
			for _, noLinks := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%s/noLinks=%v", scriptName, troubleName, noLinks), func(t *testing.T) {
					for at := 1; ; at++ {
						p := &process{machine: newMachine(), at: at, trouble: proto.trouble, err: proto.err, noLinks: noLinks}
						reached, err := attempt(p, script, seeds)
						if err != nil {
							t.Fatal(err)
						}
						if !reached {
							if at < 10 {
								t.Fatalf("the script made only %d calls", at-1)
							}
							return
						}
					}
				})
			}
		}
	}
}

// Every flush is needed: without any single one of them there is a moment at
// which a power cut breaks the contract. That also shows that the simulation
// is able to find such a fault.
func TestEveryFlushIsNeeded(t *testing.T) {
	for _, noLinks := range []bool{false, true} {
		straight := &process{machine: newMachine(), noLinks: noLinks}
		expectation{}.run(start(straight), plainScript)
		flushes := 0
		for i, what := range straight.calls {
			if !isFlush(what) {
				continue
			}
			flushes++
			if err := withoutFlush(i+1, noLinks); err == nil {
				t.Errorf("call %d, %q, could be left out (hard links: %v)", i+1, what, !noLinks)
			}
		}
		if flushes < len(plainScript) {
			t.Errorf("only %d flushes in %d changes", flushes, len(plainScript))
		}
	}
}

// withoutFlush leaves one flush out and cuts the power after each number of
// completed changes. It returns the first fault that this brings to light.
func withoutFlush(at int, noLinks bool) error {
	for n := 1; n <= len(plainScript); n++ {
		p := &process{machine: newMachine(), at: at, trouble: forgetFlush, noLinks: noLinks}
		e := make(expectation)
		e.run(start(p), plainScript[:n])
		for _, l := range losses(2) {
			if err := e.judge(start(&process{machine: p.afterPowerCut(l)})); err != nil {
				return err
			}
		}
	}
	return nil
}

func TestCallsOfPut(t *testing.T) {
	p := &process{machine: newMachine()}
	b := start(p)
	ctx := context.Background()
	calls := func(run func() error) []string {
		t.Helper()
		p.calls = nil
		if err := run(); err != nil {
			t.Fatal(err)
		}
		return p.calls
	}
	first := calls(func() error { return b.Put(ctx, "packs/ab/1", []byte("x")) })
	want := []string{
		"lstat packs/ab/1",
		"create TEMP", "mkdir tmp", "create TEMP", "write", "flush file", "close",
		"mkdir packs", "flush folder .", "mkdir packs/ab", "flush folder packs",
		"link TEMP packs/ab/1", "flush folder packs/ab", "remove TEMP",
	}
	if !slices.Equal(first, want) {
		t.Errorf("first Put:\n%s\nwant:\n%s", strings.Join(first, "\n"), strings.Join(want, "\n"))
	}
	second := calls(func() error { return b.Put(ctx, "packs/ab/2", []byte("x")) })
	want = []string{
		"lstat packs/ab/2", "create TEMP", "write", "flush file", "close",
		"link TEMP packs/ab/2", "flush folder packs/ab", "remove TEMP",
	}
	if !slices.Equal(second, want) {
		t.Errorf("second Put:\n%s\nwant:\n%s", strings.Join(second, "\n"), strings.Join(want, "\n"))
	}
}

// A process that is killed after a file got its name, and before the entry was
// flushed, must not make another process rely on something that is not safe.
func TestErrExistIsDurable(t *testing.T) {
	m := newMachine()
	killed := &process{machine: m, at: 12, trouble: killAfter} // the link, see TestCallsOfPut
	data := []byte("shared by two processes")
	if err := start(killed).Put(context.Background(), "packs/ab/1", data); !errors.Is(err, errKilled) {
		t.Fatalf("Put of the killed process = %v", err)
	}
	if last := killed.calls[len(killed.calls)-1]; last != "link TEMP packs/ab/1" {
		t.Fatalf("the process was killed at %q", last)
	}
	err := start(&process{machine: m}).Put(context.Background(), "packs/ab/1", data)
	if !errors.Is(err, backend.ErrExist) {
		t.Fatalf("Put of the next process = %v, want ErrExist", err)
	}
	e := expectation{"packs/ab/1": {data}}
	for _, l := range losses(10) {
		if err := e.judge(start(&process{machine: m.afterPowerCut(l)})); err != nil {
			t.Errorf("power cut (%s): %v", l.name, err)
		}
	}
}

// The same for a process that is killed in the middle of a Delete.
func TestErrNotExistIsDurable(t *testing.T) {
	ctx := context.Background()
	m := newMachine()
	if err := start(&process{machine: m}).Put(ctx, "keys/lost", []byte("to be revoked")); err != nil {
		t.Fatal(err)
	}
	killed := &process{machine: m, at: 2, trouble: killAfter}
	if err := start(killed).Delete(ctx, "keys/lost"); !errors.Is(err, errKilled) {
		t.Fatalf("Delete of the killed process = %v", err)
	}
	if last := killed.calls[len(killed.calls)-1]; last != "remove keys/lost" {
		t.Fatalf("the process was killed at %q", last)
	}
	if err := start(&process{machine: m}).Delete(ctx, "keys/lost"); !errors.Is(err, backend.ErrNotExist) {
		t.Fatalf("Delete of the next process = %v, want ErrNotExist", err)
	}
	e := expectation{"keys/lost": {nil}}
	for _, l := range losses(10) {
		if err := e.judge(start(&process{machine: m.afterPowerCut(l)})); err != nil {
			t.Errorf("power cut (%s): %v", l.name, err)
		}
	}
}

// slowLook takes its time between looking a name up and answering, so that
// another Put can come in between.
type slowLook struct{ *process }

func (d slowLook) lstat(name string) (fs.FileInfo, error) {
	info, err := d.process.lstat(name)
	time.Sleep(time.Millisecond)
	return info, err
}

func TestOneWinnerWithoutLinks(t *testing.T) {
	p := &process{machine: newMachine(), noLinks: true}
	b := start(p)
	b.disk = slowLook{p}
	var won atomic.Int32
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			err := b.Put(context.Background(), "packs/ab/cd", []byte{byte(i)})
			if err == nil {
				won.Add(1)
			} else if !errors.Is(err, backend.ErrExist) {
				t.Errorf("Put = %v", err)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Errorf("%d of 8 Puts of one name succeeded", won.Load())
	}
}

func TestContractOnSimulatedDisk(t *testing.T) {
	for _, noLinks := range []bool{false, true} {
		t.Run(fmt.Sprintf("noLinks=%v", noLinks), func(t *testing.T) {
			backendtest.Run(t, func(*testing.T) backend.Backend {
				return start(&process{machine: newMachine(), noLinks: noLinks})
			})
		})
	}
}
