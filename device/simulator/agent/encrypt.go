package agent

import (
	"bytes"
	"hash"
	"io"

	"github.com/snap-backup/snap/device/mobilesync/keybag"
)

// outgoing is a file on its way to the host.
type outgoing struct {
	io.Reader
	io.Closer
	sum hash.Hash // of the bytes read
	key []byte    // wrapped
}

// sealing gives the sealed form of what it reads.
type sealing struct {
	from   io.Reader
	sealer io.WriteCloser
	out    bytes.Buffer
	plain  []byte
	err    error
}

func newSealing(from io.Reader, key keybag.FileKey) *sealing {
	s := &sealing{from: from, plain: make([]byte, 32<<10)}
	s.sealer = keybag.NewEncrypter(&s.out, key)
	return s
}

func (s *sealing) Read(p []byte) (int, error) {
	for s.out.Len() == 0 {
		if s.err != nil {
			return 0, s.err
		}
		n, err := s.from.Read(s.plain)
		if n > 0 {
			if _, werr := s.sealer.Write(s.plain[:n]); werr != nil {
				s.err = werr
				continue
			}
		}
		if err == io.EOF {
			if cerr := s.sealer.Close(); cerr != nil {
				err = cerr
			}
		}
		s.err = err
	}
	return s.out.Read(p)
}
