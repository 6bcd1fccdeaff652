// Package restserver serves the files of repositories over HTTP, as docs/rest.md describes
// it. Any backend can be behind it. The folders of its store are the repositories.
//
// # What it promises
//
//   - Only valid names get to the store, and a user with a private folder gets to no other.
//   - A file is stored only if all of its bytes arrived and have the SHA-256 that the client
//     has sent.
//   - A user who may only append removes nothing but locks and records of interrupted runs,
//     and replaces nothing.
//   - Memory is bounded: bodies wait until there is room for them, and clients that are too
//     slow are cut off.
//
// # What it never does
//
// It never has a password of a repository, and never reads what files contain. Passwords of
// users are in no log and no answer.
package restserver

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/restapi"
	"golang.org/x/sync/semaphore"
)

// Options configure a [Server].
type Options struct {
	// Users have passwords. If it is nil, there are no passwords.
	Users *Users
	// Certificates says that the common name of a client certificate is its user. The TLS
	// configuration of the server must verify certificates.
	Certificates bool
	// Anybody lets everybody in. Otherwise a request needs a user.
	Anybody bool
	// PrivateFolders says that a user may only use the folder of the user's name, and what is
	// below it.
	PrivateFolders bool
	// AppendOnly reports whether a user may only append. nil means that nobody is limited.
	AppendOnly func(user string) bool
	// Quota is how many bytes the folder of a user may have with PrivateFolders, and
	// otherwise the whole store; 0 is no limit.
	Quota int64
	// Log gets a record for each request. It must not be nil.
	Log *slog.Logger

	// The rest has defaults.

	MaxFile int64            // bytes of a file (256 MiB)
	Memory  int64            // bytes of uploads at a time; at least MaxFile (256 MiB). A quarter is left to other users
	Pace    time.Duration    // in which a client must move 256 KiB, or what is left (1 minute)
	Wait    time.Duration    // how long a request waits for memory (20 seconds)
	Now     func() time.Time // the clock
}

const (
	defaultMaxFile = 256 << 20
	downloads      = 64 << 20 // bytes of downloads in memory at a time
	readSize       = 4 << 20  // bytes that a download reads at a time
	paceSize       = 256 << 10
)

// Server is an [http.Handler]. Use [New].
type Server struct {
	store backend.Backend
	opts  Options

	uploads, downloads *semaphore.Weighted
	shares             shares
	quotas             *quotas
	names              nameLocks
	locks              lockOwners
	failures           failures
	stats              stats
	running            atomic.Int64
	stopping           atomic.Bool
	done               chan struct{} // gets a value when a request ends while the server stops
}

// New returns a server of the files of a store.
func New(store backend.Backend, opts Options) *Server {
	if opts.MaxFile == 0 {
		opts.MaxFile = defaultMaxFile
	}
	opts.Memory = max(opts.Memory, opts.MaxFile)
	if opts.Pace == 0 {
		opts.Pace = time.Minute
	}
	if opts.Wait == 0 {
		opts.Wait = 20 * time.Second
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.AppendOnly == nil {
		opts.AppendOnly = func(string) bool { return false }
	}
	return &Server{
		store: store, opts: opts,
		uploads: semaphore.NewWeighted(opts.Memory), downloads: semaphore.NewWeighted(downloads),
		shares:   shares{limit: max(1, opts.Memory/4*3), users: map[string]*semaphore.Weighted{}},
		quotas:   &quotas{store: store, limit: opts.Quota, now: opts.Now, scopes: map[string]*scope{}},
		names:    nameLocks{held: map[string]chan struct{}{}},
		locks:    lockOwners{start: opts.Now(), now: opts.Now, owners: map[string]lockOwner{}},
		failures: failures{now: opts.Now, guessers: map[[2]string]*failure{}},
		stats:    newStats(),
		done:     make(chan struct{}, 1),
	}
}

// request is one request that is answered.
type request struct {
	*Server
	*http.Request
	w    *answer
	user string
	t    target
}

// ServeHTTP implements [http.Handler].
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	begun := s.opts.Now()
	s.running.Add(1)
	defer s.ended()
	a := &answer{ResponseWriter: w, pace: s.opts.Pace}
	q := &request{Server: s, Request: r, w: a}
	w.Header().Set(restapi.Version, "1")
	a.begin(r.ContentLength != 0)
	err := q.serve()
	aborted := false
	if err != nil {
		s.refuse(q, err, &aborted)
	}
	s.record(r.Context(), q, err, aborted, s.opts.Now().Sub(begun))
	if aborted {
		panic(http.ErrAbortHandler) // the client sees that the answer is not complete
	}
}

// refuse answers an error. If the answer has begun, it can only be cut off.
func (s *Server) refuse(q *request, err error, aborted *bool) {
	if q.w.status != 0 {
		*aborted = true
		return
	}
	q.w.hurry()
	refusalOf(err).write(q.w)
}

// ended notes that a request has ended.
func (s *Server) ended() {
	if s.running.Add(-1) == 0 && s.stopping.Load() {
		select {
		case s.done <- struct{}{}:
		default:
		}
	}
}

// Stop answers new requests with 503 and waits until those that run have ended, or until ctx
// is done.
func (s *Server) Stop(ctx context.Context) {
	s.stopping.Store(true)
	for s.running.Load() > 0 {
		select {
		case <-s.done:
		case <-ctx.Done():
			return
		}
	}
}

