package restserver

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/snap-backup/snap/repo/backend/memory"
	"golang.org/x/crypto/bcrypt"
)

const fixedHash = "$2y$05$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZabcde"

func TestParseUsers(t *testing.T) {
	t.Parallel()
	list, err := parseUsers([]byte("# comment\n\nanna:" + fixedHash + "\r\n ben@home:" + strings.Replace(fixedHash, "2y", "2b", 1)))
	if err != nil || len(list) != 2 || string(list["anna"]) != fixedHash {
		t.Errorf("%q, %v", list, err)
	}
	for text, want := range map[string]string{
		"anna":                                      "want NAME:HASH",
		"anna:secret":                               "not a hash of bcrypt",
		"anna:$apr1$x$y":                            "MD5",
		"anna:$1$x$y":                               "MD5",
		"anna:{SHA}x":                               "SHA-1",
		"anna:$5$x$y":                               "SHA-256",
		"anna:$6$x$y":                               "SHA-512",
		"anna:$argon2id$v=19$m=1,t=1,p=1$eA$eA":     "Argon2",
		"anna:rl4yKZ1pYh9qk":                        "not a hash of bcrypt",
		"anna:":                                     "not a hash of bcrypt",
		"an na:" + fixedHash:                        "not a name",
		"../x:" + fixedHash:                         "not a name",
		":" + fixedHash:                             "not a name",
		"anna:" + fixedHash[:59]:                    "not a hash of bcrypt",
		"anna:" + fixedHash + "x":                   "not a hash of bcrypt",
		"anna:$2y$16$" + fixedHash[7:]:              "cost",
		"anna:$2y$31$" + fixedHash[7:]:              "cost",
		"anna:$2y$03$" + fixedHash[7:]:              "cost",
		"anna:$2x$05$" + fixedHash[7:]:              "not a hash of bcrypt",
		"anna:" + fixedHash + "\nanna:" + fixedHash: "twice",
	} {
		_, err := parseUsers([]byte(text))
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "line ") {
			t.Errorf("%q: %v", text, err)
		}
		if err != nil && (strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "abcdefgh")) {
			t.Errorf("the error has the password: %v", err)
		}
	}
}

func FuzzUsers(f *testing.F) {
	f.Add([]byte("anna:"+fixedHash+"\n"), "anna")
	f.Add([]byte("# x\nanna:$apr1$x"), "ben")
	f.Fuzz(func(t *testing.T, file []byte, name string) {
		list, err := parseUsers(file)
		for name, hash := range list {
			if cost, err := bcrypt.Cost(hash); err != nil || cost > maxCost || CheckUserName(name) != nil {
				t.Fatalf("%q: %q, %v", name, hash, err)
			}
		}
		if err != nil || CheckUserName(name) != nil {
			return
		}
		without, existed := RemoveUser(file, name)
		rest, err := parseUsers(without)
		if err != nil || existed != (list[name] != nil) || rest[name] != nil || len(rest) < len(list)-1 {
			t.Fatalf("%q without %q is %q, %v", file, name, without, err)
		}
	})
}

// A user without the right password gets nothing, and no answer tells which users there are.
func TestPasswords(t *testing.T) {
	t.Parallel()
	s := New(memory.New(), withUsers(t, "anna", "ben"))
	var denied []string
	for _, login := range [][2]string{
		{"anna", "pw-ben"}, {"anna", ""}, {"", ""}, {"", "pw-anna"}, {"carl", "pw-carl"}, {"anna", "pw-anna\x00"}, {"Anna", "pw-anna"},
		{"anna", "pw-anna" + strings.Repeat("x", 100)},
	} {
		w := ask(s, http.MethodGet, "/phones/", nil, func(r *http.Request) { r.SetBasicAuth(login[0], login[1]) })
		expect(t, w, 401, "")
		w.Header().Del("Date")
		denied = append(denied, fmt.Sprint(w.Header(), w.Body))
	}
	for _, d := range denied {
		if d != denied[0] {
			t.Errorf("answers differ: %q, %q", denied[0], d)
		}
	}
	expect(t, ask(s, http.MethodGet, "/phones/", nil, nil), 401, "")
	expect(t, ask(s, http.MethodGet, "/phones/", nil, func(r *http.Request) { r.Header.Set("Authorization", "Bearer pw-anna") }), 401, "")
	expect(t, ask(s.as("anna"), http.MethodGet, "/phones/", nil, nil), 200, "")
}

