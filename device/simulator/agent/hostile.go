package agent

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/snap-backup/snap/device/protocol/devicelink"
)

// attack is one thing that a hostile device does. An error ends the
// conversation; errOver if that is how it should end.
type attack func(*talk, Fault) error

// Attacks returns the names of all attacks: OPERATION-PATH, a request with a path
// that no host may follow, and those on the framing.
func Attacks() []string {
	names := slices.Collect(maps.Keys(framingAttacks()))
	for operation := range pathAttacks() {
		for kind := range badPaths("") {
			names = append(names, operation+"-"+kind)
		}
	}
	slices.Sort(names)
	return names
}

// attackNamed returns what a hostile device does under a name, nil if there is
// no such attack.
func attackNamed(name string) attack {
	if a := framingAttacks()[name]; a != nil {
		return a
	}
	i := strings.LastIndexByte(name, '-')
	if i < 0 {
		return nil
	}
	operation, kind := pathAttacks()[name[:i]], name[i+1:]
	if _, ok := badPaths("")[kind]; operation == nil || !ok {
		return nil
	}
	return func(t *talk, _ Fault) error {
		path := badPaths(t.agent.me.UDID)[kind]
		accepted, err := operation(t, path)
		if err == nil && accepted {
			t.agent.violate("attack %s: the host accepts the path %.100q", name, path)
		}
		return err
	}
}

// badPaths are paths, by what is wrong with them, that lead out of the folder of
// a backup on some system.
func badPaths(udid string) map[string]string {
	return map[string]string{
		"above":     "../hostile",
		"dotdot":    udid + "/../../hostile",
		"inner":     udid + "/Snapshot/../../hostile",
		"absolute":  "/tmp/hostile",
		"drive":     "C:/hostile",
		"backslash": udid + `\..\..\hostile`,
		"nul":       udid + "/a\x00b",
		"empty":     udid + "//hostile",
		"dot":       udid + "/./hostile",
		"other":     "00008110-FFFFFFFFFFFFFFFF/hostile",
		"long":      udid + "/" + strings.Repeat("a", devicelink.MaxName),
	}
}

// pathAttacks are the requests that take a path. They report whether the host
// did what was asked for.
func pathAttacks() map[string]func(t *talk, path string) (accepted bool, err error) {
	simple := func(name string, args func(t *talk, path string) []any) func(*talk, string) (bool, error) {
		return func(t *talk, path string) (bool, error) {
			s, err := t.ask(name, args(t, path)...)
			return s.Code == devicelink.StatusOK, err
		}
	}
	inside := func(t *talk) string { return t.agent.me.UDID + "/" + "hostile" }
	return map[string]func(*talk, string) (bool, error){
		"mkdir": simple("DLMessageCreateDirectory", func(_ *talk, path string) []any { return []any{path, map[string]any{}} }),
		"list":  simple("DLContentsOfDirectory", func(_ *talk, path string) []any { return []any{path, map[string]any{}} }),
		"remove": simple("DLMessageRemoveItems", func(_ *talk, path string) []any {
			return []any{[]string{path}, map[string]any{}, 0.0}
		}),
		"move-from": simple("DLMessageMoveItems", func(t *talk, path string) []any {
			return []any{map[string]string{path: inside(t)}, map[string]any{}, 0.0}
		}),
		"move-to": simple("DLMessageMoveItems", func(t *talk, path string) []any {
			return []any{map[string]string{t.agent.me.UDID + "/Status.plist": path}, map[string]any{}, 0.0}
		}),
		"copy-from": simple("DLMessageCopyItem", func(t *talk, path string) []any { return []any{path, inside(t), map[string]any{}} }),
		"copy-to": simple("DLMessageCopyItem", func(t *talk, path string) []any {
			return []any{t.agent.me.UDID + "/Status.plist", path, map[string]any{}}
		}),
		"download": func(t *talk, path string) (bool, error) {
			got := false
			missing, err := t.downloads([]string{path}, 0, func(string) (io.Writer, error) { got = true; return io.Discard, nil }, nil)
			return got && len(missing) == 0, err
		},
		"upload": attackUpload,
	}
}

// attackUpload sends a file under a bad name. It says so also if the host
// refused it but lost step.
func attackUpload(t *talk, path string) (bool, error) {
	const name = "DLMessageUploadFiles"
	var b bytes.Buffer
	writeName(&b, "/hostile")
	writeName(&b, path)
	writeFrame(&b, devicelink.KindData, bytes.Repeat([]byte("hostile "), 10_000)[:devicelink.MaxFrame])
	writeFrame(&b, devicelink.KindEnd, nil)
	b.Write(make([]byte, 4))
	if err := t.link.WriteMessage(name, map[string]any{}, -1.0, int64(devicelink.MaxFrame)); err != nil {
		return false, err
	}
	if _, err := t.wire.Write(b.Bytes()); err != nil {
		return false, err
	}
	s, err := t.answer(name)
	return s.Code == devicelink.StatusOK, err
}

func writeName(b *bytes.Buffer, name string) {
	b.Write(binary.BigEndian.AppendUint32(nil, uint32(len(name))))
	b.WriteString(name)
}

