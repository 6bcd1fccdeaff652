package backup2

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/snap-backup/snap/device/protocol/devicelink"
)

func TestDeviceErrors(t *testing.T) {
	kinds := map[int64]error{
		4: ErrDamaged, 11: ErrDamaged, 25: ErrNotReady, 105: ErrNoSpace, 106: ErrNoSpace, 202: ErrCancelled, 203: ErrIncompatible, 204: ErrDamaged, 205: ErrDamaged,
		207: ErrWrongPassword, 208: ErrLocked, 210: ErrNotReady, 212: ErrNotReady, 241: ErrLocked,
	}
	all := []error{ErrDamaged, ErrNotReady, ErrNoSpace, ErrCancelled, ErrIncompatible, ErrWrongPassword, ErrLocked, ErrLinkLost}
	for _, code := range []int64{1, 2, 3, 4, 9, 10, 11, 25, 100, 101, 102, 103, 104, 105, 106, 202, 203, 204, 205, 207, 208, 210, 212, 241, 999, -1} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			_, err := rig{t: t, script: func(p *phone) error {
				if _, err := p.request(); err != nil {
					return err
				}
				return p.respond(int(code), map[string]any{"ErrorDescription": "in its \x1b[1mwords"})
			}}.backup(dir(t.TempDir()))
			var e *DeviceError
			if !errors.As(err, &e) || e.Code != code || strings.Contains(err.Error(), "\x1b") || !strings.Contains(err.Error(), "words") {
				t.Fatal(err)
			}
			if !strings.HasSuffix(e.Hint(), ".") {
				t.Errorf("hint %q", e.Hint())
			}
			if known := code != 999 && code != -1; known != strings.Contains(e.Error(), fmt.Sprintf("error %d: ", code)) {
				t.Errorf("text %q", e.Error())
			}
			for _, kind := range all {
				if got := errors.Is(err, kind); got != (kinds[code] == kind) {
					t.Errorf("%v: %v", kind, got)
				}
			}
		})
	}
}

func TestResponseForms(t *testing.T) {
	tests := []struct {
		code any
		ok   bool
	}{{uint64(0), true}, {0.0, true}, {int64(0), true}, {"0", false}, {nil, false}, {0.5, false}}
	for _, test := range tests {
		fields := map[string]any{"MessageName": "Response", "ErrorCode": test.code}
		if test.code == nil {
			delete(fields, "ErrorCode")
		}
		_, err := rig{t: t, script: func(p *phone) error {
			if _, err := p.request(); err != nil {
				return err
			}
			return p.WriteMessage(devicelink.ProcessMessage, fields)
		}}.backup(dir(t.TempDir()))
		var protocol *ProtocolError
		if (err == nil) != test.ok || errors.As(err, &protocol) == test.ok {
			t.Errorf("ErrorCode %v: %v", test.code, err)
		}
	}
}

func TestGreetings(t *testing.T) {
	hello := func(more map[string]any) func(*phone) error {
		return func(p *phone) error {
			if err := p.OfferVersion(400); err != nil {
				return err
			}
			if _, err := p.request(); err != nil {
				return err
			}
			return p.WriteMessage(devicelink.ProcessMessage, more)
		}
	}
	var protocol *ProtocolError
	var device *DeviceError
	tests := []struct {
		name   string
		script func(*phone) error
		ok     func(error) bool
	}{
		{"good", hello(map[string]any{"MessageName": "Response", "ErrorCode": 0, "ProtocolVersion": 2.1}), func(err error) bool { return err == nil }},
		{"no common version", hello(map[string]any{"MessageName": "Response", "ErrorCode": 1}), func(err error) bool { return errors.Is(err, ErrIncompatible) }},
		{"locked", hello(map[string]any{"MessageName": "Response", "ErrorCode": 208}), func(err error) bool { return errors.As(err, &device) && errors.Is(err, ErrLocked) }},
		{"no code", hello(map[string]any{"MessageName": "Response"}), func(err error) bool { return errors.As(err, &protocol) }},
		{"other message", hello(map[string]any{"MessageName": "Chat"}), func(err error) bool { return errors.As(err, &protocol) }},
		{"old", func(p *phone) error { return p.WriteMessage(devicelink.VersionExchange, 200, 0) }, func(err error) bool { return errors.As(err, &protocol) }},
		{"other protocol", func(p *phone) error { _, err := p.c.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")); return err }, func(err error) bool { return errors.As(err, &protocol) }},
		{"gone", func(p *phone) error { return nil }, func(err error) bool { return errors.Is(err, ErrLinkLost) }},
		{"silent", func(p *phone) error { io.Copy(io.Discard, p.c); return nil }, func(err error) bool { return errors.Is(err, ErrLinkLost) && errors.Is(err, os.ErrDeadlineExceeded) }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			noLeaks(t)
			synctest.Test(t, func(t *testing.T) {
				a, b := net.Pipe()
				done := make(chan error, 1)
				go func() {
					defer b.Close()
					done <- test.script(&phone{devicelink.New(b, devicelink.Options{}), b})
				}()
				s, err := Dial(t.Context(), a, Options{Greeting: 200 * time.Millisecond})
				if !test.ok(err) {
					t.Error(err)
				}
				if err == nil {
					s.Close()
				}
				if _, err := a.Write(nil); !errors.Is(err, io.ErrClosedPipe) {
					t.Errorf("the connection is still open: %v", err)
				}
				<-done
			})
		})
	}
	t.Run("cancelled", func(t *testing.T) {
		noLeaks(t)
		a, b := net.Pipe()
		defer b.Close()
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(10*time.Millisecond, cancel)
		if _, err := Dial(ctx, a, Options{}); !errors.Is(err, ErrCancelled) || !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"plain, ä":                "plain, ä",
		"a\nb\x1b[0m\u202e\xff":   "a\uFFFDb\uFFFD[0m\uFFFD\uFFFD",
		strings.Repeat("ä", 1000): strings.Repeat("ä", maxText/2) + "…",
		strings.Repeat("€", 1000): strings.Repeat("€", maxText/3) + "…",
	} {
		if got := printable(in); got != want || !utf8.ValidString(got) {
			t.Errorf("%q became %q", in, got)
		}
	}
}