// An unknown user takes as long to refuse as a known one: both cost one check of the same
// cost.
func TestUnknownUsersCostTheSame(t *testing.T) {
	t.Parallel()
	u := withUsers(t, "anna").Users
	known, _ := u.find("anna")
	decoy, exists := u.find("nobody")
	a, errA := bcrypt.Cost(known)
	b, errB := bcrypt.Cost(decoy)
	if err := errors.Join(errA, errB); err != nil || a != b || exists {
		t.Errorf("costs %d and %d, %v", a, b, err)
	}
}

// A password is checked once, and again when the file changes.
func TestRememberedPasswords(t *testing.T) {
	t.Parallel()
	opts := withUsers(t, "anna")
	u := opts.Users
	var warned []string
	u.warn = func(err error) { warned = append(warned, err.Error()) }
	if u.isKnown("anna", "pw-anna") {
		t.Error("a password is known before it was checked")
	}
	if right, err := u.check(t.Context(), "anna", "pw-anna"); !right || err != nil {
		t.Fatal(right, err)
	}
	if !u.isKnown("anna", "pw-anna") || u.isKnown("anna", "pw-annb") || u.isKnown("ben", "pw-anna") {
		t.Error("the wrong passwords are known")
	}
	edit := func(change func(old []byte) ([]byte, error)) {
		t.Helper()
		if err := EditUsers(u.path, change); err != nil {
			t.Fatal(err)
		}
		later := time.Now().Add(time.Duration(len(warned)+2) * time.Second)
		if err := os.Chtimes(u.path, later, later); err != nil {
			t.Fatal(err)
		}
	}
	edit(func(old []byte) ([]byte, error) { return append(old, "ben:$apr1$weak\n"...), nil })
	for range 2 { // the second time, nobody is warned again
		if !u.isKnown("anna", "pw-anna") {
			t.Error("a file with mistakes has removed a user")
		}
	}
	if len(warned) != 1 || !strings.Contains(warned[0], "MD5") {
		t.Errorf("a file with mistakes: %q", warned)
	}
	edit(func(old []byte) ([]byte, error) {
		out, _, err := SetPassword(bytes.Replace(old, []byte("ben:$apr1$weak\n"), nil, 1), "anna", "new", 4)
		return out, err
	})
	if u.isKnown("anna", "pw-anna") {
		t.Error("the old password is still known")
	}
	if right, _ := u.check(t.Context(), "anna", "new"); !right || len(warned) != 1 {
		t.Errorf("the new password is wrong: %q", warned)
	}
	if err := os.Remove(u.path); err != nil {
		t.Fatal(err)
	}
	if !u.isKnown("anna", "new") || len(warned) != 2 {
		t.Errorf("the file is gone: %q", warned)
	}
}

