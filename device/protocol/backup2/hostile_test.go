package backup2

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/snap-backup/snap/device/protocol/devicelink"
	"github.com/snap-backup/snap/internal/faultpoint"
)

// replay is a connection on which the device has already sent everything.
type replay struct {
	net.Conn
	r io.Reader
	w io.Writer
}

func (r *replay) Read(b []byte) (int, error) { return r.r.Read(b) }
func (r *replay) Write(b []byte) (int, error) {
	if r.w == nil {
		return len(b), nil
	}
	return r.w.Write(b)
}
func (r *replay) Close() error                     { return nil }
func (r *replay) SetReadDeadline(time.Time) error  { return nil }
func (r *replay) SetWriteDeadline(time.Time) error { return nil }

// recorder keeps what the device sends.
type recorder struct {
	net.Conn
	said bytes.Buffer
}

func (r *recorder) Write(b []byte) (int, error) {
	r.said.Write(b)
	return r.Conn.Write(b)
}

// record returns all bytes that a device with this script sends, and the offset
// after the greeting.
func record(t testing.TB, f Folder, script func(*phone) error) (all []byte, greeting int) {
	a, b := net.Pipe()
	c := &recorder{Conn: b}
	done := make(chan error, 1)
	go func() {
		defer b.Close()
		p := &phone{devicelink.New(c, devicelink.Options{}), c}
		err := p.greet()
		greeting = c.said.Len()
		if err == nil {
			err = script(p)
		}
		done <- err
	}()
	s, err := Dial(t.Context(), a, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Backup(t.Context(), BackupRequest{UDID: udid}, f, nil); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return c.said.Bytes(), greeting
}

// shortBackup is a script with one request of each kind.
func shortBackup(p *phone) error {
	return asking(func(p *phone) error {
		if _, _, err := p.download(udid + "/Status.plist"); err != nil {
			return err
		}
		if err := p.wantStatus(0, "DLMessageCreateDirectory", udid+"/ab"); err != nil {
			return err
		}
		for _, files := range [][]string{{udid + "/Snapshot/a", "first", udid + "/Snapshot/b", "second", udid + "/Snapshot/a", "again"}, {udid + "/Status.plist", "finished"}} {
			if s, err := p.upload(files...); err != nil || s.Code != 0 {
				return fmt.Errorf("%+v %v", s, err)
			}
		}
		if err := p.wantStatus(0, "DLMessageMoveItems", map[string]any{udid + "/Snapshot/a": udid + "/a"}); err != nil {
			return err
		}
		if err := p.wantStatus(0, "DLMessageRemoveItems", []string{udid + "/Snapshot"}); err != nil {
			return err
		}
		return p.wantStatus(0, "DLContentsOfDirectory", udid)
	})(p)
}

// TestCutAnywhere ends the connection after each byte. The session must end, and
// every file in the folder must be complete.
func TestCutAnywhere(t *testing.T) {
	noLeaks(t)
	all, greeting := record(t, newMemory(t), shortBackup)
	contents := []string{"first", "second", "again", "finished"}
	losses := []error{io.EOF, os.ErrDeadlineExceeded, io.ErrUnexpectedEOF, errors.New("connection reset")}
	for _, at := range faultpoint.Choose(t, len(all)*len(losses), 1000) {
		lost := losses[at%len(losses)]
		at /= len(losses)
		m := newMemory(t)
		conn := &replay{r: io.MultiReader(bytes.NewReader(all[:at]), iotest.ErrReader(lost))}
		s, err := Dial(t.Context(), conn, Options{})
		if (err == nil) != (at >= greeting) {
			t.Fatalf("cut at %d, the greeting ends at %d: %v", at, greeting, err)
		}
		if err == nil {
			err = s.Backup(t.Context(), BackupRequest{UDID: udid}, m, nil)
			s.Close()
		}
		if !errors.Is(err, ErrLinkLost) {
			t.Fatalf("cut at %d of %d: %v", at, len(all), err)
		}
		if m.open != 0 {
			t.Fatalf("cut at %d: %d uploads were neither committed nor aborted", at, m.open)
		}
		for name, content := range m.files {
			if !slices.Contains(contents, content) {
				t.Fatalf("cut at %d: %s contains %q", at, name, content)
			}
		}
	}
}

// TestCancelAnywhere ends the context in each call to the folder. The device must get
// its answer and a goodbye.
func TestCancelAnywhere(t *testing.T) {
	noLeaks(t)
	m := newMemory(t)
	record(t, m, firstBackup)
	calls := m.calls
	if calls < 20 {
		t.Fatalf("%d calls", calls)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	because := errors.New("because")
	for n := 1; n <= calls; n++ {
		ctx, cancel := context.WithCancelCause(t.Context())
		m := newMemory(t)
		m.call = func(call int) {
			if call == n {
				cancel(because)
			}
		}
		done := make(chan error, 1)
		go func() {
			c, err := listener.Accept()
			if err != nil {
				done <- err
				return
			}
			defer c.Close()
			p := &phone{devicelink.New(c, devicelink.Options{Idle: 5 * time.Minute}), c}
			err = p.greet()
			if err == nil {
				err = firstBackup(p)
			}
			done <- err
		}()
		c, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		s, err := Dial(ctx, c, Options{})
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		err = s.Backup(ctx, BackupRequest{UDID: udid}, m, nil)
		cancelled := errors.Is(err, ErrCancelled) && errors.Is(err, because)
		// After the last call the device may have finished first.
		if !cancelled && (err != nil || n < calls) || m.calls > n+8 || m.open != 0 {
			t.Errorf("ended at call %d: %v, %d calls, %d uploads open", n, err, m.calls, m.open)
		}
		if took := time.Since(begin); took > time.Minute {
			t.Errorf("ended at call %d: it took %v", n, took)
		}
		s.Close()
		var ne net.Error
		// After the last call the device may have sent everything.
		if err := <-done; err == nil && n < calls || errors.As(err, &ne) && ne.Timeout() {
			t.Errorf("ended at call %d: the device: %v", n, err)
		}
	}
}

// TestCancelWhileItHangs cancels sessions in which the device or the Folder hangs.
// The sessions must end.
func TestCancelWhileItHangs(t *testing.T) {
	beginUpload := func(p *phone) error {
		if err := p.WriteMessage("DLMessageUploadFiles", map[string]any{}, 1.0, 0); err != nil {
			return err
		}
		b := append(binary.BigEndian.AppendUint32(nil, 1), 'x')
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(udid)+2)), udid+"/x"...)
		b = append(binary.BigEndian.AppendUint32(b, 1000), devicelink.KindData, 'd', 'a')
		_, err := p.c.Write(b)
		return err
	}
	// untilClosed reads until the host closes the connection, and returns the name
	// of the last message.
	untilClosed := func(p *phone) (last string) {
		for {
			m, err := p.ReadMessage()
			if err != nil {
				return last
			}
			last = m.Name()
		}
	}
	polite := func(p *phone) error {
		if last := untilClosed(p); last != devicelink.DisconnectName {
			return fmt.Errorf("the host's last message is %q", last)
		}
		return nil
	}
	tests := []struct {
		name   string
		folder func(*overridden)
		device func(*phone) error // what the device does after the request
	}{
		{"waiting for the passcode", nil, polite},
		{"between requests", nil, func(p *phone) error {
			if err := p.wantStatus(0, "DLMessageGetFreeDiskSpace"); err != nil {
				return err
			}
			return polite(p)
		}},
		{"inside of a message", nil, func(p *phone) error {
			if _, err := p.c.Write([]byte{0, 0, 1, 0, 'b', 'p'}); err != nil {
				return err
			}
			return polite(p)
		}},
		{"inside of a file", nil, func(p *phone) error {
			err := beginUpload(p)
			untilClosed(p)
			return err
		}},
		{"a file without end", nil, func(p *phone) error {
			err := beginUpload(p)
			b := append(binary.BigEndian.AppendUint32(nil, 1+1<<16), devicelink.KindData)
			b = append(b, make([]byte, 1<<16)...)
			p.c.Write(make([]byte, 1000-3))
			for {
				if _, err := p.c.Write(b); err != nil {
					break
				}
			}
			return err
		}},
		{"a device that does not read", nil, func(p *phone) error {
			if err := p.WriteMessage("DLMessageDownloadFiles", []string{udid + "/x"}); err != nil {
				return err
			}
			var b [1]byte
			for !errors.Is(func() error { _, err := p.c.Write(b[:]); return err }(), io.ErrClosedPipe) {
			}
			return nil
		}},
		{"a folder that hangs in Create", func(o *overridden) {
			o.create = func(ctx context.Context, _ string) (Upload, error) { <-ctx.Done(); return nil, ctx.Err() }
		}, func(p *phone) error {
			err := beginUpload(p)
			untilClosed(p)
			return err
		}},
		{"requests without end", nil, func(p *phone) error {
			for {
				if _, err := p.ask("DLMessageGetFreeDiskSpace"); err != nil {
					return nil
				}
			}
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			noLeaks(t)
			m := newMemory(t)
			f := overridden{Folder: m}
			if test.folder != nil {
				test.folder(&f)
			}
			s, wait := rig{t: t, o: Options{Grace: 100 * time.Millisecond}, script: func(p *phone) error {
				if _, err := p.request(); err != nil {
					return err
				}
				return test.device(p)
			}}.session()
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			begin := time.Now()
			err := s.Backup(ctx, BackupRequest{UDID: udid}, f, nil)
			if !errors.Is(err, ErrCancelled) || !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
			if took := time.Since(begin); took > time.Minute {
				t.Errorf("it took %v", took)
			}
			if err := s.Backup(t.Context(), BackupRequest{UDID: udid}, f, nil); err == nil {
				t.Error("the session continues")
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			if err := wait(); err != nil {
				t.Errorf("the device: %v", err)
			}
			if m.open != 0 || len(m.files) != 0 {
				t.Errorf("%d uploads open, files %v", m.open, slices.Collect(maps.Keys(m.files)))
			}
		})
	}
}

