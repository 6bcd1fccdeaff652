package s3_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/backendtest"
	"github.com/snap-backup/snap/repo/backend/s3"
)

func TestContract(t *testing.T) {
	t.Parallel()
	backendtest.RunSmall(t, func(t *testing.T) backend.Backend { return (&fake{page: 7}).open(t) })
}

// hashed is a name that is a hash.
var hashed = "packs/ab/" + strings.Repeat("ab", 32)

// TestRequests counts what operations cost.
func TestRequests(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	f := &fake{}
	b := f.open(t)
	if err := b.Put(ctx, "config", nil); err != nil { // the first Put asks what the bucket can do
		t.Fatal(err)
	}
	if got := f.count(); !slices.Contains(got, "GET tmp/object-lock") || len(got) > 6 {
		t.Errorf("the first Put sends %q", got)
	}
	read := func() error { _, err := b.ReadAt(ctx, hashed, make([]byte, 2), 1); return err }
	whole := func() error { _, err := backend.ReadAll(ctx, b, hashed, 10); return err }
	for _, tt := range []struct {
		about string
		do    func() error
		want  []string
	}{
		{"Put", func() error { return b.Put(ctx, hashed, []byte("abcdef")) }, []string{"PUT " + hashed}},
		{"ReadAt", read, []string{"GET " + hashed}},
		{"ReadAll", whole, []string{"GET " + hashed}},
		{"List", func() error { return b.List(ctx, "packs/", func(backend.Info) error { return nil }) }, []string{"LIST packs/"}},
		{"Delete", func() error { return b.Delete(ctx, hashed) }, []string{"HEAD " + hashed, "DELETE " + hashed}},
	} {
		if err := tt.do(); err != nil {
			t.Errorf("%s: %v", tt.about, err)
		}
		if got := f.count(); !slices.Equal(got, tt.want) {
			t.Errorf("%s sends %q, want %q", tt.about, got, tt.want)
		}
	}
}

// A note about the protection that cannot be read stops puts of files that may have to be
// protected, and no others.
func TestDamagedProtection(t *testing.T) {
	t.Parallel()
	for _, note := range []string{"", "{}", `{"seconds":0,"mode":"governance"}`, `{"seconds":60,"mode":"none"}`, strings.Repeat(" ", 5000)} {
		f := &fake{}
		b := f.open(t)
		f.set(fakePrefix+"tmp/object-lock", []byte(note))
		if err := b.Put(t.Context(), hashed, nil); err == nil || backend.Temporary(err) || !strings.Contains(err.Error(), "protected") {
			t.Errorf("note %.40q: Put = %v", note, err)
		}
		if _, ok := f.get(hashed); ok {
			t.Errorf("note %.40q: the file was put", note)
		}
	}
}

