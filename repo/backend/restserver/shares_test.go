package restserver

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"

	"github.com/snap-backup/snap/repo/backend/memory"
)

// One user who sends many files slowly leaves memory for the files of others.
func TestOneUserLeavesMemory(t *testing.T) {
	t.Parallel()
	opts := withUsers(t, "anna", "ben")
	opts.MaxFile, opts.Memory = 100, 100
	synctest.Test(t, func(t *testing.T) {
		s := New(memory.New(), opts)
		body, trickle := io.Pipe()
		var held []*httptest.ResponseRecorder
		for range 8 {
			w := httptest.NewRecorder()
			r := httptest.NewRequest(http.MethodPost, "/phones/keys/x", body)
			r.ContentLength = 25
			r.Header.Set("Snap-Sha256", "00000000000000000000000000000000000000000000000000000000000000ff")
			held = append(held, w)
			go s.as("anna").ServeHTTP(w, r)
		}
		synctest.Wait()
		expect(t, ask(s.as("ben"), http.MethodPost, "/phones/keys/y", make([]byte, 25), nil), 200, "")
		expect(t, ask(s.as("anna"), http.MethodPost, "/phones/keys/y", make([]byte, 1), nil), 503, "")
		synctest.Wait()
		trickle.Close()
		synctest.Wait()
		busy := 0
		for _, w := range held {
			if w.Code == http.StatusServiceUnavailable {
				busy++
			}
		}
		if busy != 5 {
			t.Errorf("%d of 8 uploads had no memory, want 5", busy)
		}
	})
}
