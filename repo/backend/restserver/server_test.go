package restserver

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/fault"
	"github.com/snap-backup/snap/repo/backend/local"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/backend/restapi"
	"github.com/snap-backup/snap/repo/internal/layout"
)

// ask sends a request to a handler.
func ask(h http.Handler, method, path string, body []byte, change func(r *http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "/", bytes.NewReader(body))
	r.URL.Path, r.URL.RawQuery, _ = strings.Cut(path, "?")
	if body != nil {
		sum := sha256.Sum256(body)
		r.Header.Set(restapi.SHA256, hex.EncodeToString(sum[:]))
	}
	if change != nil {
		change(r)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// as lets a request come from a user, without a password: the log of these tests needs none.
func (s *Server) as(user string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.SetBasicAuth(user, "pw-"+user)
		s.ServeHTTP(w, r)
	})
}

// withUsers returns options for users whose passwords are "pw-" and their names.
func withUsers(t *testing.T, names ...string) Options {
	t.Helper()
	var file []byte
	for _, name := range names {
		var err error
		if file, _, err = SetPassword(file, name, "pw-"+name, 4); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(t.TempDir(), "htpasswd")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	users, err := OpenUsers(path, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	return Options{Users: users, Log: slog.New(slog.DiscardHandler)}
}

func stored(t *testing.T, be backend.Backend) (names []string) {
	t.Helper()
	if err := be.List(t.Context(), "", func(f backend.Info) error { names = append(names, f.Name); return nil }); err != nil {
		t.Fatal(err)
	}
	return names
}

func expect(t *testing.T, w *httptest.ResponseRecorder, status int, reason string) {
	t.Helper()
	if w.Code != status || w.Header().Get(restapi.Reason) != reason {
		t.Errorf("status %d, reason %q, want %d, %q: %s", w.Code, w.Header().Get(restapi.Reason), status, reason, w.Body)
	}
	if w.Header().Get(restapi.Version) != "1" {
		t.Error("the answer does not say that it is from a server of snap")
	}
}

// A hostile path gets to no file, in any request.
func TestHostileNames(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	store := filepath.Join(dir, "store")
	if err := errors.Join(os.Mkdir(store, 0o700), os.WriteFile(filepath.Join(dir, "secret"), []byte("secret"), 0o600)); err != nil {
		t.Fatal(err)
	}
	be, err := local.Open(store)
	if err != nil {
		t.Fatal(err)
	}
	defer be.Close()
	s := New(be, quiet())
	for _, path := range []string{
		"/../secret", "/phones/../../secret", "/phones/keys/../../../secret", "//secret", "/phones//keys/x", "/./x", "/phones/keys/.",
		"/phones/keys/..", "/phones/keys/...", "/phones/Keys/x", "/phones/keys/a\x00b", "/phones/keys/a\nb", "/phones/keys/a\r\nSnap-Free: 1",
		"/phones/keys/ä", "/phones/keys/a b", "/phones/keys/con", "/phones/keys/nul.txt", "/phones/tmp/put-1", "/tmp/put-1", "/phones/keys/.x",
		"/phones/keys/x.", `/phones/keys/a\b`, `\..\secret`, "/C:/x", "/phones/keys/" + strings.Repeat("a", 300), "/" + strings.Repeat("a/", 300) + "b",
		"/phones/keys/%2e%2e", "secret", "*",
	} {
		for _, method := range []string{http.MethodHead, http.MethodGet, http.MethodPost, http.MethodDelete} {
			for _, tail := range []string{"", "/", "/?after=", "?create=true"} {
				w := ask(s, method, path+tail, []byte("x"), nil)
				if w.Code < 400 || strings.Contains(w.Body.String(), "secret") {
					t.Errorf("%s %q: status %d: %s", method, path+tail, w.Code, w.Body)
				}
				if w.Header().Get(restapi.Free) != "" || strings.Contains(w.Body.String(), dir) {
					t.Errorf("%s %q: the answer has %q", method, path+tail, w.Body)
				}
			}
		}
	}
	if list, err := os.ReadDir(store); err != nil || len(list) > 0 {
		t.Errorf("the store has %v, %v", list, err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "secret")); err != nil || string(b) != "secret" {
		t.Error("the file outside was changed")
	}
}

// A body that is not what its headers say is not stored, and one that is too long is not
// read.
func TestHostileBodies(t *testing.T) {
	t.Parallel()
	be := memory.New()
	opts := quiet()
	opts.MaxFile, opts.Memory = 1000, 1000
	s := New(be, opts)
	body := []byte("content")
	for what, test := range map[string]struct {
		status int
		reason string
		change func(r *http.Request)
	}{
		"no hash":    {400, restapi.ReasonChecksum, func(r *http.Request) { r.Header.Del(restapi.SHA256) }},
		"short hash": {400, restapi.ReasonChecksum, func(r *http.Request) { r.Header.Set(restapi.SHA256, "00ff") }},
		"no hex":     {400, restapi.ReasonChecksum, func(r *http.Request) { r.Header.Set(restapi.SHA256, strings.Repeat("zz", 32)) }},
		"wrong hash": {400, restapi.ReasonChecksum, func(r *http.Request) { r.Header.Set(restapi.SHA256, strings.Repeat("00", 32)) }},
		"short body": {400, restapi.ReasonChecksum, func(r *http.Request) { r.ContentLength++ }},
		"no length":  {411, "", func(r *http.Request) { r.ContentLength = -1 }},
		"chunked":    {411, "", func(r *http.Request) { r.TransferEncoding = []string{"chunked"} }},
		"huge":       {413, "", func(r *http.Request) { r.ContentLength = 1 << 62; r.Body = unreadable{t} }},
		"too long":   {413, "", func(r *http.Request) { r.ContentLength = 1001; r.Body = unreadable{t} }},
		"no file":    {400, restapi.ReasonName, func(r *http.Request) { r.URL.Path = "/phones/" }},
		"put":        {405, "", func(r *http.Request) { r.Method = http.MethodPut }},
	} {
		t.Run(what, func(t *testing.T) {
			expect(t, ask(s, http.MethodPost, "/phones/keys/x", body, test.change), test.status, test.reason)
		})
	}
	if names := stored(t, be); len(names) > 0 {
		t.Errorf("stored %q", names)
	}
	expect(t, ask(s, http.MethodPost, "/phones/keys/x", body, nil), 200, "")
	expect(t, ask(s, http.MethodPost, "/phones/keys/x", []byte("other"), nil), 409, restapi.ReasonExists)
	if got := ask(s, http.MethodGet, "/phones/keys/x", nil, nil).Body.String(); got != "content" {
		t.Errorf("got %q", got)
	}
}

type unreadable struct{ t *testing.T }

func (u unreadable) Read([]byte) (int, error) { u.t.Error("the body was read"); return 0, io.EOF }
func (unreadable) Close() error               { return nil }

// Parts of files, and what a client that asks for nonsense gets.
func TestRanges(t *testing.T) {
	t.Parallel()
	be := memory.New()
	s := New(be, quiet())
	if err := errors.Join(be.Put(t.Context(), "phones/config", []byte("0123456789")), be.Put(t.Context(), "phones/keys/e", nil)); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		header string
		status int
		body   string
		ranged string
	}{
		{"", 200, "0123456789", ""}, {"bytes=0-0", 206, "0", "bytes 0-0/10"}, {"bytes=2-4", 206, "234", "bytes 2-4/10"},
		{"bytes=8-100", 206, "89", "bytes 8-9/10"}, {"bytes=9-", 206, "9", "bytes 9-9/10"}, {"bytes=-3", 206, "789", "bytes 7-9/10"},
		{"bytes=-100", 206, "0123456789", "bytes 0-9/10"}, {"bytes=10-", 416, "", "bytes */10"}, {"bytes=-0", 416, "", "bytes */10"},
		{"bytes=5-2", 200, "0123456789", ""}, {"bytes=0-1,3-4", 200, "0123456789", ""}, {"lines=1-2", 200, "0123456789", ""},
		{"bytes=+1-2", 200, "0123456789", ""}, {"bytes=99999999999999999999-", 200, "0123456789", ""},
	} {
		w := ask(s, http.MethodGet, "/phones/config", nil, func(r *http.Request) {
			if test.header != "" {
				r.Header.Set("Range", test.header)
			}
		})
		if w.Code != test.status || w.Header().Get("Content-Range") != test.ranged || test.status < 300 && w.Body.String() != test.body {
			t.Errorf("%q: status %d, %q, %q", test.header, w.Code, w.Header().Get("Content-Range"), w.Body)
		}
	}
	if w := ask(s, http.MethodGet, "/phones/keys/e", nil, nil); w.Code != 200 || w.Body.Len() > 0 || w.Header().Get("Content-Length") != "0" {
		t.Errorf("an empty file: %d, %q", w.Code, w.Body)
	}
}

// A user has one folder and gets to no other, in any request.
func TestPrivateFolders(t *testing.T) {
	t.Parallel()
	be := memory.New()
	opts := withUsers(t, "anna", "ben", "Carl", "keys", "con")
	opts.PrivateFolders = true
	if got := opts.Users.WithoutFolder(); !slices.Equal(got, []string{"Carl", "con", "keys"}) {
		t.Errorf("users without a folder: %q", got)
	}
	s := New(be, opts)
	for _, base := range []string{"/anna/", "/anna/phones/"} {
		expect(t, ask(s.as("anna"), http.MethodPost, base+"?create=true", nil, nil), 200, "")
		expect(t, ask(s.as("anna"), http.MethodPost, base+"config", []byte("x"), nil), 200, "")
	}
	for user, paths := range map[string][]string{
		"anna": {"/ben/", "/", "/config", "/annab/", "/anna.b/keys/x", "/keys/anna"},
		"ben":  {"/anna/", "/anna/phones/", "/anna/config", "/anna/phones/config", "/"},
		"Carl": {"/Carl/", "/carl/", "/anna/", "/"},
		"keys": {"/keys/", "/keys/x", "/anna/", "/"},
	} {
		for _, path := range paths {
			for _, method := range []string{http.MethodHead, http.MethodGet, http.MethodPost, http.MethodDelete} {
				for _, query := range []string{"", "?create=true", "?after=&before="} {
					if w := ask(s.as(user), method, path+query, []byte("y"), nil); w.Code != 403 && w.Code != 400 {
						t.Errorf("%s: %s %s: status %d", user, method, path+query, w.Code)
					}
				}
			}
		}
	}
	if got := stored(t, be); !slices.Equal(got, []string{"anna/config", "anna/phones/config"}) {
		t.Errorf("the store has %q", got)
	}
}

// A user who may only append removes locks and records of interrupted runs, and no other file
// of any folder. Nobody overwrites anything.
func TestAppendOnly(t *testing.T) {
	t.Parallel()
	be := memory.New()
	opts := withUsers(t, "anna", "root")
	opts.AppendOnly = func(user string) bool { return user == "anna" }
	s := New(be, opts)
	names := []string{layout.ConfigName, layout.ReserveName, "packs/ab/ab12", "healing/packs/ab/ab12", "healing/locks/x", "other/x", "locks.old/x"}
	for _, dir := range []string{
		layout.KeysDir, layout.ConfigsDir, layout.IndexDir, layout.SnapshotsDir, layout.PrunesDir, layout.SecretsDir, layout.ChecksDir,
		layout.ParityDir, layout.CertificatesDir, layout.LedgerDir, layout.MirroredDir,
	} {
		names = append(names, dir+"x")
	}
	for _, name := range names {
		w := ask(s.as("anna"), http.MethodPost, "/phones/"+name, []byte("x"), nil)
		expect(t, w, 200, "")
		if w.Header().Get(restapi.AppendOnly) != "true" {
			t.Error("the answer does not say that this user may only append")
		}
		expect(t, ask(s.as("anna"), http.MethodPost, "/phones/"+name, []byte("y"), nil), 409, restapi.ReasonExists)
		expect(t, ask(s.as("anna"), http.MethodDelete, "/phones/"+name, nil, nil), 403, restapi.ReasonAppendOnly)
		// A base path that makes the name look like that of a lock.
		expect(t, ask(s.as("anna"), http.MethodDelete, "/phones/"+strings.Replace(name, "/", "/locks/../", 1), nil, nil), map[bool]int{true: 400, false: 403}[strings.Contains(name, "/")],
			map[bool]string{true: restapi.ReasonName, false: restapi.ReasonAppendOnly}[strings.Contains(name, "/")])
	}
	if got := stored(t, be); len(got) != len(names) {
		t.Errorf("the store has %q", got)
	}
	// What does not exist is no secret: the removal of a file that an interrupted repair could
	// have left is a part of every removal.
	expect(t, ask(s.as("anna"), http.MethodDelete, "/phones/healing/runs/x", nil, nil), 404, restapi.ReasonNoFile)
	for _, name := range []string{layout.LocksDir + "x", layout.RunsDir + "x"} {
		expect(t, ask(s.as("anna"), http.MethodPost, "/phones/"+name, []byte("x"), nil), 200, "")
		expect(t, ask(s.as("anna"), http.MethodDelete, "/phones/"+name, nil, nil), 200, "")
	}
	for _, name := range names {
		w := ask(s.as("root"), http.MethodDelete, "/phones/"+name, nil, nil)
		expect(t, w, 200, "")
		if w.Header().Get(restapi.AppendOnly) != "" {
			t.Error("a user who may remove files is told otherwise")
		}
	}
}

// A user who may only append cannot end the prune of another by removing its lock. A lock that
// was left behind, or put before the server began, can be removed.
func TestLocksOfOthers(t *testing.T) {
	t.Parallel()
	be := memory.New()
	now := time.Now()
	be.SetClock(func() time.Time { return now })
	opts := withUsers(t, "anna", "ben", "root")
	opts.AppendOnly = func(user string) bool { return user != "root" }
	opts.Now = func() time.Time { return now }
	if err := be.Put(t.Context(), "phones/locks/old", nil); err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Minute)
	s := New(be, opts)
	now = now.Add(time.Minute)
	if err := be.Put(t.Context(), "phones/locks/local", nil); err != nil { // a prune on the server itself
		t.Fatal(err)
	}
	expect(t, ask(s.as("root"), http.MethodPost, "/phones/locks/prune", []byte("x"), nil), 200, "")
	expect(t, ask(s.as("ben"), http.MethodPost, "/phones/locks/ben", []byte("x"), nil), 200, "")
	for _, name := range []string{"local", "prune", "ben"} {
		expect(t, ask(s.as("anna"), http.MethodDelete, "/phones/locks/"+name, nil, nil), 403, restapi.ReasonAppendOnly)
	}
	expect(t, ask(s.as("anna"), http.MethodDelete, "/phones/locks/old", nil, nil), 200, "")
	expect(t, ask(s.as("ben"), http.MethodDelete, "/phones/locks/ben", nil, nil), 200, "")
	now = now.Add(31 * time.Minute)
	for _, name := range []string{"local", "prune"} {
		expect(t, ask(s.as("anna"), http.MethodDelete, "/phones/locks/"+name, nil, nil), 200, "")
	}
}

