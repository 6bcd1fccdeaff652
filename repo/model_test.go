package repo_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/snap-backup/snap/internal/faultpoint"
	"github.com/snap-backup/snap/internal/process"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/crash"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/internal/lock"
	"github.com/snap-backup/snap/repo/repotest"
)

// model simulates several processes on two or three hosts, which use two stores. All
// hosts have the same name, and each has a clock of its own, which is wrong. The stores
// have a clock that is wrong in another way, those of the hosts, or none. The model knows
// what the stores must contain. Its seed determines everything except the names of files.
//
// A process is suspended while an operation on its store calls a function that
// runs other processes. These may be suspended in the same way. So processes are
// never concurrent, and every interleaving can be repeated.
type model struct {
	rng     *rand.Rand
	stores  [2]*modelStore // the second one gets copies of the first one's snapshots
	devices []*repotest.Diary
	log     []string
	failure error
	count   map[string]int // how often something happened, by its name
	started int            // number of processes so far
	copying bool
	running int // number of suspended processes, plus the one that runs

	hosts []*modelHost
	clock storeClock

	mu  sync.Mutex // guards now, which goroutines of a process read
	now time.Time  // the true time
}

// modelHost is a host. When it is restarted, its boot changes.
type modelHost struct {
	machine, boot string
	ahead         time.Duration // of the true time
	suspended     int           // processes of this host that are suspended
}

// storeClock is the clock that dates the files of the stores.
type storeClock int

const (
	serverClock storeClock = iota // one clock
	driveClock                    // a drive that moves from host to host; only one uses it at a time
	noClock
)

// modelStore is a store and what must be in it.
type modelStore struct {
	be      *memory.Backend
	want    map[string]*wanted // snapshots, by keyOf
	secrets [][]byte           // at least one of them opens the store
}

// certainty is what is known of a snapshot.
type certainty int

const (
	present certainty = iota // the snapshot exists
	perhaps                  // a process was to store or forget it, and has not finished or was killed
	gone                     // the snapshot does not exist and cannot reappear
)

// wanted is a snapshot that must be restored unchanged.
type wanted struct {
	files       repotest.Files
	state       certainty
	touched     int  // how often a process has begun to forget it
	storedAgain int  // how often a process has begun to copy it, or failed to change its record
	coming      bool // a process is copying it
	notes       map[string]bool
	// certified says that a certificate of it was stored.
	certified bool
}

// modelProcess is a process's view of a store. The process may be suspended at
// one of its operations and die at one of its changes.
type modelProcess struct {
	*crash.Backend
	m         *model
	host      *modelHost
	name      string
	locks     map[string]bool // its lock files
	suspendAt int             // number of the operation at which it is suspended; 0 for never
	meanwhile func()
	begun     time.Time
	started   int // processes started so far when this one was, itself included; for a copy, also the one that reads the source

	store *memory.Backend

	mu sync.Mutex // held while the process is suspended
	n  int
}

// now returns the time by the clock of the host.
func (p *modelProcess) now() time.Time { return p.m.time().Add(p.host.ahead) }

// owner describes the process.
func (p *modelProcess) owner() *process.Identity {
	return &process.Identity{Host: "raspberrypi", PID: p.started, Boot: p.host.boot, PIDNamespace: "pid:[4026531836]", Machine: p.host.machine}
}

// holdsLock returns an error if a process has removed the lock of this one.
func (p *modelProcess) holdsLock() error {
	for name := range p.locks {
		if _, err := p.store.Stat(context.Background(), name); err != nil {
			return fmt.Errorf("the lock of %s, which runs, was removed: %w", p.name, err)
		}
	}
	return nil
}

// operation counts an operation, and suspends the process at number suspendAt.
// Reads do not count, because several goroutines make them in any
// order.
func (p *modelProcess) operation() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.n++; p.n == p.suspendAt {
		p.meanwhile()
	}
}

func (p *modelProcess) wait() { p.mu.Lock(); defer p.mu.Unlock() }

func (p *modelProcess) Put(ctx context.Context, name string, data []byte) error {
	p.operation()
	if p.m.clock == driveClock {
		p.store.SetClock(p.now)
	}
	if strings.HasPrefix(name, repotest.LocksDir) {
		p.locks[name] = true
	}
	return p.Backend.Put(ctx, name, data)
}

