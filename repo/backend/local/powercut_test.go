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

	"github.com/snap-backup/snap/internal/faultpoint"
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

// repeatScript repeats Puts and Deletes.
var repeatScript = []change{
	{"packs/ab/one", []byte("one")},
	{"packs/ab/one", []byte("another one")},
	{"packs/ab/one", nil},
	{"packs/ab/one", nil},
	{"packs/ab/one", []byte("one more")},
	{"packs/ab/never", nil},
	{"keys/empty", []byte{}},
}

// expectation has the possible contents of each name; nil means absence.
type expectation map[string][][]byte

func (e expectation) of(name string) [][]byte {
	if e[name] == nil {
		return [][]byte{nil}
	}
	return e[name]
}

// run makes the changes of a script, and records the states that the contract allows
// afterwards.
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

// verify returns an error if a store is in a state that the contract excludes.
func (e expectation) verify(b *Backend) error {
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
			return fmt.Errorf("%s exists but was never put", name)
		}
	}
	for name, allowed := range e {
		size, listed := found[name]
		got, err := backend.ReadAll(context.Background(), b, name, 1<<30)
		if listed != (err == nil) || int64(len(got)) != size {
			return fmt.Errorf("%s: listed %v with %d bytes, read %d bytes, %v", name, listed, size, len(got), err)
		}
		ok := slices.ContainsFunc(allowed, func(want []byte) bool {
			return listed == (want != nil) && bytes.Equal(want, got)
		})
		if !ok {
			return fmt.Errorf("%s exists: %v, with %d bytes, which is none of the %d possible states", name, listed, len(got), len(allowed))
		}
	}
	return nil
}

// start returns the backend of a new process.
func start(p *process) *Backend {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.starts++
	seed := [32]byte{byte(p.starts)} // two processes of a machine never choose the same names
	b := newBackend("disk", p, &lockedReader{r: rand.NewChaCha8(seed)}, func() error { return nil })
	b.writeSize = 200 // so that one file takes several writes
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

// retry puts all files again after a failure, and then cuts the power. The files that
// Put stored or reported as existing must still exist afterwards.
func (e expectation) retry(m *machine, noLinks bool) error {
	b := start(&process{machine: m, noLinks: noLinks})
	for name, allowed := range e {
		for _, data := range allowed {
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
	for name, allowed := range e {
		existing := slices.DeleteFunc(slices.Clone(allowed), func(data []byte) bool { return data == nil })
		if len(existing) > 0 {
			again[name] = existing
		}
	}
	if _, err := b.RemoveStale(context.Background(), 0); err != nil {
		return err
	}
	if tmp, err := m.find(tmpFolder); err == nil && len(tmp.now) > 0 {
		return fmt.Errorf("%d temporary files remain after RemoveStale", len(tmp.now))
	}
	if err := again.verify(b); err != nil {
		return fmt.Errorf("after putting again: %w", err)
	}
	for _, l := range losses(1) {
		if err := again.verify(start(&process{machine: m.afterPowerCut(l)})); err != nil {
			return fmt.Errorf("after putting again and another power cut (%s): %w", l.name, err)
		}
	}
	return nil
}

// attempt runs a script in a process that fails at call p.at, and verifies every state
// that a power cut after the failure can leave.
func attempt(p *process, script []change, seeds int) error {
	e := make(expectation)
	e.run(start(p), script)
	if len(p.calls) < p.at {
		return fmt.Errorf("the script made only %d calls", len(p.calls))
	}
	what := p.calls[p.at-1]
	for _, l := range losses(seeds) {
		m := p.afterPowerCut(l)
		err := e.verify(start(&process{machine: m}))
		if err == nil {
			err = e.retry(m, p.noLinks)
		}
		if err != nil {
			return fmt.Errorf("call %d, %q, then power cut (%s): %w", p.at, what, l.name, err)
		}
	}
	// The process failed, but the power stayed on.
	if err := e.verify(start(&process{machine: p.machine})); err != nil {
		return fmt.Errorf("call %d, %q, seen by the next process: %w", p.at, what, err)
	}
	if left, err := p.find(tmpFolder); err == nil && !p.dead && len(left.now) > 0 {
		switch what {
		case "create TEMP", "remove TEMP": // after these failures a temporary file remains
		default:
			return fmt.Errorf("call %d, %q: %d temporary files remain", p.at, what, len(left.now))
		}
	}
	if err := e.retry(p.machine, p.noLinks); err != nil {
		return fmt.Errorf("call %d, %q, next process: %w", p.at, what, err)
	}
	return nil
}

// callsOf returns the number of calls at which a script can fail. A script may make
// more calls after a failure than without one.
func callsOf(script []change, proto process, noLinks bool) int {
	for at := 1; ; at++ {
		p := &process{machine: newMachine(), at: at, trouble: proto.trouble, err: proto.err, noLinks: noLinks}
		make(expectation).run(start(p), script)
		if len(p.calls) < at {
			return at - 1
		}
	}
}

func TestTroubleAtEveryCall(t *testing.T) {
	t.Parallel()
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
					t.Parallel()
					n := callsOf(script, proto, noLinks)
					if n < 10 {
						t.Fatalf("the script made only %d calls", n)
					}
					for _, i := range faultpoint.Choose(t, n, 16) {
						p := &process{machine: newMachine(), at: i + 1, trouble: proto.trouble, err: proto.err, noLinks: noLinks}
						if err := attempt(p, script, seeds); err != nil {
							t.Fatal(err)
						}
					}
				})
			}
		}
	}
}

