package sftp

import (
	"bytes"
	"testing"
	"time"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/limit"
)

// TestInteropLimit writes and reads a file through a pipe with limits, and cancels and closes
// while bytes wait.
func TestInteropLimit(t *testing.T) {
	t.Parallel()
	const up, down, size = 2 << 20, 4 << 20, 1 << 20
	dir, server := folder(t), opensshServer(t)
	b := create(t, dir, Options{Command: server, Limits: limit.New(up, down)})
	data := bytes.Repeat([]byte("0123456789abcdef"), size/16)
	timed := func(about string, rate float64, do func()) {
		start := time.Now()
		do()
		if took, least := time.Since(start).Seconds(), size/rate-0.1; took < least || took > least+5 {
			t.Errorf("%s took %.2f s, want %.2f s", about, took, least)
		}
	}
	timed("putting", up, func() { put(t, b, "packs/ab/1", string(data)) })
	timed("getting", down, func() {
		if got, err := backend.ReadAll(t.Context(), b, "packs/ab/1", size); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d of %d bytes, %v", len(got), size, err)
		}
	})
	slow := newBackend(dir, Options{Command: server, Limits: limit.New(1<<10, 1<<10)})
	if _, err := slow.Stat(t.Context(), "packs/ab/1"); err != nil {
		t.Fatal(err)
	}
	failed := make(chan error, 2)
	go func() { failed <- slow.Put(t.Context(), "packs/ab/2", data) }()
	go func() {
		_, err := slow.ReadAt(t.Context(), "packs/ab/1", make([]byte, size), 0)
		failed <- err
	}()
	time.Sleep(200 * time.Millisecond)
	start := time.Now()
	slow.current.cut()
	for range 2 {
		if err := <-failed; err == nil || !backend.Temporary(err) {
			t.Errorf("after a cut: %v", err)
		}
	}
	if err := slow.Close(); err != nil || time.Since(start) > 10*time.Second {
		t.Errorf("closing took %v, %v", time.Since(start), err)
	}
	if got := list(t, b); len(got) != 1 {
		t.Errorf("files: %v", got)
	}
}