// TestConditionalPuts puts into stores that refuse, do not know or ignore conditions.
func TestConditionalPuts(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	for _, c := range []conditions{honoured, refused, ignored} {
		f := &fake{conditions: c, versioning: "<VersioningConfiguration/>"}
		b := f.open(t)
		features, err := b.Probe(ctx)
		if err != nil || features.ConditionalPut != (c == honoured) {
			t.Errorf("conditions %d: %+v, %v", c, features, err)
		}
		f.count()
		for _, name := range []string{"config", hashed} {
			if err := b.Put(ctx, name, []byte("first")); err != nil {
				t.Fatal(err)
			}
			if err := b.Put(ctx, name, []byte("other")); !errors.Is(err, backend.ErrExist) {
				t.Errorf("conditions %d: a second Put = %v", c, err)
			}
			if got, _ := f.get(name); string(got) != "first" {
				t.Errorf("conditions %d: the store has %q", c, got)
			}
		}
		want := []string{"GET tmp/object-lock", "PUT config", "PUT config", "HEAD config", "PUT " + hashed, "PUT " + hashed, "HEAD " + hashed}
		if c != honoured {
			want = []string{"HEAD config", "GET tmp/object-lock", "PUT config", "HEAD config", "HEAD " + hashed, "PUT " + hashed, "HEAD " + hashed}
		}
		if got := f.count(); !slices.Equal(got, want) {
			t.Errorf("conditions %d: %q, want %q", c, got, want)
		}
		if err := b.List(ctx, "", func(info backend.Info) error {
			if strings.HasPrefix(info.Name, "tmp") {
				t.Errorf("List shows %s", info.Name)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	}
}

// TestProbe asks for settings of buckets.
// A gateway that was killed can leave an object that it neither shows nor overwrites.
func TestGhosts(t *testing.T) {
	hashed := "packs/ab/" + strings.Repeat("ab", 32)
	f := &fake{}
	b := f.open(t)
	if err := b.Put(t.Context(), "first", nil); err != nil { // so that it knows of conditions
		t.Fatal(err)
	}
	f.before = func(w http.ResponseWriter, r *http.Request, _ string) bool {
		if r.Header.Get("If-None-Match") == "" {
			return false
		}
		answer(w, http.StatusPreconditionFailed, "PreconditionFailed")
		return true
	}
	if err := b.Put(t.Context(), hashed, []byte("bytes")); err != nil {
		t.Errorf("a file that is named by its hash: %v", err)
	}
	if got, err := backend.ReadAll(t.Context(), b, hashed, 100); err != nil || string(got) != "bytes" {
		t.Errorf("got %q, %v", got, err)
	}
	if err := b.Put(t.Context(), hashed, []byte("bytes")); !errors.Is(err, backend.ErrExist) {
		t.Errorf("an object that is there: %v", err)
	}
	if err := b.Put(t.Context(), "reserve", nil); !errors.Is(err, backend.ErrExist) || !strings.Contains(err.Error(), "shows no object") {
		t.Errorf("another file: %v", err)
	}
}

func TestProbe(t *testing.T) {
	t.Parallel()
	f := &fake{versioning: "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"}
	b := f.open(t)
	if got, err := b.Probe(t.Context()); err != nil || got != (s3.Features{ConditionalPut: true, Versioning: s3.On, ObjectLock: s3.Off}) {
		t.Errorf("Probe = %+v, %v", got, err)
	}
	f.before = func(w http.ResponseWriter, r *http.Request, _ string) bool {
		answer(w, http.StatusForbidden, "AccessDenied")
		return true
	}
	if got, err := b.Probe(t.Context()); err != nil || got != (s3.Features{ConditionalPut: true}) {
		t.Errorf("Probe without rights = %+v, %v", got, err)
	}
	f.before = func(w http.ResponseWriter, r *http.Request, _ string) bool {
		answer(w, http.StatusServiceUnavailable, "SlowDown")
		return true
	}
	if got, err := b.Probe(t.Context()); !backend.Temporary(err) {
		t.Errorf("Probe of a busy store = %+v, %v", got, err)
	}
}

// TestOpenWritesNothing opens, reads and lists.
func TestOpenWritesNothing(t *testing.T) {
	t.Parallel()
	f := &fake{}
	b := f.open(t)
	b.Stat(t.Context(), "config")
	b.List(t.Context(), "", func(backend.Info) error { return nil })
	b.ReadAt(t.Context(), "config", make([]byte, 1), 0)
	if len(f.objects) > 0 {
		t.Errorf("the store has %d objects", len(f.objects))
	}
}

// TestLostAnswers lets the connection end after the store has put the object.
func TestLostAnswers(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	for _, tt := range []struct {
		about, name string
		noMD5       bool
		ok          bool
	}{
		{"with an MD5", "config", false, true},
		{"a hash without an MD5", hashed, true, true},
		{"another name without an MD5", "config", true, false}, // nobody knows whose bytes these are
	} {
		f := &fake{noMD5: tt.noMD5, lose: func(r *http.Request, key string) bool {
			return r.Method == http.MethodPut && !strings.HasPrefix(key, "tmp/")
		}}
		err := f.open(t).Put(ctx, tt.name, []byte("content"))
		if tt.ok && err != nil || !tt.ok && (!backend.Temporary(err) || !errors.Is(err, backend.ErrOutOfReach)) {
			t.Errorf("%s: Put = %v", tt.about, err)
		}
	}
	// The request got lost, and another file is there.
	f := &fake{before: func(_ http.ResponseWriter, r *http.Request, key string) bool {
		if r.Method == http.MethodPut && key == "config" {
			panic(http.ErrAbortHandler)
		}
		return false
	}}
	b := f.open(t)
	f.set(fakePrefix+"config", []byte("another"))
	if err := b.Put(ctx, "config", []byte("content")); !backend.Temporary(err) {
		t.Errorf("Put of a request that was lost = %v", err)
	}
}

// TestStoreKeepsHalf puts by way of a proxy that loses bytes and reports success.
func TestStoreKeepsHalf(t *testing.T) {
	t.Parallel()
	for _, noMD5 := range []bool{false, true} {
		f := &fake{noMD5: noMD5, keep: func(key string, data []byte) []byte {
			if strings.HasSuffix(key, "config") {
				return data[:len(data)/2]
			}
			return data
		}}
		b := f.open(t)
		err := b.Put(t.Context(), "config", make([]byte, 100))
		if err == nil || !strings.Contains(err.Error(), "accepted 100 bytes and kept 50") || backend.Temporary(err) {
			t.Errorf("Put = %v", err)
		}
		if _, ok := f.get("config"); ok {
			t.Error("the partial file is still there")
		}
	}
}

// TestPackClass puts packs in another storage class than everything else.
func TestPackClass(t *testing.T) {
	t.Parallel()
	classes := map[string]string{}
	f := &fake{}
	f.before = func(_ http.ResponseWriter, r *http.Request, key string) bool {
		if r.Method == http.MethodPut {
			classes[key] = r.Header.Get("X-Amz-Storage-Class")
		}
		return false
	}
	cfg := f.serve(t)
	b, err := s3.Open(t.Context(), cfg, s3.Options{Keys: testKeys, Region: "us-east-1", PackClass: "STANDARD_IA"})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{hashed, "index/ab", "config"} {
		if err := b.Put(t.Context(), name, nil); err != nil {
			t.Error(err)
		}
	}
	if classes[hashed] != "STANDARD_IA" || classes["index/ab"] != "" || classes["config"] != "" {
		t.Errorf("classes: %v", classes)
	}
	if _, err := s3.Open(t.Context(), cfg, s3.Options{Keys: testKeys, PackClass: "DEEP_ARCHIVE"}); err == nil || !strings.Contains(err.Error(), "cannot be read at once") {
		t.Errorf("Open with an archive = %v", err)
	}
}

// TestForeignObjects lists a bucket with objects that are no files of a repository.
func TestForeignObjects(t *testing.T) {
	t.Parallel()
	f := &fake{page: 2}
	b := f.open(t)
	for _, key := range []string{
		"a repository", "a repository/ä+", "a repository/ä+x", fakePrefix, fakePrefix + "packs/", fakePrefix + "Größe & <mehr> +%41",
		fakePrefix + "tmp/x", fakePrefix + "a//b", "zzz",
	} {
		f.set(key, []byte("foreign"))
	}
	for _, name := range []string{"config", "index/1", "index/2", "packs/x", "zz"} {
		f.set(fakePrefix+name, []byte(name))
	}
	var got []string
	if err := b.List(t.Context(), "", func(info backend.Info) error { got = append(got, info.Name); return nil }); err != nil {
		t.Fatal(err)
	}
	if want := []string{"config", "index/1", "index/2", "packs/x", "zz"}; !slices.Equal(got, want) {
		t.Errorf("List shows %q, want %q", got, want)
	}
}

// page is a listing that a test writes.
func page(keys ...string) string {
	var s strings.Builder
	s.WriteString("<ListBucketResult>")
	for _, key := range keys {
		fmt.Fprintf(&s, "<Contents><Key>%s</Key><Size>1</Size><LastModified>2026-01-02T03:04:05.000Z</LastModified></Contents>", key)
	}
	return s.String() + "</ListBucketResult>"
}

// TestHostileListings lists what a store should not send.
func TestHostileListings(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ about, body, want string }{
		{"wrong order", page(fakePrefix+"b", fakePrefix+"a"), "in order"},
		{"a key twice", page(fakePrefix+"a", fakePrefix+"a"), "in order"},
		{"another prefix", page("b"), "not asked for"},
		{"no end", page(fakePrefix+"a", fakePrefix+strings.Repeat("b", 17<<20)), "endless"},
		{"no XML", "<html>Welcome to the hotel!</html>", "something else than an object store"},
		{"nothing", "", "something else than an object store"},
	} {
		f := &fake{}
		b := f.open(t)
		f.before = func(w http.ResponseWriter, _ *http.Request, _ string) bool {
			_, _ = io.WriteString(w, tt.body)
			return true
		}
		err := b.List(t.Context(), "", func(backend.Info) error { return nil })
		if err == nil || !strings.Contains(err.Error(), tt.want) || len(err.Error()) > 2000 {
			t.Errorf("%s: List = %.300v", tt.about, err)
		}
	}
}

// The page of a network that wants a login is no list of versions: no file would be there.
func TestHostileVersions(t *testing.T) {
	t.Parallel()
	for body, passes := range map[string]bool{
		"<html>log in</html>": true,
		"":                    true,
		"<ListVersionsResult><Version><Key>other</Key></Version></ListVersionsResult>": false,
	} {
		f := &fake{before: func(w http.ResponseWriter, r *http.Request, _ string) bool {
			if !r.URL.Query().Has("versions") {
				return false
			}
			_, _ = io.WriteString(w, body)
			return true
		}}
		b := f.open(t)
		err := b.Versions(t.Context(), func(v backend.Version) error { t.Errorf("%q: %+v", body, v); return nil })
		if err == nil || backend.Temporary(err) != passes {
			t.Errorf("%q: Versions = %v", body, err)
		}
	}
}

// TestReadsThatEndEarly reads from a store that sends something else than it was asked for.
func TestReadsThatEndEarly(t *testing.T) {
	t.Parallel()
	send := func(status int, header map[string]string, body string) func(http.ResponseWriter, *http.Request, string) bool {
		return func(w http.ResponseWriter, r *http.Request, _ string) bool {
			if r.Method != http.MethodGet {
				return false
			}
			w.Header().Set("Last-Modified", time.Now().UTC().Format(http.TimeFormat))
			for k, v := range header {
				w.Header().Set(k, v)
			}
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
			return true
		}
	}
	for _, tt := range []struct {
		about  string
		answer func(http.ResponseWriter, *http.Request, string) bool
		off    int64
		n      int
		check  func(error) bool
	}{
		{"a lost connection", send(206, map[string]string{"Content-Range": "bytes 2-11/20", "Content-Length": "10"}, "23456"), 2, 5, backend.Temporary},
		{"another part", send(206, map[string]string{"Content-Range": "bytes 0-9/20"}, "0123456789"), 2, 0, notTemporary},
		{"a part in the middle", send(206, map[string]string{"Content-Range": "bytes 2-6/20"}, "23456"), 2, 0, notTemporary},
		{"more than asked for", send(206, map[string]string{"Content-Range": "bytes 2-15/20"}, "23456789abcdef"), 2, 0, notTemporary},
		{"nonsense", send(206, map[string]string{"Content-Range": "bytes x"}, "23456"), 2, 0, notTemporary},
		{"everything", send(200, nil, "0123456789abcdef"), 2, 0, notTemporary},
		{"everything from the beginning", send(200, nil, "0123456789abcdef"), 0, 10, func(err error) bool { return err == nil }},
		{"a short object", send(206, map[string]string{"Content-Range": "bytes 2-4/5"}, "234"), 2, 3, func(err error) bool { return err == io.EOF }},
		{"the end", send(416, nil, ""), 2, 0, func(err error) bool { return err == io.EOF }},
	} {
		f := &fake{}
		b := f.open(t)
		f.set(fakePrefix+"config", make([]byte, 20))
		f.before = tt.answer
		n, err := b.ReadAt(t.Context(), "config", make([]byte, 10), tt.off)
		if n != tt.n || !tt.check(err) {
			t.Errorf("%s: %d bytes, %v", tt.about, n, err)
		}
		if err != io.EOF && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)) {
			t.Errorf("%s: %v means that the file is damaged", tt.about, err)
		}
	}
	// A complete file that ends early.
	f := &fake{}
	b := f.open(t)
	f.before = send(200, map[string]string{"Content-Length": "100"}, "0123456789")
	if data, err := b.ReadFile(t.Context(), "config", 100); !backend.Temporary(err) || data != nil {
		t.Errorf("ReadFile of a lost connection = %d bytes, %v", len(data), err)
	}
	if _, err := b.ReadFile(t.Context(), "config", 99); !errors.Is(err, backend.ErrTooLarge) {
		t.Errorf("ReadFile over the limit = %v", err)
	}
}

