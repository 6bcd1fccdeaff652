package virtual

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/snap-backup/snap/device/simulator/synthetic"
	"github.com/snap-backup/snap/internal/process"
	"github.com/snap-backup/snap/repo/backend/memory"
)

// Only spools that nobody continues are removed, and never one of a process that
// is alive.
func TestSweepSpools(t *testing.T) {
	self := process.Current()
	if self.Started == "" {
		t.Skip("this system does not tell when a process started")
	}
	dead, elsewhere := self, self
	dead.Started += "1"
	elsewhere.Host += "x"
	const mine, other = "0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"
	now := time.Now()
	for i, c := range []struct {
		what  string
		repo  string
		known bool
		owner *process.Identity // nil for none
		age   time.Duration
		stays bool
	}{
		{"known, dead", mine, true, &dead, 100 * 24 * time.Hour, true},
		{"dead", mine, false, &dead, 0, false},
		{"alive and old", mine, false, &self, 100 * 24 * time.Hour, true},
		{"elsewhere", mine, false, &elsewhere, time.Hour, true},
		{"elsewhere, old", mine, false, &elsewhere, 25 * time.Hour, false},
		{"nobody, new", mine, false, nil, time.Hour, true},
		{"nobody, old", mine, false, nil, 25 * time.Hour, false},
		{"another repository, dead", other, false, &dead, 29 * 24 * time.Hour, true},
		{"another repository, dead, old", other, false, &dead, 31 * 24 * time.Hour, false},
		{"another repository, alive and old", other, false, &self, 31 * 24 * time.Hour, true},
		{"not a spool", "x", false, &dead, 100 * 24 * time.Hour, true},
		{"a copy of one that somebody keeps", mine + "-0123456789abcdef", false, &dead, 100 * 24 * time.Hour, true},
	} {
		t.Run(c.what, func(t *testing.T) {
			dir := t.TempDir()
			run := strings.Repeat("a", 15) + string(rune('0'+i%10))
			name := filepath.Join(dir, spoolName(c.repo, run))
			if err := os.Mkdir(name, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(name, spoolData), []byte("sealed"), 0o600); err != nil {
				t.Fatal(err)
			}
			if c.owner != nil {
				b, err := json.Marshal(c.owner)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(name, spoolOwner), b, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			sweepSpools(dir, mine, map[string]bool{run: c.known}, self, now.Add(c.age))
			if _, err := os.Stat(name); (err == nil) != c.stays {
				t.Errorf("it is there: %v, want %v", err == nil, c.stays)
			}
		})
	}
}

// A process that is killed early, before any checkpoint, has what came in its
// spool: the next run finds it. One that is killed before the repository knows of
// it leaves a spool that the next run sweeps.
func TestKilledBeforeTheFirstCheckpoint(t *testing.T) {
	ctx := context.Background()
	s, base := newSeries(t, synthetic.Config{Seed: 6, Encryption: synthetic.EncryptAll}), memory.New()
	s.next()
	r := createRepo(t, base)
	if err := r.KeepDevicePassword(ctx, s.phone.udid, []byte(s.Password(0))); err != nil {
		t.Fatal(err)
	}
	self := process.Current()
	dead := self
	dead.Started += "1"
	for _, c := range []struct {
		step  string
		n     int
		known bool
	}{{"file", 3, false}, {"file", 115, true}, {"manifests", 1, true}} {
		be := base.Clone()
		opts := RunOptions{UDID: s.phone.udid, Encrypted: true, SpoolDir: t.TempDir(), Owner: &dead}
		p := newPhone(s.phone.dir)
		p.step = breakAt(c.step, c.n)
		n, err := NewRun(ctx, mustOpen(t, be, 4), opts)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.backup(ctx, n, nil); !errors.Is(err, errCable) {
			t.Fatal(err)
		}
		files, bytes := n.files, n.bytes
		n.mu.Lock()
		n.letGo() // killed
		n.mu.Unlock()
		opts.Owner = &self
		next, err := NewRun(ctx, mustOpen(t, be, 5), opts)
		if err != nil {
			t.Fatal(err)
		}
		got := next.Resumed()
		t.Logf("%s %d: killed with %d files of %d bytes, resumed %+v", c.step, c.n, files, bytes, got)
		left, err := filepath.Glob(filepath.Join(opts.SpoolDir, "*"))
		if err != nil || len(left) != 1 || !slices.Contains(left, next.spool.dir) {
			t.Errorf("%s %d: spools are left: %v, %v", c.step, c.n, left, err)
		}
		if c.known != (got.Files > 0) || c.known && got.Bytes < bytes-2*spoolBuffer {
			t.Errorf("%s %d: killed with %d bytes, resumed %+v", c.step, c.n, bytes, got)
		}
		if err := next.Close(ctx); err != nil {
			t.Fatal(err)
		}
		p.step = nil
		res, err := run(mustOpen(t, be, 6), p, nil, opts)
		if err != nil {
			t.Fatal(err)
		}
		want, err := folderPicture(p.dir)
		if err != nil {
			t.Fatal(err)
		}
		have, err := snapshotPicture(mustOpen(t, be, 7), res.Snapshot)
		if err == nil {
			err = samePicture(want, have)
		}
		if err != nil {
			t.Error(err)
		}
	}
}

// What is noted of a file that comes again is out before the next version comes.
func TestSpoolForgets(t *testing.T) {
	dir, self := t.TempDir(), process.Current()
	s, err := openSpool(dir, "snap-r-x", 1<<20, self)
	if err != nil {
		t.Fatal(err)
	}
	write := func(path, content string, noted bool) {
		t.Helper()
		s.begin()
		if _, err := s.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
		s.commit(path)
		if noted {
			if err := errors.Join(s.flush(), s.noteFresh()); err != nil {
				t.Fatal(err)
			}
		}
	}
	write("noted", "first", true)
	write("waits", "first", false)
	write("stays", "content", true)
	for _, path := range []string{"noted", "waits"} {
		if err := s.forget(path); err != nil {
			t.Fatal(err)
		}
	}
	write("waits", "second", false)
	if err := errors.Join(s.sync(), s.close()); err != nil {
		t.Fatal(err)
	}
	if s, err = openSpool(dir, "snap-r-x", 1<<20, self); err != nil {
		t.Fatal(err)
	}
	defer s.close()
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.load(gone); !errors.Is(err, context.Canceled) {
		t.Errorf("read to no avail: %v", err)
	}
	kept, err := s.load(t.Context())
	if err != nil || len(kept) != 2 || kept["stays"].Size != 7 || kept["waits"].Size != 6 {
		t.Errorf("%+v, %v", kept, err)
	}
}