func (p *modelProcess) Delete(ctx context.Context, name string) error {
	p.operation()
	delete(p.locks, name)
	return p.Backend.Delete(ctx, name)
}

func (p *modelProcess) List(ctx context.Context, prefix string, fn func(backend.Info) error) error {
	p.operation()
	return p.Backend.List(ctx, prefix, fn)
}

func (p *modelProcess) ReadAt(ctx context.Context, name string, b []byte, off int64) (int, error) {
	p.wait()
	return p.Backend.ReadAt(ctx, name, b, off)
}

func (p *modelProcess) Stat(ctx context.Context, name string) (backend.Info, error) {
	p.wait()
	return p.Backend.Stat(ctx, name)
}

var _ backend.Backend = (*modelProcess)(nil)

// slept reports whether others may have found the process's lock to be stale.
func (p *modelProcess) slept() bool { return p.m.time().Sub(p.begun) > lock.StaleAfter }

// alone reports whether no other process has run since this one began.
func (p *modelProcess) alone() bool { return p.m.started == p.started }

func newModel(seed uint64) (*model, error) {
	m := &model{
		rng: rand.New(rand.NewPCG(seed, 1)), count: map[string]int{},
		now: time.Date(2026, 1, 1, 8, 0, 0, 0, time.UTC),
	}
	m.clock = storeClock(m.rng.IntN(3))
	for i := range 2 + m.rng.IntN(2) {
		m.hosts = append(m.hosts, &modelHost{machine: fmt.Sprint("machine ", i), boot: fmt.Sprint("boot 1 of ", i), ahead: m.skew()})
	}
	skew := m.skew()
	for i := range m.stores {
		be := memory.New()
		switch m.clock {
		case serverClock:
			be.SetClock(func() time.Time { return m.time().Add(skew) })
		case driveClock:
			be.SetClock(m.time)
		case noClock:
			be.SetClock(func() time.Time { return time.Time{} })
		}
		s := &modelStore{be: be, want: map[string]*wanted{}, secrets: [][]byte{repotest.Secret}}
		if _, err := repo.Create(context.Background(), s.be, repotest.Secret, repotest.SlotInfo, m.options(m.observer(s))); err != nil {
			return nil, err
		}
		m.stores[i] = s
	}
	for i := range 3 {
		m.devices = append(m.devices, repotest.NewSmallDiary(seed, uint64(i)))
	}
	return m, nil
}

// skew returns how much a clock is ahead.
func (m *model) skew() time.Duration {
	if m.chance(20) {
		return 0
	}
	most := []time.Duration{time.Minute, 2 * time.Hour, 72 * time.Hour, 2 * 365 * 24 * time.Hour}[m.rng.IntN(4)]
	return time.Duration(m.rng.Int64N(int64(2*most))) - most
}

// observer returns a process that never dies.
func (m *model) observer(s *modelStore) *modelProcess {
	return &modelProcess{m: m, host: m.hosts[0], name: "observer", started: m.started, begun: m.time(), store: s.be, locks: map[string]bool{}, Backend: crash.New(s.be, crash.Plan{})}
}

// keyOf names a snapshot in the model. Its time may be wrong.
func keyOf(s *repo.Snapshot) string { return s.Device.SerialNumber }

func (m *model) time() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now
}

func (m *model) pass(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now = m.now.Add(d)
}

func (m *model) options(p *modelProcess) repo.Options {
	var seed [32]byte
	for i := range seed {
		seed[i] = byte(m.rng.Uint32())
	}
	opts := repotest.Options(0)
	opts.Rand = repotest.Rand(seed)
	begin := m.time()
	opts.Now, opts.Owner = p.now, p.owner()
	opts.Elapsed = func() time.Duration { return m.time().Sub(begin) }
	opts.PackSize = 12 << 10
	opts.Refresh = -1
	return opts
}

func (m *model) chance(percent int) bool { return m.rng.IntN(100) < percent }

func (m *model) note(format string, args ...any) {
	m.log = append(m.log, fmt.Sprintf("%s %s", strings.Repeat("  ", m.running), fmt.Sprintf(format, args...)))
}

func (m *model) fail(err error) {
	if m.failure == nil && err != nil {
		m.failure = err
		m.note("FAILS: %v", err)
	}
}

