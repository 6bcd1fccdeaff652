package agent

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"net"
	"path"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/snap-backup/snap/device/protocol/devicelink"
	"github.com/snap-backup/snap/device/simulator/synthetic"
)

// host is a small host that keeps files in memory. Tests set its fields to make it
// misbehave.
type host struct {
	t     *testing.T
	files map[string][]byte // by path
	free  int64
	bytes atomic.Int64 // number of bytes sent and received

	patience time.Duration // how long the host waits for the device

	log     []string          // names of requests
	mangle  map[string]string // by path, the bytes to send instead of the content
	hide    map[string]bool   // names to leave out of listings
	status  map[string]int64  // by request, the code to answer without doing anything
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

// below returns the sorted paths of the files at and below a path.
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
