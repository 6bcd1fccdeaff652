package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/snap-backup/snap/internal/faultpoint"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/fault"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
)

// storageFaults are the ways in which an operation of a store fails: with an error, or, if
// it is a read, with an error or other bytes than those that are stored.
var storageFaults = []struct {
	name string
	err  error
	read func(p []byte, off int64, n int, err error) (int, error)
}{
	{"EIO", syscall.EIO, nil},
	{"EACCES", syscall.EACCES, nil},
	{"ESTALE", syscall.ESTALE, nil},
	{"EINTR", syscall.EINTR, nil},
	{"a short read", syscall.EIO, func(p []byte, _ int64, n int, err error) (int, error) {
		clear(p[n/2 : n])
		if n/2 < n {
			err = io.EOF
		}
		return n / 2, err
	}},
	{"one byte flipped", syscall.EIO, func(p []byte, _ int64, n int, err error) (int, error) {
		if n > 0 {
			p[n/2] ^= 0x10
		}
		return n, err
	}},
}

// faultRun lets an operation of a command's stores fail.
type faultRun struct {
	at    int  // number of the operation, from 1; 0 for none
	stays bool // all later reads of the same file fail in the same way
	way   int

	mu    sync.Mutex
	n     int
	found fault.Call // the operation that failed
	store string     // its store
}

// plan returns the plan for one of the stores. Operations of all stores are counted
// together.
func (f *faultRun) plan(store string) fault.Plan {
	return func(c fault.Call) fault.Action {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.n++
		again := f.stays && f.found.Name == c.Name && f.store == store && f.found.Op == fault.ReadAt && c.Op == fault.ReadAt
		if f.n != f.at && !again {
			return fault.Action{}
		}
		if !again {
			f.found, f.store = c, store
		}
		way := storageFaults[f.way]
		if c.Op == fault.ReadAt && way.read != nil {
			return fault.Action{Read: way.read}
		}
		return fault.Action{Before: way.err}
	}
}

func (f *faultRun) String() string {
	return fmt.Sprintf("%s of operation %d of %d, %v %s of %s, again %v", storageFaults[f.way].name, f.at, f.n, f.found.Op, f.found.Name, f.store, f.stays)
}

// fork returns a patient with copies of the stores of base.
func (p *patient) fork(base map[string]backend.Backend) *patient {
	one := &patient{t: p.t, dir: p.dir, stores: map[string]backend.Backend{}, seed: 100}
	for name, be := range base {
		one.stores[name] = be.(*memory.Backend).Clone()
	}
	return one
}

// runWith runs a command while operations of its stores fail. It returns the outcome
// and the output.
func (p *patient) runWith(f *faultRun, c triedCommand) (got outcome, text string) {
	inner := p.stores
	p.stores = map[string]backend.Backend{}
	for name, be := range inner {
		p.stores[name] = fault.New(be, f.plan(name))
	}
	defer os.RemoveAll(filepath.Join(p.dir, "out"))
	line := c.line
	if before, after, ok := strings.Cut(line, "FIRST"); ok { // there may be no snapshot
		line = before + firstSnapshot(p.t, inner["repo"]) + after
	}
	got.code, text = p.run(line)
	p.stores = inner
	got.given = -1
	if c.given != nil {
		got.given = c.given(p)
	}
	return got, text
}

// rigBase returns the stores on which a command is tried. Repairs begin with a damaged
// pack.
func (p *patient) rigBase(command int) map[string]backend.Backend {
	if !strings.HasPrefix(damageCommands[command].title, "repair") {
		return p.stores
	}
	base := p.fork(p.stores).stores
	base["repo"] = hurt(p.t, base["repo"], largest("packs/")(p.t, base["repo"]), "cut")
	return base
}

// TestCommandsSurviveStorageFaults runs each command while an operation of a store fails.
// Whatever the command says then, nothing is lost or damaged; if it says that all is well,
// it has done its work; and without the fault it does the same as if there had been none.
func TestCommandsSurviveStorageFaults(t *testing.T) {
	p := newDamagePatient(t)
	type point struct{ command, at int }
	var points []point
	whole := make([]outcome, len(damageCommands))
	for command := range damageCommands {
		one, f := p.fork(p.rigBase(command)), &faultRun{}
		whole[command], _ = one.runWith(f, damageCommands[command])
		for at := range f.n {
			points = append(points, point{command, at + 1})
		}
	}
	rng := faultpoint.Rand(t)
	for _, i := range faultpoint.Choose(t, len(points), 16) {
		at := points[i]
		f := &faultRun{at: at.at, way: rng.IntN(len(storageFaults)), stays: rng.IntN(2) == 0}
		one := p.fork(p.rigBase(at.command))
		got, text := one.runWith(f, damageCommands[at.command])
		if err := one.survived(f, at.command, got, whole[at.command], text); err != nil {
			t.Errorf("%s: %v: exit code %d: %v\n%s", damageCommands[at.command].title, f, got.code, err, text)
		}
	}
}