func writeFrame(b *bytes.Buffer, kind byte, data []byte) {
	b.Write(binary.BigEndian.AppendUint32(nil, uint32(1+len(data))))
	b.WriteByte(kind)
	b.Write(data)
}

// How much the endless attacks send when the Fault does not say.
const (
	endlessBytes    = 64 << 20
	endlessRequests = 5000
)

// framingAttacks are those on what lies under the requests.
func framingAttacks() map[string]attack {
	raw := func(b ...byte) attack {
		return func(t *talk, _ Fault) error { return t.expectEnd(b) }
	}
	message := func(list []byte) []byte {
		return append(binary.BigEndian.AppendUint32(nil, uint32(len(list))), list...)
	}
	xml := func(body string) []byte { return message([]byte(`<plist version="1.0">` + body + `</plist>`)) }
	const depth = 50_000
	return map[string]attack{
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

// bomb is a small binary property list that unfolds to 2^40 values: an array in
// which each of 40 arrays holds the next one twice.
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

// expectEnd sends bytes that are no DeviceLink and waits until the host ends
// the conversation.
func (t *talk) expectEnd(b []byte) error {
	if _, err := t.wire.Write(b); err != nil {
		return fmt.Errorf("%w: the host left while it was sent nonsense: %w", errOver, err)
	}
	// A host that waits for more has a right to, as long as there can be more.
	if c, ok := t.wire.Conn.(interface{ CloseWrite() error }); ok {
		if err := c.CloseWrite(); err != nil {
			return fmt.Errorf("%w: %w", errOver, err)
		}
	}
	if err := t.wire.SetReadDeadline(time.Now().Add(nonsensePatience)); err != nil {
		return fmt.Errorf("%w: %w", errOver, err)
	}
	for {
		m, err := t.link.ReadMessage()
		if err != nil {
			return errOver // it ended it, or waits and loses this link
		}
		if m.Name() == devicelink.StatusResponse {
			if code, _ := m.Int(1); code == devicelink.StatusOK {
				t.agent.violate("the host answers nonsense with 0")
			}
		}
	}
}

// nonsensePatience is how long a host may take to see that what comes is
// nonsense.
const nonsensePatience = 2 * time.Second

// inUpload sends nonsense where the name of an uploaded file is due.
func inUpload(write func(*bytes.Buffer)) attack {
	return func(t *talk, _ Fault) error {
		if err := t.link.WriteMessage("DLMessageUploadFiles", map[string]any{}, -1.0, int64(0)); err != nil {
			return err
		}
		var b bytes.Buffer
		write(&b)
		return t.expectEnd(b.Bytes())
	}
}

// inFile sends nonsense where a frame of an uploaded file is due.
func inFile(write func(*bytes.Buffer)) attack {
	return func(t *talk, f Fault) error {
		return inUpload(func(b *bytes.Buffer) {
			writeName(b, "/hostile")
			writeName(b, t.agent.me.UDID+"/Snapshot/hostile")
			writeFrame(b, devicelink.KindData, []byte("the beginning"))
			write(b)
		})(t, f)
	}
}

// endlessFile uploads one file until the host has had enough, or for some bytes;
// then the link is cut.
func endlessFile(t *talk, f Fault) error {
	left := f.Bytes
	if left == 0 {
		left = endlessBytes
	}
	if err := t.link.WriteMessage("DLMessageUploadFiles", map[string]any{}, -1.0, int64(1)); err != nil {
		return err
	}
	var b bytes.Buffer
	writeName(&b, "/hostile")
	writeName(&b, t.agent.me.UDID+"/Snapshot/hostile")
	if _, err := t.wire.Write(b.Bytes()); err != nil {
		return err
	}
	b.Reset()
	writeFrame(&b, devicelink.KindData, make([]byte, devicelink.MaxFrame))
	for ; left > 0; left -= devicelink.MaxFrame {
		if _, err := t.wire.Write(b.Bytes()); err != nil {
			return err
		}
	}
	t.wire.cutNow()
	return errCut
}

// endlessNames uploads empty files under ever new names, then cuts the link.
func endlessNames(t *talk, f Fault) error {
	if err := t.link.WriteMessage("DLMessageUploadFiles", map[string]any{}, -1.0, int64(1)); err != nil {
		return err
	}
	for i := range requests(f) {
		var b bytes.Buffer
		writeName(&b, "/hostile")
		writeName(&b, fmt.Sprintf("%s/Snapshot/hostile-%d", t.agent.me.UDID, i))
		writeFrame(&b, devicelink.KindEnd, nil)
		if _, err := t.wire.Write(b.Bytes()); err != nil {
			return err
		}
	}
	t.wire.cutNow()
	return errCut
}

// endlessLists asks for the same listing again and again, and then goes on.
func endlessLists(t *talk, f Fault) error {
	for range requests(f) {
		if _, err := t.listOne(t.agent.me.UDID); err != nil {
			return err
		}
	}
	return nil
}

func requests(f Fault) int64 {
	if f.Bytes > 0 {
		return f.Bytes
	}
	return endlessRequests
}
