package afc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"net"
	"testing"
	"time"
)

// packet returns a packet of the protocol.
func packet(number, op uint64, fixed, payload []byte) []byte {
	b := []byte(magic)
	for _, n := range []uint64{uint64(headerLen + len(fixed) + len(payload)), uint64(headerLen + len(fixed)), number, op} {
		b = binary.LittleEndian.AppendUint64(b, n)
	}
	return append(append(b, fixed...), payload...)
}

// device returns a client of a device that answers each request with reply.
func device(t *testing.T, reply func(number, op uint64, body []byte) []byte) *Client {
	t.Helper()
	host, peer := net.Pipe()
	t.Cleanup(func() { host.Close(); peer.Close() })
	go func() {
		for {
			var head [headerLen]byte
			if _, err := io.ReadFull(peer, head[:]); err != nil {
				return
			}
			body := make([]byte, binary.LittleEndian.Uint64(head[8:])-headerLen)
			if _, err := io.ReadFull(peer, body); err != nil {
				return
			}
			number := binary.LittleEndian.Uint64(head[24:])
			if _, err := peer.Write(reply(number, binary.LittleEndian.Uint64(head[32:]), body)); err != nil {
				return
			}
		}
	}()
	return New(host)
}

func status(number uint64, s Status) []byte { return packet(number, opStatus, u64(uint64(s)), nil) }

func TestWireForm(t *testing.T) {
	var seen [][]byte
	c := device(t, func(number, op uint64, body []byte) []byte {
		seen = append(seen, append(u64(number, op), body...))
		switch op {
		case opOpen:
			return packet(number, opOpenResult, u64(7), nil)
		case opRead:
			if len(seen) > 2 {
				return packet(number, opData, nil, nil)
			}
			return packet(number, opData, nil, []byte("content"))
		case opStat:
			return packet(number, opData, nil, []byte("st_size\x0012\x00st_ifmt\x00S_IFREG\x00st_mtime\x001700000000000000000\x00"))
		case opList:
			return packet(number, opData, nil, []byte(".\x00..\x00a\x00b c\x00"))
		}
		return status(number, 0)
	})
	got, err := c.ReadFile(t.Context(), "/x", 100)
	if err != nil || string(got) != "content" {
		t.Errorf("%q %v", got, err)
	}
	for i, want := range [][]byte{
		append(u64(1, opOpen, 1), "/x\x00"...), u64(2, opRead, 7, transfer), u64(3, opRead, 7, transfer), u64(4, opClose, 7),
	} {
		if !bytes.Equal(seen[i], want) {
			t.Errorf("request %d: %x, want %x", i, seen[i], want)
		}
	}
	if info, err := c.Stat(t.Context(), "/x"); err != nil || info.Size != 12 || info.Dir || info.Modified.Unix() != 1_700_000_000 {
		t.Errorf("%+v %v", info, err)
	}
	if names, err := c.List(t.Context(), "/"); err != nil || len(names) != 2 || names[1] != "b c" {
		t.Errorf("%q %v", names, err)
	}
	if err := c.WriteFile(t.Context(), "/y", make([]byte, transfer+1)); err != nil {
		t.Error(err)
	}
	if last := seen[len(seen)-2]; len(last) != 16+8+1 {
		t.Errorf("the second write has %d bytes", len(last))
	}
	if err := errors.Join(c.Mkdir(t.Context(), "/d"), c.Remove(t.Context(), "/d")); err != nil {
		t.Error(err)
	}
	if _, err := c.Open(t.Context(), "a\x00b", Read); err == nil {
		t.Error("a path with a NUL was sent")
	}
}

func TestStatuses(t *testing.T) {
	answer := NotFound
	c := device(t, func(number, _ uint64, _ []byte) []byte { return status(number, answer) })
	if _, err := c.Stat(t.Context(), "/x"); !errors.Is(err, fs.ErrNotExist) || !errors.Is(err, NotFound) {
		t.Error(err)
	}
	answer = Exists
	if err := c.Mkdir(t.Context(), "/x"); err != nil {
		t.Error(err)
	}
	answer = Denied
	if err := c.Remove(t.Context(), "/x"); !errors.Is(err, Denied) || errors.Is(err, fs.ErrPermission) {
		t.Error(err)
	}
}

func TestLockRetries(t *testing.T) {
	asked := 0
	c := device(t, func(number, op uint64, body []byte) []byte {
		asked++
		switch {
		case op == opOpen:
			return packet(number, opOpenResult, u64(7), nil)
		case asked < 5:
			return status(number, WouldBlock)
		case !bytes.Equal(body, u64(7, 6)):
			return status(number, 1)
		}
		return status(number, 0)
	})
	f, err := c.Open(t.Context(), "/lock", ReadWrite)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Lock(t.Context(), 2, time.Millisecond); !errors.Is(err, WouldBlock) || asked != 3 {
		t.Errorf("after %d: %v", asked, err)
	}
	if err := f.Lock(t.Context(), 50, time.Millisecond); err != nil || asked != 5 {
		t.Errorf("after %d: %v", asked, err)
	}
}

func TestHostileReplies(t *testing.T) {
	for name, reply := range map[string][]byte{
		"magic":  append([]byte("CFA6LPAB"), packet(1, opData, nil, nil)[8:]...),
		"short":  append([]byte(magic), u64(39, 39, 1, opData)...),
		"fixed":  append([]byte(magic), u64(40, 41, 1, opData)...),
		"huge":   append([]byte(magic), u64(1<<62, 40, 1, opData)...),
		"other":  packet(2, opData, nil, nil),
		"status": packet(1, opStatus, nil, []byte{1}),
		"kind":   packet(1, 0x77, nil, nil),
	} {
		c := device(t, func(uint64, uint64, []byte) []byte { return reply })
		if _, err := c.List(t.Context(), "/"); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: %v", name, err)
		}
	}
	c := device(t, func(n, op uint64, _ []byte) []byte {
		if op == opOpen {
			return packet(n, opOpenResult, u64(1), nil)
		}
		return packet(n, opData, nil, make([]byte, 1000))
	})
	if _, err := c.ReadFile(t.Context(), "/endless", 5000); !errors.Is(err, ErrTooLarge) {
		t.Errorf("an endless file: %v", err)
	}
}

func FuzzReadReply(f *testing.F) {
	f.Add(packet(1, opData, nil, []byte("a\x00b\x00")))
	f.Add(packet(1, opOpenResult, u64(3), nil))
	f.Add(status(1, WouldBlock))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, body, err := readReply(bytes.NewReader(b), 1)
		if err == nil && len(body) > len(b) {
			t.Fatal("the reply is longer than the input")
		}
		texts(body)
	})
}