func notTemporary(err error) bool { return err != nil && err != io.EOF && !backend.Temporary(err) }

// TestAnswers checks what callers and people learn from what a store says.
func TestAnswers(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		status    int
		code      string
		temporary bool
		is        []error
		text      string
	}{
		{507, "XMinioStorageFull", false, []error{backend.ErrNoSpace}, "no space left there"},
		{403, "QuotaExceeded", false, []error{backend.ErrNoSpace}, "raise the quota"},
		{507, "Unheard", false, []error{backend.ErrNoSpace}, "no space left there"},
		{403, "AccessDenied", false, []error{fs.ErrPermission}, "give the access key the rights"},
		{403, "Unheard", false, []error{fs.ErrPermission}, "access denied"},
		{403, "InvalidAccessKeyId", false, []error{s3.ErrRefused, backend.ErrOutOfReach}, "AWS_ACCESS_KEY_ID"},
		{403, "SignatureDoesNotMatch", false, []error{s3.ErrRefused, backend.ErrOutOfReach}, "the secret of the access key is wrong"},
		{400, "ExpiredToken", false, []error{s3.ErrRefused, backend.ErrOutOfReach}, "has expired (log in again)"},
		{403, "RequestTimeTooSkewed", false, []error{s3.ErrRefused, backend.ErrOutOfReach}, "set the clock"},
		{301, "PermanentRedirect", false, []error{s3.ErrRefused, backend.ErrOutOfReach}, "The reason"},
		{404, "NoSuchBucket", false, []error{s3.ErrNoBucket, backend.ErrOutOfReach}, "make it first"},
		{403, "InvalidObjectState", false, []error{backend.ErrOutOfReach}, "archive"},
		{503, "SlowDown", true, []error{backend.ErrOutOfReach}, "the store cannot answer now: 503 The reason (SlowDown)"},
		{503, "Unheard", true, []error{backend.ErrOutOfReach}, "503"},
		{429, "Unheard", true, []error{backend.ErrOutOfReach}, "429"},
		{502, "Unheard", true, []error{backend.ErrOutOfReach}, "502"},
		{504, "Unheard", true, []error{backend.ErrOutOfReach}, "504"},
		{500, "InternalError", true, nil, "500"},
		{409, "ConditionalRequestConflict", true, nil, "409"},
		{400, "BadDigest", true, nil, "bytes changed on the way"},
		{400, "Unheard", false, nil, "the store says: 400 The reason (Unheard)"},
	} {
		f := &fake{}
		b := f.open(t)
		f.before = func(w http.ResponseWriter, r *http.Request, key string) bool {
			if strings.HasPrefix(key, "tmp/") || r.Method == http.MethodHead {
				return false
			}
			w.Header().Set("Retry-After", "7")
			answer(w, tt.status, tt.code)
			return true
		}
		_, rerr := b.ReadFile(t.Context(), "config", 10)
		for op, err := range map[string]error{
			"put":  b.Put(t.Context(), "config", []byte("x")),
			"read": rerr,
			"list": b.List(t.Context(), "", func(backend.Info) error { return nil }),
		} {
			ok := err != nil && backend.Temporary(err) == tt.temporary && strings.Contains(err.Error(), tt.text) && strings.HasPrefix(err.Error(), op+" s3:http://")
			for _, is := range tt.is {
				ok = ok && errors.Is(err, is)
			}
			if tt.is == nil {
				ok = ok && !errors.Is(err, backend.ErrOutOfReach)
			}
			if !ok {
				t.Errorf("%d %s: %s = %v", tt.status, tt.code, op, err)
			}
			if e, ok := errors.AsType[*backend.TemporaryError](err); ok && e.After != 7*time.Second {
				t.Errorf("%d %s: wait %s", tt.status, tt.code, e.After)
			}
		}
	}
}

