package lock_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/snap-backup/snap/internal/faultpoint"
	"github.com/snap-backup/snap/internal/process"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/internal/access"
	"github.com/snap-backup/snap/repo/internal/lock"
	"github.com/snap-backup/snap/repo/internal/store"
	"github.com/snap-backup/snap/repo/repotest"
)

// life simulates processes on two or three hosts of one name, which lock one repository.
// Every clock is wrong: those of the hosts, and that of the store.
type life struct {
	rng    *rand.Rand
	be     *memory.Backend
	clocks int           // what dates the files: 0 a server, 1 a drive that moves from host to host, 2 nothing
	now    time.Duration // the true time since the beginning
	hosts  []*livesHost
	run    []*livesProcess // the processes that run
	ahead  time.Duration   // of the clock of the server
	n      int
}

type livesHost struct {
	machine, boot string
	ahead         time.Duration
}

type livesProcess struct {
	host *livesHost
	lock *lock.Lock
	kind lock.Kind
}

// skew returns how much a clock is ahead.
func (l *life) skew() time.Duration {
	most := []time.Duration{time.Second, time.Hour, 100 * time.Hour, 30_000 * time.Hour}[l.rng.IntN(4)]
	return time.Duration(l.rng.Int64N(int64(2*most))) - most
}

func (l *life) time(ahead time.Duration) time.Time {
	return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(l.now + ahead)
}

func newLife(seed uint64, base *memory.Backend) *life {
	l := &life{rng: rand.New(rand.NewPCG(seed, 12)), be: base.Clone()}
	l.clocks, l.ahead = l.rng.IntN(3), l.skew()
	for i := range 2 + l.rng.IntN(2) {
		l.hosts = append(l.hosts, &livesHost{fmt.Sprint("machine ", i), fmt.Sprint("boot ", i), l.skew()})
	}
	return l
}

// at sets the clock of the store for an operation of a process on a host.
func (l *life) at(h *livesHost) {
	l.be.SetClock(func() time.Time {
		switch l.clocks {
		case 0:
			return l.time(l.ahead)
		case 1:
			return l.time(h.ahead)
		}
		return time.Time{}
	})
}

// open opens the repository as a new process on a host.
func (l *life) open(h *livesHost) (*store.Store, error) {
	l.n++
	opts := repotest.SmallPacks(byte(l.n))
	opts.Rand = rand.NewChaCha8([32]byte{byte(l.n), byte(l.n >> 8), byte(l.rng.Uint32()), byte(l.rng.Uint32())})
	opts.Refresh = -1
	opts.Now = func() time.Time { return l.time(h.ahead) }
	opts.Elapsed = func() time.Duration { return l.now }
	opts.Owner = &process.Identity{Host: "raspberrypi", PID: l.n, Boot: h.boot, PIDNamespace: "pid:[4026531836]", Machine: h.machine}
	return access.Open(context.Background(), l.be, repotest.Secret, opts)
}

// host returns the host of the next process. A drive is on the host of those that run.
func (l *life) host() *livesHost {
	if l.clocks == 1 && len(l.run) > 0 {
		return l.run[0].host
	}
	return l.hosts[l.rng.IntN(len(l.hosts))]
}

// judge returns an error if a process that runs has lost its lock.
func (l *life) judge(what string) error {
	for _, p := range l.run {
		if err := lock.LockHeld(context.Background(), p.lock); err != nil {
			return fmt.Errorf("after %s: a %s lock of a running process: %w", what, p.kind, err)
		}
	}
	return nil
}

// step lets up to five minutes pass, in which all processes that run refresh their locks.
// Then something happens.
func (l *life) step() error {
	ctx := context.Background()
	l.now += time.Duration(l.rng.Int64N(int64(5 * time.Minute)))
	for _, p := range l.run {
		l.at(p.host)
		if err := lock.RefreshLock(ctx, p.lock); err != nil {
			return err
		}
	}
	what := "a lock"
	switch pick := l.rng.IntN(12); {
	case pick < 6:
		h := l.host()
		l.at(h)
		r, err := l.open(h)
		if err != nil {
			return err
		}
		kind := []lock.Kind{lock.Read, lock.Write, lock.Write, lock.Prune, lock.Exclusive}[l.rng.IntN(5)]
		what = string(kind)
		held, err := lock.Acquire(ctx, r, kind, what)
		switch {
		case err == nil:
			l.run = append(l.run, &livesProcess{h, held, kind})
		case !errors.Is(err, store.ErrLocked):
			return err
		}
	case pick < 8 && len(l.run) > 0: // one ends, or is killed
		at := l.rng.IntN(len(l.run))
		if pick == 6 {
			if err := l.run[at].lock.Release(); err != nil {
				return err
			}
		}
		l.run = slices.Delete(l.run, at, at+1)
	case pick == 8: // a power cut leaves an empty lock
		l.at(l.host())
		what = "a power cut"
		if err := l.be.Set(repotest.LocksDir+fmt.Sprintf("%064x", l.rng.Uint64()), nil); err != nil {
			return err
		}
	case pick == 9: // a host restarts
		h := l.hosts[l.rng.IntN(len(l.hosts))]
		l.run = slices.DeleteFunc(l.run, func(p *livesProcess) bool { return p.host == h })
		h.boot += "'"
	case pick == 10: // somebody sets the clock of a host
		if l.clocks != 1 || len(l.run) == 0 {
			l.hosts[l.rng.IntN(len(l.hosts))].ahead = l.skew()
		}
	case pick == 11 && len(l.run) == 0: // nothing runs for long
		l.now += time.Duration(l.rng.IntN(72)) * time.Hour
	}
	return l.judge(what)
}

// end lets all processes end or die. Then a repair that waits gets its lock, and no other
// lock is left.
func (l *life) end() error {
	ctx := context.Background()
	l.run = nil
	h := l.host()
	l.at(h)
	r, err := l.open(h)
	if err != nil {
		return err
	}
	for range 5 { // --retry-lock
		held, failed := lock.Acquire(ctx, r, lock.Exclusive, "repair")
		if err = failed; err == nil {
			locks, err := lock.List(ctx, r)
			if err == nil && len(locks) != 1 {
				err = fmt.Errorf("beside an exclusive lock: %+v", locks)
			}
			return errors.Join(err, held.Release())
		}
		if !errors.Is(err, store.ErrLocked) {
			return err
		}
		l.now += 11 * time.Minute
	}
	return fmt.Errorf("a repair waits for ever: %w", err)
}

// No running process loses its lock, and no lock of a dead one stays for ever, whatever
// the clocks say. SNAP_TEST_LIVES is how many lives are simulated.
func TestLives(t *testing.T) {
	t.Parallel()
	lives := uint64(80)
	switch {
	case faultpoint.All():
		lives = 150
	case testing.Short():
		lives = 10
	}
	if s := os.Getenv("SNAP_TEST_LIVES"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("SNAP_TEST_LIVES: %v", err)
		}
		lives = n
	}
	base := repotest.New(t)
	for seed := range lives {
		l := newLife(seed, base)
		var err error
		for i := 0; i < 40 && err == nil; i++ {
			err = l.step()
		}
		if err == nil {
			err = l.end()
		}
		if err != nil {
			t.Fatalf("life %d: %v", seed, err)
		}
	}
}
