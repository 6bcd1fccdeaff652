package agent

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/snap-backup/snap/device/devicelink"
	"github.com/snap-backup/snap/device/synthetic"
)

// host is a small host on a folder. Its fields make it misbehave.
type host struct {
	t    *testing.T
	root string
	free int64

	log     []string          // names of requests
	mangle  map[string]string // path → what is sent in place of the content
	hide    map[string]bool   // names left out of listings
	status  map[string]int64  // request → code answered without doing it
	purged  bool
	refused int
}

func newHost(t *testing.T) *host {
	return &host{t: t, root: t.TempDir(), free: 1 << 40, mangle: map[string]string{}, hide: map[string]bool{}, status: map[string]int64{}}
}

var errBadPath = errors.New("a path that leads outside")

func (h *host) path(p string) (string, error) {
	if len(p) > 1000 || !filepath.IsLocal(p) || strings.ContainsAny(p, "\\\x00") || p == "." {
		h.refused++
		return "", errBadPath
	}
	return filepath.Join(h.root, filepath.FromSlash(p)), nil
}

// request serves one operation and returns its Response.
func (h *host) request(conn net.Conn, request map[string]any) (map[string]any, error) {
	defer conn.Close()
	l := devicelink.New(conn, devicelink.Options{Busy: 10 * time.Second, Idle: 10 * time.Second, Write: 10 * time.Second})
	if _, err := l.AcceptVersion(); err != nil {
		return nil, err
	}
	hello := map[string]any{"MessageName": "Hello", "SupportedProtocolVersions": []any{2.0, 2.1}}
	if err := l.WriteMessage(devicelink.ProcessMessage, hello); err != nil {
		return nil, err
	}
	if _, err := l.ReadMessage(); err != nil {
		return nil, err
	}
	if err := l.WriteMessage(devicelink.ProcessMessage, request); err != nil {
		return nil, err
	}
	for {
		m, err := l.ReadMessage()
		if err != nil {
			return nil, err
		}
		h.log = append(h.log, m.Name())
		if m.Name() == devicelink.ProcessMessage {
			response, _ := m.Dict(1)
			return response, l.Disconnect()
		}
		if m.Name() == devicelink.DisconnectName {
			return nil, io.ErrUnexpectedEOF
		}
		if m.Name() == "DLMessagePing" {
			continue
		}
		if err := h.serve(l, m); err != nil {
			return nil, err
		}
	}
}

func (h *host) serve(l *devicelink.Conn, m devicelink.Message) error {
	if code, ok := h.status[m.Name()]; ok {
		return l.WriteStatus(code, "as told", nil)
	}
	path, _ := m.Text(1)
	switch m.Name() {
	case "DLMessageDownloadFiles":
		return h.download(l, m)
	case "DLMessageUploadFiles":
		return h.upload(l)
	case "DLMessageGetFreeDiskSpace":
		return l.WriteStatus(0, "", h.free)
	case "DLMessagePurgeDiskSpace":
		h.purged = true
		return l.WriteStatus(-1, "cannot", nil)
	case "DLContentsOfDirectory":
		return h.list(l, path)
	}
	var err error
	switch m.Name() {
	case "DLMessageCreateDirectory":
		if path, err = h.path(path); err == nil {
			err = os.MkdirAll(path, 0o755)
		}
	case "DLMessageMoveItems", "DLMessageMoveFiles":
		moves, _ := m.Dict(1)
		for from, to := range moves {
			to, _ := to.(string)
			err = errors.Join(err, h.move(from, to))
		}
	case "DLMessageRemoveItems", "DLMessageRemoveFiles":
		paths, _ := m.Texts(1)
		for _, p := range paths {
			p, perr := h.path(p)
			if perr == nil {
				perr = os.RemoveAll(p)
			}
			err = errors.Join(err, perr)
		}
	case "DLMessageCopyItem":
		to, _ := m.Text(2)
		from, ferr := h.path(path)
		to, terr := h.path(to)
		if err = errors.Join(ferr, terr); err == nil {
			err = os.CopyFS(to, os.DirFS(from))
		}
	default:
		err = errors.New("unknown")
	}
	if err != nil {
		return l.WriteStatus(devicelink.StatusFailed, err.Error(), nil)
	}
	return l.WriteStatus(0, "", nil)
}

func (h *host) move(from, to string) error {
	f, err := h.path(from)
	if err != nil {
		return err
	}
	if to, err = h.path(to); err != nil {
		return err
	}
	return os.Rename(f, to)
}

func (h *host) download(l *devicelink.Conn, m devicelink.Message) error {
	paths, _ := m.Texts(1)
	bad := map[string]any{}
	for _, p := range paths {
		if err := l.WriteName(p); err != nil {
			return err
		}
		var r io.ReadCloser
		local, err := h.path(p)
		if err == nil {
			r, err = os.Open(local)
		}
		if text, ok := h.mangle[p]; ok && err == nil {
			r.Close()
			r = io.NopCloser(strings.NewReader(text))
		}
		if err != nil {
			bad[p] = map[string]any{"DLFileErrorString": err.Error(), "DLFileErrorCode": int64(devicelink.StatusNoFile)}
			if err := l.SendError(devicelink.KindHostError, err.Error()); err != nil {
				return err
			}
			continue
		}
		if _, err = l.SendFile(r); err != nil {
			return err
		}
		r.Close()
	}
	if err := l.EndNames(); err != nil {
		return err
	}
	if len(bad) > 0 {
		return l.WriteStatus(devicelink.StatusMulti, "Multi status", bad)
	}
	return l.WriteStatus(0, "", nil)
}

