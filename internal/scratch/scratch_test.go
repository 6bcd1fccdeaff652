package scratch

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	mrand "math/rand/v2"
	"os"
	"sync"
	"testing"
	"testing/iotest"
)

// content returns n bytes in which no two pages are the same.
func content(n int) []byte {
	b := make([]byte, n)
	_, _ = mrand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

func write(t *testing.T, f *File, b []byte) {
	t.Helper()
	r := mrand.New(mrand.NewPCG(1, 2))
	for len(b) > 0 {
		n := min(len(b), 1+r.IntN(3*pageSize))
		if got, err := f.Write(b[:n]); got != n || err != nil {
			t.Fatalf("%d of %d bytes: %v", got, n, err)
		}
		b = b[n:]
	}
}

func names(t *testing.T, dir string) []os.DirEntry {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestFile(t *testing.T) {
	t.Parallel()
	const memory = 4 * pageSize
	for _, size := range []int{0, 1, pageSize - 1, pageSize, pageSize + 1, memory, memory + 1, 5 * pageSize, 80*pageSize + 17} {
		dir, b := t.TempDir(), content(size)
		f := New(dir, memory, rand.Reader)
		write(t, f, b)
		if f.Size() != int64(size) || (f.OnDisk() > 0) != (size >= 5*pageSize) || f.OnDisk() > int64(size)+int64(size)/pageSize*tagSize {
			t.Errorf("%d bytes: %d in all, %d on disk", size, f.Size(), f.OnDisk())
		}
		if left := names(t, dir); len(left) > 0 {
			t.Errorf("%d bytes: %v can be seen", size, left)
		}
		if err := iotest.TestReader(io.NewSectionReader(f, 0, f.Size()), b); err != nil {
			t.Errorf("%d bytes: %v", size, err)
		}
		var readers sync.WaitGroup
		for range 3 {
			readers.Go(func() {
				for range 50 {
					at := mrand.IntN(size + 2)
					part := make([]byte, mrand.IntN(2*pageSize))
					n, err := f.ReadAt(part, int64(at))
					end := max(at, min(size, at+len(part)))
					if at <= size && !bytes.Equal(part[:n], b[at:end]) || n < len(part) && !errors.Is(err, io.EOF) {
						t.Errorf("%d bytes at %d of %d: %d, %v", len(part), at, size, n, err)
					}
				}
			})
		}
		readers.Wait()
		if err := errors.Join(f.Close(), f.Close()); err != nil {
			t.Error(err)
		}
		if _, err := f.ReadAt(make([]byte, 1), 0); !errors.Is(err, os.ErrClosed) {
			t.Error(err)
		}
		if _, err := f.Write(b); !errors.Is(err, os.ErrClosed) {
			t.Error(err)
		}
	}
}

// The file on disk reveals nothing of the content, and a change to the file is noticed.
func TestSealed(t *testing.T) {
	t.Parallel()
	f := New(t.TempDir(), 0, rand.Reader)
	defer f.Close()
	text := bytes.Repeat([]byte("a secret "), 10_000)
	write(t, f, text)
	raw := make([]byte, f.OnDisk())
	if _, err := f.file.ReadAt(raw, 0); err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(raw, []byte("secret")) || bytes.Equal(raw[:pageSize], raw[sealedSize:sealedSize+pageSize]) {
		t.Error("the content can be read on disk")
	}
	raw[sealedSize+3] ^= 1
	if _, err := f.file.WriteAt(raw, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := f.ReadAt(make([]byte, 9), 0); err != nil {
		t.Error(err)
	}
	if _, err := f.ReadAt(make([]byte, 9), pageSize); err == nil {
		t.Error("a changed page was read")
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	for _, f := range []*File{
		New(t.TempDir()+"/missing", 0, rand.Reader),
		New(t.TempDir(), 0, iotest.ErrReader(errors.New("no randomness"))),
	} {
		if _, err := f.Write(make([]byte, pageSize)); err == nil {
			t.Error("no error")
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
	f := New("", 0, nil)
	if _, err := f.ReadAt(nil, -1); err == nil {
		t.Error("no error")
	}
}