// A quota holds, also for empty files and for uploads at the same time, and what is removed
// is given back once.
func TestQuota(t *testing.T) {
	t.Parallel()
	be := memory.New()
	opts := withUsers(t, "anna", "ben")
	opts.PrivateFolders, opts.Quota = true, 10*4096
	s := New(be, opts)
	var wg sync.WaitGroup
	for i := range 30 {
		wg.Go(func() { ask(s.as("anna"), http.MethodPost, fmt.Sprintf("/anna/keys/%d", i), []byte{}, nil) })
	}
	wg.Wait()
	if got := stored(t, be); len(got) != 10 {
		t.Errorf("%d files were stored", len(got))
	}
	expect(t, ask(s.as("anna"), http.MethodPost, "/anna/config", []byte("x"), nil), 507, restapi.ReasonQuota)
	expect(t, ask(s.as("ben"), http.MethodPost, "/ben/config", make([]byte, 9*4096+1), nil), 200, "")
	expect(t, ask(s.as("ben"), http.MethodPost, "/ben/keys/x", []byte{}, nil), 507, restapi.ReasonQuota)
	if free := ask(s.as("ben"), http.MethodHead, "/ben/", nil, nil).Header().Get(restapi.Free); free != "0" {
		t.Errorf("free: %q", free)
	}
	for range 10 {
		wg.Go(func() { ask(s.as("ben"), http.MethodDelete, "/ben/config", nil, nil) })
	}
	wg.Wait()
	if free := ask(s.as("ben"), http.MethodHead, "/ben/", nil, nil).Header().Get(restapi.Free); free != "40960" {
		t.Errorf("free: %q", free)
	}
	expect(t, ask(s.as("ben"), http.MethodPost, "/ben/keys/y", make([]byte, 10*4096), func(r *http.Request) { r.Header.Del(restapi.SHA256) }), 400, restapi.ReasonChecksum)
	expect(t, ask(s.as("ben"), http.MethodPost, "/ben/keys/y", make([]byte, 10*4096), nil), 200, "")
}

