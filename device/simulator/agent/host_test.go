package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/snap-backup/snap/device/protocol/devicelink"
	"github.com/snap-backup/snap/device/simulator/devicefiles"
	"github.com/snap-backup/snap/device/simulator/synthetic"
	"github.com/snap-backup/snap/internal/ramtemp"
)

// host is a small host that keeps files in memory. Its fields make it misbehave.
type host struct {
	t     *testing.T
	files map[string][]byte // by path
	free  int64
	bytes atomic.Int64 // sent and received

	patience time.Duration // with the device

	log     []string          // names of requests
	mangle  map[string]string // path → what is sent instead of the content
	hide    map[string]bool   // names left out of listings
	status  map[string]int64  // request → code of the answer; nothing is done
	purged  bool
	refused int
}

func newHost(t *testing.T) *host {
	return &host{t: t, files: map[string][]byte{}, free: 1 << 40, patience: 5 * time.Minute, mangle: map[string]string{}, hide: map[string]bool{}, status: map[string]int64{}}
}

var errBadPath = errors.New("a path that leads outside")

func (h *host) check(paths ...string) error {
	for _, p := range paths {
		if len(p) > 1000 || p == "." || path.Clean(p) != p || !fs.ValidPath(p) || strings.ContainsAny(p, "\\\x00:") || strings.HasPrefix(p, "00008110-FFFF") {
			h.refused++
			return errBadPath
		}
	}
	return nil
}

// below returns the names of the files at and below a path, in order.
func (h *host) below(p string) []string {
	if _, file := h.files[p]; file {
		return []string{p}
	}
	var out []string
	for name := range h.files {
		if strings.HasPrefix(name, p+"/") {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// move renames everything at and below from, or copies it if keep is set.
func (h *host) move(from, to string, keep bool) error {
	if err := h.check(from, to); err != nil {
		return err
	}
	names := h.below(from)
	if len(names) == 0 {
		return fs.ErrNotExist
	}
	for _, name := range names {
		h.files[to+strings.TrimPrefix(name, from)] = h.files[name]
		if !keep {
			delete(h.files, name)
		}
	}
	return nil
}

// request serves one operation and returns its Response.
func (h *host) request(conn net.Conn, request map[string]any) (map[string]any, error) {
	defer conn.Close()
	l := devicelink.New(&counted{conn, &h.bytes}, devicelink.Options{Busy: h.patience, Idle: h.patience, Write: h.patience})
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

// counted is a connection that counts bytes.
type counted struct {
	net.Conn
	n *atomic.Int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.n.Add(int64(n))
	return n, err
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.n.Add(int64(n))
	return n, err
}

func (h *host) serve(l *devicelink.Conn, m devicelink.Message) error {
	if code, ok := h.status[m.Name()]; ok && m.Name() != "DLMessageUploadFiles" {
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
		err = h.check(path)
	case "DLMessageMoveItems", "DLMessageMoveFiles":
		moves, _ := m.Dict(1)
		for from, to := range moves {
			to, _ := to.(string)
			err = errors.Join(err, h.move(from, to, false))
		}
	case "DLMessageRemoveItems", "DLMessageRemoveFiles":
		paths, _ := m.Texts(1)
		for _, p := range paths {
			err = errors.Join(err, h.check(p))
			for _, name := range h.below(p) {
				delete(h.files, name)
			}
		}
	case "DLMessageCopyItem":
		to, _ := m.Text(2)
		err = h.move(path, to, true)
	default:
		err = errors.New("unknown")
	}
	if err != nil {
		return l.WriteStatus(devicelink.StatusFailed, err.Error(), nil)
	}
	return l.WriteStatus(0, "", nil)
}

func (h *host) download(l *devicelink.Conn, m devicelink.Message) error {
	paths, _ := m.Texts(1)
	bad := map[string]any{}
	for _, p := range paths {
		if err := l.WriteName(p); err != nil {
			return err
		}
		err := h.check(p)
		content, ok := h.files[p]
		if err == nil && !ok {
			err = fs.ErrNotExist
		}
		if text, ok := h.mangle[p]; ok {
			content = []byte(text)
		}
		if err != nil {
			bad[p] = map[string]any{"DLFileErrorString": err.Error(), "DLFileErrorCode": int64(devicelink.StatusNoFile)}
			if err := l.SendError(devicelink.KindHostError, err.Error()); err != nil {
				return err
			}
			continue
		}
		if _, err = l.SendFile(bytes.NewReader(content)); err != nil {
			return err
		}
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
		err = h.check(to)
		var b bytes.Buffer
		failed = errors.Join(failed, err)
		if _, _, err := l.ReceiveFile(&b); err != nil {
			return err
		}
		if err == nil {
			h.files[to] = bytes.Clone(b.Bytes())
		}
	}
	if code, ok := h.status["DLMessageUploadFiles"]; ok {
		return l.WriteStatus(code, "as told", nil)
	}
	if failed != nil {
		return l.WriteStatus(devicelink.StatusFailed, failed.Error(), nil)
	}
	return l.WriteStatus(0, "", nil)
}

func (h *host) list(l *devicelink.Conn, dir string) error {
	out := map[string]any{}
	if err := h.check(dir); err != nil {
		return l.WriteStatus(devicelink.StatusFailed, err.Error(), nil)
	}
	for _, file := range h.below(dir) {
		name, rest, folder := strings.Cut(strings.TrimPrefix(file, dir+"/"), "/")
		kind := "DLFileTypeRegular"
		if folder {
			kind = "DLFileTypeDirectory"
		}
		if !h.hide[name] && !h.hide[rest] {
			out[name] = map[string]any{"DLFileType": kind, "DLFileSize": len(h.files[file]), "DLFileModificationDate": synthetic.DefaultStart}
		}
	}
	return l.WriteStatus(0, "", out)
}

// days makes the contents of one synthetic device on consecutive days, once for
// all tests.
var days = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "agent-days-")
	if err != nil {
		return "", err
	}
	daysDir = dir
	s, err := synthetic.New(synthetic.Config{Seed: 5, StateDir: dir})
	if err != nil {
		return dir, err
	}
	defer s.Close()
	live := filepath.Join(dir, "live")
	for i := range 4 {
		if err := s.Next(context.Background(), live); err != nil {
			return dir, err
		}
		if err := os.CopyFS(filepath.Join(dir, fmt.Sprint(i)), os.DirFS(filepath.Join(live, s.Devices()[0].UDID))); err != nil {
			return dir, err
		}
	}
	return dir, nil
})

// daysDir is removed at the end. It is empty if no test needed it.
var daysDir string

func TestMain(m *testing.M) {
	defer ramtemp.Use()()
	m.Run()
	if daysDir != "" {
		os.RemoveAll(daysDir)
	}
}

// device is a simulated device with the content of a synthetic series.
type device struct {
	*Agent
	t    *testing.T
	next int
}

func newDevice(t *testing.T, o Options) *device {
	t.Helper()
	d := &device{t: t}
	o.Content, o.StateDir = d.day(), t.TempDir()
	if o.Patience == 0 {
		o.Patience = 5 * time.Minute
	}
	now := synthetic.DefaultStart
	o.Clock = func() time.Time { now = now.Add(time.Second); return now }
	var err error
	if d.Agent, err = New(o); err != nil {
		t.Fatal(err)
	}
	return d
}

// today returns the folder of the day that day returned last.
func (d *device) today() string {
	dir, err := days()
	if err != nil {
		d.t.Fatal(err)
	}
	return filepath.Join(dir, fmt.Sprint(d.next-1))
}

// day returns the content of the next day.
func (d *device) day() devicefiles.Source {
	d.t.Helper()
	d.next++
	f, err := devicefiles.OpenFolder(context.Background(), d.today(), nil)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { f.Close() })
	return f
}

