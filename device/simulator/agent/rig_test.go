package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/snap-backup/snap/device/protocol/devicelink"
	"github.com/snap-backup/snap/device/simulator/devicefiles"
	"github.com/snap-backup/snap/device/simulator/synthetic"
	"github.com/snap-backup/snap/internal/ramtemp"
)

// days makes the content of one synthetic device for several consecutive days, once
// for all tests. It returns a folder with one subfolder for each day.
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

// daysDir is the folder of days, which is removed at the end. It is "" if no test
// needed days.
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
	o.Content, o.StateDir = d.nextDay(), t.TempDir()
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

// today returns the folder of the content that nextDay returned last.
func (d *device) today() string {
	dir, err := days()
	if err != nil {
		d.t.Fatal(err)
	}
	return filepath.Join(dir, fmt.Sprint(d.next-1))
}

// nextDay returns the content of the next day.
func (d *device) nextDay() devicefiles.Source {
	d.t.Helper()
	d.next++
	f, err := devicefiles.OpenFolder(context.Background(), d.today(), nil)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { f.Close() })
	return f
}

// send makes the host send a request to the device, and returns the device's response.
func (d *device) send(h *host, request map[string]any) (map[string]any, error) {
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

// mustRequest makes the host send a request. It fails the test if the response has
// another code.
func (d *device) mustRequest(h *host, code int64, name string, more ...any) Run {
	d.t.Helper()
	response, err := d.send(h, d.request(name, more...))
	if err != nil {
		d.t.Fatalf("%s: %v (%+v)", name, err, d.LastRun())
	}
	if got, ok := devicelink.Int(response["ErrorCode"]); !ok || got != code {
		d.t.Fatalf("%s: response %v, want code %d", name, response, code)
	}
	return d.LastRun()
}

// ownPath returns the path of a name in the device's folder on the host.
func (d *device) ownPath(name string) string { return d.Device().UDID + "/" + name }

// blobs returns the paths of the data files on the host.
func (d *device) blobs(h *host, under string) []string {
	return slices.DeleteFunc(h.below(d.Device().UDID), func(p string) bool {
		ok, _ := path.Match(d.ownPath(under+"??/*"), p)
		return !ok
	})
}

// writeBackup writes the host's backup to a new folder and returns its path.
func (d *device) writeBackup(h *host) string {
	d.t.Helper()
	return d.writeTo(&folderCopy{dir: d.t.TempDir(), files: map[string][]byte{}}, h)
}

func (d *device) writeTo(c *folderCopy, h *host) string {
	d.t.Helper()
	// A host has to write Info.plist. This host copies it from the synthetic device.
	info, err := os.ReadFile(filepath.Join(d.today(), "Info.plist"))
	if err != nil {
		d.t.Fatal(err)
	}
	h.files[d.ownPath("Info.plist")] = info
	if err := c.update(h, d.Device().UDID); err != nil {
		d.t.Fatal(err)
	}
	return filepath.Join(c.dir, d.Device().UDID)
}

// folderCopy is a folder with a copy of a backup. Tests reuse it, since most of them
// write almost the same files.
type folderCopy struct {
	dir   string
	files map[string][]byte // files in the folder, by path
}

// update makes the folder equal to the files that the host has at and below a path.
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

// copies holds the folders that checkSame can use. A folder has one user at a time.
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

// checkSame compares the backup on the host with the content of the device.
func (d *device) checkSame(h *host, password string) {
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

func (d *device) noViolations() {
	d.t.Helper()
	for _, v := range d.Violations() {
		d.t.Errorf("violation: %s", v)
	}
}
