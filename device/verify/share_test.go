package verify

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/snap-backup/snap/device/blob"
	"github.com/snap-backup/snap/device/finding"
	"github.com/snap-backup/snap/device/simulator/synthetic"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/fault"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
)

// certify verifies a snapshot and returns its certificate.
func certify(t testing.TB, r *repo.Repo, s *repo.Snapshot, opts Options) (*Report, *repo.Certificate) {
	t.Helper()
	opts.Level = Full
	rep := run(t, r, s, opts)
	c := rep.Certificate(s, "host", "test")
	c.Time = time.Now()
	return rep, c
}

// TestShared verifies the days of a device. Only what changed is read.
func TestShared(t *testing.T) {
	t.Parallel()
	for _, encryption := range []synthetic.Encryption{synthetic.EncryptNone, synthetic.EncryptAll} {
		ctx := t.Context()
		dir := t.TempDir()
		pw := ""
		if encryption == synthetic.EncryptAll {
			pw = synthetic.DefaultPassword
		}
		days, err := synthetic.New(synthetic.Config{Seed: 5, Encryption: encryption, StateDir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		defer days.Close()
		r := repotest.Create(t, memory.New())
		var list []*repo.Snapshot
		for range 3 {
			if err := days.Next(ctx, dir); err != nil {
				t.Fatal(err)
			}
			folder := filepath.Join(dir, days.Devices()[0].UDID)
			list = append(list, importInto(t, r, folder, pw))
			if err := r.LoadIndex(ctx); err != nil {
				t.Fatal(err)
			}
		}
		var certificates []*repo.Certificate
		for i, s := range slices.Backward(list) {
			rep, c := certify(t, r, s, Options{Unlock: unlock(pw), Bases: BasesOf(s, list, certificates, time.Now().Add(-time.Hour))})
			certificates = append(certificates, c)
			if rep.ReadFiles+rep.SharedFiles != s.Files || rep.ReadBytes+rep.SharedBytes != s.Bytes || !rep.Passed {
				t.Errorf("day %d: %+v", i, rep)
			}
			if last := i == len(list)-1; last != (rep.SharedFiles == 0) || !last && rep.SharedFiles < s.Files/2 {
				t.Errorf("day %d shares %d of %d files", i, rep.SharedFiles, s.Files)
			}
		}
		if rep, _ := certify(t, r, list[0], Options{Bases: BasesOf(list[0], list, certificates, time.Now())}); rep.SharedFiles != 0 {
			t.Error("certificates that are too old were used")
		}
	}
}

// TestSharedDamage verifies a snapshot with damage twice. The damaged file is read
// again, and found again.
func TestSharedDamage(t *testing.T) {
	t.Parallel()
	m := newMade(t, false)
	m.file(bigDB).blob = flip(4096 + 3)
	_, r, s := imported(t, m.write(), "")
	first, c := certify(t, r, s, Options{})
	again, _ := certify(t, r, s, Options{Bases: BasesOf(s, []*repo.Snapshot{s}, []*repo.Certificate{c}, time.Time{})})
	if first.Passed || again.Passed || again.ReadFiles != 1 || again.SharedFiles != s.Files-1 || again.Findings[0].Kind != finding.Database {
		t.Errorf("%+v\n%+v", first, again)
	}
	c.Findings[0].Count = 1000 // more than it names
	if rep, _ := certify(t, r, s, Options{Bases: BasesOf(s, []*repo.Snapshot{s}, []*repo.Certificate{c}, time.Time{})}); rep.SharedFiles != 0 {
		t.Errorf("%+v", rep)
	}
}

// TestDeadline verifies in pieces. Each run continues where the last one ended.
func TestDeadline(t *testing.T) {
	t.Parallel()
	m := newMade(t, true)
	for i := range 900 {
		f := *m.file(text)
		f.rec.RelativePath = "Library/many/" + strings.Repeat("x", i%7) + string(rune('a'+i%26)) + strings.Repeat("y", i/26)
		m.files = append(m.files, &f)
	}
	_, r, s := imported(t, m.write(), password)
	list := []*repo.Snapshot{s}
	certificates := []*repo.Certificate{}
	for runs := 1; ; runs++ {
		rep, c := certify(t, r, s, Options{Bases: BasesOf(s, list, certificates, time.Time{}), Deadline: time.Now().Add(-time.Hour)})
		if !rep.Passed || rep.ReadFiles+rep.SharedFiles+rep.LeftFiles != s.Files {
			t.Fatalf("%+v", rep)
		}
		certificates = append(certificates, c)
		if rep.LeftFiles == 0 {
			if c.Level != repo.LevelFull || c.StoppedAt != nil {
				t.Errorf("%+v", c)
			}
			break
		}
		if c.Level != repo.LevelQuick || len(rep.NotChecked) == 0 {
			t.Errorf("%+v", c)
		}
		if runs > 20 {
			t.Fatal("it does not end")
		}
	}
}

// endsWhileReading is a backend that calls end when a full verification reads a pack.
type endsWhileReading struct {
	backend.Backend
	progress *blob.Progress
	end      func()
}

func (b *endsWhileReading) ReadAt(ctx context.Context, name string, p []byte, off int64) (int, error) {
	if b.progress.Phase() == "reading files" {
		b.end()
	}
	return b.Backend.ReadAt(ctx, name, p, off)
}

// TestInterrupted ends the context of a verification that reads. With Grace, what was read
// is kept, and the next verification continues there.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	m := newMade(t, true)
	for i := range 900 {
		f := *m.file(text)
		f.rec.RelativePath = fmt.Sprintf("Library/many/%03d", i)
		m.files = append(m.files, &f)
	}
	be, _, s := imported(t, m.write(), password)
	for _, grace := range []time.Duration{0, time.Hour} {
		ctx, cancel := context.WithCancel(t.Context())
		p := &blob.Progress{}
		r := repotest.MustOpen(t, &endsWhileReading{be, p, cancel})
		rep, err := Verify(ctx, r, s, Options{Level: Full, Workers: 1, Unlock: unlock(password), Progress: p, Grace: grace})
		cancel()
		if grace == 0 {
			if !errors.Is(err, context.Canceled) {
				t.Errorf("without grace: %v", err)
			}
			continue
		}
		if err != nil || !rep.Passed || rep.ReadFiles == 0 || rep.LeftFiles == 0 || rep.ReadFiles+rep.LeftFiles != s.Files {
			t.Fatalf("%+v, %v", rep, err)
		}
		c := rep.Certificate(s, "host", "test")
		c.Time = time.Now()
		if c.StoppedAt == nil || c.Level != repo.LevelQuick {
			t.Errorf("%+v", c)
		}
		next, _ := certify(t, repotest.MustOpen(t, be), s, Options{Unlock: unlock(password), Bases: BasesOf(s, []*repo.Snapshot{s}, []*repo.Certificate{c}, time.Time{})})
		if !next.Passed || next.LeftFiles != 0 || next.SharedFiles != rep.ReadFiles {
			t.Errorf("%d files were read before the end, then %+v", rep.ReadFiles, next)
		}
	}
}

// TestLost verifies a snapshot of which the repository has lost packs.
func TestLost(t *testing.T) {
	t.Parallel()
	be, r, s := imported(t, generated(t, synthetic.Config{}), "")
	whole := run(t, r, s, Options{Level: Full})
	packs := repotest.FilesIn(t, be, "packs/")
	lostSome := false
	for _, pack := range packs {
		other := be.Clone()
		if err := other.Delete(t.Context(), pack); err != nil {
			t.Fatal(err)
		}
		r := repotest.MustOpen(t, other)
		for _, level := range []Level{Quick, Full} {
			rep := run(t, r, s, Options{Level: level})
			if rep.Passed || !rep.Lost() {
				t.Errorf("without %s, %s: %+v", pack, level, rep.Findings)
			}
			lostSome = lostSome || rep.Files == whole.Files
		}
	}
	if !lostSome {
		t.Error("no pack has only content")
	}
}

// TestUnreadListIsNotShared verifies a snapshot with a damaged database while its list of
// files cannot be read. That verification has read no file, so the next one reads all and
// finds the damage.
func TestUnreadListIsNotShared(t *testing.T) {
	t.Parallel()
	m := newMade(t, false)
	m.file(bigDB).blob = flip(4096 + 3)
	be, r, s := imported(t, m.write(), "")
	loc, ok := r.Index().Lookup(s.Root)
	if !ok {
		t.Fatal("the list of files is in no pack")
	}
	broken := repotest.MustOpen(t, fault.New(be, fault.Unreadable(repotest.PackName(loc.Pack), syscall.EIO)))
	first, c := certify(t, broken, s, Options{})
	again, _ := certify(t, r, s, Options{Bases: BasesOf(s, []*repo.Snapshot{s}, []*repo.Certificate{c}, time.Time{})})
	if first.Passed || first.ReadFiles != 0 {
		t.Errorf("without its list: %+v", first)
	}
	if again.Passed || again.SharedFiles != 0 || again.ReadFiles != s.Files {
		t.Errorf("with its list: %+v", again)
	}
}

// TestReadAgain lets the first reads of the list of files fail. What can be read later is
// judged, although the backup could not be opened.
func TestReadAgain(t *testing.T) {
	t.Parallel()
	m := newMade(t, false)
	m.file(bigDB).blob = flip(4096 + 3)
	be, r, s := imported(t, m.write(), "")
	loc, _ := r.Index().Lookup(s.Root)
	for n := range 8 {
		store := fault.New(be)
		broken := repotest.MustOpen(t, store)
		store.SetPlan(fault.On(fault.ReadAt, repotest.PackName(loc.Pack), func(c fault.Call) fault.Action {
			if c.N <= n {
				return fault.Action{Before: syscall.EIO}
			}
			return fault.Action{}
		}))
		if rep := run(t, broken, s, Options{Level: Full}); rep.Passed {
			t.Errorf("%d reads failed, and the damaged database was not found: %+v", n, rep)
		}
	}
}