// startProcess starts a process that may die or be suspended.
func (m *model) startProcess(what string, s *modelStore, riskless bool) *modelProcess {
	m.started++
	p := m.observer(s)
	p.name, p.host = fmt.Sprintf("%s#%d", what, m.started), m.chooseHost()
	plan := crash.Plan{}
	at := 1 + min(m.rng.IntN(60), m.rng.IntN(60)) // mostly small, since few processes make 60 operations
	switch kind := m.rng.IntN(10); {
	case riskless:
	case kind < 3:
		plan = crash.Plan{At: at/2 + 1, Seed: m.rng.Uint64()}
	case kind < 8 && m.running < 3:
		p.suspendAt, p.meanwhile = at, m.whileSuspended(p)
	}
	p.Backend = crash.New(s.be, plan)
	return p
}

// chooseHost returns the host of the next process, which may have been restarted before.
func (m *model) chooseHost() *modelHost {
	h := m.hosts[m.rng.IntN(len(m.hosts))]
	for _, o := range m.hosts {
		if m.clock == driveClock && o.suspended > 0 {
			h = o // the drive is there
		}
	}
	if h.suspended == 0 && m.chance(20) {
		h.boot = fmt.Sprintf("boot %d of %s", m.started, h.machine)
	}
	return h
}

// whileSuspended returns the function that runs while p is suspended. The suspension is
// either brief or so long that the lock of p becomes stale.
func (m *model) whileSuspended(p *modelProcess) func() {
	return func() {
		m.count["suspended"]++
		p.host.suspended++
		defer func() { p.host.suspended-- }()
		if m.chance(50) {
			m.count["slept"]++
			m.note("%s sleeps at operation %d", p.name, p.n)
			m.pass(time.Hour + time.Duration(m.rng.IntN(48))*time.Hour)
		} else {
			m.note("%s is suspended at operation %d", p.name, p.n)
		}
		for range 1 + m.rng.IntN(4) {
			m.step()
		}
		m.note("%s goes on", p.name)
		if !p.slept() {
			m.count["live locks"] += len(p.locks)
			m.fail(p.holdsLock())
		}
	}
}

// step lets one process run to its end.
func (m *model) step() {
	if m.failure != nil {
		return
	}
	m.running++
	defer func() { m.running-- }()
	m.pass(time.Duration(10+m.rng.IntN(170)) * time.Second)
	s := m.stores[0]
	if m.chance(15) {
		s = m.stores[1]
	}
	acts := modelActs()
	if s == m.stores[1] {
		acts = acts[1:] // only copies store there
	}
	total := 0
	for _, a := range acts {
		total += a.weight
	}
	pick := m.rng.IntN(total)
	for _, a := range acts {
		if pick -= a.weight; pick < 0 {
			m.count["steps"]++
			if a.name == "copy" {
				s = m.stores[1]
			}
			m.run(a, s)
			return
		}
	}
}

// run lets a process do one act and judges the result.
func (m *model) run(a modelAct, s *modelStore) {
	p := m.startProcess(a.name, s, false)
	m.note("%s on store %d, is suspended at operation %d", p.name, slices.Index(m.stores[:], s), p.suspendAt)
	err := a.do(context.Background(), m, s, p)
	m.note("%s: %v", p.name, err)
	m.count[a.name]++
	var locked *repo.LockedError
	switch {
	case err == nil:
	case errors.Is(err, crash.ErrCrashed):
		m.count["crashed"]++
	case errors.As(err, &locked):
		m.count["locked"]++
	case errors.Is(err, repo.ErrLockLost):
		m.count["lock lost"]++
		if !p.slept() {
			m.fail(fmt.Errorf("%s lost its lock in %v: %w", p.name, m.time().Sub(p.begun), err))
		}
	case p.slept():
		m.count["other failures of sleepers"]++
	case !p.alone() && (errors.Is(err, repo.ErrChanged) || errors.Is(err, repo.ErrNoSnapshot) || errors.Is(err, repo.ErrWrongPassword)):
		m.count["overtaken"]++
	default:
		m.fail(fmt.Errorf("%s: %w", p.name, err))
	}
}

// open opens a store with the password that works.
func (m *model) open(ctx context.Context, s *modelStore, p *modelProcess) (r *repo.Repo, err error) {
	opts := m.options(p)
	for _, secret := range s.secrets {
		if r, err = repo.Open(ctx, p, secret, opts); !errors.Is(err, repo.ErrWrongPassword) {
			break
		}
	}
	return r, err
}

