package backup2

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/snap-backup/snap/device/protocol/devicelink"
)

const udid = "00008110-000A1234567890AB"

// dir is a Folder on a disk.
type dir string

func (d dir) at(p string) string { return filepath.Join(string(d), filepath.FromSlash(p)) }

func (d dir) Open(_ context.Context, p string) (io.ReadCloser, error) { return os.Open(d.at(p)) }

func (d dir) Create(_ context.Context, p string) (Upload, error) {
	if err := os.MkdirAll(filepath.Dir(d.at(p)), 0o700); err != nil {
		return nil, err
	}
	f, err := os.Create(filepath.Join(string(d), "upload-in-progress"))
	return &dirUpload{f, d.at(p)}, err
}

type dirUpload struct {
	*os.File
	to string
}

func (u *dirUpload) Commit() error {
	if err := u.Close(); err != nil {
		return err
	}
	return os.Rename(u.Name(), u.to)
}

func (u *dirUpload) Abort() {
	if u.Close() == nil {
		os.Remove(u.Name())
	}
}

func (d dir) List(_ context.Context, p string) ([]Item, error) {
	entries, err := os.ReadDir(d.at(p))
	var items []Item
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return nil, err
		}
		items = append(items, Item{Name: e.Name(), Dir: e.IsDir(), Size: info.Size(), ModTime: info.ModTime()})
	}
	return items, err
}

func (d dir) Mkdir(_ context.Context, p string) error { return os.MkdirAll(d.at(p), 0o700) }

func (d dir) Move(_ context.Context, from, to string) error {
	if err := os.MkdirAll(filepath.Dir(d.at(to)), 0o700); err != nil {
		return err
	}
	return os.Rename(d.at(from), d.at(to))
}

func (d dir) Remove(_ context.Context, p string) error {
	if _, err := os.Lstat(d.at(p)); err != nil {
		return err
	}
	return os.RemoveAll(d.at(p))
}

func (d dir) Copy(_ context.Context, from, to string) error {
	info, err := os.Stat(d.at(from))
	if err != nil {
		return err
	}
	if info.IsDir() {
		return os.CopyFS(d.at(to), os.DirFS(d.at(from)))
	}
	b, err := os.ReadFile(d.at(from))
	if err != nil {
		return err
	}
	return os.WriteFile(d.at(to), b, 0o600)
}

func (d dir) Space(context.Context) (int64, error)        { return 1 << 40, nil }
func (d dir) Purge(context.Context, int64) (int64, error) { return 0, errors.ErrUnsupported }

