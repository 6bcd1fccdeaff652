// Package resttest is the server of repositories, set up for tests of its clients: it fails as a
// test says.
package resttest

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/backend/restapi"
	"github.com/snap-backup/snap/repo/backend/restserver"
)

// Server serves one repository at /phones/. It is an [http.Handler].
type Server struct {
	Store          *memory.Backend
	User, Password string // "" if everybody may do everything
	AppendOnly     bool
	Free           int64 // what Snap-Free says; 0 if it says nothing
	// Before may answer a request instead of the server. It reports whether it has.
	Before func(w http.ResponseWriter, r *http.Request) bool
	// Lose makes the server carry out a request and then close the connection.
	Lose func(r *http.Request) bool

	once    sync.Once
	handler http.Handler

	mu       sync.Mutex
	exists   bool // whether the folder of the repository exists
	requests []string
}

// New returns a server whose folder does not exist yet.
func New() *Server { return &Server{Store: memory.New()} }

// base is the address of the repository.
const base = "/phones/"

// Requests returns the requests since the last call, such as "GET config".
func (s *Server) Requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.requests
	s.requests = nil
	return list
}

// Remove makes the folder of the repository disappear, as if its disk were unplugged.
func (s *Server) Remove() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.exists = false
}

// ServeHTTP implements [http.Handler].
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.once.Do(func() {
		s.handler = restserver.New(inFolder{s}, restserver.Options{
			Anybody: true, AppendOnly: func(string) bool { return s.AppendOnly }, Log: slog.New(slog.DiscardHandler),
		})
	})
	s.mu.Lock()
	s.requests = append(s.requests, r.Method+" "+cmp.Or(strings.TrimPrefix(r.URL.Path, base), "?"+r.URL.RawQuery))
	s.mu.Unlock()
	if s.Before != nil && s.Before(w, r) {
		return
	}
	user, password, _ := r.BasicAuth()
	switch {
	case user != s.User || password != s.Password:
		w.Header().Set(restapi.Version, "1")
		http.Error(w, "refused", http.StatusUnauthorized)
	case s.Lose != nil && s.Lose(r):
		s.handler.ServeHTTP(&lost{http.Header{}}, r.WithContext(context.WithoutCancel(r.Context())))
		panic(http.ErrAbortHandler)
	default:
		s.handler.ServeHTTP(w, r)
	}
}

// lost is the writer of an answer that does not arrive.
type lost struct{ h http.Header }

func (l *lost) Header() http.Header         { return l.h }
func (l *lost) Write(p []byte) (int, error) { return len(p), nil }
func (l *lost) WriteHeader(int)             {}

// inFolder is the store of the server. Everything in it is in the folder of the repository.
type inFolder struct{ s *Server }

func (b inFolder) name(name string) string { return strings.TrimPrefix("/"+name, base) }

func (b inFolder) Put(ctx context.Context, name string, data []byte) error {
	return b.s.Store.Put(ctx, b.name(name), data)
}

func (b inFolder) ReadAt(ctx context.Context, name string, p []byte, off int64) (int, error) {
	return b.s.Store.ReadAt(ctx, b.name(name), p, off)
}

func (b inFolder) Stat(ctx context.Context, name string) (backend.Info, error) {
	return b.s.Store.Stat(ctx, b.name(name))
}

func (b inFolder) Delete(ctx context.Context, name string) error {
	return b.s.Store.Delete(ctx, b.name(name))
}

func (b inFolder) List(ctx context.Context, prefix string, fn func(backend.Info) error) error {
	return b.s.Store.List(ctx, b.name(prefix), func(f backend.Info) error {
		f.Name = base[1:] + f.Name
		return fn(f)
	})
}

// Free implements [backend.Freer].
func (b inFolder) Free(context.Context) (int64, error) {
	if b.s.Free == 0 {
		return 0, errors.ErrUnsupported
	}
	return b.s.Free, nil
}

// MakeFolder implements [backend.Folders].
func (b inFolder) MakeFolder(context.Context, string) error {
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	b.s.exists = true
	return nil
}

// HasFolder implements [backend.Folders].
func (b inFolder) HasFolder(context.Context, string) (bool, error) {
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	return b.s.exists, nil
}

// MoveAside implements [backend.Folders].
func (b inFolder) MoveAside(context.Context, string) (string, error) { return "", nil }
