package afcd

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"

	"github.com/snap-backup/snap/device/simulator/synclock"
)

func FuzzAFC(f *testing.F) {
	packet := func(op Operation, payload, args string, numbers ...uint64) []byte {
		p := Packet{Op: op, Payload: []byte(payload)}
		for _, n := range numbers {
			p.Args = binary.LittleEndian.AppendUint64(p.Args, n)
		}
		p.Args = append(p.Args, args...)
		return p.Append(nil)
	}
	open := packet(OpOpen, "", "/a\x00", 2)
	f.Add(bytes.Join([][]byte{open, packet(OpWrite, "hello", "", 1), packet(OpSeek, "", "", 1, 0, 2), packet(OpRead, "", "", 1, 1<<62),
		packet(OpLock, "", "", 1, 6), packet(OpSetSize, "", "", 1, 1<<40), packet(OpClose, "", "", 1)}, nil))
	f.Add(bytes.Join([][]byte{packet(OpMakeDir, "", "/x/y\x00"), packet(OpRename, "", "/x\x00/DCIM/x\x00"), packet(OpReadDir, "", "/DCIM"),
		packet(OpStat, "", "/DCIM/x/y"), packet(OpRemoveAll, "", "/../DCIM"), packet(OpRemove, "", "/")}, nil))
	f.Add(bytes.Join([][]byte{open, packet(OpTruncate, "", "/a\x00", 100), packet(OpSetTime, "", "/a\x00", 1<<63), packet(OpTell, "", "", 1),
		packet(OpDeviceInfo, "", ""), packet(0x99, "", "")}, nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		files := NewFiles(time.Now)
		s := Server{Files: files, Info: func() []string { return nil }, Sync: synclock.New(t.Logf), SyncFile: "/a",
			Log: func(string, string) {}, Violate: t.Logf}
		host, device := net.Pipe()
		go func() {
			_, _ = host.Write(data)
			_ = host.Close()
		}()
		go func() { _, _ = io.Copy(io.Discard, host) }()
		s.Serve(t.Context(), device, func() bool { return true })
		total, root := 0, false
		for p, n := range files.nodes {
			total += len(n.data)
			root = root || p == "/" && n.dir
		}
		if total != files.bytes || total > maxFileBytes || !root {
			t.Errorf("%d bytes are counted as %d; the root exists: %v", total, files.bytes, root)
		}
	})
}
