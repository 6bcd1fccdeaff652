package keyring

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/zalando/go-keyring"
)

func answers() error { return nil }

// Passwords are kept and removed. The mock of the library is one for the process, so these
// tests do not run in parallel.
func TestKeepsPasswords(t *testing.T) {
	keyring.MockInit()
	ctx, s := context.Background(), System{time.Minute, answers}
	if _, err := s.Get(ctx, "a"); !errors.Is(err, ErrNotFound) {
		t.Errorf("before: %v", err)
	}
	for _, password := range []string{"one", "twö"} {
		if err := s.Set(ctx, "a", password); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Get(ctx, "a"); got != password || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
	}
	if err := s.Delete(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(ctx, "a"); !errors.Is(err, ErrNotFound) {
		t.Errorf("after: %v", err)
	}
}

func TestFailures(t *testing.T) {
	ctx := context.Background()
	keyring.MockInitWithError(errors.New("broken"))
	if _, err := (System{time.Minute, answers}).Get(ctx, "a"); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "broken") {
		t.Errorf("a broken keyring: %v", err)
	}
	keyring.MockInitWithError(keyring.ErrSetDataTooBig)
	if err := (System{time.Minute, answers}).Set(ctx, "a", "b"); err == nil || errors.Is(err, ErrUnavailable) {
		t.Errorf("a long password: %v", err)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	hangs := func() error { <-ctx.Done(); return nil }
	if _, err := (System{time.Minute, hangs}).Get(ended, "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
	if err := wait(ctx, time.Millisecond, "x", hangs); !errors.Is(err, ErrUnavailable) {
		t.Errorf("no answer: %v", err)
	}
}

// Without a session bus, with a wrong address and with a bus that never answers, the
// caller gets an error soon.
func TestSessionBus(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("there are session buses on Linux")
	}
	// A short path: names of sockets have at most 107 bytes.
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	silent := filepath.Join(dir, "bus")
	l, err := net.Listen("unix", silent)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for address, want := range map[string]string{
		"":                                      "no session bus",
		"autolaunch:":                           "no session bus",
		"unix:path=" + filepath.Join(dir, "no"): "no session bus",
		"unix:path=" + silent:                   "has not answered",
	} {
		t.Setenv("DBUS_SESSION_BUS_ADDRESS", address)
		if address == "" {
			os.Unsetenv("DBUS_SESSION_BUS_ADDRESS")
		}
		if _, err := os.Stat("/run/user/" + strconv.Itoa(os.Getuid()) + "/bus"); err == nil && !strings.HasPrefix(address, "unix") {
			continue // the library finds the bus of this user
		}
		begin := time.Now()
		_, err := System{Limit: time.Minute}.Get(context.Background(), "a")
		if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", address, err)
		}
		if took := time.Since(begin); took > probeLimit+2*time.Second || want == "no session bus" && took > time.Second {
			t.Errorf("%q: it took %v", address, took)
		}
	}
}
