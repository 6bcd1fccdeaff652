package s3_test

import (
	"bytes"
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/snap-backup/snap/repo/backend/s3"
)

// fake is a small object store for tests. It answers as Amazon's does, and fails as a test
// says.
type fake struct {
	mu       sync.Mutex
	objects  map[string][]byte
	requests []string // "GET a", "LIST packs/"

	// conditions says what the store does with If-None-Match.
	conditions conditions
	page       int    // keys in a page of a listing
	noMD5      bool   // the ETag is no MD5
	versioning string // the answer to ?versioning
	// before may answer a request instead of the store. It returns whether it did.
	before func(w http.ResponseWriter, r *http.Request, key string) bool
	// lose closes the connection after the request was carried out.
	lose func(r *http.Request, key string) bool
	// keep returns what is stored of the bytes that were put.
	keep func(key string, data []byte) []byte
}

type conditions int

const (
	honoured conditions = iota
	refused             // with NotImplemented
	ignored
)

var testKeys = &s3.Keys{ID: "test", Secret: "testtest"}

// serve returns the address of a store that has an empty bucket.
func (f *fake) serve(t *testing.T) s3.Config {
	t.Helper()
	f.objects = map[string][]byte{}
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	cfg, err := s3.Parse("s3:" + server.URL + "/bucket/a repository/ä+")
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

const fakePrefix = "a repository/ä+/"

// open returns a Backend of the store.
func (f *fake) open(t *testing.T) *s3.Backend {
	t.Helper()
	b, err := s3.Open(t.Context(), f.serve(t), s3.Options{Keys: testKeys, Region: "us-east-1"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

// count returns the number of requests since the last call, without those that find out
// about conditional requests.
func (f *fake) count() (list []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.requests {
		if !strings.HasSuffix(r, "tmp/if-none-match") {
			list = append(list, r)
		}
	}
	f.requests = nil
	return list
}

func (f *fake) get(name string) ([]byte, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	data, ok := f.objects[fakePrefix+name]
	return data, ok
}

func (f *fake) set(key string, data []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.objects[key] = data
}

func answer(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<Error><Code>%s</Code><Message>The reason.</Message></Error>", code)
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path, _ := strings.CutPrefix(r.URL.Path, "/")
	bucket, key, _ := strings.Cut(path, "/")
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	name, _ := strings.CutPrefix(key, fakePrefix)
	f.mu.Lock()
	if r.Method == http.MethodGet && key == "" {
		f.requests = append(f.requests, "LIST "+strings.TrimPrefix(r.URL.Query().Get("prefix"), fakePrefix))
	} else {
		f.requests = append(f.requests, r.Method+" "+name)
	}
	f.mu.Unlock()
	if bucket != "bucket" {
		answer(w, http.StatusNotFound, "NoSuchBucket")
		return
	}
	if f.before != nil && f.before(w, r, name) {
		return
	}
	out := httptest.NewRecorder()
	f.answer(out, r, key, body)
	if f.lose != nil && f.lose(r, name) {
		panic(http.ErrAbortHandler)
	}
	for k, v := range out.Header() {
		w.Header()[k] = v
	}
	w.WriteHeader(out.Code)
	if r.Method != http.MethodHead {
		_, _ = w.Write(out.Body.Bytes())
	}
}

func (f *fake) answer(w http.ResponseWriter, r *http.Request, key string, body []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	data, exists := f.objects[key]
	switch q := r.URL.Query(); {
	case q.Has("versioning"):
		fmt.Fprint(w, f.versioning)
	case q.Has("object-lock"):
		answer(w, http.StatusNotFound, "ObjectLockConfigurationNotFoundError")
	case key == "":
		f.list(w, r.URL.Query())
	case r.Method == http.MethodPut:
		f.put(w, r, key, body, exists)
	case r.Method == http.MethodDelete:
		delete(f.objects, key)
		w.WriteHeader(http.StatusNoContent)
	case !exists:
		answer(w, http.StatusNotFound, "NoSuchKey")
	default:
		w.Header().Set("ETag", f.etag(data))
		http.ServeContent(w, r, "", time.Now(), bytes.NewReader(data))
	}
}

func (f *fake) etag(data []byte) string {
	sum := md5.Sum(data)
	if f.noMD5 {
		return fmt.Sprintf(`"%d-1"`, len(data))
	}
	return `"` + hex.EncodeToString(sum[:]) + `"`
}

func (f *fake) put(w http.ResponseWriter, r *http.Request, key string, body []byte, exists bool) {
	sum := md5.Sum(body)
	if r.Header.Get("Content-MD5") != base64.StdEncoding.EncodeToString(sum[:]) {
		answer(w, http.StatusBadRequest, "BadDigest")
		return
	}
	if r.Header.Get("If-None-Match") == "*" {
		switch {
		case f.conditions == refused:
			answer(w, http.StatusNotImplemented, "NotImplemented")
			return
		case f.conditions == honoured && exists:
			answer(w, http.StatusPreconditionFailed, "PreconditionFailed")
			return
		}
	}
	if f.keep != nil {
		body = f.keep(key, body)
	}
	f.objects[key] = body
	w.Header().Set("ETag", f.etag(body))
}

// list answers with a page of keys that begin with a prefix.
func (f *fake) list(w http.ResponseWriter, q url.Values) {
	type object struct {
		Key          string
		Size         int
		LastModified string
	}
	var result struct {
		XMLName               xml.Name `xml:"ListBucketResult"`
		EncodingType          string
		IsTruncated           bool
		NextContinuationToken string
		Contents              []object
	}
	result.EncodingType = "url"
	var keys []string
	for key := range f.objects {
		if strings.HasPrefix(key, q.Get("prefix")) && key > q.Get("continuation-token") {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	if page := f.page; page > 0 && len(keys) > page {
		keys = keys[:page]
		result.IsTruncated, result.NextContinuationToken = true, keys[page-1]
	}
	for _, key := range keys {
		result.Contents = append(result.Contents, object{
			strings.ReplaceAll(url.QueryEscape(key), "%2F", "/"), len(f.objects[key]), time.Now().UTC().Format(time.RFC3339),
		})
	}
	_ = xml.NewEncoder(w).Encode(result)
}

// certificate returns the certificate of a server, in PEM.
func certificate(server *httptest.Server) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
}
