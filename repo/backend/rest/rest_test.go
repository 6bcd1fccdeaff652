package rest_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/backendtest"
	"github.com/snap-backup/snap/repo/backend/rest"
	"github.com/snap-backup/snap/repo/backend/restapi"
	"github.com/snap-backup/snap/repo/backend/resttest"
	"github.com/snap-backup/snap/repo/backend/retry"
	"github.com/snap-backup/snap/repo/backend/wire"
)

// serve starts a server and returns its address.
func serve(t *testing.T, s *resttest.Server) rest.Config {
	t.Helper()
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	return address(t, "rest:"+server.URL+"/phones")
}

func address(t *testing.T, text string) rest.Config {
	t.Helper()
	cfg, err := rest.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func create(t *testing.T, cfg rest.Config, opts rest.Options) *rest.Backend {
	t.Helper()
	b, err := rest.Create(t.Context(), cfg, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

// The client and the test's server fulfil the contract.
func TestContract(t *testing.T) {
	t.Parallel()
	backendtest.Run(t, func(t *testing.T) backend.Backend {
		return create(t, serve(t, resttest.New()), rest.Options{})
	})
}

func TestContractWithTLS(t *testing.T) {
	t.Parallel()
	backendtest.RunSmall(t, func(t *testing.T) backend.Backend {
		s := resttest.New()
		s.User, s.Password = "anna", "hunter2"
		server := httptest.NewTLSServer(s)
		t.Cleanup(server.Close)
		cfg := address(t, "rest:"+strings.Replace(server.URL, "://", "://anna:hunter2@", 1)+"/phones/")
		return create(t, cfg, rest.Options{Connection: wire.TransportOptions{Fingerprint: fingerprint(server)}})
	})
}

func fingerprint(server *httptest.Server) string {
	sum := sha256.Sum256(server.Certificate().Raw)
	return hex.EncodeToString(sum[:])
}

func TestCertificates(t *testing.T) {
	t.Parallel()
	server := httptest.NewTLSServer(resttest.New())
	t.Cleanup(server.Close)
	cfg := address(t, "rest:"+server.URL+"/phones")
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		o    wire.TransportOptions
		want string
	}{
		{wire.TransportOptions{CAFile: ca}, ""},
		{wire.TransportOptions{Fingerprint: strings.ToUpper(fingerprint(server))}, ""},
		{wire.TransportOptions{}, "signed by an unknown authority"},
		{wire.TransportOptions{Fingerprint: strings.Repeat("ab:", 31) + "ab"}, "its fingerprint is " + fingerprint(server)},
		{wire.TransportOptions{Fingerprint: "abc"}, "64 hex digits"},
		{wire.TransportOptions{CAFile: "missing"}, "missing"},
		{wire.TransportOptions{ClientCert: ca}, "only of use together"},
	} {
		_, err := rest.Create(t.Context(), cfg, rest.Options{Connection: tt.o})
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || backend.Temporary(err)) {
			t.Errorf("%+v: %v, want %q", tt.o, err, tt.want)
		}
	}
}

// A server that asks for a certificate of the client.
func TestClientCertificate(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(resttest.New())
	server.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	server.StartTLS()
	t.Cleanup(server.Close)
	key, err := x509.MarshalPKCS8PrivateKey(server.TLS.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	cfg := address(t, "rest:"+server.URL+"/phones")
	opts := wire.TransportOptions{Fingerprint: fingerprint(server)}
	if _, err := rest.Create(t.Context(), cfg, rest.Options{Connection: opts}); err == nil || !strings.Contains(err.Error(), "asks for a certificate of this client") || backend.Temporary(err) {
		t.Errorf("without a certificate: %v", err)
	}
	opts.ClientCert, opts.ClientKey = write("cert.pem", "CERTIFICATE", server.Certificate().Raw), write("key.pem", "PRIVATE KEY", key)
	create(t, cfg, rest.Options{Connection: opts})
}

// What is not an answer of a server is out of reach and passes, and never "not found".
func TestStrangers(t *testing.T) {
	t.Parallel()
	for name, handler := range map[string]http.HandlerFunc{
		"portal":      func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>Log in</html>")) },
		"empty list":  func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("[]")) },
		"not found":   func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) },
		"redirection": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/login", http.StatusFound) },
		"proxy":       func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) },
		"closed":      func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := resttest.New()
			b := create(t, serve(t, s), rest.Options{})
			s.Before = func(w http.ResponseWriter, r *http.Request) bool { handler(w, r); return true }
			for method, err := range all(t.Context(), b) {
				if !errors.Is(err, backend.ErrOutOfReach) || !backend.Temporary(err) || errors.Is(err, backend.ErrNotExist) {
					t.Errorf("%s = %v, want a temporary error of a store out of reach", method, err)
				}
				if backend.Unreadable(t.Context(), b, err) {
					t.Errorf("%s: %v counts as damage", method, err)
				}
			}
		})
	}
}

