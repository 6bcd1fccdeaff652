package farstore

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// A line takes its time, changes nothing, and counts.
func TestLine(t *testing.T) {
	store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		_, _ = io.WriteString(w, r.Host+" "+r.RequestURI+" "+string(body))
	}))
	defer store.Close()
	const roundTrip = 50 * time.Millisecond
	l, err := Open(t.Context(), strings.TrimPrefix(store.URL, "http://"), roundTrip)
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	for _, one := range []struct{ method, uri, body string }{
		{http.MethodPut, "/bucket/packs/ab/cd", strings.Repeat("x", 100_000)},
		{http.MethodGet, "/bucket/packs/ab/cd", ""},
		{http.MethodGet, "/bucket/?list-type=2&prefix=packs%2F", ""},
	} {
		req, err := http.NewRequestWithContext(t.Context(), one.method, "http://"+l.Addr+one.uri, strings.NewReader(one.body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		said, err := io.ReadAll(resp.Body)
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
		if want := l.Addr + " " + one.uri + " " + one.body; err != nil || string(said) != want {
			t.Errorf("%s %s: %.100q, %v", one.method, one.uri, said, err)
		}
	}
	if took := time.Since(begin); took < 3*roundTrip {
		t.Errorf("three requests took %v, want at least %v", took, 3*roundTrip)
	}
	got := l.Take()
	for kind, atLeast := range map[string]int64{"PUT packs": 200_000, "GET packs": 10, "LIST": 10} {
		if c := got[kind]; c.Requests != 1 || c.Bytes < atLeast || c.Bytes > atLeast+200 {
			t.Errorf("%s: %+v, want one request of %d bytes", kind, c, atLeast)
		}
	}
	if err := l.Close(); err != nil || len(got) != 3 || len(l.Take()) != 0 {
		t.Errorf("%v, %v", got, err)
	}
}