// do makes the host send a request, and returns the response.
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

// must makes the host send a request that has to end with a code.
func (d *device) must(h *host, code int64, name string, more ...any) Run {
	d.t.Helper()
	response, err := d.do(h, d.request(name, more...))
	if err != nil {
		d.t.Fatalf("%s: %v (%+v)", name, err, d.LastRun())
	}
	if got, ok := devicelink.Int(response["ErrorCode"]); !ok || got != code {
		d.t.Fatalf("%s: response %v, want code %d", name, response, code)
	}
	return d.LastRun()
}

// own returns a path in the device's folder on the host.
func (d *device) own(name string) string { return d.Device().UDID + "/" + name }

// blobs returns the paths of the data files on the host.
func (d *device) blobs(h *host, under string) []string {
	return slices.DeleteFunc(h.below(d.Device().UDID), func(p string) bool {
		ok, _ := path.Match(d.own(under+"??/*"), p)
		return !ok
	})
}

// write writes the backup on the host to a new folder.
func (d *device) write(h *host) string {
	d.t.Helper()
	return d.writeTo(&folderCopy{dir: d.t.TempDir(), files: map[string][]byte{}}, h)
}

func (d *device) writeTo(c *folderCopy, h *host) string {
	d.t.Helper()
	// A host writes Info.plist. This one takes that of the synthetic device.
	info, err := os.ReadFile(filepath.Join(d.today(), "Info.plist"))
	if err != nil {
		d.t.Fatal(err)
	}
	h.files[d.own("Info.plist")] = info
	if err := c.update(h, d.Device().UDID); err != nil {
		d.t.Fatal(err)
	}
	return filepath.Join(c.dir, d.Device().UDID)
}

// folderCopy is a folder with a backup. It is reused, since most tests write
// almost the same files.
type folderCopy struct {
	dir   string
	files map[string][]byte // that are in it, by path
}

// update makes the folder what the host has at and below a path.
func (c *folderCopy) update(h *host, top string) error {
	want := map[string]bool{}
	for _, name := range h.below(top) {
		want[name] = true
		if old, ok := c.files[name]; ok && bytes.Equal(old, h.files[name]) {
			continue
		}
		to := filepath.Join(c.dir, filepath.FromSlash(name))
		if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, h.files[name], 0o644)); err != nil {
			return err
		}
		c.files[name] = bytes.Clone(h.files[name])
	}
	for name := range c.files {
		if want[name] {
			continue
		}
		if err := os.Remove(filepath.Join(c.dir, filepath.FromSlash(name))); err != nil {
			return err
		}
		delete(c.files, name)
	}
	return nil
}

// copies are folders for same. Each is used by one test at a time.
var copies = make(chan *folderCopy, 64)

func takeCopy() (*folderCopy, error) {
	select {
	case c := <-copies:
		return c, nil
	default:
	}
	base, err := days()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(base, "copy-")
	return &folderCopy{dir: dir, files: map[string][]byte{}}, err
}

// same compares the backup on the host with what is on the device.
func (d *device) same(h *host, password string) {
	d.t.Helper()
	c, err := takeCopy()
	if err != nil {
		d.t.Fatal(err)
	}
	dir := d.writeTo(c, h)
	defer func() { copies <- c }()
	differences, err := devicefiles.Verify(context.Background(), d.Content(), dir, []byte(password))
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