// Whoever guesses passwords must wait longer and longer. Clients that have used their right
// password before are not slowed.
func TestGuessing(t *testing.T) {
	t.Parallel()
	now := time.Now()
	opts := withUsers(t, "anna", "ben", "carl")
	opts.Now = func() time.Time { return now }
	s := New(memory.New(), opts)
	try := func(user, password, from string) *httptest.ResponseRecorder {
		return ask(s, http.MethodGet, "/phones/", nil, func(r *http.Request) {
			r.RemoteAddr = from
			r.SetBasicAuth(user, password)
		})
	}
	expect(t, try("ben", "pw-ben", "[2001:db8::1]:1"), 200, "")
	attempts := 0
	var wg sync.WaitGroup
	var mu sync.Mutex
	for i := range 40 { // at the same time, from many addresses of one network
		wg.Go(func() {
			w := try("anna", fmt.Sprint("guess", i), fmt.Sprintf("[2001:db8::%x]:1", i))
			mu.Lock()
			defer mu.Unlock()
			if w.Code == 401 {
				attempts++
			} else if w.Code != 429 || w.Header().Get("Retry-After") == "" {
				t.Errorf("status %d", w.Code)
			}
		})
	}
	wg.Wait()
	if attempts != freeFailures+1 {
		t.Errorf("%d attempts", attempts)
	}
	expect(t, try("anna", "pw-anna", "[2001:db8::9]:1"), 429, "")
	expect(t, try("ben", "pw-ben", "[2001:db8::9]:1"), 200, "")
	// Others who come through the same proxy need not wait, though they were never there before.
	expect(t, try("carl", "pw-carl", "[2001:db8::9]:1"), 200, "")
	expect(t, try("nobody", "guess", "[2001:db8::9]:1"), 401, "")
	expect(t, try("anna", "pw-anna", "192.0.2.1:1"), 200, "")
	day := 0
	for end := now.Add(24 * time.Hour); now.Before(end); now = now.Add(time.Second) {
		if s.failures.attempt(guesser("2001:db8::1", "anna")) == 0 {
			day++
		}
	}
	if day > 24*60*60/int(longestWait/time.Second)+20 {
		t.Errorf("%d attempts in a day", day)
	}
	for i := range maxGuessers + 100 {
		s.failures.attempt(guesser(fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255), "anna"))
		s.failures.attempt(guesser("2001:db8::1", fmt.Sprint("made-up", i)))
		s.failures.attempt(guesser("2001:db8::1", strings.Repeat("long", 1000)+fmt.Sprint(i)))
	}
	if n := len(s.failures.guessers); n > maxGuessers {
		t.Errorf("%d guessers are remembered", n)
	}
	s.failures.attempt(guesser("2001:db8::1", "anna")) // perhaps it is time for one
	if s.failures.attempt(guesser("2001:db8::1", "anna")) == 0 {
		t.Error("made-up users have made a guesser forgotten")
	}
}

// The log is one record for each request, whatever a client sends, and has no password.
func TestLog(t *testing.T) {
	t.Parallel()
	for name, handler := range map[string]func(io.Writer) slog.Handler{
		"text": func(w io.Writer) slog.Handler { return slog.NewTextHandler(w, nil) },
		"json": func(w io.Writer) slog.Handler { return slog.NewJSONHandler(w, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log bytes.Buffer
			opts := withUsers(t, "anna")
			opts.Log = slog.New(handler(&log))
			s := New(memory.New(), opts)
			paths := []string{"/phones/\n2026 level=INFO", "/phones/\x1b[2J", "/\u202eabc", "/" + strings.Repeat("x", 100000), "/phones/config"}
			for _, path := range paths {
				ask(s.as("anna"), http.MethodGet, path, nil, nil)
				ask(s, http.MethodGet, path+"?password=pw-query", nil, func(r *http.Request) { r.SetBasicAuth("pw-as-name", "pw-wrong") })
			}
			text := log.String()
			if n := strings.Count(text, "\n"); n != 2*len(paths) {
				t.Errorf("%d lines", n)
			}
			if strings.Contains(text, "pw-") || strings.ContainsAny(text, "\x1b\u202e") || len(text) > 20000 {
				t.Errorf("the log has %q", text)
			}
			if !strings.Contains(text, "anna") {
				t.Error("the log does not say who it was")
			}
			w := httptest.NewRecorder()
			s.Metrics().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
			if got := w.Body.String(); strings.Contains(got, "pw-") || !strings.Contains(got, `snap_serve_requests_total{method="GET",status="404"} 1`) {
				t.Errorf("the metrics are %s", got)
			}
		})
	}
}

