package backup2

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"testing"
	"unicode/utf8"
)

// memory is a Folder in memory. It checks that a session keeps the promises in
// the package comment.
type memory struct {
	t     testing.TB
	files map[string]string
	limit int // bytes
	open  int // number of uploads that are neither committed nor aborted
	calls int
	call  func(n int) // if not nil, gets the number of each call of a method
}

func newMemory(t testing.TB) *memory {
	return &memory{t: t, files: map[string]string{}, limit: 1 << 30}
}

func (m *memory) called(paths ...string) {
	for _, p := range paths {
		if p == "" || p != path.Clean(p) || path.IsAbs(p) || strings.HasPrefix(p, "..") || strings.ContainsAny(p, "\\\x00") || !utf8.ValidString(p) || !strings.HasPrefix(p, udid) {
			m.t.Errorf("the folder was called with %q", p)
		}
	}
	if m.open > 1 {
		m.t.Errorf("%d uploads at once", m.open)
	}
	if m.calls++; m.call != nil {
		m.call(m.calls)
	}
}

func (m *memory) Open(_ context.Context, p string) (io.ReadCloser, error) {
	m.called(p)
	content, ok := m.files[p]
	if !ok {
		return nil, fmt.Errorf("open %s: %w", p, fs.ErrNotExist)
	}
	return io.NopCloser(strings.NewReader(content)), nil
}

func (m *memory) Create(_ context.Context, p string) (Upload, error) {
	m.called(p)
	m.open++
	return &memoryUpload{m: m, path: p}, nil
}

type memoryUpload struct {
	m    *memory
	path string
	buf  bytes.Buffer
	done bool
}

func (u *memoryUpload) Write(b []byte) (int, error) {
	if u.m.limit -= len(b); u.m.limit < 0 {
		return 0, fmt.Errorf("write: %w", ErrNoSpace)
	}
	return u.buf.Write(b)
}

func (u *memoryUpload) end() {
	if !u.done {
		u.m.open--
	}
	u.done = true
}

func (u *memoryUpload) Commit() error {
	if u.done {
		u.m.t.Errorf("%q was ended twice", u.path)
	}
	u.end()
	u.m.called(u.path)
	u.m.files[u.path] = u.buf.String()
	return nil
}

func (u *memoryUpload) Abort() { u.end() }

func (m *memory) below(p string) []string {
	var all []string
	for name := range m.files {
		if name == p || strings.HasPrefix(name, p+"/") {
			all = append(all, name)
		}
	}
	return all
}

func (m *memory) List(_ context.Context, p string) ([]Item, error) {
	m.called(p)
	seen := map[string]Item{}
	for _, name := range m.below(p) {
		if name != p {
			first, _, deep := strings.Cut(name[len(p)+1:], "/")
			seen[first] = Item{Name: first, Dir: deep, Size: int64(len(m.files[name]))}
		}
	}
	var items []Item
	for _, item := range seen {
		items = append(items, item)
	}
	return items, nil
}

func (m *memory) Mkdir(_ context.Context, p string) error { m.called(p); return nil }

func (m *memory) transfer(from, to string, keep bool) error {
	m.called(from, to)
	names := m.below(from)
	if len(names) == 0 {
		return fs.ErrNotExist
	}
	moved := map[string]string{}
	for _, name := range names {
		moved[to+name[len(from):]] = m.files[name]
		if !keep {
			delete(m.files, name)
		}
	}
	for name, content := range moved {
		m.files[name] = content
	}
	return nil
}

func (m *memory) Move(_ context.Context, from, to string) error { return m.transfer(from, to, false) }

func (m *memory) Copy(_ context.Context, from, to string) error {
	if len(m.files) > 1000 {
		return ErrNoSpace // repeated copies of a folder into itself grow quickly
	}
	return m.transfer(from, to, true)
}

func (m *memory) Remove(_ context.Context, p string) error {
	m.called(p)
	names := m.below(p)
	for _, name := range names {
		delete(m.files, name)
	}
	if len(names) == 0 {
		return fs.ErrNotExist
	}
	return nil
}

func (m *memory) Space(context.Context) (int64, error) { m.called(); return 1 << 40, nil }
func (m *memory) Purge(_ context.Context, want int64) (int64, error) {
	m.called()
	return min(want, 1<<20), nil
}