// all returns the errors of all methods.
func all(ctx context.Context, b *rest.Backend) map[string]error {
	nothing := func(backend.Info) error { return nil }
	_, errStat := b.Stat(ctx, "config")
	_, errRead := b.ReadAt(ctx, "config", make([]byte, 5), 0)
	_, errFile := b.ReadFile(ctx, "config", 100)
	_, errFree := b.Free(ctx)
	return map[string]error{
		"Put": b.Put(ctx, "keys/a", []byte("x")), "Stat": errStat, "ReadAt": errRead, "ReadFile": errFile, "Free": errFree,
		"List": b.List(ctx, "keys/", nothing), "ListRange": b.ListRange(ctx, "", "", nothing), "Delete": b.Delete(ctx, "config"),
	}
}

// Refusals of the server are not repeated unless they may pass.
func TestRefusals(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		status    int
		reason    string
		is        error
		temporary bool
	}{
		{401, "", rest.ErrRefused, false},
		{403, "", os.ErrPermission, false},
		{403, "", rest.ErrForbidden, false},
		{403, restapi.ReasonAppendOnly, backend.ErrAppendOnly, false},
		{404, restapi.ReasonNoFile, backend.ErrNotExist, false},
		{404, restapi.ReasonNoFolder, rest.ErrNoFolder, false},
		{404, restapi.ReasonNoFolder, backend.ErrOutOfReach, false},
		{409, restapi.ReasonExists, backend.ErrExist, false},
		{409, restapi.ReasonNotFolder, backend.ErrNotFolder, false},
		{409, restapi.ReasonNotRegular, backend.ErrNotRegular, false},
		{400, restapi.ReasonChecksum, nil, true},
		{507, restapi.ReasonQuota, backend.ErrNoSpace, false},
		{507, restapi.ReasonFull, backend.ErrNoSpace, false},
		{507, "", backend.ErrNoSpace, false},
		{429, "", backend.ErrOutOfReach, true},
		{503, "", backend.ErrOutOfReach, true},
		{500, "", backend.ErrOutOfReach, true},
		{501, "", nil, false},
		{404, "", nil, false},
		{418, "", nil, false},
	} {
		s := resttest.New()
		b := create(t, serve(t, s), rest.Options{})
		s.Before = func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set(restapi.Version, "1.2")
			w.Header().Set("Retry-After", "7")
			if tt.reason != "" {
				w.Header().Set(restapi.Reason, tt.reason)
			}
			http.Error(w, "a line\x1b for people", tt.status)
			return true
		}
		for method, err := range all(t.Context(), b) {
			if err == nil || tt.is != nil && !errors.Is(err, tt.is) || backend.Temporary(err) != tt.temporary || strings.Contains(err.Error(), "\x1b") {
				t.Errorf("%d %s: %s = %v", tt.status, tt.reason, method, err)
			}
			if errors.Is(err, backend.ErrNotExist) != (tt.reason == restapi.ReasonNoFile) {
				t.Errorf("%d %s: %s = %v, ErrNotExist is wrong", tt.status, tt.reason, method, err)
			}
			var e *backend.TemporaryError
			if errors.As(err, &e) && tt.status != 400 && e.After != 7*time.Second {
				t.Errorf("%d: %s waits %v", tt.status, method, e.After)
			}
		}
	}
}