// Folders take room, too, and go on doing so after files are counted anew. Those that exist
// cost nothing.
func TestQuotaOfFolders(t *testing.T) {
	t.Parallel()
	be, err := local.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	opts := quiet()
	opts.Quota, opts.Now = 10*4096, func() time.Time { return now }
	s := New(be, opts)
	for i := range 6 {
		expect(t, ask(s, http.MethodPost, fmt.Sprintf("/a%d/?create=true", i), nil, nil), 200, "")
	}
	for range 20 {
		expect(t, ask(s, http.MethodPost, "/a1/?create=true", nil, nil), 200, "")
	}
	now = now.Add(2 * recount)
	expect(t, ask(s, http.MethodPost, "/b/c/d/e/f/?create=true", nil, nil), 507, restapi.ReasonQuota)
	expect(t, ask(s, http.MethodPost, "/a1/keys/1/2/x", []byte{}, nil), 200, "") // 3 folders, 1 file
	expect(t, ask(s, http.MethodPost, "/c/?create=true", nil, nil), 507, restapi.ReasonQuota)
	expect(t, ask(s, http.MethodPost, "/a1/?create=true", nil, nil), 200, "")
	expect(t, ask(s, http.MethodDelete, "/a1/keys/1/2/x", nil, nil), 200, "")
	expect(t, ask(s, http.MethodPost, "/a1/keys/3/x", []byte{}, nil), 507, restapi.ReasonQuota)
	expect(t, ask(s, http.MethodPost, "/a1/keys/x", []byte{}, nil), 200, "")
}

