package main

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/snap-backup/snap/device"
	"github.com/snap-backup/snap/device/devicetest"
	"github.com/snap-backup/snap/device/simulator"
	"github.com/snap-backup/snap/internal/words"
)

// lines is a writer that keeps everything that is written to it, and calls a function
// with each write.
type lines struct {
	mu    sync.Mutex
	all   bytes.Buffer
	wrote func(line string)
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wrote(string(p))
	return l.all.Write(p)
}

// snap devices --watch reports devices that come and go. An interrupt ends it
// without an error.
func TestWatchDevices(t *testing.T) {
	for _, form := range []string{"--json=false", "--json"} {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		sim := simulator.New()
		t.Setenv(device.AddressVariable, devicetest.Serve(t, sim))
		d := simulator.NewDevice(simulator.Spec{Name: "Anna"})
		if err := sim.Trust(d); err != nil {
			t.Fatal(err)
		}
		sim.Attach(d, simulator.USB)
		t.Setenv("SNAP_REPOSITORY", "")
		watching, interrupt := context.WithCancel(ctx)
		defer interrupt()
		out := &lines{wrote: func(line string) {
			switch {
			case strings.Contains(line, "attached") && !strings.Contains(line, "detached"):
				go sim.Detach(d)
			case strings.Contains(line, "detached"):
				interrupt()
			}
		}}
		var stderr bytes.Buffer
		a := &app{stdin: strings.NewReader(""), stdout: out, stderr: &stderr}
		if code := a.run(watching, []string{"devices", "--watch", form}); code != 0 || stderr.Len() > 0 {
			t.Errorf("%s: code %d: %s", form, code, stderr.String())
		}
		got := out.all.String()
		if n := strings.Count(got, "\n"); n != 2 {
			t.Errorf("%s: %d lines: %s", form, n, got)
		}
		want := []string{"attached Anna (" + d.UDID() + ", cable), iPhone 13, iOS 17.5.1: it trusts this computer\n", "detached Anna"}
		if form == "--json" {
			want = []string{`{"event":"attached","udid":"` + d.UDID() + `","connection":"usb","device":{`, `{"event":"detached","udid":"` + d.UDID() + `","connection":"usb"}`}
		}
		for _, w := range want {
			if !strings.Contains(got, w) {
				t.Errorf("%s: no %q in %s", form, w, got)
			}
		}
	}
}

func TestAges(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Hour: "in the future", 5 * time.Second: "just now", time.Minute: "1 minute ago", 119 * time.Minute: "1 hour ago",
		47 * time.Hour: "47 hours ago", 49 * time.Hour: "2 days ago", 24 * 1200 * time.Hour: "1,200 days ago",
	} {
		if got := words.Ago(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}