// Every flush is needed: if one is omitted, a power cut can break the contract. This
// also shows that the simulation notices an omitted flush.
func TestEveryFlushIsNeeded(t *testing.T) {
	t.Parallel()
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
				t.Errorf("call %d, %q, is not needed (hard links: %v)", i+1, what, !noLinks)
			}
		}
		if flushes < len(plainScript) {
			t.Errorf("only %d flushes in %d changes", flushes, len(plainScript))
		}
	}
}

// withoutFlush skips one flush, and cuts the power after each possible number of
// completed changes. It returns the first fault that it finds.
func withoutFlush(at int, noLinks bool) error {
	for n := 1; n <= len(plainScript); n++ {
		p := &process{machine: newMachine(), at: at, trouble: forgetFlush, noLinks: noLinks}
		e := make(expectation)
		e.run(start(p), plainScript[:n])
		for _, l := range losses(2) {
			if err := e.verify(start(&process{machine: p.afterPowerCut(l)})); err != nil {
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

// A process is killed after it linked a file and before it flushed the entry. Another
// process that gets ErrExist must be able to rely on the file.
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
		if err := e.verify(start(&process{machine: m.afterPowerCut(l)})); err != nil {
			t.Errorf("power cut (%s): %v", l.name, err)
		}
	}
}

// A process is killed in a Delete. Another process that gets ErrNotExist must be able
// to rely on the absence of the file.
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
		if err := e.verify(start(&process{machine: m.afterPowerCut(l)})); err != nil {
			t.Errorf("power cut (%s): %v", l.name, err)
		}
	}
}

// slowLstat waits after each lstat, so that another Put can run in between.
type slowLstat struct{ *process }

func (d slowLstat) lstat(name string) (fs.FileInfo, error) {
	info, err := d.process.lstat(name)
	time.Sleep(time.Millisecond)
	return info, err
}

func TestOneWinnerWithoutLinks(t *testing.T) {
	t.Parallel()
	p := &process{machine: newMachine(), noLinks: true}
	b := start(p)
	b.disk = slowLstat{p}
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
	t.Parallel()
	for _, noLinks := range []bool{false, true} {
		t.Run(fmt.Sprintf("noLinks=%v", noLinks), func(t *testing.T) {
			backendtest.Run(t, func(*testing.T) backend.Backend {
				return start(&process{machine: newMachine(), noLinks: noLinks})
			})
		})
	}
}
