// Package resttest is a small server of the protocol of docs/rest.md, for tests of its
// clients. It fails as a test says.
package resttest

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/backend/restapi"
)

// maxFile bounds a file.
const maxFile = 512 << 20

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
	name, ours := strings.CutPrefix(r.URL.Path, base)
	s.mu.Lock()
	s.requests = append(s.requests, r.Method+" "+cmp.Or(name, "?"+r.URL.RawQuery))
	if ours && r.Method == http.MethodPost && r.URL.Query().Get("create") == "true" {
		s.exists = true
	}
	exists := s.exists
	s.mu.Unlock()
	if s.Before != nil && s.Before(w, r) {
		return
	}
	w.Header().Set(restapi.Version, "1")
	if s.AppendOnly {
		w.Header().Set(restapi.AppendOnly, "true")
	}
	user, password, _ := r.BasicAuth()
	a := &answer{w: w}
	switch {
	case user != s.User || password != s.Password:
		a.refuse(http.StatusUnauthorized, "")
	case !ours, !exists:
		a.refuse(http.StatusNotFound, restapi.ReasonNoFolder)
	case s.Lose != nil && s.Lose(r):
		s.serve(&answer{w: &lost{http.Header{}}}, r, name)
		panic(http.ErrAbortHandler)
	default:
		s.serve(a, r, name)
	}
}

// lost is the writer of an answer that does not arrive.
type lost struct{ h http.Header }

func (l *lost) Header() http.Header         { return l.h }
func (l *lost) Write(p []byte) (int, error) { return len(p), nil }
func (l *lost) WriteHeader(int)             {}

type answer struct{ w http.ResponseWriter }

func (a *answer) refuse(status int, reason string) {
	if reason != "" {
		a.w.Header().Set(restapi.Reason, reason)
	}
	http.Error(a.w, "refused: "+reason, status)
}

// fail answers with an error of the store.
func (a *answer) fail(err error) {
	switch {
	case errors.Is(err, backend.ErrNotExist):
		a.refuse(http.StatusNotFound, restapi.ReasonNoFile)
	case errors.Is(err, backend.ErrExist):
		a.refuse(http.StatusConflict, restapi.ReasonExists)
	case errors.Is(err, backend.ErrNotFolder):
		a.refuse(http.StatusConflict, restapi.ReasonNotFolder)
	case errors.Is(err, backend.ErrInvalidName):
		a.refuse(http.StatusBadRequest, restapi.ReasonName)
	case errors.Is(err, backend.ErrNoSpace):
		a.refuse(http.StatusInsufficientStorage, restapi.ReasonFull)
	default:
		a.refuse(http.StatusInternalServerError, "")
	}
}

func (s *Server) serve(a *answer, r *http.Request, name string) {
	ctx := context.WithoutCancel(r.Context())
	switch {
	case name == "" && r.Method == http.MethodPost:
	case name == "" && r.Method == http.MethodHead:
		if s.Free > 0 {
			a.w.Header().Set(restapi.Free, strconv.FormatInt(s.Free, 10))
		}
	case r.Method == http.MethodGet && (name == "" || strings.HasSuffix(name, "/")):
		s.list(ctx, a, r, name)
	case r.Method == http.MethodPost:
		s.put(ctx, a, r, name)
	case r.Method == http.MethodDelete:
		if s.AppendOnly && !strings.HasPrefix(name, "locks/") && !strings.HasPrefix(name, "runs/") {
			a.refuse(http.StatusForbidden, restapi.ReasonAppendOnly)
			return
		}
		if err := s.Store.Delete(ctx, name); err != nil {
			a.fail(err)
		}
	default:
		s.get(ctx, a, r, name)
	}
}

func (s *Server) put(ctx context.Context, a *answer, r *http.Request, name string) {
	data, err := io.ReadAll(io.LimitReader(r.Body, maxFile))
	sum := sha256.Sum256(data)
	if err != nil || int64(len(data)) != r.ContentLength || hex.EncodeToString(sum[:]) != r.Header.Get(restapi.SHA256) {
		a.refuse(http.StatusBadRequest, restapi.ReasonChecksum)
		return
	}
	if err := s.Store.Put(ctx, name, data); err != nil {
		a.fail(err)
		return
	}
	a.w.Header().Set(restapi.SHA256, hex.EncodeToString(sum[:]))
}

func (s *Server) get(ctx context.Context, a *answer, r *http.Request, name string) {
	info, err := s.Store.Stat(ctx, name)
	var data []byte
	if err == nil {
		data, err = backend.ReadAll(ctx, s.Store, name, maxFile)
	}
	if err != nil {
		a.fail(err)
		return
	}
	header := a.w.Header()
	header.Set(restapi.Modified, info.Modified.UTC().Format(time.RFC3339Nano))
	status := http.StatusOK
	if text := r.Header.Get("Range"); text != "" {
		var first, last int64
		if _, err := fmt.Sscanf(text, "bytes=%d-%d", &first, &last); err != nil || first >= int64(len(data)) {
			a.refuse(http.StatusRequestedRangeNotSatisfiable, "")
			return
		}
		last = min(last, int64(len(data))-1)
		header.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, last, len(data)))
		data, status = data[first:last+1], http.StatusPartialContent
	}
	header.Set("Content-Length", strconv.Itoa(len(data)))
	a.w.WriteHeader(status)
	if r.Method == http.MethodGet {
		_, _ = a.w.Write(data)
	}
}

func (s *Server) list(ctx context.Context, a *answer, r *http.Request, folder string) {
	list := []restapi.Entry{}
	q := r.URL.Query()
	err := s.Store.List(ctx, folder, func(f backend.Info) error {
		if f.Name > q.Get("after") && (q.Get("before") == "" || f.Name < q.Get("before")) {
			list = append(list, restapi.Entry{Name: f.Name, Size: f.Size, Modified: f.Modified})
		}
		return nil
	})
	if err != nil {
		a.fail(err)
		return
	}
	a.w.Header().Set("Content-Type", restapi.MediaType)
	_ = json.NewEncoder(a.w).Encode(list)
}
