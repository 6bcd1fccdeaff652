package hostfiles

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/snap-backup/snap/device/protocol/devicelink"
	"github.com/snap-backup/snap/device/simulator/mberror"
)

// Download downloads a file. found is false if the host does not have it.
func (c *Client) Download(path string, w io.Writer) (found bool, err error) {
	missing, err := c.DownloadAll([]string{path}, -1, func(string) (io.Writer, error) { return w, nil }, nil)
	return err == nil && len(missing) == 0, err
}

// SmallFile returns the content of a file, or nil if the host does not have it. It
// fails if the file is larger than any property list may be.
func (c *Client) SmallFile(path string) ([]byte, error) {
	var b bytes.Buffer
	found, err := c.Download(path, &limited{w: &b, left: maxPlist})
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
		return 0, errors.New("the host sends more bytes than a property list may have")
	}
	return l.w.Write(p)
}

// DownloadAll downloads files. For each file it calls sink and writes to the writer
// that sink returns. It then calls done, if done is not nil and the host could send all
// of the file. missing lists the files that the host does not have. If the host has a
// file but cannot read it, DownloadAll returns missing and an *mberror.Error.
func (c *Client) DownloadAll(paths []string, progress float64, sink func(path string) (io.Writer, error), done func(path string) error) (missing []string, err error) {
	const name = "DLMessageDownloadFiles"
	if err := c.link.WriteMessage(name, paths, map[string]any{}, progress); err != nil {
		return nil, err
	}
	failedFiles := map[string]string{}
	next := 0
	var sinkErr error // kept until the host has sent everything, then returned
	for {
		got, err := c.link.ReadName()
		if err != nil {
			return nil, err
		}
		if got == "" {
			break
		}
		i := slices.Index(paths[next:], got)
		if i < 0 && next == 0 && isGoodbye(got) {
			return nil, ErrLeft // the host left before it read the request
		}
		if i < 0 {
			return nil, fmt.Errorf("%w: the host sends %q, which was not requested, or is out of order", devicelink.ErrFormat, got)
		}
		next += i + 1
		w := io.Discard
		if sinkErr == nil {
			if w, sinkErr = sink(got); sinkErr != nil {
				w = io.Discard
			}
		}
		_, remote, err := c.link.ReceiveFile(w)
		var full *devicelink.SinkError
		switch {
		case errors.As(err, &full):
			sinkErr = errors.Join(sinkErr, full.Err)
		case err != nil:
			return nil, err
		case remote != "":
			failedFiles[got] = remote
		case sinkErr == nil && done != nil:
			sinkErr = done(got)
		}
	}
	s, err := c.Answer(name)
	if err != nil {
		return nil, err
	}
	if sinkErr != nil {
		return nil, sinkErr
	}
	return c.checkDownload(name, paths, next, failedFiles, s)
}

// isGoodbye reports whether got, which was read as a name, is a message that
// disconnects. Names and messages both begin with their length, so a message can be
// read as a name.
func isGoodbye(got string) bool {
	return (strings.HasPrefix(got, "bplist00") || strings.HasPrefix(got, "<?xml")) && strings.Contains(got, "DLMessageDisconnect")
}

// checkDownload compares the answer, which follows the files, with the files that the
// host sent.
func (c *Client) checkDownload(name string, paths []string, seen int, failedFiles map[string]string, s devicelink.Status) (missing []string, err error) {
	codes := fileCodes(s.Payload)
	switch {
	case s.Code == devicelink.StatusOK && len(failedFiles) > 0:
		c.violate("%s: %d files failed and the answer is 0", name, len(failedFiles))
	case s.Code == devicelink.StatusOK && seen < len(paths):
		c.violate("%s: %q was not sent and the answer is 0", name, paths[seen])
	case s.Code == devicelink.StatusMulti && len(codes) == 0:
		c.violate("%s: a multi status without a code", name)
	case s.Code == devicelink.StatusMulti && len(paths) == 1 && len(codes) != 1:
		c.violate("%s: a multi status with %d codes for one path", name, len(codes))
	}
	if s.Code != devicelink.StatusOK && s.Code != devicelink.StatusMulti && s.Code != devicelink.StatusNoFile {
		return nil, accept(s, nil, name)
	}
	for _, path := range paths {
		text, bad := failedFiles[path]
		code, reported := codes[path]
		if !bad && !reported {
			continue
		}
		if reported && code != devicelink.StatusNoFile {
			if err == nil {
				err = mberror.Errorf(deviceCode(code), "%s of %s: the host answers %d %s", name, path, code, text)
			}
			continue
		}
		missing = append(missing, path)
	}
	if len(missing) == 0 && err == nil && s.Code != devicelink.StatusOK {
		missing = paths[:1] // the host does not say which file is missing
	}
	return missing, err
}

// Upload is a file to upload.
type Upload struct {
	DevicePath, HostPath string
	Open                 func() (io.ReadCloser, error)
	// Sent, if not nil, is called after the file was sent. err is not nil if the file
	// could not be read.
	Sent func(n int64, err error)
}

// Upload uploads files. total is the declared size of all files together; it is 0 for
// metadata.
func (c *Client) Upload(files []Upload, progress float64, total int64) error {
	const name = "DLMessageUploadFiles"
	if err := c.link.WriteMessage(name, map[string]any{}, progress, total); err != nil {
		return err
	}
	for i := range files {
		if err := c.sendFile(&files[i]); err != nil {
			return err
		}
	}
	if err := c.link.EndNames(); err != nil {
		return err
	}
	s, err := c.Answer(name)
	if err != nil {
		return err
	}
	return accept(s, nil, name)
}

func (c *Client) sendFile(u *Upload) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	if err := c.link.WriteName(u.DevicePath); err != nil {
		return err
	}
	if err := c.link.WriteName(u.HostPath); err != nil {
		return err
	}
	r, err := u.Open()
	if err != nil {
		if u.Sent != nil {
			u.Sent(0, err)
		}
		return c.link.SendError(devicelink.KindDeviceError, err.Error())
	}
	n, err := c.link.SendFile(r)
	_ = r.Close() // an error no longer matters, since the file is read
	var source *devicelink.SourceError
	if err != nil && !errors.As(err, &source) {
		return err
	}
	if u.Sent != nil {
		u.Sent(n, err)
	}
	return nil
}

// UploadBytes uploads b as a file of metadata.
func (c *Client) UploadBytes(path string, b []byte) error {
	file := Upload{DevicePath: "/var/.ba/" + path, HostPath: path, Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }}
	return c.Upload([]Upload{file}, -1, 0)
}
