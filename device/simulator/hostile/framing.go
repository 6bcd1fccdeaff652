package hostile

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"github.com/snap-backup/snap/device/protocol/devicelink"
	"github.com/snap-backup/snap/device/simulator/hostfiles"
)

func writeName(b *bytes.Buffer, name string) {
	b.Write(binary.BigEndian.AppendUint32(nil, uint32(len(name))))
	b.WriteString(name)
}

func writeFrame(b *bytes.Buffer, kind byte, data []byte) {
	b.Write(binary.BigEndian.AppendUint32(nil, uint32(1+len(data))))
	b.WriteByte(kind)
	b.Write(data)
}

// The default sizes of the endless attacks, in bytes or requests.
const (
	endlessBytes    = 64 << 20
	endlessRequests = 5000
)

// framingAttacks returns the attacks on messages, names and frames.
func framingAttacks() map[string]Attack {
	raw := func(b ...byte) Attack {
		return func(t *Target, _ int64) error { return expectEnd(t, b) }
	}
	message := func(list []byte) []byte {
		return append(binary.BigEndian.AppendUint32(nil, uint32(len(list))), list...)
	}
	xml := func(body string) []byte { return message([]byte(`<plist version="1.0">` + body + `</plist>`)) }
	const depth = 50_000
	return map[string]Attack{
		"message-huge":    raw(0xff, 0xff, 0xff, 0xff, 'b', 'p'),
		"message-zero":    raw(0, 0, 0, 0),
		"message-junk":    raw(message(bytes.Repeat([]byte{0xa5}, 500))...),
		"message-short":   raw(0, 0, 1, 0, 'b', 'p', 'l'),
		"message-bomb":    raw(message(bomb())...),
		"message-deep":    raw(xml(strings.Repeat("<array>", depth) + strings.Repeat("</array>", depth))...),
		"message-dict":    raw(xml("<dict><key>DLMessagePing</key><true/></dict>")...),
		"message-unnamed": raw(xml("<array><integer>1</integer></array>")...),
		"name-huge":       inUpload(func(b *bytes.Buffer) { b.Write([]byte{0xff, 0xff, 0xff, 0xff, 'x'}) }),
		"frame-huge":      inFile(func(b *bytes.Buffer) { b.Write([]byte{0xff, 0xff, 0xff, 0xff, devicelink.KindData, 'x'}) }),
		"frame-zero":      inFile(func(b *bytes.Buffer) { b.Write(make([]byte, 4)) }),
		"frame-kind":      inFile(func(b *bytes.Buffer) { writeFrame(b, 0x7f, []byte("x")) }),
		"endless-file":    endlessFile,
		"endless-names":   endlessNames,
		"endless-lists":   endlessLists,
	}
}

// bomb returns a small binary property list that expands to 2^40 values: each of its
// 40 arrays contains the next array twice.
func bomb() []byte {
	const levels = 40
	b := []byte("bplist00")
	var offsets []byte
	for i := range byte(levels) {
		offsets = append(offsets, byte(len(b)))
		b = append(b, 0xa2, i+1, i+1)
	}
	offsets = append(offsets, byte(len(b)))
	b = append(b, 0x51, 'x')
	table := len(b)
	b = append(append(b, offsets...), 0, 0, 0, 0, 0, 0, 1, 1)
	for _, n := range []int{levels + 1, 0, table} {
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	return b
}

// expectEnd sends bytes that are not valid in DeviceLink, and waits until the host
// ends the conversation.
func expectEnd(t *Target, b []byte) error {
	if _, err := t.Conn.Write(b); err != nil {
		return fmt.Errorf("%w: the host disconnected during the attack: %w", hostfiles.ErrOver, err)
	}
	// Until the device stops sending, the host may rightly wait for more bytes.
	if err := t.Conn.CloseWrite(); err != nil {
		return fmt.Errorf("%w: %w", hostfiles.ErrOver, err)
	}
	if err := t.Conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return fmt.Errorf("%w: %w", hostfiles.ErrOver, err)
	}
	for {
		m, err := t.Link.ReadMessage()
		if err != nil {
			return hostfiles.ErrOver // the host ended the conversation, or the device does so now
		}
		if m.Name() == devicelink.StatusResponse {
			if code, _ := m.Int(1); code == devicelink.StatusOK {
				t.Violate("the host accepts a broken message")
			}
		}
	}
}

// patience is how long a host may take to notice broken framing.
const patience = 2 * time.Second

// inUpload returns an attack that begins an upload. In place of a file's name, the
// attack sends the bytes that write appends.
func inUpload(write func(*bytes.Buffer)) Attack {
	return func(t *Target, _ int64) error {
		if err := t.Link.WriteMessage("DLMessageUploadFiles", map[string]any{}, -1.0, int64(0)); err != nil {
			return err
		}
		var b bytes.Buffer
		write(&b)
		return expectEnd(t, b.Bytes())
	}
}

// inFile returns an attack that begins the upload of a file. In place of a frame, the
// attack sends the bytes that write appends.
func inFile(write func(*bytes.Buffer)) Attack {
	return func(t *Target, size int64) error {
		return inUpload(func(b *bytes.Buffer) {
			writeName(b, "/hostile")
			writeName(b, t.UDID+"/Snapshot/hostile")
			writeFrame(b, devicelink.KindData, []byte("the beginning"))
			write(b)
		})(t, size)
	}
}

// endlessFile uploads one large file, then cuts the connection.
func endlessFile(t *Target, size int64) error {
	left := cmp.Or(size, endlessBytes)
	if err := t.Link.WriteMessage("DLMessageUploadFiles", map[string]any{}, -1.0, int64(1)); err != nil {
		return err
	}
	var b bytes.Buffer
	writeName(&b, "/hostile")
	writeName(&b, t.UDID+"/Snapshot/hostile")
	if _, err := t.Conn.Write(b.Bytes()); err != nil {
		return err
	}
	b.Reset()
	writeFrame(&b, devicelink.KindData, make([]byte, devicelink.MaxFrame))
	for ; left > 0; left -= devicelink.MaxFrame {
		if _, err := t.Conn.Write(b.Bytes()); err != nil {
			return err
		}
	}
	t.Conn.Cut()
	return hostfiles.ErrCut
}

// endlessNames uploads many empty files, then cuts the connection.
func endlessNames(t *Target, size int64) error {
	if err := t.Link.WriteMessage("DLMessageUploadFiles", map[string]any{}, -1.0, int64(1)); err != nil {
		return err
	}
	for i := range cmp.Or(size, endlessRequests) {
		var b bytes.Buffer
		writeName(&b, "/hostile")
		writeName(&b, fmt.Sprintf("%s/Snapshot/hostile-%d", t.UDID, i))
		writeFrame(&b, devicelink.KindEnd, nil)
		if _, err := t.Conn.Write(b.Bytes()); err != nil {
			return err
		}
	}
	t.Conn.Cut()
	return hostfiles.ErrCut
}

// endlessLists requests the same listing many times.
func endlessLists(t *Target, size int64) error {
	for range cmp.Or(size, endlessRequests) {
		if _, err := t.ListFolder(t.UDID); err != nil {
			return err
		}
	}
	return nil
}