// tree returns all files below d with their content.
func (d dir) tree(t testing.TB) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := fs.WalkDir(os.DirFS(string(d)), ".", func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(d.at(p))
		all[p] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func (d dir) put(t testing.TB, p, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(d.at(p)), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.at(p), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// overridden is a Folder with some methods replaced.
type overridden struct {
	Folder
	open   func(p string) (io.ReadCloser, error)
	create func(ctx context.Context, p string) (Upload, error)
	list   func() ([]Item, error)
	change func(what, p string) error
	space  func() (int64, error)
	purge  func(int64) (int64, error)
}

func (o overridden) Open(ctx context.Context, p string) (io.ReadCloser, error) {
	if o.open == nil {
		return o.Folder.Open(ctx, p)
	}
	return o.open(p)
}
func (o overridden) Create(ctx context.Context, p string) (Upload, error) {
	if o.create == nil {
		return o.Folder.Create(ctx, p)
	}
	return o.create(ctx, p)
}
func (o overridden) List(ctx context.Context, p string) ([]Item, error) {
	if o.list == nil {
		return o.Folder.List(ctx, p)
	}
	return o.list()
}
func (o overridden) changes(what, p string) error {
	if o.change == nil {
		return nil
	}
	return o.change(what, p)
}
func (o overridden) Mkdir(ctx context.Context, p string) error {
	if err := o.changes("mkdir", p); err != nil {
		return err
	}
	return o.Folder.Mkdir(ctx, p)
}
func (o overridden) Move(ctx context.Context, from, to string) error {
	if err := o.changes("move", from); err != nil {
		return err
	}
	return o.Folder.Move(ctx, from, to)
}
func (o overridden) Remove(ctx context.Context, p string) error {
	if err := o.changes("remove", p); err != nil {
		return err
	}
	return o.Folder.Remove(ctx, p)
}
func (o overridden) Copy(ctx context.Context, from, to string) error {
	if err := o.changes("copy", from); err != nil {
		return err
	}
	return o.Folder.Copy(ctx, from, to)
}
func (o overridden) Space(ctx context.Context) (int64, error) {
	if o.space == nil {
		return o.Folder.Space(ctx)
	}
	return o.space()
}
func (o overridden) Purge(ctx context.Context, want int64) (int64, error) {
	if o.purge == nil {
		return o.Folder.Purge(ctx, want)
	}
	return o.purge(want)
}

// phone is a device controlled by a test.
type phone struct {
	*devicelink.Conn
	c net.Conn
}

func (p *phone) greet() error {
	if err := p.OfferVersion(300); err != nil {
		return err
	}
	hello, err := p.request()
	if err != nil {
		return err
	}
	if hello["MessageName"] != "Hello" {
		return fmt.Errorf("no Hello: %v", hello)
	}
	return p.respond(0, map[string]any{"ProtocolVersion": 2.1})
}

// request waits for a request of the host.
func (p *phone) request() (map[string]any, error) {
	m, err := p.ReadMessage()
	if err != nil {
		return nil, err
	}
	fields, ok := m.Dict(1)
	if m.Name() != devicelink.ProcessMessage || !ok {
		return nil, fmt.Errorf("no request: %v", m)
	}
	return fields, nil
}

func (p *phone) respond(code int, more map[string]any) error {
	fields := map[string]any{"MessageName": "Response", "ErrorCode": code}
	for k, v := range more {
		fields[k] = v
	}
	return p.WriteMessage(devicelink.ProcessMessage, fields)
}

func (p *phone) ask(v ...any) (devicelink.Status, error) {
	if err := p.WriteMessage(v...); err != nil {
		return devicelink.Status{}, err
	}
	return p.ReadStatus()
}

// wantStatus sends a request. It returns an error unless the answer has this code.
func (p *phone) wantStatus(code int64, v ...any) error {
	s, err := p.ask(v...)
	if err == nil && s.Code != code {
		err = fmt.Errorf("%v was answered %+v, not %d", v, s, code)
	}
	return err
}

// upload sends files, given as pairs of path and content.
func (p *phone) upload(files ...string) (devicelink.Status, error) {
	if err := p.WriteMessage("DLMessageUploadFiles", map[string]any{}, 42.5, 0); err != nil {
		return devicelink.Status{}, err
	}
	for i := 0; i < len(files); i += 2 {
		if err := p.names(files[i]); err != nil {
			return devicelink.Status{}, err
		}
		if _, err := p.SendFile(strings.NewReader(files[i+1])); err != nil {
			return devicelink.Status{}, err
		}
	}
	if err := p.EndNames(); err != nil {
		return devicelink.Status{}, err
	}
	return p.ReadStatus()
}

func (p *phone) names(host string) error {
	if err := p.WriteName("/var/" + path.Base(host)); err != nil {
		return err
	}
	return p.WriteName(host)
}

// sent is one file that the host sent in a download.
type sent struct{ path, content, failure string }

func (p *phone) download(paths ...string) ([]sent, devicelink.Status, error) {
	if err := p.WriteMessage("DLMessageDownloadFiles", paths, map[string]any{}, 12.0); err != nil {
		return nil, devicelink.Status{}, err
	}
	var all []sent
	for {
		name, err := p.ReadName()
		if err != nil {
			return all, devicelink.Status{}, err
		}
		if name == "" {
			break
		}
		var content strings.Builder
		_, remote, err := p.ReceiveFile(&content)
		if err != nil {
			return all, devicelink.Status{}, err
		}
		all = append(all, sent{name, content.String(), remote})
	}
	s, err := p.ReadStatus()
	return all, s, err
}

// log is an Observer that keeps everything that is reported to it.
type log struct {
	mu       sync.Mutex
	phases   []Phase
	warnings []string
	last     Progress
}

func (l *log) Phase(p Phase) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.phases = append(l.phases, p)
}
func (l *log) Progress(p Progress) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = p
}
func (l *log) Warning(s string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.warnings = append(l.warnings, s)
}

// rig connects a host to a device that runs script after the greeting. An error of
// script fails the test unless the error is errEnd.
type rig struct {
	t      testing.TB
	o      Options
	script func(*phone) error
}

var errEnd = errors.New("the device ends here")

// session dials the device. wait waits for the device and returns its error.
func (g rig) session() (s *Session, wait func() error) {
	g.t.Helper()
	a, b := net.Pipe()
	done := make(chan error, 1)
	go func() {
		defer b.Close()
		p := &phone{devicelink.New(b, devicelink.Options{Busy: 5 * time.Minute, Idle: 5 * time.Minute, Write: 5 * time.Minute}), b}
		err := p.greet()
		if err == nil {
			err = g.script(p)
		}
		if errors.Is(err, errEnd) {
			err = nil
		}
		done <- err
	}()
	s, err := Dial(g.t.Context(), a, g.o)
	if err != nil {
		g.t.Fatal(err, <-done)
	}
	return s, func() error { return <-done }
}

// backup backs up the device. The test fails if the device returns an error.
func (g rig) backup(f Folder) (*log, error) {
	g.t.Helper()
	s, wait := g.session()
	var l log
	err := s.Backup(g.t.Context(), BackupRequest{UDID: udid}, f, &l)
	s.Close()
	if derr := wait(); derr != nil {
		g.t.Errorf("the device: %v", derr)
	}
	return &l, err
}

// asking returns a script that reads the host's request, calls fn and reports
// success.
func asking(fn func(*phone) error) func(*phone) error {
	return func(p *phone) error {
		if _, err := p.request(); err != nil {
			return err
		}
		if err := fn(p); err != nil {
			return err
		}
		return p.respond(0, nil)
	}
}

// noLeaks fails the test if goroutines are left at its end.
func noLeaks(t testing.TB) {
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		for i := range 200 {
			if runtime.NumGoroutine() <= before {
				return
			}
			time.Sleep(time.Duration(i) * time.Millisecond / 4)
		}
		b := make([]byte, 1<<16)
		t.Errorf("%d goroutines became %d\n%s", before, runtime.NumGoroutine(), b[:runtime.Stack(b, true)])
	})
}