func TestCancelledBefore(t *testing.T) {
	s, wait := rig{t: t, script: func(p *phone) error {
		if m, err := p.ReadMessage(); err != nil || m.Name() != devicelink.DisconnectName {
			return fmt.Errorf("%v %v", m, err)
		}
		return nil
	}}.session()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Backup(ctx, BackupRequest{UDID: udid}, newMemory(t), nil); !errors.Is(err, ErrCancelled) {
		t.Error(err)
	}
	s.Close()
	if err := wait(); err != nil {
		t.Error(err)
	}
}

// TestHostile serves devices that violate the protocol. The session must end with a
// ProtocolError and store nothing. It refuses maxRefused paths before it ends.
func TestHostile(t *testing.T) {
	upload := func(frames ...any) func(*phone) error {
		return func(p *phone) error {
			if err := p.WriteMessage("DLMessageUploadFiles", map[string]any{}, 1.0, 0); err != nil {
				return err
			}
			var b []byte
			for _, f := range frames {
				switch f := f.(type) {
				case int:
					b = binary.BigEndian.AppendUint32(b, uint32(f))
				case string:
					b = append(b, f...)
				}
			}
			p.c.Write(b) // blocks until the host closes the connection
			return errEnd
		}
	}
	raw := func(b ...byte) func(*phone) error {
		return func(p *phone) error { p.c.Write(b); return errEnd }
	}
	traversals := []string{"../x", "/etc/passwd", udid + "/../x", "x", "", udid + "\\x", strings.ToLower(udid) + "/x", strings.Repeat("x", 5000), udid + "/\x00"}
	refused := func(ask func(p *phone, path string) error) func(*phone) error {
		return func(p *phone) error {
			for i := range maxRefused {
				if err := ask(p, traversals[i%len(traversals)]); err != nil {
					return fmt.Errorf("number %d: %w", i, err)
				}
			}
			ask(p, "../one-too-many")
			return errEnd
		}
	}
	tests := []struct {
		name string
		do   func(*phone) error
	}{
		{"message of 4 GiB", raw(0xff, 0xff, 0xff, 0xff)},
		{"empty message", raw(0, 0, 0, 0)},
		{"message that is no property list", raw(0, 0, 0, 3, 'a', 'b', 'c')},
		{"message that is no array", raw(append([]byte{0, 0, 0, 38}, "<plist><string>hello</string></plist>\n"...)...)},
		{"name of 4 GiB", upload(0xffffffff)},
		{"second name of 4 GiB", upload(1, "x", 0xffffffff)},
		{"frame without kind", upload(1, "x", len(udid)+2, udid+"/x", 0)},
		{"frame of unknown kind", upload(1, "x", len(udid)+2, udid+"/x", 2, "\x07x")},
		{"paths in uploads", refused(func(p *phone, path string) error {
			path = path[:min(len(path), 4000)]
			if path == "" {
				path = "."
			}
			s, err := p.upload(path, "content")
			if err == nil && s.Code != -1 {
				err = fmt.Errorf("%+v", s)
			}
			return err
		})},
		{"paths in downloads", refused(func(p *phone, path string) error {
			_, s, err := p.download(path)
			if err == nil && s.Code != devicelink.StatusMulti {
				err = fmt.Errorf("%+v", s)
			}
			return err
		})},
		{"paths in listings", refused(func(p *phone, path string) error { return p.wantStatus(-1, "DLContentsOfDirectory", path) })},
		{"paths of folders", refused(func(p *phone, path string) error { return p.wantStatus(-1, "DLMessageCreateDirectory", path) })},
		{"paths of moves", refused(func(p *phone, path string) error {
			return p.wantStatus(-1, "DLMessageMoveItems", map[string]any{path: udid + "/x"})
		})},
		{"paths to move to", refused(func(p *phone, path string) error {
			return p.wantStatus(-1, "DLMessageMoveItems", map[string]any{udid + "/x": path})
		})},
		{"paths of copies", refused(func(p *phone, path string) error { return p.wantStatus(-1, "DLMessageCopyItem", path, udid+"/x") })},
		{"paths to copy to", refused(func(p *phone, path string) error { return p.wantStatus(-1, "DLMessageCopyItem", udid+"/x", path) })},
		{"paths of removals", refused(func(p *phone, path string) error { return p.wantStatus(-1, "DLMessageRemoveItems", []string{path}) })},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			noLeaks(t)
			m := newMemory(t)
			l, err := rig{t: t, o: Options{Busy: 5 * time.Second}, script: func(p *phone) error {
				if _, err := p.request(); err != nil {
					return err
				}
				return test.do(p)
			}}.backup(m)
			var protocol *ProtocolError
			if !errors.As(err, &protocol) {
				t.Error(err)
			}
			if m.open != 0 || len(m.files) != 0 || len(l.warnings) > maxWarnings {
				t.Errorf("%d uploads open, files %v, %d warnings", m.open, slices.Collect(maps.Keys(m.files)), len(l.warnings))
			}
		})
	}
}

