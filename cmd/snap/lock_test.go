package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/internal/process"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/fault"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
)

// A reader continues if no lock can be written; a writer does not.
func TestNoLockCanBeWritten(t *testing.T) {
	ctx := context.Background()
	be := fault.New(memory.New())
	r, err := repo.Create(ctx, be, []byte("sesame"), crypto.SlotInfo{Kind: crypto.PasswordSlot}, repo.Options{Cost: crypto.Cost{Time: 1, MemoryKiB: 8, Threads: 1}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		why       error
		kind      repo.LockKind
		verbose   bool
		says      string
		continues bool
	}{
		{fs.ErrPermission, repo.LockRead, false, "", true},
		{fs.ErrPermission, repo.LockRead, true, "is read-only", true},
		{backend.ErrNoSpace, repo.LockRead, false, "no room for a lock", true},
		{errors.New("the disk is on fire"), repo.LockRead, true, "", false},
		{fs.ErrPermission, repo.LockWrite, true, "", false},
		{backend.ErrNoSpace, repo.LockWrite, true, "", false},
	} {
		be.SetPlan(fault.On(fault.Put, "locks/", fault.From(1, c.why)))
		var out bytes.Buffer
		a := &app{stderr: &out, verbose: c.verbose}
		err := a.takeLock(ctx, r, c.kind, "snap test")
		if (err == nil) != c.continues || err != nil && !errors.Is(err, c.why) {
			t.Errorf("%v, %v: got %v", c.kind, c.why, err)
		}
		if got := out.String(); (got == "") != (c.says == "") || !strings.Contains(got, c.says) {
			t.Errorf("%v, %v: it says %q", c.kind, c.why, got)
		}
		a.releaseLock()
	}
}

// A process that waits for a lock can be interrupted.
func TestWaitingForALockEnds(t *testing.T) {
	be := memory.New()
	opts := repo.Options{Cost: crypto.Cost{Time: 1, MemoryKiB: 8, Threads: 1}}
	r, err := repo.Create(context.Background(), be, []byte("sesame"), crypto.SlotInfo{Kind: crypto.PasswordSlot}, opts)
	if err != nil {
		t.Fatal(err)
	}
	l, err := r.Lock(context.Background(), repo.LockExclusive, "snap test")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Release()
	other, err := repo.Open(context.Background(), be, []byte("sesame"), opts)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	a := &app{stderr: writerFunc(func(p []byte) (int, error) { cancel(); return len(p), nil }), retryLock: 1 << 60}
	if err := a.takeLock(ctx, other, repo.LockRead, "snap test"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// A prune that waits frees space once it has watched an unknown lock for half an hour.
func TestPruneWatchesAnUnknownLock(t *testing.T) {
	ctx := context.Background()
	be := repotest.New(t, 1, 2)
	year := time.Now().Add(365 * 24 * time.Hour)
	be.SetClock(func() time.Time { return year })
	opts := repotest.SmallPacks(9)
	opts.Refresh = -1
	opts.Owner = &process.Identity{Host: "attic", PID: 1}
	other, err := repotest.Open(ctx, be, repotest.Secret, opts)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Lock(ctx, repo.LockWrite, "snap backup"); err != nil {
		t.Fatal(err)
	}
	be.SetClock(time.Now)
	if err := repotest.Forget(ctx, be, 1); err != nil {
		t.Fatal(err)
	}
	opts = repotest.SmallPacks(10)
	var elapsed time.Duration
	opts.Elapsed = func() time.Duration { elapsed += 10 * time.Minute; return elapsed }
	r, err := repo.Open(ctx, be, repotest.Secret, opts)
	if err != nil {
		t.Fatal(err)
	}
	a := &app{stderr: io.Discard}
	if err := a.takeLock(ctx, r, repo.LockPrune, "snap prune"); err != nil {
		t.Fatal(err)
	}
	defer a.releaseLock()
	elapsed = 0
	res, err := a.prune(ctx, r, repotest.NoWaste)
	if err != nil || !res.Blocked || len(res.Waiting) != 1 {
		t.Fatalf("it does not wait: %+v, %v", res.PruneReport, err)
	}
	a.retryLock = time.Minute
	res, err = a.prune(ctx, r, repotest.NoWaste)
	if err != nil || res.Blocked || len(res.Waiting) != 0 || res.FreedBytes == 0 || res.PendingPacks != 0 {
		t.Fatalf("it waits: %+v, %v", res.PruneReport, err)
	}
}

// A clock that differs from that of the repository by more than five minutes is told.
func TestWarnOfClock(t *testing.T) {
	for ahead, want := range map[time.Duration]string{
		0: "", 5 * time.Minute: "", -4 * time.Minute: "",
		40 * time.Minute:     "is 40 minutes ahead of",
		-26 * time.Hour:      "is 26 hours behind",
		4 * 8766 * time.Hour: "is 1461 days ahead of",
	} {
		var text, lines bytes.Buffer
		(&app{stderr: &text}).warnOfClock(ahead)
		(&app{stderr: &lines, json: true}).warnOfClock(ahead)
		for _, got := range []string{text.String(), lines.String()} {
			if (got == "") != (want == "") || !strings.Contains(strings.ReplaceAll(got, ",", ""), want) {
				t.Errorf("%v: %q", ahead, got)
			}
		}
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