// The certificate that a server makes is private, is the same the next time, and a client can
// tell it from others by its fingerprint.
func TestOwnCertificate(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "new", "serve.pem")
	var certs [4]tls.Certificate
	var wg sync.WaitGroup
	for i := range certs {
		wg.Go(func() {
			var err error
			if certs[i], err = OwnCertificate(path, []string{"nas", "127.0.0.1"}, time.Now()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, c := range certs {
		if Fingerprint(c) != Fingerprint(certs[0]) {
			t.Error("two servers have made two certificates")
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm()&0o077 != 0 && os.PathSeparator == '/' {
		t.Errorf("%v, %v", info, err)
	}
	if list, err := os.ReadDir(filepath.Dir(path)); err != nil || len(list) != 1 {
		t.Errorf("left behind: %v, %v", list, err)
	}
	if err := os.WriteFile(path, []byte("-----BEGIN CERTIFICATE-----\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OwnCertificate(path, nil, time.Now()); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("a damaged certificate: %v", err)
	}

	addr := serveTLS(t, New(memory.New(), quiet()), &tls.Config{Certificates: certs[:1]})
	for want, ok := range map[string]bool{Fingerprint(certs[0]): true, strings.Repeat("0", 64): false} {
		pinned := &tls.Config{InsecureSkipVerify: true, VerifyPeerCertificate: func(raw [][]byte, _ [][]*x509.Certificate) error {
			if sum := sha256.Sum256(raw[0]); hex.EncodeToString(sum[:]) != want {
				return errors.New("another server")
			}
			return nil
		}}
		if _, err := statusOf(pinned, addr); (err == nil) != ok {
			t.Errorf("fingerprint %s: %v", want, err)
		}
	}
	pool := x509.NewCertPool()
	leaf, err := x509.ParseCertificate(certs[0].Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	pool.AddCert(leaf)
	if _, err := statusOf(&tls.Config{RootCAs: pool}, addr); err != nil {
		t.Errorf("a client that trusts the certificate: %v", err)
	}
	if _, err := statusOf(&tls.Config{}, addr); err == nil {
		t.Error("a client that does not know the certificate trusts it")
	}
}

// serveTLS runs a server until the test ends.
func serveTLS(t *testing.T, s *Server, conf *tls.Config) string {
	t.Helper()
	on, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- Serve(ctx, on, s, conf, time.Second) }()
	t.Cleanup(func() {
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return "https://" + on.Addr().String() + "/anna/"
}

func statusOf(conf *tls.Config, address string) (int, error) {
	tr := &http.Transport{TLSClientConfig: conf, ForceAttemptHTTP2: true}
	defer tr.CloseIdleConnections()
	a, err := (&http.Client{Transport: tr}).Get(address)
	if err != nil {
		return 0, err
	}
	return a.StatusCode, a.Body.Close()
}

// A certificate that is renewed is used without a restart. While its files do not fit
// together, the old one is.
func TestRenewedCertificate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	write := func(name string, text []byte, age int) {
		t.Helper()
		at := time.Now().Add(time.Duration(age) * time.Second)
		if err := errors.Join(os.WriteFile(name, text, 0o600), os.Chtimes(name, at, at)); err != nil {
			t.Fatal(err)
		}
	}
	var texts [2][]byte
	var prints [2]string
	for i := range texts {
		var err error
		if texts[i], err = makeCertificate([]string{"nas"}, time.Now()); err != nil {
			t.Fatal(err)
		}
		c, err := tls.X509KeyPair(texts[i], texts[i])
		if err != nil {
			t.Fatal(err)
		}
		prints[i] = Fingerprint(c)
	}
	write(cert, texts[0], 0)
	write(key, texts[0], 0)
	warned := 0
	files, err := OpenCertificate(cert, key, func(error) { warned++ })
	if err != nil {
		t.Fatal(err)
	}
	for i, step := range []struct {
		change func()
		want   string
		warned int
	}{
		{func() {}, prints[0], 0},
		{func() { write(cert, texts[1], 1) }, prints[0], 1},
		{func() { write(key, texts[1], 2) }, prints[1], 1},
	} {
		step.change()
		for range 2 {
			if c, err := files.Get(nil); err != nil || Fingerprint(*c) != step.want || warned != step.warned {
				t.Errorf("step %d: %v, warned %d times", i, err, warned)
			}
		}
	}
}

// The common name of a client certificate is the user. Nobody gets in without one that the
// authority has signed.
func TestClientCertificates(t *testing.T) {
	t.Parallel()
	own, err := OwnCertificate(filepath.Join(t.TempDir(), "serve.pem"), nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	authority, other := newAuthority(t), newAuthority(t)
	pool := x509.NewCertPool()
	pool.AddCert(authority.cert)
	opts := Options{Certificates: true, PrivateFolders: true, Log: slog.New(slog.DiscardHandler)}
	addr := serveTLS(t, New(memory.New(), opts), &tls.Config{
		Certificates: []tls.Certificate{own}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool,
	})
	for name, test := range map[string]struct {
		certs  []tls.Certificate
		status int // 0: no connection
	}{
		"anna":            {[]tls.Certificate{authority.sign(t, "anna")}, 200},
		"another user":    {[]tls.Certificate{authority.sign(t, "ben")}, 403},
		"a hostile name":  {[]tls.Certificate{authority.sign(t, "../anna")}, 403},
		"no name":         {[]tls.Certificate{authority.sign(t, "")}, 403},
		"other authority": {[]tls.Certificate{other.sign(t, "anna")}, 0},
		"none":            {nil, 0},
	} {
		status, err := statusOf(&tls.Config{InsecureSkipVerify: true, Certificates: test.certs}, addr)
		if status != test.status || (err == nil) != (test.status > 0) {
			t.Errorf("%s: status %d, %v", name, status, err)
		}
	}
	// Without certificates in the options, one that was verified is no user.
	s := New(memory.New(), withUsers(t, "anna"))
	expect(t, ask(s, http.MethodGet, "/anna/", nil, func(r *http.Request) {
		r.TLS = &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{authority.cert}}}
	}), 401, "")
}

type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return authority{c, key}
}

func (a authority) sign(t *testing.T, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// A change of the users that fails leaves the file as it was, and nothing else.
func TestFailedEdits(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "htpasswd")
	add := func(old []byte) ([]byte, error) { return append(old, "ben:"+fixedHash+"\n"...), nil }
	if err := EditUsers(path, add); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"an error of the change":    EditUsers(path, func([]byte) ([]byte, error) { return []byte("x"), errors.New("no") }),
		"a folder that is missing":  EditUsers(filepath.Join(dir, "no", "htpasswd"), add),
		"a folder of the same name": EditUsers(dir, add),
	} {
		if err == nil {
			t.Errorf("%s is no error", what)
		}
	}
	if err := EditUsers(path, func(old []byte) ([]byte, error) { return append([]byte("# users\n"), old...), nil }); err != nil {
		t.Error(err)
	}
	text, err := os.ReadFile(path)
	info, errStat := os.Stat(path)
	if err := errors.Join(err, errStat); err != nil || string(text) != "# users\nben:"+fixedHash+"\n" {
		t.Errorf("%q, %v", text, err)
	}
	if info.Mode().Perm() != 0o640 && os.PathSeparator == '/' {
		t.Errorf("mode %v", info.Mode())
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) != 1 {
		t.Errorf("left behind: %v, %v", list, err)
	}
	if _, _, err := SetPassword(nil, "anna", strings.Repeat("x", 73), 4); err == nil {
		t.Error("bcrypt would ignore the end of this password")
	}
}
