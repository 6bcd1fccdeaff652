package blob

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"time"

	"github.com/snap-backup/snap/device/mobilesync/keybag"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/tree"
)

// Open returns a reader of a file's bytes as they were in the backup folder.
// Unless the bytes must be encrypted again, it is a *File, which can be read at
// any offset. The reader uses ctx for all of its reads.
func Open(ctx context.Context, r *repo.Repo, e *tree.Entry) (io.ReadCloser, error) {
	f, err := OpenContent(ctx, r, &e.Content, e.ModTime.Time())
	if err != nil || e.Encryption == nil {
		return f, err
	}
	return newEncrypting(f, keybag.FileKey(e.Encryption.Key)), nil
}

// File reads a file whose bytes are in the repository as they were in the
// backup folder. It implements folder.Content.
type File struct {
	*repo.ContentReader
	info Info
}

// OpenContent opens a content. modTime is only for Stat.
func OpenContent(ctx context.Context, r *repo.Repo, c *tree.Content, modTime time.Time) (*File, error) {
	reader, err := r.NewContentReader(ctx, c)
	if err != nil {
		return nil, err
	}
	return &File{reader, NewInfo(c.Size, modTime)}, nil
}

// Stat returns the file's size and time.
func (f *File) Stat() (fs.FileInfo, error) { return f.info, nil }

// Close does nothing.
func (f *File) Close() error { return nil }

// Info is an fs.FileInfo with a size and a time, and without a name.
type Info struct {
	size    int64
	modTime time.Time
}

// NewInfo returns the Info of a file.
func NewInfo(size int64, modTime time.Time) Info { return Info{size, modTime} }

// Name returns "".
func (i Info) Name() string { return "" }

// Size returns the size in bytes.
func (i Info) Size() int64 { return i.size }

// Mode returns FileMode.
func (i Info) Mode() fs.FileMode { return FileMode }

// ModTime returns the time.
func (i Info) ModTime() time.Time { return i.modTime }

// IsDir returns false.
func (i Info) IsDir() bool { return false }

// Sys returns nil.
func (i Info) Sys() any { return nil }

// encrypting is a reader that encrypts what it reads from src.
type encrypting struct {
	src       *File
	encrypter io.WriteCloser // writes to pending
	pending   bytes.Buffer
	buf       []byte
	err       error // returned after pending is empty
}

// encryptStep is how many bytes are encrypted at a time.
const encryptStep = 128 << 10

func newEncrypting(src *File, key keybag.FileKey) *encrypting {
	s := &encrypting{src: src, buf: make([]byte, min(encryptStep, src.Size()+1))}
	s.encrypter = keybag.NewEncrypter(&s.pending, key)
	return s
}

func (s *encrypting) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for s.pending.Len() == 0 {
		if s.err != nil {
			return 0, s.err
		}
		n, err := s.src.Read(s.buf)
		if _, werr := s.encrypter.Write(s.buf[:n]); werr != nil {
			s.err = werr
		} else if errors.Is(err, io.EOF) {
			if s.err = s.encrypter.Close(); s.err == nil {
				s.err = io.EOF
			}
		} else if err != nil {
			// The rest of the file is missing. Drop the encrypted bytes, which would look
			// like the end of the file.
			s.pending.Reset()
			s.err = err
		}
	}
	return s.pending.Read(p)
}

func (s *encrypting) Close() error { return s.src.Close() }