// A server that is gone in the middle of an answer, or a proxy that shortens it.
func TestShortAnswers(t *testing.T) {
	t.Parallel()
	s := resttest.New()
	b := create(t, serve(t, s), rest.Options{})
	for _, name := range []string{"config", "keys/a", "keys/b"} {
		if err := b.Put(t.Context(), name, bytes.Repeat([]byte("x"), 1000)); err != nil {
			t.Fatal(err)
		}
	}
	s.Before = func(w http.ResponseWriter, r *http.Request) bool {
		rec := httptest.NewRecorder()
		inner := &resttest.Server{Store: s.Store}
		inner.ServeHTTP(rec, httptest.NewRequest(http.MethodPost, "/phones/?create=true", nil))
		rec = httptest.NewRecorder()
		inner.ServeHTTP(rec, r)
		for key, values := range rec.Header() {
			w.Header()[key] = values
		}
		w.Header().Set("Content-Length", strconv.Itoa(rec.Body.Len()))
		w.WriteHeader(rec.Code)
		_, _ = w.Write(rec.Body.Bytes()[:rec.Body.Len()/2])
		panic(http.ErrAbortHandler)
	}
	errs := all(t.Context(), b)
	for _, method := range []string{"ReadAt", "ReadFile", "List", "ListRange"} {
		err := errs[method]
		if !errors.Is(err, backend.ErrOutOfReach) || !backend.Temporary(err) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
			t.Errorf("%s of half an answer = %v", method, err)
		}
	}
}

// A proxy that answers a Put in place of the server, with what it knows of the protocol, and stores
// nothing or a half.
func TestForgedAnswersToPut(t *testing.T) {
	t.Parallel()
	for _, hash := range []string{"", strings.Repeat("0f", 32)} {
		s := resttest.New()
		b := create(t, serve(t, s), rest.Options{})
		half := false
		s.Before = func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodPost {
				return false
			}
			if half {
				if err := s.Store.Put(t.Context(), "config", []byte("cont")); err != nil && !errors.Is(err, backend.ErrExist) {
					t.Error(err)
				}
			}
			w.Header().Set(restapi.Version, "1")
			if hash != "" {
				w.Header().Set(restapi.SHA256, hash)
			}
			return true
		}
		for range 2 {
			if err := b.Put(t.Context(), "config", []byte("content")); !errors.Is(err, backend.ErrOutOfReach) || !backend.Temporary(err) {
				t.Errorf("Put that a proxy has answered with hash %q, half %v: %v", hash, half, err)
			}
			half = true
		}
	}
}

// The answer to a Put is lost after the server has stored the file.
func TestLostAnswers(t *testing.T) {
	t.Parallel()
	hashed := "keys/" + strings.Repeat("0f", 32)
	for _, name := range []string{hashed, "config"} {
		s := resttest.New()
		b := create(t, serve(t, s), rest.Options{})
		s.Lose = func(r *http.Request) bool { return r.Method == http.MethodPost }
		if err := b.Put(t.Context(), name, []byte("content")); err != nil {
			t.Errorf("Put of %s whose answer is lost = %v", name, err)
		}
		err := b.Put(t.Context(), name, []byte("something else"))
		if err == nil || !backend.Temporary(err) {
			t.Errorf("Put of other bytes = %v", err)
		}
		s.Lose = func(r *http.Request) bool { return r.Method == http.MethodDelete }
		if err := b.Delete(t.Context(), name); !backend.Temporary(err) {
			t.Errorf("Delete whose answer is lost = %v", err)
		}
	}
}

// A proxy that answers 200 and passes on half: the server refuses what it gets, and the answer
// of the proxy is not taken for one of the server.
func TestProxyStoresHalf(t *testing.T) {
	t.Parallel()
	s := resttest.New()
	b := create(t, serve(t, s), rest.Options{})
	status := 0
	s.Before = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPost {
			return false
		}
		data, _ := io.ReadAll(r.Body)
		half := httptest.NewRequest(http.MethodPost, r.URL.String(), bytes.NewReader(data[:len(data)/2]))
		half.Header = r.Header.Clone()
		inner := &resttest.Server{Store: s.Store}
		inner.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/phones/?create=true", nil))
		rec := httptest.NewRecorder()
		inner.ServeHTTP(rec, half)
		status = rec.Code
		return true // 200, without a word
	}
	if err := b.Put(t.Context(), "keys/a", []byte("some bytes")); !backend.Temporary(err) {
		t.Errorf("Put = %v", err)
	}
	if _, err := s.Store.Stat(t.Context(), "keys/a"); status != http.StatusBadRequest || err == nil {
		t.Errorf("the server answered %d, and has the file: %v", status, err)
	}
}

