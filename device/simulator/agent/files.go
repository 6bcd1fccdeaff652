package agent

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/snap-backup/snap/device/protocol/devicelink"
)

// download gets one file. found is false if the host has none.
func (t *talk) download(path string, w io.Writer) (found bool, err error) {
	missing, err := t.downloads([]string{path}, -1, func(string) (io.Writer, error) { return w, nil }, nil)
	return err == nil && len(missing) == 0, err
}

// smallFile gets a property list; nil if there is none.
func (t *talk) smallFile(path string) ([]byte, error) {
	var b bytes.Buffer
	found, err := t.download(path, &limited{w: &b, left: maxPlist})
	if err != nil || !found {
		return nil, err
	}
	return append([]byte{}, b.Bytes()...), nil
}

const maxPlist = 64 << 20

// limited fails when more than left bytes are written.
type limited struct {
	w    io.Writer
	left int64
}

func (l *limited) Write(p []byte) (int, error) {
	if l.left -= int64(len(p)); l.left < 0 {
		return 0, errors.New("the host sends more than such a file can have")
	}
	return l.w.Write(p)
}

// downloads gets files. sink gives each a writer, and done is told when one is
// complete. It returns those that the host does not have.
func (t *talk) downloads(paths []string, progress float64, sink func(path string) (io.Writer, error), done func(path string) error) (missing []string, err error) {
	const name = "DLMessageDownloadFiles"
	if err := t.link.WriteMessage(name, paths, map[string]any{}, progress); err != nil {
		return nil, err
	}
	failedFiles := map[string]string{}
	next := 0
	var own error // of a sink, told when the host has said all
	for {
		got, err := t.link.ReadName()
		if err != nil {
			return nil, err
		}
		if got == "" {
			break
		}
		i := slices.Index(paths[next:], got)
		if i < 0 && next == 0 && isGoodbye(got) {
			return nil, errLeft // it had not seen the request yet
		}
		if i < 0 {
			return nil, fmt.Errorf("%w: the host sends %q, which was not asked for or not now", devicelink.ErrFormat, got)
		}
		next += i + 1
		w := io.Discard
		if own == nil {
			if w, own = sink(got); own != nil {
				w = io.Discard
			}
		}
		_, remote, err := t.link.ReceiveFile(w)
		var full *devicelink.SinkError
		switch {
		case errors.As(err, &full):
			own = errors.Join(own, full.Err)
		case err != nil:
			return nil, err
		case remote != "":
			failedFiles[got] = remote
		case own == nil && done != nil:
			own = done(got)
		}
	}
	s, err := t.answer(name)
	if err != nil {
		return nil, err
	}
	if own != nil {
		return nil, own
	}
	return t.judgeDownload(name, paths, next, failedFiles, s)
}

// isGoodbye reports whether what stands in the place of a name is a message with
// which the host leaves. Its length comes first, as with a name.
func isGoodbye(got string) bool {
	return (strings.HasPrefix(got, "bplist00") || strings.HasPrefix(got, "<?xml")) && strings.Contains(got, "DLMessageDisconnect")
}

// judgeDownload compares the answer with the files that came before it.
func (t *talk) judgeDownload(name string, paths []string, seen int, failedFiles map[string]string, s devicelink.Status) (missing []string, err error) {
	codes := perPath(s.Payload)
	switch {
	case s.Code == devicelink.StatusOK && len(failedFiles) > 0:
		t.agent.violate("%s: %d files failed and the answer is 0", name, len(failedFiles))
	case s.Code == devicelink.StatusOK && seen < len(paths):
		t.agent.violate("%s: %q was not sent and the answer is 0", name, paths[seen])
	case s.Code == devicelink.StatusMulti && len(codes) == 0:
		t.agent.violate("%s: a multi status without a code", name)
	case s.Code == devicelink.StatusMulti && len(paths) == 1 && len(codes) != 1:
		t.agent.violate("%s: a multi status with %d codes for one path", name, len(codes))
	}
	if s.Code != devicelink.StatusOK && s.Code != devicelink.StatusMulti && s.Code != devicelink.StatusNoFile {
		return nil, accept(s, nil, name)
	}
	for _, path := range paths {
		text, bad := failedFiles[path]
		code, told := codes[path]
		if !bad && !told {
			continue
		}
		if told && code != devicelink.StatusNoFile {
			return nil, fail(domainCode(code), "%s of %s: the host answers %d %s", name, path, code, text)
		}
		missing = append(missing, path)
	}
	if len(missing) == 0 && s.Code != devicelink.StatusOK {
		missing = paths[:1] // the host did not say which
	}
	return missing, nil
}

// upload is one file that is sent.
type upload struct {
	device, host string // paths
	content      func() (io.ReadCloser, error)
	sent         func(n int64, err error) // err: it could not be read
}

// uploads sends files. total is their declared size, 0 for metadata.
func (t *talk) uploads(files []upload, progress float64, total int64) error {
	const name = "DLMessageUploadFiles"
	if err := t.link.WriteMessage(name, map[string]any{}, progress, total); err != nil {
		return err
	}
	for i := range files {
		if err := t.sendFile(&files[i]); err != nil {
			return err
		}
	}
	if err := t.link.EndNames(); err != nil {
		return err
	}
	s, err := t.answer(name)
	if err != nil {
		return err
	}
	return accept(s, nil, name)
}

func (t *talk) sendFile(u *upload) error {
	if err := t.ctx.Err(); err != nil {
		return err
	}
	if err := t.link.WriteName(u.device); err != nil {
		return err
	}
	if err := t.link.WriteName(u.host); err != nil {
		return err
	}
	r, err := u.content()
	if err != nil {
		if u.sent != nil {
			u.sent(0, err)
		}
		return t.link.SendError(devicelink.KindDeviceError, err.Error())
	}
	n, err := t.link.SendFile(r)
	_ = r.Close() // it was only read
	var source *devicelink.SourceError
	if err != nil && !errors.As(err, &source) {
		return err
	}
	if u.sent != nil {
		u.sent(n, err)
	}
	return nil
}

// bytesUpload is an upload of b.
func bytesUpload(path string, b []byte) upload {
	return upload{device: "/var/.ba/" + path, host: path, content: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }}
}