// Errors of the store have their status, and no path of the server gets out.
func TestErrorsOfTheStore(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		err    error
		status int
		reason string
	}{
		{backend.ErrNotFolder, 409, restapi.ReasonNotFolder},
		{backend.ErrNotRegular, 409, restapi.ReasonNotRegular},
		{backend.ErrExist, 409, restapi.ReasonExists},
		{backend.ErrNoSpace, 507, restapi.ReasonFull},
		{syscall.ENOSPC, 507, restapi.ReasonFull},
		{os.ErrPermission, 403, ""},
		{backend.ErrOutOfReach, 503, ""},
		{&backend.TemporaryError{Err: errors.New("reset")}, 503, ""},
		{context.DeadlineExceeded, 503, ""},
		{errors.New("read /srv/secret: bad sector"), 500, ""},
	} {
		s := New(broken{memory.New(), fmt.Errorf("open /srv/secret: %w", test.err)}, quiet())
		for _, method := range []string{http.MethodHead, http.MethodGet, http.MethodPost, http.MethodDelete} {
			w := ask(s, method, "/phones/config", []byte("x"), nil)
			expect(t, w, test.status, test.reason)
			if strings.Contains(w.Body.String(), "secret") {
				t.Errorf("the client sees %q", w.Body)
			}
			if test.status == 503 && w.Header().Get("Retry-After") == "" {
				t.Error("the client does not learn when to try again")
			}
		}
		expect(t, ask(s, http.MethodGet, "/phones/keys/", nil, nil), test.status, test.reason)
	}
}

