package devicelink

import (
	"encoding/binary"
	"fmt"
	"io"
)

// Kinds of frames.
const (
	KindEnd         = 0x00 // the file is complete
	KindHostError   = 0x06 // the host could not read the rest; data is a text
	KindDeviceError = 0x0b // the device could not read the rest; data is a text
	KindData        = 0x0c
)

// maxText limits the text of an error frame, in bytes; the rest is discarded.
const maxText = 4096

// SourceError says that a file could not be read while it was sent. The peer was
// informed, and the connection can still be used.
type SourceError struct{ Err error }

func (e *SourceError) Error() string { return e.Err.Error() }
func (e *SourceError) Unwrap() error { return e.Err }

// SinkError says that a received file could not be written. The rest of it was
// read and discarded, and the connection can still be used.
type SinkError struct{ Err error }

func (e *SinkError) Error() string { return e.Err.Error() }
func (e *SinkError) Unwrap() error { return e.Err }

// WriteName begins a file.
func (l *Conn) WriteName(name string) error {
	if name == "" || len(name) > MaxName {
		return fmt.Errorf("a file name of %d bytes", len(name))
	}
	return l.write(append(binary.BigEndian.AppendUint32(nil, uint32(len(name))), name...))
}

// EndNames ends a list of files.
func (l *Conn) EndNames() error {
	if err := l.write(make([]byte, 4)); err != nil {
		return err
	}
	return l.w.Flush()
}

// ReadName returns the name of the next file, or "" at the end of the list.
func (l *Conn) ReadName() (string, error) {
	n, err := l.length(false)
	if err != nil {
		return "", cut(err)
	}
	if n > MaxName {
		return "", fmt.Errorf("%w: a file name of %d bytes", ErrFormat, n)
	}
	b, err := l.bytes(int(n))
	return string(b), err
}

// SendFile sends the content of r as a file. The error is a *SourceError if r
// failed, or one of the connection.
func (l *Conn) SendFile(r io.Reader) (int64, error) {
	if l.buf == nil {
		l.buf = make([]byte, 5+MaxFrame)
	}
	var sent int64
	for {
		n, end, rerr := fill(r, l.buf[5:])
		if n > 0 {
			binary.BigEndian.PutUint32(l.buf, uint32(1+n))
			l.buf[4] = KindData
			if err := l.write(l.buf[:5+n]); err != nil {
				return sent, err
			}
			sent += int64(n)
		}
		switch {
		case end:
			return sent, l.end()
		case rerr != nil:
			if err := l.SendError(l.errorKind(), rerr.Error()); err != nil {
				return sent, err
			}
			return sent, &SourceError{rerr}
		}
	}
}

func (l *Conn) errorKind() byte {
	if l.o.Device {
		return KindDeviceError
	}
	return KindHostError
}

// fill reads until b is full or r ends. Unlike io.ReadFull it distinguishes the
// end from an error that wraps io.EOF.
func fill(r io.Reader, b []byte) (n int, end bool, err error) {
	for n < len(b) {
		m, err := r.Read(b[n:])
		n += m
		if err == io.EOF {
			return n, true, nil
		}
		if err != nil {
			return n, false, err
		}
	}
	return n, false, nil
}

func (l *Conn) end() error { return l.write([]byte{0, 0, 0, 1, KindEnd}) }

// SendError ends a file that cannot be sent completely. kind is KindHostError or
// KindDeviceError.
func (l *Conn) SendError(kind byte, text string) error {
	text = text[:min(len(text), maxText)]
	b := append(binary.BigEndian.AppendUint32(nil, uint32(1+len(text))), kind)
	return l.write(append(b, text...))
}

// ReceiveFile writes the content of a file to w. If the peer could not read all of
// the file, remote says why; otherwise it is empty. The error is a *SinkError if w
// failed, or one of the connection.
func (l *Conn) ReceiveFile(w io.Writer) (n int64, remote string, err error) {
	var sink error
	for {
		size, err := l.length(false)
		if err != nil {
			return n, "", cut(err)
		}
		if size == 0 {
			return n, "", fmt.Errorf("%w: a frame without a kind", ErrFormat)
		}
		kind, err := l.r.ReadByte()
		if err != nil {
			return n, "", cut(err)
		}
		size--
		switch kind {
		case KindData:
			if l.o.MaxFrame > 0 && uint64(size) > uint64(l.o.MaxFrame) {
				return n, "", fmt.Errorf("%w: a frame of %d bytes, more than %d", ErrFormat, size, l.o.MaxFrame)
			}
			n += int64(size)
			if err := l.copy(w, size, &sink); err != nil {
				return n, "", err
			}
			continue
		case KindEnd:
			if err := l.discard(size); err != nil {
				return n, "", err
			}
		case KindHostError, KindDeviceError:
			b, err := l.bytes(int(min(size, maxText)))
			if err != nil {
				return n, "", err
			}
			if err := l.discard(size - uint32(len(b))); err != nil {
				return n, "", err
			}
			if remote = string(b); remote == "" {
				remote = "no reason given"
			}
		default:
			return n, "", fmt.Errorf("%w: a frame of kind 0x%02x", ErrFormat, kind)
		}
		if sink != nil {
			return n, remote, &SinkError{sink}
		}
		return n, remote, nil
	}
}

// copy writes size bytes to w directly from the reader's buffer. It discards them
// after w failed.
func (l *Conn) copy(w io.Writer, size uint32, sink *error) error {
	for size > 0 {
		if l.r.Buffered() == 0 {
			if _, err := l.r.Peek(1); err != nil {
				return cut(err)
			}
		}
		b, _ := l.r.Peek(min(l.r.Buffered(), int(size)))
		if *sink == nil {
			_, *sink = w.Write(b)
		}
		size -= uint32(len(b))
		if _, err := l.r.Discard(len(b)); err != nil {
			return cut(err)
		}
	}
	return nil
}

func (l *Conn) discard(n uint32) error {
	_, err := io.CopyN(io.Discard, l.r, int64(n))
	return cut(err)
}
