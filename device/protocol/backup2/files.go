package backup2

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/snap-backup/snap/device/protocol/devicelink"
)

// download sends files. If one file fails, the others are still sent.
func (r *operation) download(m devicelink.Message) error {
	paths, ok := m.Texts(1)
	r.report.percent(m, 3)
	failures := map[string]any{}
	for _, path := range paths {
		failure, err := r.send(path)
		if err != nil {
			return err
		}
		if failure != nil {
			r.unsent++
			code, text := status(failure)
			failures[strings.ToValidUTF8(path, "\uFFFD")] = map[string]any{"DLFileErrorString": text, "DLFileErrorCode": code}
		}
	}
	if err := r.link.EndNames(); err != nil {
		return err
	}
	switch {
	case !ok:
		return r.malformed(m)
	case len(failures) > 0:
		return r.link.WriteStatus(devicelink.StatusMulti, "Multi status", failures)
	}
	return r.link.WriteStatus(devicelink.StatusOK, "", nil)
}

// send sends a file. failure says why the device did not get all of the file. err
// ends the session.
func (r *operation) send(path string) (failure, err error) {
	var f io.ReadCloser
	if failure = r.scope.checkRead(path); failure != nil {
		if err := r.refuse(path, failure); err != nil {
			return nil, err
		}
		if path == "" || len(path) > devicelink.MaxName {
			return failure, nil // the protocol cannot carry this name
		}
	} else {
		if isData(path) {
			r.report.setPhase(PhaseSending)
		} else if r.report.phase == PhaseFinishing {
			r.report.setPhase(PhaseVerifying)
		}
		if f, failure = r.open(path); failure == nil {
			defer f.Close()
		}
	}
	if err := r.link.WriteName(path); err != nil {
		return nil, err
	}
	if failure != nil {
		if !errors.Is(failure, fs.ErrNotExist) && !errors.Is(failure, errPath) {
			r.report.warn("open %q: %v", path, failure)
		}
		_, text := status(failure)
		return failure, r.link.SendError(devicelink.KindHostError, text)
	}
	source := source{r: f, report: r.report}
	if _, err = r.link.SendFile(&source); source.err != nil {
		var told *devicelink.SourceError
		if err != nil && !errors.As(err, &told) {
			return nil, err
		}
		r.report.warn("read %q: %v", path, source.err)
		return source.err, nil
	}
	r.report.file()
	return nil, err
}

func (r *operation) open(path string) (io.ReadCloser, error) {
	if path == r.hidden {
		return nil, fs.ErrNotExist
	}
	return r.folder.Open(r.ctx, path)
}

// source counts bytes read and keeps the error of reading. It returns a different
// error to the link, so that no error can look like the end of the file.
type source struct {
	r      io.Reader
	report *reporter
	err    error
}

var errSource = errors.New("input/output error")

func (s *source) Read(b []byte) (int, error) {
	n, err := s.r.Read(b)
	s.report.bytes(n)
	if err != nil && err != io.EOF {
		s.err = err
		err = errSource
	}
	return n, err
}

// upload receives files. It reads the list to its end even if files fail, and
// answers with the first failure.
func (r *operation) upload(m devicelink.Message) error {
	r.report.percent(m, 2)
	var first error
	for {
		origin, err := r.link.ReadName()
		if err != nil {
			return err
		}
		if origin == "" {
			return r.writeStatus(first)
		}
		path, err := r.link.ReadName()
		if err != nil {
			return err
		}
		failure, err := r.receive(origin, path, errors.Is(first, ErrNoSpace))
		if err != nil {
			return err
		}
		if first == nil {
			first = failure
		}
	}
}

// receive receives a file, whose name on the device is origin. failure says why the
// file was not stored in the Folder. err ends the session. If discard is set,
// receive reads the file and does not store it.
func (r *operation) receive(origin, path string, discard bool) (failure, err error) {
	sink := sink{report: r.report}
	if failure = r.scope.checkWrite(path); failure != nil {
		if err := r.refuse(path, failure); err != nil {
			return nil, err
		}
	} else if discard {
		failure = ErrNoSpace
	} else {
		if isData(path) {
			r.report.setPhase(PhaseReceiving)
		}
		if sink.u, failure = r.folder.Create(r.ctx, path); failure == nil {
			defer sink.u.Abort()
		}
	}
	_, remote, err := r.link.ReceiveFile(&sink)
	if broken := new(devicelink.SinkError); errors.As(err, &broken) {
		failure, err = broken.Err, nil
	}
	if err != nil {
		return nil, err
	}
	if failure == nil {
		failure = sink.u.Commit()
	}
	if failure != nil {
		if !errors.Is(failure, errPath) {
			failure = fmt.Errorf("store %q: %w", path, failure)
			r.recordFailure(failure)
		}
		return failure, nil
	}
	if remote != "" {
		r.report.warn("the device could not read all of %q (%q): %s", printable(origin), path, printable(remote))
		r.complaint(Complaint{path, printable(origin), printable(remote)})
	}
	if path == r.hidden {
		r.hidden = ""
	}
	r.report.file()
	return nil, nil
}

// sink counts bytes and writes them to an upload. If there is no upload, it
// discards them.
type sink struct {
	u      Upload
	report *reporter
}

func (s *sink) Write(b []byte) (int, error) {
	s.report.bytes(len(b))
	if s.u == nil {
		return len(b), nil
	}
	n, err := s.u.Write(b)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	return n, err
}

// isData reports whether path is a blob: its name has 40 hexadecimal digits.
func isData(path string) bool {
	name := path[strings.LastIndexByte(path, '/')+1:]
	return len(name) == 40 && strings.Trim(name, "0123456789abcdefABCDEF") == ""
}