func TestWarningsAreBounded(t *testing.T) {
	l, err := rig{t: t, script: asking(func(p *phone) error {
		for i := range 2 * maxWarnings {
			if err := p.wantStatus(-1, fmt.Sprint("DLMessage", i)); err != nil {
				return err
			}
		}
		return nil
	})}.backup(newMemory(t))
	if err != nil || len(l.warnings) != maxWarnings {
		t.Errorf("%v, %d warnings", err, len(l.warnings))
	}
}

// TestSilence serves devices that are silent for too long. The session must end.
func TestSilence(t *testing.T) {
	short := 100 * time.Millisecond
	for name, test := range map[string]struct {
		o  Options
		do func(*phone) error
	}{
		"between requests":    {Options{Idle: short}, func(*phone) error { return nil }},
		"inside of a message": {Options{Busy: short}, func(p *phone) error { _, err := p.c.Write([]byte{0, 0}); return err }},
		"inside of an upload": {Options{Busy: short}, func(p *phone) error { return p.WriteMessage("DLMessageUploadFiles", map[string]any{}, 1.0, 0) }},
		"reads nothing":       {Options{Write: short}, func(p *phone) error { return p.WriteMessage("DLMessageGetFreeDiskSpace") }},
	} {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			synctest.Test(t, func(t *testing.T) {
				release := make(chan struct{})
				s, wait := rig{t: t, o: test.o, script: func(p *phone) error {
					if _, err := p.request(); err != nil {
						return err
					}
					err := test.do(p)
					<-release
					return err
				}}.session()
				err := s.Backup(t.Context(), BackupRequest{UDID: udid}, newMemory(t), nil)
				if !errors.Is(err, ErrLinkLost) || !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Error(err)
				}
				close(release)
				s.Close()
				if err := wait(); err != nil {
					t.Errorf("the device: %v", err)
				}
			})
		})
	}
}