// survived returns an error if a command that met a fault, or its next run, did not end
// as it should.
func (p *patient) survived(f *faultRun, command int, got, whole outcome, text string) error {
	title, dir := damageCommands[command].title, repotest.Folder(f.found.Name)
	if f.found.Op == fault.ReadAt {
		err := oneFile(f.found.Name, got, whole, text)
		switch {
		case title == "verify" && got.code == exitDamaged: // it names the files of the backup
		case dir == "mirrored" && storageFaults[f.way].err == syscall.EACCES: // another user's run may go on with it
		case err != nil:
			return err
		}
	}
	repairs := strings.HasPrefix(title, "repair")
	least := map[bool]int{false: 2, true: 1}[repairs || title == "forget"]
	switch {
	case title == "repair packs" && f.stays && dir == "packs":
		least = 0 // it saves what can be read of a pack, and removes the pack
	case got.code != whole.code || got.given >= whole.given:
	case repairs && whole.code == exitDamaged: // it may have refused; its next run is judged
	case dir == "snapshots" && got.given == whole.given-1: // a warning says that the latest snapshot may be another one
	default:
		return fmt.Errorf("it ends as without the fault, but %d come back instead of %d", got.given, whole.given)
	}
	for name, be := range p.stores {
		if bad := repotest.DamagedFiles(p.t, be); len(bad) > 0 && !(repairs && name == "repo") {
			return fmt.Errorf("files of %s have become damaged: %v", name, bad)
		}
		repotest.RemoveAllLocks(be.(*memory.Backend))
	}
	if n := wholeIn("repo")(p); n < least {
		return fmt.Errorf("only %d snapshots can be read afterwards", n)
	}
	if repairs && least == 0 {
		return nil
	}
	if code, out := p.run("check --read-data"); code != 0 && !repairs {
		return fmt.Errorf("check has exit code %d:\n%s", code, out)
	}
	again, out := p.runWith(&faultRun{}, damageCommands[command])
	mended := repairs && whole.code == exitDamaged && again.code == exitOK // by the first run, which told of it
	// If a pack has lost its header, only the index file knew its blocks.
	unlisted := title == "repair index" && dir == "index" && again.code == exitDamaged
	if again.code != whole.code && !mended && !unlisted || again.given < whole.given {
		return fmt.Errorf("the next run ends with %+v instead of %+v:\n%s", again, whole, out)
	}
	return nil
}

// oneFile returns an error if a file that cannot be read ended a command, or was not
// named.
func oneFile(file string, got, whole outcome, text string) error {
	switch dir := repotest.Folder(file); {
	case got.code == whole.code:
	case got.code == exitInUse && dir == "locks":
	case got.code == exitWrongPass && dir == "keys": // no other one fits the password
	case got.code != exitDamaged:
		return fmt.Errorf("one file that cannot be read ends the command, which has exit code %d without", whole.code)
	case !strings.Contains(text, file[strings.LastIndexByte(file, '/')+1:]):
		return fmt.Errorf("%s is not named", file)
	}
	return nil
}

// clockJumps are the jumps of a computer's clock.
var clockJumps = []time.Duration{time.Hour, -time.Hour, 365 * 24 * time.Hour, -365 * 24 * time.Hour}

// runJumping runs a command while the clock jumps when it is read for the at-th time,
// from 1; 0 for never. It also returns how often the clock was read.
func (p *patient) runJumping(c triedCommand, at int, jump time.Duration) (got outcome, readings int, text string) {
	var mu sync.Mutex // backups read the clock in several goroutines
	p.jump = func(now time.Time) time.Time {
		mu.Lock()
		defer mu.Unlock()
		if readings++; at > 0 && readings >= at {
			return now.Add(jump)
		}
		return now
	}
	defer func() { p.jump = nil }()
	got, text = p.runWith(&faultRun{}, c)
	return got, readings, text
}

// TestCommandsSurviveJumpsOfTheClock lets the clock of the computer jump in the middle of
// a command, beside a process of another computer. Nothing is lost, the command does the
// same as without, and the lock of the other process stays.
func TestCommandsSurviveJumpsOfTheClock(t *testing.T) {
	p := newDamagePatient(t)
	p.leaveLock()
	lock := inFolder("locks/")(t, p.stores["repo"])
	titles := []string{"import", "prune", "copy", "forget", "unlock", "tag"}
	type point struct{ command, at int }
	var points []point
	whole := make([]outcome, len(damageCommands))
	for command := range damageCommands {
		if !slices.Contains(titles, damageCommands[command].title) {
			continue
		}
		got, n, _ := p.fork(p.stores).runJumping(damageCommands[command], 0, 0)
		whole[command] = got
		for at := range n {
			points = append(points, point{command, at + 1})
		}
	}
	for _, i := range faultpoint.Choose(t, len(points)*len(clockJumps), 12) {
		at, jump := points[i/len(clockJumps)], clockJumps[i%len(clockJumps)]
		one := p.fork(p.stores)
		got, _, text := one.runJumping(damageCommands[at.command], at.at, jump)
		where := fmt.Sprintf("%s: jump of %v at reading %d", damageCommands[at.command].title, jump, at.at)
		if got.code != whole[at.command].code || got.given < whole[at.command].given { // forget may keep more
			t.Errorf("%s: ends with %+v instead of %+v:\n%s", where, got, whole[at.command], text)
		}
		if !slices.Contains(repotest.FilesIn(t, one.stores["repo"], "locks/"), lock) {
			t.Errorf("%s: the lock of a live process was removed:\n%s", where, text)
		}
		if code, out := one.run("check --read-data"); code != 0 {
			t.Errorf("%s: check has exit code %d:\n%s", where, code, out)
		}
		if code, out := one.run("import DAY3"); code != 0 {
			t.Errorf("%s: the next import has exit code %d:\n%s", where, code, out)
		}
		if code, out := one.run("show latest"); code != 0 || !strings.Contains(out, "2026-01-03") {
			t.Errorf("%s: the latest snapshot is not that of the last backup:\n%s", where, out)
		}
	}
}
