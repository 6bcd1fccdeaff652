// Package repotest makes, fills, damages and verifies repositories for tests.
//
// It uses only the public API of package repo and the backends, so tests of any
// package may use it. Everything it makes is repeatable: random bytes come from
// a seed, clocks advance by a fixed step, and key slots have the least cost. A test
// reads like this:
//
//	be := repotest.New(t, 1, 2, 3) // a repository with the snapshots of three days
//	... change or damage it ...
//	if err := repotest.Verify(be, 1, 2, 3); err != nil { // read back byte for byte
//		t.Error(err)
//	}
//
// [EveryFault] makes an operation fail at each step, and [EveryCrash] kills it at each
// step; [Jobs] lists the operations that change a repository.
//
// Functions that take a testing.TB end the test when they fail. The others
// return errors, because tests make them fail on purpose.
package repotest

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/memory"
)

// Passwords of the repositories.
var (
	Secret      = []byte("correct horse")  // of repositories that New and Create make
	OtherSecret = []byte("battery staple") // of repositories that NewForeign makes
)

// SlotInfo describes the key slots.
var SlotInfo = crypto.SlotInfo{Kind: crypto.PasswordSlot, Label: "test"}

// CheapCost is the least allowed cost of deriving a key from a password.
var CheapCost = crypto.Cost{Time: 1, MemoryKiB: 8, Threads: 1}

// Rand returns a seeded source of randomness that several goroutines may read.
func Rand(seed [32]byte) io.Reader { return &lockedReader{r: rand.NewChaCha8(seed)} }

type lockedReader struct {
	mu sync.Mutex
	r  io.Reader
}

func (l *lockedReader) Read(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.r.Read(p)
}

// Clock returns a clock that advances by step each time it is read.
func Clock(start time.Time, step time.Duration) func() time.Time {
	var n atomic.Int64
	return func() time.Time { return start.Add(time.Duration(n.Add(1)) * step) }
}

// Options returns options that make a process repeatable: seeded randomness, a clock
// that starts in 2027, after all days, and advances by a minute at each reading, and one worker.
// Processes that store in the same repository need different seeds.
func Options(seed byte) repo.Options {
	return repo.Options{
		Rand:     Rand([32]byte{seed}),
		Now:      Clock(time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC), time.Minute),
		Cost:     CheapCost,
		Workers:  1,
		PackSize: 256 << 10,
	}
}

// SmallPacks returns Options with packs so small that a single day fills several
// content packs and several metadata packs.
func SmallPacks(seed byte) repo.Options {
	opts := Options(seed)
	opts.PackSize = 40 << 10
	return opts
}

// Create makes a repository in an empty backend.
func Create(t testing.TB, be backend.Backend) *repo.Repo {
	t.Helper()
	r, err := repo.Create(context.Background(), be, Secret, SlotInfo, Options(1))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Open opens a repository and reads its index.
func Open(ctx context.Context, be backend.Backend, secret []byte, opts repo.Options) (*repo.Repo, error) {
	r, err := repo.Open(ctx, be, secret, opts)
	if err != nil {
		return nil, err
	}
	return r, r.LoadIndex(ctx)
}

// MustOpen is MustOpenWith with Secret and Options(2), for tests that only read.
func MustOpen(t testing.TB, be backend.Backend) *repo.Repo {
	t.Helper()
	return MustOpenWith(t, be, Secret, Options(2))
}

// MustOpenWith opens a repository and reads its index.
func MustOpenWith(t testing.TB, be backend.Backend, secret []byte, opts repo.Options) *repo.Repo {
	t.Helper()
	r, err := Open(context.Background(), be, secret, opts)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// madeRepos holds the repositories that New has made, by their days.
var madeRepos sync.Map

// New returns a repository with a snapshot of [Day] for each of these days, which must
// ascend. The parent of each snapshot is the one before it, so files that changed are
// stored as deltas.
func New(t testing.TB, days ...int) *memory.Backend {
	t.Helper()
	key := fmt.Sprint(days)
	build, _ := madeRepos.LoadOrStore(key, sync.OnceValues(func() (*memory.Backend, error) {
		ctx := context.Background()
		be := memory.New()
		if _, err := repo.Create(ctx, be, Secret, SlotInfo, SmallPacks(1)); err != nil {
			return nil, err
		}
		for _, day := range days {
			if _, err := StoreDay(ctx, be, day); err != nil {
				return nil, fmt.Errorf("day %d: %w", day, err)
			}
		}
		return be, nil
	}))
	be, err := build.(func() (*memory.Backend, error))()
	if err != nil {
		t.Fatal(err)
	}
	return be.Clone()
}

// NewOther returns an empty repository. It has the password of the repositories that
// New makes, but other keys.
func NewOther(t testing.TB) *memory.Backend {
	t.Helper()
	be := memory.New()
	if _, err := repo.Create(context.Background(), be, Secret, SlotInfo, SmallPacks(99)); err != nil {
		t.Fatal(err)
	}
	return be
}

// NewForeign returns a repository with another password and other keys. It has the
// snapshots of some days. They have no parents, and their content is cut into chunks
// independently of New.
func NewForeign(t testing.TB, days ...int) *memory.Backend {
	t.Helper()
	ctx := context.Background()
	be := memory.New()
	opts := SmallPacks(45)
	opts.PackSize = 64 << 10
	if _, err := repo.Create(ctx, be, OtherSecret, SlotInfo, opts); err != nil {
		t.Fatal(err)
	}
	for _, day := range days {
		r := MustOpenWith(t, be, OtherSecret, SmallPacks(byte(50+day)))
		if _, err := Store(ctx, r, Day(day), day); err != nil {
			t.Fatal(err)
		}
	}
	return be
}
