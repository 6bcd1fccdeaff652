package main

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"strings"
	"testing"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/fault"
	"github.com/snap-backup/snap/repo/backend/memory"
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

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