// TestRightRegion opens a bucket of another region than the client assumes.
func TestRightRegion(t *testing.T) {
	f := &fake{}
	cfg := f.serve(t)
	f.before = func(w http.ResponseWriter, r *http.Request, _ string) bool {
		if strings.Contains(r.Header.Get("Authorization"), "/eu-west-3/") {
			return false
		}
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, "<Error><Code>AuthorizationHeaderMalformed</Code><Message>wrong</Message><Region>eu-west-3</Region></Error>")
		return true
	}
	t.Setenv("AWS_REGION", "")
	t.Setenv("AWS_DEFAULT_REGION", "")
	b, err := s3.Open(t.Context(), cfg, s3.Options{Keys: testKeys})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Put(t.Context(), "config", nil); err != nil {
		t.Error(err)
	}
	_, err = s3.Open(t.Context(), cfg, s3.Options{Keys: testKeys, Region: "us-east-1"})
	if !errors.Is(err, s3.ErrRefused) || !strings.Contains(err.Error(), "set AWS_REGION=eu-west-3") {
		t.Errorf("Open with the wrong region = %v", err)
	}
}

// TestUnreachable opens and uses stores that nobody serves.
func TestUnreachable(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	f := &fake{}
	b := f.open(t)
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close()
	cfg, err := s3.Parse("s3:" + server.URL + "/bucket")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s3.Open(ctx, cfg, s3.Options{Keys: testKeys}); !backend.Temporary(err) || !errors.Is(err, backend.ErrOutOfReach) || !strings.Contains(err.Error(), "the store does not answer") {
		t.Errorf("Open = %v", err)
	}
	f.before = func(http.ResponseWriter, *http.Request, string) bool { panic(http.ErrAbortHandler) }
	_, err = b.ReadFile(ctx, "config", 10)
	if !backend.Temporary(err) || !errors.Is(err, backend.ErrOutOfReach) || backend.Unreadable(ctx, b, err) {
		t.Errorf("ReadFile = %v", err)
	}
}