// settle examines a store while no process runs, and finds out which of the
// uncertain snapshots exist.
func (m *model) settle(s *modelStore, thorough bool) error {
	ctx := context.Background()
	s.secrets = slices.DeleteFunc(s.secrets, func(secret []byte) bool {
		_, err := repo.Open(ctx, s.be, secret, m.options(m.observer(s)))
		return errors.Is(err, repo.ErrWrongPassword)
	})
	r, err := m.open(ctx, s, m.observer(s))
	if err == nil {
		err = r.LoadIndex(ctx)
	}
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	list, damaged, err := r.Snapshots(ctx)
	if err != nil || len(damaged) > 0 {
		return fmt.Errorf("snapshots: error %v, damaged %v", err, damaged)
	}
	certificates, bad, err := r.Certificates(ctx)
	if err != nil || len(bad) > 0 {
		return fmt.Errorf("certificates: error %v, damaged %v", err, bad)
	}
	there := map[string]bool{}
	for _, snap := range list {
		key := keyOf(snap)
		w := s.want[key]
		switch {
		case w == nil:
			return fmt.Errorf("snapshot %s of %v: no process stored it", snap.ID.Short(), snap.Time)
		case w.state == gone:
			return fmt.Errorf("snapshot %s of %v is back: it was forgotten, or never stored", snap.ID.Short(), snap.Time)
		case there[key]:
			return fmt.Errorf("snapshot %s of %v is there twice", snap.ID.Short(), snap.Time)
		case !w.notes[snap.Note]:
			return fmt.Errorf("snapshot %s of %v has the note %q, want one of %v", snap.ID.Short(), snap.Time, snap.Note, w.notes)
		}
		w.state, there[key], w.notes = present, true, map[string]bool{snap.Note: true}
		got, err := repotest.Restore(ctx, r, snap)
		if err == nil {
			err = got.Same(w.files)
		}
		if err != nil {
			return fmt.Errorf("snapshot %s of %v: %w", snap.ID.Short(), snap.Time, err)
		}
		if w.certified && len(repo.CertificatesOf(certificates, snap)) == 0 {
			return fmt.Errorf("snapshot %s of %v has lost its certificates", snap.ID.Short(), snap.Time)
		}
		m.count["snapshots read"]++
	}
	for key, w := range s.want {
		if w.state == present && !there[key] {
			return fmt.Errorf("the snapshot of process %s is lost", key)
		}
		if !there[key] {
			delete(s.want, key) // no process can store another snapshot with this time
		}
	}
	runs, bad, err := r.Unfinished(ctx)
	if err != nil || len(bad) > 0 {
		return fmt.Errorf("unfinished runs: error %v, damaged %v", err, bad)
	}
	m.count["unfinished runs read"] += len(runs)
	opts := repo.CheckOptions{DryRun: true}
	if thorough {
		opts.ReadData = 1
	}
	report, err := r.Check(ctx, opts)
	if err != nil || !report.Clean() || len(report.Problems) > 0 {
		return fmt.Errorf("check finds %+v, error %v", report, err)
	}
	m.count["checks"]++
	return nil
}

