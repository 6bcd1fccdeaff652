package agent

import (
	"bytes"
	"hash"
	"io"

	"github.com/snap-backup/snap/device/mobilesync/keybag"
)

// outgoing is an open file that is being sent.
type outgoing struct {
	io.Reader
	io.Closer
	sum hash.Hash // hash of the bytes read so far
	key []byte    // wrapped file key
}

// encrypting is a reader that encrypts what it reads from another reader.
type encrypting struct {
	from      io.Reader
	encrypter io.WriteCloser
	out       bytes.Buffer
	plain     []byte
	err       error
}

func newEncrypting(from io.Reader, key keybag.FileKey) *encrypting {
	s := &encrypting{from: from, plain: make([]byte, 32<<10)}
	s.encrypter = keybag.NewEncrypter(&s.out, key)
	return s
}

func (s *encrypting) Read(p []byte) (int, error) {
	for s.out.Len() == 0 {
		if s.err != nil {
			return 0, s.err
		}
		n, err := s.from.Read(s.plain)
		if n > 0 {
			if _, werr := s.encrypter.Write(s.plain[:n]); werr != nil {
				s.err = werr
				continue
			}
		}
		if err == io.EOF {
			if cerr := s.encrypter.Close(); cerr != nil {
				err = cerr
			}
		}
		s.err = err
	}
	return s.out.Read(p)
}