// TestStall reads from a store that sends nothing.
func TestStall(t *testing.T) {
	t.Parallel()
	f := &fake{}
	cfg := f.serve(t)
	b, err := s3.Open(t.Context(), cfg, s3.Options{Keys: testKeys, Region: "us-east-1", Stall: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	f.before = func(_ http.ResponseWriter, r *http.Request, _ string) bool {
		<-r.Context().Done()
		return true
	}
	if _, err := b.Stat(t.Context(), "config"); !backend.Temporary(err) || !errors.Is(err, backend.ErrOutOfReach) {
		t.Errorf("Stat = %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := b.Stat(ctx, "config"); !errors.Is(err, context.DeadlineExceeded) || backend.Temporary(err) {
		t.Errorf("Stat until a deadline = %v", err)
	}
}

// TestTrust opens stores whose certificate is good only with a file of authorities.
func TestTrust(t *testing.T) {
	t.Parallel()
	f := &fake{objects: map[string][]byte{}}
	server := httptest.NewUnstartedServer(f)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	cfg, err := s3.Parse("s3:" + server.URL + "/bucket")
	if err != nil {
		t.Fatal(err)
	}
	_, err = s3.Open(t.Context(), cfg, s3.Options{Keys: testKeys})
	if !errors.Is(err, backend.ErrOutOfReach) || backend.Temporary(err) || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("Open = %v", err)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, certificate(server), 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := s3.Open(t.Context(), cfg, s3.Options{Keys: testKeys, CAFile: file, Region: "us-east-1"})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Put(t.Context(), "config", bytes.Repeat([]byte("x"), 1<<20)); err != nil {
		t.Error(err)
	}
	plain := &fake{}
	cfg = plain.serve(t)
	cfg, err = s3.Parse(strings.Replace(cfg.String(), "http:", "https:", 1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s3.Open(t.Context(), cfg, s3.Options{Keys: testKeys}); err == nil || backend.Temporary(err) || !strings.Contains(err.Error(), "does not speak https") {
		t.Errorf("Open of http by https = %v", err)
	}
}

// TestHTTP allows http only to this computer.
func TestHTTP(t *testing.T) {
	t.Parallel()
	for address, ok := range map[string]bool{
		"s3:http://127.0.0.1:1/bucket": true, "s3:http://localhost:1/bucket": true, "s3:http://[::1]:1/bucket": true,
		"s3:http://192.0.2.1:1/bucket": false, "s3:http://localhost.example.com/bucket": false,
	} {
		cfg, err := s3.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		_, err = s3.Open(ctx, cfg, s3.Options{Keys: testKeys})
		cancel()
		if refused := err != nil && strings.Contains(err.Error(), "http to another computer"); refused == ok {
			t.Errorf("Open(%s) = %v", address, err)
		}
	}
}

// TestKeys finds credentials where the tools of Amazon do.
func TestKeys(t *testing.T) {
	f := &fake{}
	cfg := f.serve(t)
	var used string
	f.before = func(_ http.ResponseWriter, r *http.Request, _ string) bool {
		_, after, _ := strings.Cut(r.Header.Get("Authorization"), "Credential=")
		used, _, _ = strings.Cut(after, "/")
		return false
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "credentials")
	if err := os.WriteFile(file, []byte("[default]\naws_access_key_id=fromfile\naws_secret_access_key=x\n[work]\naws_access_key_id=atwork\naws_secret_access_key=x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		about string
		env   map[string]string
		opts  s3.Options
		used  string
		text  string
	}{
		{"environment", map[string]string{"AWS_ACCESS_KEY_ID": "fromenv", "AWS_SECRET_ACCESS_KEY": "topsecret"}, s3.Options{}, "fromenv", ""},
		{"half", map[string]string{"AWS_ACCESS_KEY_ID": "fromenv"}, s3.Options{}, "", "only one of"},
		{"file", nil, s3.Options{}, "fromfile", ""},
		{"profile", map[string]string{"AWS_PROFILE": "work"}, s3.Options{}, "atwork", ""},
		{"profile of the options", map[string]string{"AWS_ACCESS_KEY_ID": "fromenv", "AWS_SECRET_ACCESS_KEY": "topsecret"}, s3.Options{Profile: "work"}, "atwork", ""},
		{"absent profile", nil, s3.Options{Profile: "play"}, "", `in the profile "play"`},
		{"given", nil, s3.Options{Keys: testKeys}, "test", ""},
	} {
		t.Run(tt.about, func(t *testing.T) {
			for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ACCESS_KEY", "AWS_SECRET_KEY"} {
				t.Setenv(name, tt.env[name])
			}
			t.Setenv("AWS_SHARED_CREDENTIALS_FILE", file)
			t.Setenv("AWS_CONFIG_FILE", filepath.Join(dir, "config"))
			tt.opts.Region = "us-east-1"
			used = ""
			_, err := s3.Open(t.Context(), cfg, tt.opts)
			if used != tt.used || tt.text == "" && err != nil || tt.text != "" && (!errors.Is(err, s3.ErrNoKeys) || !strings.Contains(err.Error(), tt.text)) {
				t.Errorf("used %q, %v", used, err)
			}
			if err != nil && strings.Contains(err.Error(), "topsecret") {
				t.Errorf("%v shows a secret", err)
			}
		})
	}
	if text := fmt.Sprintf("%v %+v %#v", testKeys, *testKeys, s3.Options{Keys: testKeys}); strings.Contains(text, "testtest") {
		t.Errorf("%s shows a secret", text)
	}
}
