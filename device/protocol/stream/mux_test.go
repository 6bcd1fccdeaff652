package stream

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"
)

// TestNoLogs checks that go-ios logs nothing when a connection fails. It logs
// through slog's default logger.
func TestNoLogs(t *testing.T) {
	var logs bytes.Buffer
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&logs, nil)))
	defer slog.SetDefault(before)
	for range 2 {
		host, peer := net.Pipe()
		mux, conn := NewMux(host), New(host)
		peer.Close()
		for _, err := range []error{
			mux.Send(t.Context(), map[string]any{"a": 1}),
			conn.Send(t.Context(), map[string]any{"a": 1}),
		} {
			if err == nil {
				t.Error("sent to a closed connection")
			}
		}
		if _, err := mux.Receive(t.Context(), time.Minute); err == nil {
			t.Error("received from a closed connection")
		}
		if _, err := conn.Receive(t.Context(), time.Minute); err == nil {
			t.Error("received from a closed connection")
		}
		host.Close()
	}
	if logs.Len() > 0 {
		t.Errorf("logged: %s", logs.String())
	}
}

func TestMux(t *testing.T) {
	host, peer := net.Pipe()
	defer host.Close()
	go func() { // an echo
		_, _ = io.Copy(peer, peer)
	}()
	m := NewMux(host)
	for i := range 3 {
		received := make(chan Dict, 1)
		go func() {
			d, err := m.Receive(t.Context(), time.Minute)
			if err != nil {
				t.Error(err)
			}
			received <- d
		}()
		// m.Receive is using the connection in a Do, so write without another Do.
		m.io.out.Reset()
		if err := m.codec.Send(map[string]any{"n": i}); err != nil {
			t.Fatal(err)
		}
		if _, err := host.Write(m.io.out.Bytes()); err != nil {
			t.Fatal(err)
		}
		if n, _ := (<-received).Int("n"); n != int64(i) {
			t.Errorf("received %d, want %d", n, i)
		}
	}
}
