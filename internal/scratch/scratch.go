// Package scratch holds temporary bytes that nobody else may read. It keeps them in
// memory, or in a sealed file if they are more than a limit.
//
// The key of a sealed file is random and exists only in memory. On Unix the file is
// removed while it is open; on Windows the system removes it when it is closed or the
// process ends. So nothing is left even if the process is killed.
package scratch

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

const (
	pageSize   = 16 << 10 // plaintext bytes that are sealed together
	tagSize    = 16
	sealedSize = pageSize + tagSize
	// cachedPages is how many unsealed pages of the file are kept for reading.
	cachedPages = 64
)

// File is written once, from the beginning to the end, and can be read at any offset.
// Its methods may be called concurrently.
type File struct {
	dir    string
	random io.Reader
	memory int64

	mu     sync.Mutex
	pages  [][]byte // full pages, until they are in the file
	last   []byte   // the page that is being written
	sealed int64    // number of pages in the file
	file   *os.File // nil until memory is not enough
	aead   cipher.AEAD
	cache  map[int64][]byte
	queue  []int64 // numbers of the pages in cache, the oldest first
	closed bool
}

// New returns an empty file. It keeps up to memory bytes in memory. Once more are
// written, it seals all full pages with a key from random and stores them in a file in
// the folder dir. If dir is "", it uses the system's folder for temporary files.
func New(dir string, memory int64, random io.Reader) *File {
	return &File{dir: dir, memory: memory, random: random, cache: map[int64][]byte{}}
}

var errClosed = fmt.Errorf("scratch: %w", os.ErrClosed)

// Write appends bytes.
func (f *File) Write(p []byte) (n int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return 0, errClosed
	}
	for len(p) > 0 {
		if f.last == nil {
			f.last = make([]byte, 0, pageSize)
		}
		part := p[:min(len(p), pageSize-len(f.last))]
		f.last = append(f.last, part...)
		n, p = n+len(part), p[len(part):]
		if len(f.last) == pageSize {
			if err := f.addPage(); err != nil {
				return n, err
			}
		}
	}
	return n, nil
}

// addPage stores the page that is full.
func (f *File) addPage() error {
	f.pages, f.last = append(f.pages, f.last), nil
	if f.file == nil && int64(len(f.pages))*pageSize <= f.memory {
		return nil
	}
	if f.file == nil {
		if err := f.create(); err != nil {
			return fmt.Errorf("scratch: %w", err)
		}
	}
	for _, p := range f.pages {
		sealed := f.aead.Seal(nil, nonce(f.sealed), p, nil)
		if _, err := f.file.WriteAt(sealed, f.sealed*sealedSize); err != nil {
			return fmt.Errorf("scratch: %w", err)
		}
		f.sealed++
	}
	f.last, f.pages = f.pages[len(f.pages)-1][:0], nil
	return nil
}

// create creates the sealed file.
func (f *File) create() error {
	var key [32]byte
	if _, err := io.ReadFull(f.random, key[:]); err != nil {
		return err
	}
	defer clear(key[:])
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return err
	}
	if f.aead, err = cipher.NewGCM(block); err != nil {
		return err
	}
	f.file, err = createRemoved(f.dir)
	return err
}

// nonce returns the nonce of a page. Every page is sealed once, and every file has a
// key of its own.
func nonce(page int64) []byte {
	var n [12]byte
	binary.BigEndian.PutUint64(n[4:], uint64(page))
	return n[:]
}

// Size returns the number of bytes written.
func (f *File) Size() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.size()
}

func (f *File) size() int64 {
	return (f.sealed+int64(len(f.pages)))*pageSize + int64(len(f.last))
}

// OnDisk returns the size of the sealed file; 0 if there is none.
func (f *File) OnDisk() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sealed * sealedSize
}

// ReadAt implements io.ReaderAt.
func (f *File) ReadAt(p []byte, off int64) (n int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.closed:
		return 0, errClosed
	case off < 0:
		return 0, errors.New("scratch: negative offset")
	}
	for n < len(p) {
		if off >= f.size() {
			return n, io.EOF
		}
		page, err := f.page(off / pageSize)
		if err != nil {
			return n, err
		}
		part := copy(p[n:], page[off%pageSize:])
		n, off = n+part, off+int64(part)
	}
	return n, nil
}

// page returns the plaintext of a page.
func (f *File) page(i int64) ([]byte, error) {
	switch inMemory := i - f.sealed; {
	case inMemory == int64(len(f.pages)):
		return f.last, nil
	case inMemory >= 0:
		return f.pages[inMemory], nil
	}
	if p := f.cache[i]; p != nil {
		return p, nil
	}
	var sealed [sealedSize]byte
	if _, err := f.file.ReadAt(sealed[:], i*sealedSize); err != nil {
		return nil, fmt.Errorf("scratch: %w", err)
	}
	var room []byte
	if len(f.queue) == cachedPages {
		oldest := f.queue[0]
		room = f.cache[oldest][:0]
		delete(f.cache, oldest)
		f.queue = append(f.queue[:0], f.queue[1:]...)
	}
	p, err := f.aead.Open(room, nonce(i), sealed[:], nil)
	if err != nil {
		return nil, fmt.Errorf("scratch: page %d of the temporary file was changed: %w", i, err)
	}
	f.cache[i] = p
	f.queue = append(f.queue, i)
	return p, nil
}

// Close removes everything. Further calls do nothing.
func (f *File) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil
	}
	f.closed, f.pages, f.last, f.cache, f.aead = true, nil, nil, nil, nil
	if f.file == nil {
		return nil
	}
	if err := f.file.Close(); err != nil {
		return fmt.Errorf("scratch: %w", err)
	}
	return nil
}