func (h *host) upload(l *devicelink.Conn) error {
	var failed error
	for {
		name, err := l.ReadName()
		if err != nil {
			return err
		}
		if name == "" {
			break
		}
		to, err := l.ReadName()
		if err != nil {
			return err
		}
		path, err := h.path(to)
		var b bytes.Buffer
		failed = errors.Join(failed, err)
		if _, _, err := l.ReceiveFile(&b); err != nil {
			return err
		}
		if path == "" {
			continue
		}
		failed = errors.Join(failed, os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, b.Bytes(), 0o644))
	}
	if failed != nil {
		return l.WriteStatus(devicelink.StatusFailed, failed.Error(), nil)
	}
	return l.WriteStatus(0, "", nil)
}

func (h *host) list(l *devicelink.Conn, dir string) error {
	out := map[string]any{}
	path, err := h.path(dir)
	if err != nil {
		return l.WriteStatus(devicelink.StatusFailed, err.Error(), nil)
	}
	entries, err := os.ReadDir(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		kind := "DLFileTypeRegular"
		if e.IsDir() {
			kind = "DLFileTypeDirectory"
		}
		if !h.hide[e.Name()] {
			info, err := e.Info()
			if err != nil {
				return err
			}
			out[e.Name()] = map[string]any{"DLFileType": kind, "DLFileSize": info.Size(), "DLFileModificationDate": info.ModTime()}
		}
	}
	return l.WriteStatus(0, "", out)
}

// device is a simulated phone whose content is a synthetic series.
type device struct {
	*Agent
	t      *testing.T
	series *synthetic.Series
	dir    string // of the content
}

func newDevice(t *testing.T, o Options) *device {
	t.Helper()
	s, err := synthetic.New(synthetic.Config{Seed: 5, StateDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	d := &device{t: t, series: s, dir: t.TempDir()}
	o.Content = d.day()
	o.StateDir = t.TempDir()
	if o.Patience == 0 {
		o.Patience = 10 * time.Second
	}
	now := synthetic.DefaultStart
	o.Clock = func() time.Time { now = now.Add(time.Second); return now }
	if d.Agent, err = New(o); err != nil {
		t.Fatal(err)
	}
	return d
}

// day brings the content to the next day.
func (d *device) day() Content {
	d.t.Helper()
	if err := d.series.Next(context.Background(), d.dir); err != nil {
		d.t.Fatal(err)
	}
	f, err := OpenFolder(context.Background(), filepath.Join(d.dir, d.series.Devices()[0].UDID), nil)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { f.Close() })
	return f
}

// do lets the host ask for something and returns the Response.
func (d *device) do(h *host, request map[string]any) (map[string]any, error) {
	d.t.Helper()
	a, b := net.Pipe()
	done := make(chan error, 1)
	go func() { done <- d.Serve(context.Background(), a) }()
	response, err := h.request(b, request)
	served := <-done
	if err == nil && served != nil {
		err = served
	}
	return response, err
}

func (d *device) request(name string, more ...any) map[string]any {
	r := map[string]any{"MessageName": name, "TargetIdentifier": d.Device().UDID, "SourceIdentifier": d.Device().UDID}
	for i := 0; i < len(more); i += 2 {
		r[more[i].(string)] = more[i+1]
	}
	return r
}

// must does it and wants a Response with that code.
func (d *device) must(h *host, code int64, name string, more ...any) Run {
	d.t.Helper()
	response, err := d.do(h, d.request(name, more...))
	if err != nil {
		d.t.Fatalf("%s: %v (%+v)", name, err, d.LastRun())
	}
	if got, ok := devicelink.Int(response["ErrorCode"]); !ok || got != code {
		d.t.Fatalf("%s: response %v in place of %d", name, response, code)
	}
	return d.LastRun()
}

// folder is the backup on the host.
func (d *device) folder(h *host) string { return filepath.Join(h.root, d.Device().UDID) }

// same wants the backup on the host to be what is on the device.
func (d *device) same(h *host, password string) {
	d.t.Helper()
	// The host writes Info.plist; a copy of the synthetic one will do.
	info, err := os.ReadFile(filepath.Join(d.dir, d.series.Devices()[0].UDID, "Info.plist"))
	if err != nil {
		d.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(d.folder(h), "Info.plist"), info, 0o644); err != nil {
		d.t.Fatal(err)
	}
	differences, err := Verify(context.Background(), d.Content(), d.folder(h), []byte(password))
	if err != nil {
		d.t.Fatal(err)
	}
	for _, text := range differences {
		d.t.Error(text)
	}
}

func (d *device) clean() {
	d.t.Helper()
	for _, v := range d.Violations() {
		d.t.Errorf("violation: %s", v)
	}
}
