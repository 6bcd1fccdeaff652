package stream

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/snap-backup/snap/device/protocol/plist"
)

// answer returns a Conn whose peer answers one message with reply.
func answer(t *testing.T, reply []byte) *Conn {
	t.Helper()
	host, peer := net.Pipe()
	t.Cleanup(func() { host.Close(); peer.Close() })
	go func() {
		var size [4]byte
		if _, err := io.ReadFull(peer, size[:]); err != nil {
			return
		}
		_, _ = io.CopyN(io.Discard, peer, int64(binary.BigEndian.Uint32(size[:])))
		_, _ = peer.Write(reply)
	}()
	return New(host)
}

func frame(body []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

func TestAsk(t *testing.T) {
	body, err := plist.EncodeXML(map[string]any{"Port": 5})
	if err != nil {
		t.Fatal(err)
	}
	got, err := answer(t, frame(body)).Ask(t.Context(), map[string]any{"Request": "X"})
	if n, _ := got.Int("Port"); err != nil || n != 5 {
		t.Errorf("%v %v", got, err)
	}
	if _, err := answer(t, frame([]byte("<plist><true/></plist>"))).Ask(t.Context(), nil); !errors.Is(err, plist.ErrFormat) {
		t.Errorf("no dictionary: %v", err)
	}
	if _, err := answer(t, []byte{0xff, 0xff, 0xff, 0xff}).Ask(t.Context(), nil); err == nil {
		t.Error("a message of 4 GiB was accepted")
	}
}

func TestContextAndTimeout(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	begin := time.Now()
	if _, err := answer(t, nil).Ask(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	c := answer(t, nil)
	if err := c.Send(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Receive(t.Context(), 20*time.Millisecond); !errors.Is(err, ErrTimeout) {
		t.Errorf("late: %v", err)
	}
	if d := time.Since(begin); d > time.Minute {
		t.Errorf("it took %v", d)
	}
	// A context that has ended does not affect a call with another context.
	body, _ := plist.EncodeXML(map[string]any{})
	c = answer(t, frame(body))
	if err := c.Send(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Receive(ctx, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("ended before: %v", err)
	}
	if _, err := c.Receive(t.Context(), time.Minute); err != nil {
		t.Errorf("after that: %v", err)
	}
}