// broken fails every operation.
type broken struct {
	backend.Backend
	err error
}

func (b broken) Put(context.Context, string, []byte) error                    { return b.err }
func (b broken) Delete(context.Context, string) error                         { return b.err }
func (b broken) Stat(context.Context, string) (backend.Info, error)           { return backend.Info{}, b.err }
func (b broken) List(context.Context, string, func(backend.Info) error) error { return b.err }

// If the store fails while an answer is on its way, the client sees that it is not complete.
func TestAnswersThatBreakOff(t *testing.T) {
	t.Parallel()
	be := memory.New()
	for i := range 2000 {
		if err := be.Put(t.Context(), fmt.Sprintf("phones/packs/ab/%064d", i), nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := be.Put(t.Context(), "phones/config", make([]byte, 3*readSize)); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	opts := quiet()
	opts.Log = slog.New(slog.NewTextHandler(&log, nil))
	srv := httptest.NewServer(New(&halfway{Backend: be}, opts))
	c := &remote{base: srv.URL + "/phones/", hc: srv.Client()}
	for _, path := range []string{"packs/", "?after=&before=", "config"} {
		a, err := c.do(t.Context(), http.MethodGet, path, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(a.Body)
		if err == nil || len(b) == 0 || bytes.HasSuffix(bytes.TrimSpace(b), []byte("]")) {
			t.Errorf("%s: %d bytes, error %v", path, len(b), err)
		}
		a.Body.Close()
	}
	srv.Close() // it waits for requests, which write the log after the client sees the end
	if n := strings.Count(log.String(), "aborted=true"); n != 3 {
		t.Errorf("%d answers were aborted: %s", n, log.String())
	}
}

// halfway fails in the middle of files and listings.
type halfway struct{ backend.Backend }

func (h *halfway) ReadAt(ctx context.Context, name string, p []byte, off int64) (int, error) {
	if off > 0 {
		return 0, errors.New("bad sector")
	}
	return h.Backend.ReadAt(ctx, name, p, off)
}

func (h *halfway) List(ctx context.Context, prefix string, fn func(backend.Info) error) error {
	n := 0
	return h.Backend.List(ctx, prefix, func(f backend.Info) error {
		if n++; n > 1500 {
			return errors.New("bad sector")
		}
		return fn(f)
	})
}

// Whatever the store fails at, a file is stored completely or not at all, and the quota stays
// right.
func TestFailuresAtEveryStep(t *testing.T) {
	t.Parallel()
	bad := errors.New("bad sector")
	for n := range 12 {
		be := memory.New()
		opts := quiet()
		opts.Quota = 100 * 4096
		plan := fault.Once(n/2+1, bad)
		if n%2 == 1 {
			plan = fault.OnceAfter(n/2+1, bad)
		}
		s := New(fault.New(be, plan), opts)
		ok := 0
		for i := range 3 {
			if ask(s, http.MethodPost, fmt.Sprintf("/phones/keys/%d", i), []byte("x"), nil).Code == 200 {
				ok++
			}
		}
		got := len(stored(t, be))
		if got < ok || got > ok+1 {
			t.Errorf("%d files were reported, %d are stored", ok, got)
		}
		// A file that was stored although its request failed counts from the next count on.
		if left, _, err := s.quotas.free(t.Context(), ""); err != nil || left < int64(100-got)*4096 || left > int64(100-ok)*4096 {
			t.Errorf("%d are left, %v", left, err)
		}
	}
}

// Uploads wait for memory, and are refused if they wait too long.
func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		be := memory.New()
		opts := quiet()
		opts.MaxFile, opts.Memory, opts.Wait = 100, 100, 20*time.Second
		s := New(be, opts)
		slow, feed := io.Pipe()
		first := make(chan *httptest.ResponseRecorder)
		body := bytes.Repeat([]byte("x"), 100)
		go func() {
			first <- ask(s, http.MethodPost, "/phones/keys/1", body, func(r *http.Request) { r.Body = slow })
		}()
		synctest.Wait()
		w := ask(s, http.MethodPost, "/phones/keys/2", body, nil)
		expect(t, w, 503, "")
		if w.Header().Get("Retry-After") == "" {
			t.Error("the client does not learn when to try again")
		}
		_, _ = feed.Write(body)
		expect(t, <-first, 200, "")
		expect(t, ask(s, http.MethodPost, "/phones/keys/2", body, nil), 200, "")
	})
}

