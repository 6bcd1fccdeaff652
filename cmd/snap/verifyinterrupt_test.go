package main

import (
	"bytes"
	"context"
	"encoding/json"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/repo"
)

// Ctrl-C ends a verification. What is known of snapshots that were verified is kept.
func TestVerifyInterrupted(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("SNAP_REPOSITORY", filepath.Join(dir, "repo"))
	t.Setenv("SNAP_PASSWORD", "pears")
	run := func(ctx context.Context, out *lines, args ...string) (code int, messages string) {
		var stderr bytes.Buffer
		a := &app{stdin: strings.NewReader(""), stdout: out, stderr: &stderr}
		code = a.run(ctx, args)
		return code, stderr.String()
	}
	quiet := &lines{wrote: func(string) {}}
	for _, args := range [][]string{
		{"init"},
		{"generate", "--scale", "tiny", "--devices", "2", filepath.Join(dir, "backups")},
		{"import", "-q", filepath.Join(dir, "backups")},
	} {
		if code, messages := run(t.Context(), quiet, args...); code != 0 {
			t.Fatalf("%v: code %d: %s", args, code, messages)
		}
	}
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	out := &lines{wrote: func(line string) {
		if strings.Contains(line, "passed (full)") {
			interrupt()
		}
	}}
	code, messages := run(ctx, out, "verify", "--level", "full", "--all")
	if code != exitInterrupted || !strings.Contains(messages, "the results of the verified snapshots are kept, but not what was read") || strings.Contains(messages, "FAILED") {
		t.Errorf("code %d: %s", code, messages)
	}
	again := &lines{wrote: func(string) {}}
	if code, messages = run(t.Context(), again, "verify", "--level", "full", "--all"); code != 0 || !strings.Contains(again.all.String(), "1 snapshot passed in the last 30d") {
		t.Errorf("code %d: %s%s", code, again.all.String(), messages)
	}
}

// countedReads is a storage that calls end at the n-th read of a pack.
type countedReads struct {
	storage
	left atomic.Int64
	end  func()
}

func (s *countedReads) ReadAt(ctx context.Context, name string, p []byte, off int64) (int, error) {
	if strings.HasPrefix(name, "packs/") && s.left.Add(-1) == 0 {
		s.end()
	}
	return s.storage.ReadAt(ctx, name, p, off)
}

// Ctrl-C while files are read keeps what was read, and the next run continues there.
func TestVerifyInterruptedWhileReading(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("SNAP_REPOSITORY", filepath.Join(dir, "repo"))
	t.Setenv("SNAP_PASSWORD", "pears")
	run := func(reads int64, args ...string) (code int, out, messages string) {
		ctx, interrupt := context.WithCancel(t.Context())
		defer interrupt()
		var stdout, stderr bytes.Buffer
		a := &app{stdin: strings.NewReader(""), stdout: &stdout, stderr: &stderr, options: repo.Options{PackSize: 64 << 10, Cost: crypto.Cost{Time: 1, MemoryKiB: 8, Threads: 1}}}
		a.through = func(_ string, be storage) storage {
			s := &countedReads{storage: be, end: interrupt}
			s.left.Store(reads)
			return s
		}
		code = a.run(ctx, args)
		return code, stdout.String(), stderr.String()
	}
	for _, args := range [][]string{
		{"init"},
		{"import", "-q", manyFiles(t)},
	} {
		if code, _, messages := run(0, args...); code != 0 {
			t.Fatalf("%v: code %d: %s", args, code, messages)
		}
	}
	for reads := int64(1); ; reads++ {
		code, out, messages := run(reads, "verify", "--level", "full")
		if code == 0 {
			t.Fatalf("no Ctrl-C has left files: %s%s", out, messages)
		}
		if code != exitInterrupted {
			t.Fatalf("code %d: %s", code, messages)
		}
		if strings.Contains(messages, "what was read is kept: ") {
			break
		}
	}
	code, out, messages := run(0, "verify", "--level", "full", "--json")
	var res struct {
		Snapshots []struct {
			Passed bool  `json:"passed"`
			Shared int64 `json:"shared_files"`
			Left   int64 `json:"left_files"`
		}
	}
	if err := json.Unmarshal([]byte(out), &res); err != nil || code != 0 || len(res.Snapshots) != 1 || !res.Snapshots[0].Passed || res.Snapshots[0].Shared == 0 || res.Snapshots[0].Left != 0 {
		t.Errorf("code %d, %v: %s%s", code, err, out, messages)
	}
}