func (q *request) serve() error {
	if q.stopping.Load() {
		q.w.Header().Set("Connection", "close")
		return &refusal{status: http.StatusServiceUnavailable, text: "the server stops", after: 30 * time.Second}
	}
	if err := q.authenticate(); err != nil {
		return err
	}
	wholeBase := kindOf(q.Request)
	var err error
	if q.t, err = parsePath(q.URL.Path, wholeBase); err != nil {
		return err
	}
	if q.opts.PrivateFolders && (q.user == "" || q.t.user() != q.user) {
		return &refusal{status: http.StatusForbidden, text: "this user may only use the folder of the same name"}
	}
	if q.opts.AppendOnly(q.user) {
		q.w.Header().Set(restapi.AppendOnly, "true")
	}
	err = q.dispatch(wholeBase)
	if errors.Is(err, backend.ErrNotExist) {
		if failed := q.baseExists(); failed != nil {
			err = failed // whether the file exists is not known
		}
	}
	return err
}

func (q *request) dispatch(wholeBase bool) error {
	folder := wholeBase || q.t.folder
	switch q.Method {
	case http.MethodHead:
		if wholeBase {
			return q.headBase()
		}
		return q.head()
	case http.MethodGet:
		if folder {
			return q.list(wholeBase)
		}
		return q.get()
	case http.MethodPost:
		if wholeBase {
			return q.create()
		}
		if !folder {
			return q.post()
		}
	case http.MethodDelete:
		if !folder {
			return q.remove()
		}
	default:
		q.w.Header().Set("Allow", "GET, HEAD, POST, DELETE")
		return &refusal{status: http.StatusMethodNotAllowed, text: "GET, HEAD, POST and DELETE are the methods of this protocol"}
	}
	return &refusal{status: http.StatusBadRequest, reason: restapi.ReasonName, text: "this request needs the name of a file"}
}

// scope returns the folder that a quota is about.
func (q *request) scope() string {
	if q.opts.PrivateFolders {
		return q.user + "/"
	}
	return ""
}

// create makes the folder of a repository.
func (q *request) create() error {
	f, ok := q.store.(backend.Folders)
	if !ok || q.t.base == "" {
		return q.ok()
	}
	folders, err := q.newFolders(q.t.base + "/")
	if err != nil {
		return err
	}
	made := func(bool) {}
	if folders > 0 { // who has used up a quota may still use the repository
		if made, err = q.quotas.take(q.Context(), q.scope(), 0, folders); err != nil {
			return err
		}
	}
	err = f.MakeFolder(q.Context(), q.t.base+"/")
	made(err == nil)
	if err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	return q.ok()
}

// baseExists returns an error if the folder of the repository is missing. Perhaps its disk is not
// connected: then nothing is known about files, and none may be put where the disk should be. In a
// store without folders, every folder exists.
func (q *request) baseExists() error {
	if f, ok := q.store.(backend.Folders); ok && q.t.base != "" {
		has, err := f.HasFolder(q.Context(), q.t.base+"/")
		if err != nil && !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
		if err == nil && !has {
			return &refusal{status: http.StatusNotFound, reason: restapi.ReasonNoFolder, text: "the folder of the repository does not exist"}
		}
	}
	return nil
}

// headBase tells whether the folder of a repository exists.
func (q *request) headBase() error {
	if err := q.baseExists(); err != nil {
		return err
	}
	free, known, err := q.free()
	if err != nil {
		return err
	}
	if known {
		q.w.Header().Set(restapi.Free, itoa(free))
	}
	return q.ok()
}

// free returns how many bytes can still be put.
func (q *request) free() (free int64, known bool, err error) {
	if f, ok := q.store.(backend.Freer); ok {
		free, err = f.Free(q.Context())
		known = err == nil
		if err != nil && !errors.Is(err, errors.ErrUnsupported) {
			return 0, false, err
		}
	}
	left, limited, err := q.quotas.free(q.Context(), q.scope())
	if limited && (!known || left < free) {
		free, known = left, true
	}
	return free, known, err
}

// ok answers without a body.
func (q *request) ok() error {
	q.w.hurry()
	q.w.WriteHeader(http.StatusOK)
	return nil
}

// nameLocks let only one request at a time change a file: some stores cannot refuse to
// overwrite, and a file that two requests remove must count once.
type nameLocks struct {
	mu   sync.Mutex
	held map[string]chan struct{}
}

// hold waits for a name. The caller calls release, unless the error is not nil.
func (l *nameLocks) hold(ctx context.Context, name string) (release func(), err error) {
	for {
		l.mu.Lock()
		other, taken := l.held[name]
		if !taken {
			mine := make(chan struct{})
			l.held[name] = mine
			l.mu.Unlock()
			return func() {
				l.mu.Lock()
				defer l.mu.Unlock()
				delete(l.held, name)
				close(mine)
			}, nil
		}
		l.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// isRemovable reports whether a user who may only append may remove a file. An ordinary
// backup removes its own lock, and the records of interrupted runs that it has continued.
func isRemovable(name string) bool {
	return strings.HasPrefix(name, "locks/") || strings.HasPrefix(name, "runs/")
}