// A client that sends nothing, or takes nothing, is cut off.
func TestSlowClients(t *testing.T) {
	t.Parallel()
	be := memory.New()
	if err := be.Put(t.Context(), "phones/config", make([]byte, 32<<20)); err != nil {
		t.Fatal(err)
	}
	opts := quiet()
	opts.Pace = 50 * time.Millisecond
	srv := httptest.NewServer(New(be, opts))
	defer srv.Close()
	for what, request := range map[string]string{
		"sends no body":        "POST /phones/keys/x HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\nSnap-Sha256: " + strings.Repeat("00", 32) + "\r\n\r\nab",
		"sends no body to 404": "DELETE /phones/keys/x HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n",
		"takes no answer":      "GET /phones/config HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		c, err := net.Dial("tcp", srv.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, request); err != nil {
			t.Fatal(err)
		}
		if what == "takes no answer" {
			time.Sleep(5 * opts.Pace)
		}
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
		n, err := io.Copy(io.Discard, c)
		if err, ok := errors.AsType[net.Error](err); ok && err.Timeout() || n >= 32<<20 {
			t.Errorf("a client that %s: %d bytes, %v", what, n, err)
		}
		c.Close()
	}
	if got := stored(t, be); len(got) != 1 {
		t.Errorf("the store has %q", got)
	}
}