// A server that restarts in the middle of everything loses nothing, with package retry.
func TestRetry(t *testing.T) {
	t.Parallel()
	s := resttest.New()
	b := create(t, serve(t, s), rest.Options{})
	n := 0
	s.Before = func(_ http.ResponseWriter, r *http.Request) bool {
		if n++; n%3 == 1 {
			_, _ = io.CopyN(io.Discard, r.Body, 10)
			panic(http.ErrAbortHandler)
		}
		return false
	}
	s.Lose = func(*http.Request) bool { return n%3 == 2 }
	again := retry.New(b, retry.Options{First: time.Millisecond, Longest: time.Millisecond})
	want := bytes.Repeat([]byte("x"), 100_000)
	for i := range 10 {
		name := "keys/" + strconv.Itoa(i)
		if err := again.Put(t.Context(), name, want); err != nil {
			t.Fatal(err)
		}
		got, err := backend.ReadAll(t.Context(), again, name, 1<<20)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatal(len(got), err)
		}
		if i%2 == 0 {
			if err := again.Delete(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		}
	}
	count := 0
	if err := again.List(t.Context(), "", func(backend.Info) error { count++; return nil }); err != nil || count != 5 {
		t.Error(count, err)
	}
}

func TestFreeAndAppendOnly(t *testing.T) {
	t.Parallel()
	s := resttest.New()
	b := create(t, serve(t, s), rest.Options{})
	if _, err := b.Free(t.Context()); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("Free of a server that does not know = %v", err)
	}
	s.Free, s.AppendOnly = 12345, true
	if n, err := b.Free(t.Context()); n != 12345 || err != nil {
		t.Error(n, err)
	}
	if err := b.Put(t.Context(), "keys/a", nil); err != nil {
		t.Error(err)
	}
	if err := b.Delete(t.Context(), "keys/a"); !errors.Is(err, backend.ErrAppendOnly) || !backend.IsAppendOnly(retry.New(b, retry.Options{})) {
		t.Errorf("Delete = %v", err)
	}
}

func TestOpen(t *testing.T) {
	t.Parallel()
	s := resttest.New()
	s.User, s.Password = "anna", "hunter2"
	cfg := serve(t, s)
	for _, tt := range []struct {
		opts rest.Options
		want error
		text string
	}{
		{rest.Options{}, rest.ErrRefused, "asks for a user and password"},
		{rest.Options{User: "anna", Password: "wrong"}, rest.ErrRefused, "refuses the user or password"},
		{rest.Options{User: "anna", Password: "hunter2"}, rest.ErrNoFolder, "no such folder"},
	} {
		_, err := rest.Open(t.Context(), cfg, tt.opts)
		if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("Open = %v, want %q", err, tt.text)
		}
	}
	opts := rest.Options{User: "anna", Password: "hunter2"}
	create(t, cfg, opts)
	s.Requests()
	b, err := rest.Open(t.Context(), cfg, opts)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if got := s.Requests(); len(got) != 1 {
		t.Errorf("Open sends %q", got)
	}
	s.Remove()
	if _, err := b.Stat(t.Context(), "config"); !errors.Is(err, backend.ErrOutOfReach) || errors.Is(err, backend.ErrNotExist) {
		t.Errorf("Stat without the folder = %v", err)
	}
	if _, err := rest.Open(t.Context(), address(t, "rest:http://example.invalid/a"), opts); err == nil || !strings.Contains(err.Error(), "write https") {
		t.Errorf("http to another computer: %v", err)
	}
}

// Each operation is one request.
func TestRequests(t *testing.T) {
	t.Parallel()
	s := resttest.New()
	b := create(t, serve(t, s), rest.Options{})
	s.Requests()
	all(t.Context(), b)
	got := s.Requests()
	slices.Sort(got)
	want := []string{"DELETE config", "GET ?after=&before=", "GET config", "GET config", "GET keys/", "HEAD ?", "HEAD config", "POST keys/a"}
	if !slices.Equal(got, want) {
		t.Errorf("requests %q, want %q", got, want)
	}
}