// finish lets time pass and prunes both stores. After that, the stores may contain
// nothing that processes left when they died.
func (m *model) finish() error {
	m.pass(30 * 24 * time.Hour)
	for i, s := range m.stores {
		r, err := m.lastPrune(s)
		if err != nil {
			return err
		}
		err = s.be.List(context.Background(), "", func(f backend.Info) error {
			for _, dir := range []string{repotest.LocksDir, repotest.PrunesDir} {
				if strings.HasPrefix(f.Name, dir) {
					return fmt.Errorf("store %d: %s was left behind", i, f.Name)
				}
			}
			return nil
		})
		if err == nil {
			err = noOrphans(r)
		}
		if err == nil {
			err = m.settle(s, true)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// lastPrune prunes a store. It waits for locks of which no clock tells the age, as a prune
// with --retry-lock does. No lock lasts for ever.
func (m *model) lastPrune(s *modelStore) (*repo.Repo, error) {
	ctx := context.Background()
	p := m.observer(s)
	p.host = m.chooseHost()
	r, err := m.open(ctx, s, p)
	if err != nil {
		return nil, err
	}
	l, err := r.Lock(ctx, repo.LockPrune, "prune")
	if errors.Is(err, repo.ErrLocked) {
		m.count["waited for a lock"]++
		m.pass(lock.StaleAfter + time.Second)
		l, err = r.Lock(ctx, repo.LockPrune, "prune")
	}
	if err != nil {
		return nil, err
	}
	if _, err := r.Locks(ctx); err != nil {
		return nil, err
	}
	m.pass(lock.StaleAfter + time.Second)
	opts := repotest.NoWaste
	opts.AllowEmpty = true // the model knows that nothing was lost
	rep, err := r.Prune(ctx, opts)
	if err == nil {
		_, err = r.RemoveLocks(ctx, repo.LeftBehind)
	}
	if err = errors.Join(err, l.Release()); err != nil {
		return nil, fmt.Errorf("the last prune: %w", err)
	}
	if len(rep.Waiting) > 0 || rep.PendingPacks > 0 {
		return nil, fmt.Errorf("the last prune waits: %+v", rep)
	}
	return r, nil
}

// noOrphans returns an error if certificates are of no snapshot.
func noOrphans(r *repo.Repo) error {
	list, _, err := r.Snapshots(context.Background())
	if err != nil {
		return err
	}
	certificates, _, err := r.Certificates(context.Background())
	for _, c := range certificates {
		if !slices.ContainsFunc(list, func(s *repo.Snapshot) bool { return s.Has(c.Snapshot) }) {
			return fmt.Errorf("the certificate %s is of no snapshot", c.ID.Short())
		}
	}
	return err
}

// runAll runs the model to its end.
func (m *model) runAll(steps int) error {
	for m.count["steps"] < steps {
		m.step()
		if m.failure != nil {
			return m.failure
		}
		if m.chance(20) {
			m.pass(time.Duration(m.rng.IntN(24)) * time.Hour)
		}
		if m.chance(40) {
			for i, s := range m.stores {
				if err := m.settle(s, m.chance(25)); err != nil {
					m.note("store %d: %v", i, err)
					return fmt.Errorf("store %d: %w", i, err)
				}
			}
		}
	}
	return m.finish()
}

// TestModel runs models whose processes interrupt, outlive and kill each other in
// the same repository. By default it runs a few models. SNAP_TEST_MODEL is a time,
// such as "10m", in which it runs as many as it can. With SNAP_TEST_MODEL_SEED it
// runs only the model with this seed.
func TestModel(t *testing.T) {
	t.Parallel()
	lives, length := 4, time.Duration(0)
	switch {
	case faultpoint.All():
		lives = 40
	case testing.Short():
		lives = 1
	}
	if s := os.Getenv("SNAP_TEST_MODEL"); s != "" {
		var err error
		if length, err = time.ParseDuration(s); err != nil {
			t.Fatalf("SNAP_TEST_MODEL: %v", err)
		}
	}
	seed, only := uint64(1), false
	if s := os.Getenv("SNAP_TEST_MODEL_SEED"); s != "" {
		if _, err := fmt.Sscan(s, &seed); err != nil {
			t.Fatalf("SNAP_TEST_MODEL_SEED: %v", err)
		}
		only = true
	} else if os.Getenv("SNAP_TEST_MODEL") != "" {
		seed = uint64(time.Now().UnixNano())
	}
	total := map[string]int{}
	for end := time.Now().Add(length); total["lives"] < lives || time.Now().Before(end); seed++ {
		m, err := newModel(seed)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.runAll(150); err != nil {
			t.Fatalf("SNAP_TEST_MODEL_SEED=%d: %v\n%s", seed, err, strings.Join(m.log[max(0, len(m.log)-60):], "\n"))
		}
		total["lives"]++
		for what, n := range m.count {
			total[what] += n
		}
		if only {
			break
		}
	}
	for _, what := range slices.Sorted(maps.Keys(total)) {
		t.Logf("%6d %s", total[what], what)
	}
	for _, what := range []string{"crashed", "slept", "lock lost", "store", "prune", "copy", "certificates stored", "packs removed"} {
		if total[what] == 0 && !only && !testing.Short() {
			t.Errorf("it never happened: %s", what)
		}
	}
}