// FuzzConversation lets a device send arbitrary bytes after the greeting. The session
// must end, calls to the folder must be valid, and no upload may stay open.
func FuzzConversation(f *testing.F) {
	all, greeting := record(f, newMemory(f), shortBackup)
	said := all[greeting:]
	f.Add(byte(0), said)
	f.Add(byte(1), said)
	f.Add(byte(2), said)
	unusual, greeting := record(f, newMemory(f), asking(func(p *phone) error {
		for _, v := range [][]any{
			{"DLMessageDance"}, {"DLMessagePurgeDiskSpace", 5, 4}, {"DLMessageCopyItem", udid, udid + "-20240131-123456"},
			{"DLMessageMoveItems", map[string]any{udid + "/x": udid + "/y"}}, {"DLMessageRemoveItems", []string{"../x", udid + "/x"}},
		} {
			if _, err := p.ask(v...); err != nil {
				return err
			}
		}
		_, _, err := p.download("/etc", udid+"/x", strings.Repeat("x", 5000))
		return err
	}))
	f.Add(byte(3), unusual[greeting:])
	f.Fuzz(func(t *testing.T, what byte, said []byte) {
		m := newMemory(t)
		m.limit = 1 << 20
		m.files[udid+"/Status.plist"] = "finished"
		m.files[udid+"/x"] = "content"
		var said0 bytes.Buffer
		s := newSession(&replay{r: bytes.NewReader(said), w: &said0}, Options{MaxMessage: 1 << 20})
		var l log
		switch what % 4 {
		case 0:
			s.Backup(t.Context(), BackupRequest{UDID: udid, Full: what&4 != 0}, m, &l)
		case 1:
			s.Restore(t.Context(), RestoreRequest{Target: udid}, m, &l)
			if m.files[udid+"/x"] != "content" {
				t.Error("a restore changed the backup")
			}
		case 2:
			s.ChangePassword(t.Context(), udid, nil, []byte("x"), m, &l)
		case 3:
			s.Backup(t.Context(), BackupRequest{UDID: udid}, m, nil)
		}
		s.Close()
		if m.open != 0 {
			t.Errorf("%d uploads are open", m.open)
		}
		for _, w := range l.warnings {
			if w != safe(w) {
				t.Errorf("warning %q", w)
			}
		}
	})
}
