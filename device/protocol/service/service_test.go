package service

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/snap-backup/snap/device/protocol/plist"
	"github.com/snap-backup/snap/device/protocol/stream"
)

// device returns a connection to a peer that accepts everything, sends raw and closes.
func device(t testing.TB, raw []byte) net.Conn {
	t.Helper()
	host, peer := net.Pipe()
	t.Cleanup(func() { host.Close(); peer.Close() })
	go func() { _, _ = io.Copy(io.Discard, peer) }()
	go func() {
		_, _ = peer.Write(raw)
		peer.Close()
	}()
	return host
}

func messages(t testing.TB, list ...map[string]any) []byte {
	t.Helper()
	var out []byte
	for _, m := range list {
		b, err := plist.EncodeXML(m)
		if err != nil {
			t.Fatal(err)
		}
		out = append(binary.BigEndian.AppendUint32(out, uint32(len(b))), b...)
	}
	return out
}

func browse(t testing.TB, raw []byte) (ids []string, err error) {
	err = NewApps(device(t, raw)).Browse(t.Context(), []string{"CFBundleIdentifier"}, func(app stream.Dict) error {
		ids = append(ids, app.String("CFBundleIdentifier"))
		return nil
	})
	return ids, err
}

func TestBrowse(t *testing.T) {
	page := func(status string, ids ...any) map[string]any {
		var list []any
		for _, id := range ids {
			list = append(list, map[string]any{"CFBundleIdentifier": id})
		}
		return map[string]any{"Status": status, "CurrentList": append(list, "odd")}
	}
	ids, err := browse(t, messages(t, page("BrowsingApplications", "a", "b"), page("BrowsingApplications", "c"), map[string]any{"Status": "Complete"}))
	if err != nil || len(ids) != 3 || ids[2] != "c" {
		t.Errorf("%v %v", ids, err)
	}
	for name, m := range map[string]map[string]any{"error": {"Error": "APIInternalError"}, "status": {"Status": "Dancing"}, "nothing": {}} {
		if _, err := browse(t, messages(t, m)); !errors.Is(err, ErrUnexpected) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := browse(t, messages(t, page("BrowsingApplications", "a"))); err == nil {
		t.Error("a truncated list was accepted")
	}
	many := make([]any, maxApps+1)
	for i := range many {
		many[i] = "x"
	}
	if _, err := browse(t, messages(t, page("BrowsingApplications", many...))); !errors.Is(err, ErrUnexpected) {
		t.Errorf("an endless list: %v", err)
	}
}

func TestIconsAndNotices(t *testing.T) {
	for size, want := range map[int]int{0: 0, 10: 10, maxIcon + 1: 0} {
		png, err := NewIcons(device(t, messages(t, map[string]any{"pngData": make([]byte, size)}))).PNG(t.Context(), "a")
		if err != nil || len(png) != want {
			t.Errorf("%d bytes: %d %v", size, len(png), err)
		}
	}
	n := NewNotify(device(t, messages(t, map[string]any{"Command": "Odd"}, map[string]any{"Command": "RelayNotification", "Name": "x"}, map[string]any{"Command": "ProxyDeath"})))
	for _, want := range []string{"x", ""} {
		if name, err := n.Next(t.Context()); err != nil || name != want {
			t.Errorf("%q %v", name, err)
		}
	}
	if _, known, err := PasscodeSet(t.Context(), device(t, messages(t, map[string]any{"Status": "Success",
		"Diagnostics": map[string]any{"MobileGestalt": map[string]any{"Status": "MobileGestaltDeprecated"}}}))); known || err != nil {
		t.Errorf("%v %v", known, err)
	}
}

func FuzzServices(f *testing.F) {
	f.Add(messages(f, map[string]any{"Status": "BrowsingApplications", "CurrentList": []any{map[string]any{"CFBundleIdentifier": "a"}}}, map[string]any{"Status": "Complete"}))
	f.Add(messages(f, map[string]any{"Command": "Marco", "Interval": 10}, map[string]any{"Command": "ProxyDeath"}))
	f.Add(messages(f, map[string]any{"pngData": []byte("x"), "Status": "Success", "Diagnostics": map[string]any{"MobileGestalt": map[string]any{"PasswordConfigured": true}}}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, _ = browse(t, raw)
		_, _ = NewIcons(device(t, raw)).PNG(ctx, "a")
		_ = NewNotify(device(t, raw)).Shutdown(ctx)
		_, _, _ = PasscodeSet(ctx, device(t, raw))
		if err := Heartbeat(ctx, device(t, raw)); err == nil {
			t.Fatal("a heartbeat that stopped was not an error")
		}
	})
}