// A server that stops finishes what runs, and answers new requests with 503.
func TestStop(t *testing.T) {
	t.Parallel()
	be := memory.New()
	s := New(be, quiet())
	on, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- Serve(ctx, on, s, nil, 10*time.Second) }()
	body := []byte("content")
	sum := sha256.Sum256(body)
	slow, err := net.Dial("tcp", on.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	fmt.Fprintf(slow, "POST /phones/keys/x HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\nSnap-Sha256: %x\r\n\r\n", sum)
	for s.running.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	stop()
	for !s.stopping.Load() {
		time.Sleep(time.Millisecond)
	}
	a, err := http.Get("http://" + on.Addr().String() + "/phones/config")
	if err != nil {
		t.Fatal(err)
	}
	a.Body.Close()
	if a.StatusCode != 503 || a.Header.Get("Retry-After") == "" {
		t.Errorf("status %s", a.Status)
	}
	if _, err := slow.Write(body); err != nil {
		t.Fatal(err)
	}
	if a, err = http.ReadResponse(bufio.NewReader(slow), nil); err != nil || a.StatusCode != 200 {
		t.Errorf("the request that ran: %v, %v", a, err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
	if got := stored(t, be); len(got) != 1 {
		t.Errorf("the store has %q", got)
	}
	// A client that never ends its request does not keep the server.
	on, err = net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop = context.WithCancel(t.Context())
	s = New(be, quiet())
	go func() { served <- Serve(ctx, on, s, nil, 10*time.Millisecond) }()
	never, err := net.Dial("tcp", on.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer never.Close()
	fmt.Fprintf(never, "POST /phones/keys/y HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\nSnap-Sha256: %x\r\n\r\n", sum)
	for s.running.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// A process that uses the folder of a repository without the server has temporary files
// there. No listing shows them.
func TestFoldersThatOthersUse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	be, err := local.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer be.Close()
	s := New(be, quiet())
	expect(t, ask(s, http.MethodHead, "/phones/", nil, nil), 404, restapi.ReasonNoFolder)
	expect(t, ask(s, http.MethodPost, "/phones/?create=true", nil, nil), 200, "")
	w := ask(s, http.MethodHead, "/phones/", nil, nil)
	expect(t, w, 200, "")
	if w.Header().Get(restapi.Free) == "" {
		t.Error("the free space of a disk is known")
	}
	tmp := filepath.Join(dir, "phones", "tmp")
	if err := errors.Join(os.MkdirAll(tmp, 0o700), os.WriteFile(filepath.Join(tmp, "put-1"), []byte("part"), 0o600)); err != nil {
		t.Fatal(err)
	}
	expect(t, ask(s, http.MethodPost, "/phones/keys/x", []byte("x"), nil), 200, "")
	for _, path := range []string{"/phones/", "/phones/?after=&before=", "/phones/?after=key&before=keys0", "/phones/keys/"} {
		w := ask(s, http.MethodGet, path, nil, nil)
		if got := w.Body.String(); strings.Contains(got, "put-1") || !strings.Contains(got, `"keys/x"`) || w.Header().Get("Content-Type") != restapi.MediaType {
			t.Errorf("%s: %s", path, got)
		}
	}
	for _, path := range []string{"/phones/?after=keys0&before=", "/phones/nothing/"} {
		if got := strings.TrimSpace(ask(s, http.MethodGet, path, nil, nil).Body.String()); got != "[]" {
			t.Errorf("%s: %s", path, got)
		}
	}
}

// If the disk of a repository is not connected, nothing is said about its files, and none is put
// in its place.
func TestDiskIsNotConnected(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	be, err := local.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer be.Close()
	s := New(be, quiet())
	expect(t, ask(s, http.MethodPost, "/phones/?create=true", nil, nil), 200, "")
	expect(t, ask(s, http.MethodPost, "/phones/keys/x", []byte("x"), nil), 200, "")
	if err := os.Rename(filepath.Join(dir, "phones"), filepath.Join(dir, "away")); err != nil {
		t.Fatal(err)
	}
	for _, r := range [][2]string{
		{http.MethodHead, "/phones/"}, {http.MethodGet, "/phones/"}, {http.MethodGet, "/phones/?after=&before="}, {http.MethodGet, "/phones/keys/"},
		{http.MethodHead, "/phones/keys/x"}, {http.MethodGet, "/phones/keys/x"}, {http.MethodDelete, "/phones/keys/x"}, {http.MethodGet, "/other/"},
	} {
		expect(t, ask(s, r[0], r[1], nil, nil), 404, restapi.ReasonNoFolder)
	}
	expect(t, ask(s, http.MethodPost, "/phones/keys/y", []byte("y"), nil), 404, restapi.ReasonNoFolder)
	if _, err := os.Stat(filepath.Join(dir, "phones")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder was made anew: %v", err)
	}
}

// failing is a store whose folders cannot be read.
type failing struct {
	backend.Backend
	backend.Folders
}

func (failing) HasFolder(context.Context, string) (bool, error) { return false, syscall.EIO }

// If the folder of a repository cannot be read, its files do not count as missing.
func TestDiskFails(t *testing.T) {
	t.Parallel()
	s := New(failing{Backend: memory.New()}, quiet())
	for _, r := range [][2]string{
		{http.MethodHead, "/phones/"}, {http.MethodGet, "/phones/keys/"}, {http.MethodHead, "/phones/keys/x"}, {http.MethodGet, "/phones/keys/x"}, {http.MethodDelete, "/phones/keys/x"},
	} {
		expect(t, ask(s, r[0], r[1], nil, nil), 500, "")
	}
}

func FuzzPath(f *testing.F) {
	for _, s := range []string{"/", "/phones/", "/phones/config", "/anna/phones/packs/ab/ab12", "//", "/../x", "/a/keys/../x"} {
		f.Add(s, true)
		f.Add(s, false)
	}
	f.Fuzz(func(t *testing.T, path string, wholeBase bool) {
		got, err := parsePath(path, wholeBase)
		if err != nil {
			if !errors.Is(err, backend.ErrInvalidName) {
				t.Errorf("%q: %v", path, err)
			}
			return
		}
		if got.base != "" && backend.ValidName(got.base) != nil || got.name != "" && backend.ValidName(got.name) != nil {
			t.Fatalf("%q: %+v", path, got)
		}
		// The path names the same as the base path and the name together.
		if back := strings.Trim(got.base+"/"+got.name, "/"); "/"+back != strings.TrimSuffix(path, "/") && path != "/" {
			t.Fatalf("%q: %+v", path, got)
		}
		if !got.folder && got.name == "" || wholeBase && got.name != "" {
			t.Fatalf("%q: %+v", path, got)
		}
		// Only what is in locks/ and runs/ of some folder can be removed by everybody.
		if isRemovable(got.name) && !strings.Contains(path, "/locks/") && !strings.Contains(path, "/runs/") {
			t.Fatalf("%q: %+v", path, got)
		}
	})
}

func FuzzRange(f *testing.F) {
	for _, s := range []string{"bytes=0-0", "bytes=-1", "bytes=5-", "bytes=9-1", "bytes=0-9223372036854775807", "bytes=a-b"} {
		f.Add(s, int64(10))
	}
	f.Fuzz(func(t *testing.T, header string, size int64) {
		if size < 0 {
			return
		}
		r, partial, ok := parseRange(header, size)
		if r.start < 0 || r.length < 0 || r.start > size || r.length > size-r.start {
			t.Fatalf("%q of %d bytes: %+v", header, size, r)
		}
		if ok && (partial && r.length == 0 || !partial && r != byteRange{0, size}) {
			t.Fatalf("%q of %d bytes: %+v, partial %v", header, size, r, partial)
		}
	})
}

// Whoever opens many connections gets a bounded number of them, and others get theirs as soon
// as one is closed.
func TestConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	on := &limitedListener{Listener: inner, slots: make(chan struct{}, 2), closed: make(chan struct{})}
	accepted := make(chan net.Conn)
	go func() {
		defer close(accepted)
		for {
			c, err := on.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	for range 4 {
		c, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	first, second := <-accepted, <-accepted
	select {
	case <-accepted:
		t.Error("a third connection was accepted")
	case <-time.After(20 * time.Millisecond):
	}
	first.Close()
	first.Close() // counts once
	third := <-accepted
	select {
	case <-accepted:
		t.Error("a connection that was closed twice has made room for two")
	case <-time.After(20 * time.Millisecond):
	}
	second.Close()
	third.Close()
	if err := on.Close(); err != nil {
		t.Error(err)
	}
	for c := range accepted {
		c.Close()
	}
}
