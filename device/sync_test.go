package device

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/snap-backup/snap/device/devicetest"
	"github.com/snap-backup/snap/device/protocol/afc"
	"github.com/snap-backup/snap/device/protocol/service"
	"github.com/snap-backup/snap/device/simulator"
)

// posts returns the last word of each notification that the host posted.
func posts(d *simulator.Device) []string {
	var out []string
	for _, e := range d.Events() {
		if e.Service == service.NotificationProxy && e.Kind == "post" {
			out = append(out, e.Detail[strings.LastIndexByte(e.Detail, '.')+1:])
		}
	}
	return out
}

var completeSync = []string{"syncWillStart", "syncLockRequest", "syncDidStart", "syncDidFinish"}

func TestSyncLock(t *testing.T) {
	t.Parallel()
	failIfSlow(t)
	r := newRig(t)
	d := r.device(simulator.Spec{})
	d.SetLockBusy(2)
	heard := make(chan string, 8)
	y, err := r.SyncLock(t.Context(), r.entry(), func(name string) { heard <- name })
	if err != nil {
		t.Fatal(err)
	}
	if !d.Syncing(t.Context()) {
		t.Error("the device does not show that it is synchronising")
	}
	for _, name := range []string{service.PromptPresented, service.SyncCancelRequest, service.SyncCancelRequest} {
		d.Notify(name)
		if got := <-heard; got != name {
			t.Errorf("%s, want %s", got, name)
		}
		if name == service.PromptPresented {
			select {
			case <-y.Canceled():
				t.Error("canceled by a passcode prompt")
			default:
			}
		}
	}
	<-y.Canceled()
	if err := y.Files().WriteFile(t.Context(), "/iTunesRestore.plist", []byte("x")); err != nil {
		t.Error(err)
	}
	if err := y.Release(t.Context()); err != nil {
		t.Error(err)
	}
	if got := posts(d); !slices.Equal(got, completeSync) || d.Syncing(t.Context()) {
		t.Errorf("%v, still synchronising: %v", got, d.Syncing(t.Context()))
	}
	devicetest.NoViolations(t, d)
}

func TestSyncLockIsReleasedAfterAnInterrupt(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	d := r.device(simulator.Spec{})
	ctx, cancel := context.WithCancel(t.Context())
	y, err := r.SyncLock(ctx, r.entry(), nil)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := y.Release(ctx); err != nil {
		t.Error(err)
	}
	if got := posts(d); !slices.Equal(got, completeSync) || d.Syncing(t.Context()) {
		t.Errorf("%v", got)
	}
	devicetest.NoViolations(t, d)
}

func TestSyncLockTaken(t *testing.T) {
	t.Parallel()
	failIfSlow(t)
	r := newRig(t)
	d := r.device(simulator.Spec{})
	d.SetLockBusy(1000)
	y, err := r.OpenSync(t.Context(), r.entry(), nil)
	if err != nil {
		t.Fatal(err)
	}
	y.tries, y.interval = 3, time.Millisecond
	if err := y.Lock(t.Context()); !errors.Is(err, ErrSyncBusy) || !errors.Is(err, afc.WouldBlock) {
		t.Error(err)
	}
	if err := y.Release(t.Context()); err != nil {
		t.Error(err)
	}
	if got := posts(d); got[len(got)-1] != "syncDidFinish" {
		t.Errorf("%v", got)
	}
}

// TestSyncLosesTheDevice detaches the device. Then Release must soon return an
// error.
func TestSyncLosesTheDevice(t *testing.T) {
	t.Parallel()
	failIfSlow(t)
	r := newRig(t)
	d := r.device(simulator.Spec{})
	y, err := r.SyncLock(t.Context(), r.entry(), nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Detach(d)
	if err := y.Release(t.Context()); err == nil {
		t.Error("no error")
	}
}

func TestHeartbeatKeepsWiFi(t *testing.T) {
	t.Parallel()
	failIfSlow(t)
	r := newRig(t)
	d := simulator.NewDevice(simulator.Spec{HeartbeatInterval: 200 * time.Millisecond})
	r.Attach(d, simulator.Network)
	if err := r.Trust(d); err != nil {
		t.Fatal(err)
	}
	c, err := r.Service(t.Context(), r.entry(), service.HeartbeatName, false)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- service.Heartbeat(ctx, c) }()
	for polos := 0; polos < 3 && t.Context().Err() == nil; {
		polos = 0
		for _, e := range d.Events() {
			if e.Kind == "Polo" {
				polos++
			}
		}
		time.Sleep(5 * time.Millisecond)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	c, err = r.Service(t.Context(), r.entry(), service.HeartbeatName, false)
	if err != nil {
		t.Fatal(err)
	}
	r.Detach(d)
	bounded, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	if err := service.Heartbeat(bounded, c); err == nil {
		t.Error("a heartbeat that stopped was not an error")
	}
	devicetest.NoViolations(t, d)
}
