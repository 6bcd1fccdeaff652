package repo_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/fault"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/mirror"
	"github.com/snap-backup/snap/repo/repotest"
)

// certifiedDays returns a repository with a certificate of each of these days.
func certifiedDays(t *testing.T, days ...int) *memory.Backend {
	t.Helper()
	be := repotest.New(t, days...)
	if err := repotest.CertifyAll(t.Context(), be, repotest.Secret, 60); err != nil {
		t.Fatal(err)
	}
	return be
}

// wantCertified fails the test unless the days have these numbers of certificates, and
// orphans is the number of certificates of no snapshot.
func wantCertified(t *testing.T, be backend.Backend, want map[int]int, orphans int) {
	t.Helper()
	got, n, err := repotest.Certified(t.Context(), be, repotest.Secret)
	if err != nil || !maps.Equal(got, want) || n != orphans {
		t.Errorf("certificates %v and %d of no snapshot, %v; want %v and %d", got, n, err, want, orphans)
	}
}

func TestCertificate(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	be := repotest.New(t, 1, 2)
	r := repotest.MustOpenWith(t, be, repotest.Secret, repotest.Options(70))
	s, err := repotest.FindDay(ctx, r, 1)
	if err != nil {
		t.Fatal(err)
	}
	first, err := repotest.Certify(ctx, r, s)
	if err != nil {
		t.Fatal(err)
	}
	second := &repo.Certificate{
		Snapshot: s.FirstID(), Root: s.Root, Kind: repo.CertificateDrill, Level: repo.LevelDevice, Result: repo.ResultFailed,
		NotChecked: []string{"the backup password is not known"},
		Findings:   []repo.Finding{{Kind: "missing", Consequence: repo.Damage, Count: 1, Names: []string{"HomeDomain/a"}, Text: "a file is missing"}},
	}
	id, err := r.WriteCertificate(ctx, second)
	if err != nil || id != second.ID || second.Time.IsZero() {
		t.Fatal(id, second, err)
	}
	list, damaged, err := r.Certificates(ctx)
	if err != nil || len(damaged) > 0 || len(list) != 2 || list[0].ID != first.ID || list[1].ID != id {
		t.Fatalf("%+v, %v, %v", list, damaged, err)
	}
	if got, want := fmt.Sprintf("%+v", list[1]), fmt.Sprintf("%+v", second); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if verified, drilled := repo.LastPassed(list[:1], s); !verified.Equal(first.Time) || !drilled.IsZero() {
		t.Errorf("verified %v, drilled %v", verified, drilled)
	}
	if verified, drilled := repo.LastPassed(list, s); !verified.IsZero() || !drilled.IsZero() {
		t.Errorf("after a failed drill: verified %v, drilled %v", verified, drilled)
	}
	locked, incomplete := *first, *s
	locked.Locked, incomplete.Complete = true, false
	if verified, _ := repo.LastPassed([]*repo.Certificate{&locked}, s); !verified.IsZero() {
		t.Errorf("a locked certificate counts: %v", verified)
	}
	if verified, _ := repo.LastPassed(list[:1], &incomplete); !verified.IsZero() {
		t.Errorf("an incomplete snapshot counts: %v", verified)
	}
	lost := *s
	lost.Root[0]++
	if verified, drilled := repo.LastPassed(list, &lost); !verified.IsZero() || !drilled.IsZero() {
		t.Errorf("after a loss: verified %v, drilled %v", verified, drilled)
	}
	for _, c := range []*repo.Certificate{{}, {Snapshot: s.ID}, {Snapshot: s.ID, Kind: repo.CertificateVerify}} {
		if _, err := r.WriteCertificate(ctx, c); err == nil {
			t.Errorf("%+v was stored", c)
		}
	}
}

// A process that may not write can go on without a certificate.
func TestCertificateInAReadOnlyRepository(t *testing.T) {
	t.Parallel()
	for cause, readOnly := range map[error]bool{fs.ErrPermission: true, backend.ErrNoSpace: false} {
		be := repotest.New(t, 1)
		r := repotest.MustOpen(t, fault.New(be, fault.On(fault.Put, repotest.CertificatesDir, fault.From(1, cause))))
		s, err := repotest.FindDay(t.Context(), r, 1)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := repotest.Certify(t.Context(), r, s); errors.Is(err, repo.ErrReadOnly) != readOnly || !errors.Is(err, cause) {
			t.Errorf("%v: got %v", cause, err)
		}
	}
}

// Certificates stay as long as their snapshots, whatever labels these get.
func TestCertificatesStayWithTheirSnapshots(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	be := certifiedDays(t, 1, 2, 3)
	r := repotest.MustOpenWith(t, be, repotest.Secret, repotest.SmallPacks(61))
	l, err := r.Lock(ctx, repo.LockWrite, "label")
	if err != nil {
		t.Fatal(err)
	}
	for _, day := range []int{1, 1, 2} {
		s, err := repotest.FindDay(ctx, r, day)
		if err != nil {
			t.Fatal(err)
		}
		n, err := r.ChangeSnapshot(ctx, s, repo.Labels{Note: fmt.Sprint(day, s.ID)})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := repotest.Certify(ctx, r, n); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Release(); err != nil {
		t.Fatal(err)
	}
	wantCertified(t, be, map[int]int{1: 3, 2: 2, 3: 1}, 0)
	if err := repotest.Forget(ctx, be, 1); err != nil {
		t.Fatal(err)
	}
	wantCertified(t, be, map[int]int{2: 2, 3: 1}, 0)
	if _, err := repotest.Prune(ctx, be, repotest.NoWaste); err != nil {
		t.Fatal(err)
	}
	wantCertified(t, be, map[int]int{2: 2, 3: 1}, 0)
}

// Certificates without a snapshot may be those of a snapshot whose record is damaged.
// They stay until all records can be read.
func TestCertificatesOfADamagedRecordStay(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	be := certifiedDays(t, 1, 2, 3)
	s, err := repotest.FindDay(ctx, repotest.MustOpen(t, be), 2)
	if err != nil {
		t.Fatal(err)
	}
	name := repotest.SnapshotsDir + s.ID.String()
	good := repotest.Content(t, be)[name]
	repotest.Flip(t, be, name, 100)
	if err := repotest.Forget(ctx, be, 1); err != nil {
		t.Fatal(err)
	}
	wantCertified(t, be, map[int]int{3: 1}, 2)
	if rep, err := repotest.MustOpen(t, be).Check(ctx, repo.CheckOptions{}); err != nil || len(rep.Unreferenced) > 0 {
		t.Errorf("%+v, %v", rep, err)
	}
	if err := be.Set(name, good); err != nil {
		t.Fatal(err)
	}
	wantCertified(t, be, map[int]int{2: 1, 3: 1}, 1)
	if rep, err := repotest.MustOpen(t, be).Check(ctx, repo.CheckOptions{}); err != nil || len(rep.Problems) > 0 || len(rep.Unreferenced) != 1 {
		t.Errorf("%+v, %v", rep, err)
	}
	if _, err := repotest.Prune(ctx, be, repotest.NoWaste); err != nil {
		t.Fatal(err)
	}
	wantCertified(t, be, map[int]int{2: 1, 3: 1}, 0)
}

// A backup that ends while certificates are removed keeps its own.
func TestCertificatesBesideABackup(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	for at := 1; ; at++ {
		be := certifiedDays(t, 1, 2)
		lists, stored := 0, false
		hooked := &beforeList{be, func() {
			if lists++; lists != at {
				return
			}
			stored = true
			if _, err := repotest.StoreDay(ctx, be, 3); err != nil {
				t.Fatal(err)
			}
			if err := repotest.CertifyAll(ctx, be, repotest.Secret, 62); err != nil {
				t.Fatal(err)
			}
		}}
		if err := repotest.Forget(ctx, hooked, 1); err != nil {
			t.Fatal(err)
		}
		if !stored {
			if at < 5 {
				t.Errorf("only %d listings", at)
			}
			return
		}
		days, _, err := repotest.Certified(ctx, be, repotest.Secret)
		if err != nil || days[2] != 2 || days[3] != 1 {
			t.Errorf("a backup before listing %d: %v, %v", at, days, err)
		}
	}
}

// beforeList calls hook before each listing.
type beforeList struct {
	backend.Backend
	hook func()
}

func (b *beforeList) List(ctx context.Context, prefix string, fn func(backend.Info) error) error {
	b.hook()
	return b.Backend.List(ctx, prefix, fn)
}

// Check names a damaged certificate, but no snapshot is affected. A repair removes the
// certificate, or fetches it from a mirror.
func TestDamagedCertificate(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	pristine := certifiedDays(t, 1, 2)
	name := repotest.FilesIn(t, pristine, repotest.CertificatesDir)[0]
	want := repotest.Content(t, pristine)[name]
	size := len(want)
	for _, at := range []int{0, 8, 40, size / 2, size - 1} {
		be := pristine.Clone()
		repotest.Flip(t, be, name, at)
		rep, err := repotest.MustOpen(t, be).Check(ctx, repo.CheckOptions{})
		if err != nil || !rep.Clean() || len(rep.Problems) != 1 || rep.Problems[0].File != name || rep.Problems[0].Hint == "" {
			t.Fatalf("byte %d: %+v, %v", at, rep, err)
		}
		healed := be.Clone()
		err = repotest.Repair(ctx, healed, 63, func(r *repo.Repo) error {
			_, err := r.HealFromMirror(ctx, pristine, repo.HealOptions{})
			return err
		})
		if err != nil || !slices.Equal(repotest.Content(t, healed)[name], want) {
			t.Errorf("byte %d: not healed, %v", at, err)
		}
		for _, dryRun := range []bool{true, false} {
			err = repotest.Repair(ctx, be, 64, func(r *repo.Repo) error {
				rep, err := r.RepairSnapshots(ctx, repo.SnapshotRepairOptions{Options: repo.RepairOptions{DryRun: dryRun}})
				if err == nil && !slices.Equal(rep.Certificates, []string{name}) {
					err = fmt.Errorf("%+v", rep)
				}
				return err
			})
			if _, left := repotest.Content(t, be)[name]; err != nil || left != dryRun {
				t.Errorf("byte %d, dry run %v: still there: %v, %v", at, dryRun, left, err)
			}
		}
		if err := repotest.Verify(be, 1, 2); err != nil {
			t.Error(err)
		}
	}
}

// A lost certificate comes back from a mirror, and so does one that was made there.
func TestCertificatesFromAMirror(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	source, target := certifiedDays(t, 1, 2), memory.New()
	mirrored := func() {
		t.Helper()
		if _, err := mirror.Run(ctx, source, target, mirror.Options{}); err != nil {
			t.Fatal(err)
		}
	}
	judged := mirror.Options{Judge: repotest.MustOpenWith(t, source, repotest.Secret, repotest.SmallPacks(64)).MirrorJudge()}
	same := func(want bool) {
		t.Helper()
		if rep, err := mirror.Check(ctx, source, target, mirror.Options{}); err != nil || rep.Same() != want {
			t.Errorf("%+v, %v", rep, err)
		}
	}
	mirrored()
	wantCertified(t, target, map[int]int{1: 1, 2: 1}, 0)
	if err := repotest.CertifyAll(ctx, target, repotest.Secret, 65); err != nil {
		t.Fatal(err)
	}
	mirrored()
	same(true)
	wantCertified(t, target, map[int]int{1: 2, 2: 2}, 0)
	repotest.Remove(t, source, repotest.FilesIn(t, source, repotest.CertificatesDir)[0])
	err := repotest.Repair(ctx, source, 66, func(r *repo.Repo) error {
		rep, err := r.HealFromMirror(ctx, target, repo.HealOptions{})
		if err == nil && len(rep.Fetched) != 3 {
			err = fmt.Errorf("%+v", rep)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	wantCertified(t, source, map[int]int{1: 2, 2: 2}, 0)
	mirrored()

	// What the source removes, the mirror removes, too, in the second run with the key.
	if err := repotest.Forget(ctx, source, 1); err != nil {
		t.Fatal(err)
	}
	same(false)
	mirrored()
	same(true)
	wantCertified(t, target, map[int]int{1: 2, 2: 2}, 0)
	for range 2 {
		if _, err := mirror.Run(ctx, source, target, judged); err != nil {
			t.Fatal(err)
		}
		same(true)
	}
	wantCertified(t, target, map[int]int{2: 2}, 0)
	if err := repotest.CertifyAll(ctx, target, repotest.Secret, 67); err != nil {
		t.Fatal(err)
	}
	judged.AcceptRemovals = true
	if _, err := mirror.Run(ctx, source, target, judged); err != nil {
		t.Fatal(err)
	}
	wantCertified(t, target, map[int]int{2: 2}, 0)
}

// Certificates are copied with their snapshots. If a snapshot was copied earlier, its
// new certificates are copied later. Each is copied only once.
func TestCertificatesAreCopied(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	source, target := certifiedDays(t, 1, 2), repotest.NewOther(t)
	copyTo := func(from, to *memory.Backend, dryRun bool, want int) {
		t.Helper()
		r, other := repotest.MustOpenWith(t, from, repotest.Secret, repotest.SmallPacks(68)), repotest.MustOpenWith(t, to, repotest.Secret, repotest.SmallPacks(69))
		list, _, err := r.Snapshots(ctx)
		if err != nil {
			t.Fatal(err)
		}
		rep, err := r.CopyTo(ctx, other, list, repo.CopyOptions{DryRun: dryRun})
		if err != nil || rep.Certificates != want {
			t.Fatalf("%+v, %v, want %d certificates", rep, err, want)
		}
	}
	copyTo(source, target, true, 0)
	copyTo(source, target, false, 2)
	copyTo(source, target, false, 0)
	wantCertified(t, target, map[int]int{1: 1, 2: 1}, 0)
	if err := repotest.CertifyAll(ctx, source, repotest.Secret, 71); err != nil {
		t.Fatal(err)
	}
	copyTo(source, target, false, 2)
	copyTo(target, source, false, 0)
	wantCertified(t, target, map[int]int{1: 2, 2: 2}, 0)

	r, other := repotest.MustOpen(t, source), repotest.MustOpen(t, target)
	s, err := repotest.FindDay(ctx, other, 1)
	if err != nil {
		t.Fatal(err)
	}
	list, _, err := other.Certificates(ctx)
	if err != nil {
		t.Fatal(err)
	}
	c := repo.CertificatesOf(list, s)[0]
	want := repo.CertificateOrigin{Repository: r.Config().ID, Certificate: c.CopiedFrom.Certificate, Snapshot: s.CopiedFrom.Snapshot, Root: s.CopiedFrom.Root}
	if *c.CopiedFrom != want || c.Root != s.Root {
		t.Errorf("%+v, want %+v", c, want)
	}
	if verified, _ := repo.LastPassed(list, s); verified.IsZero() {
		t.Error("the copy was never verified")
	}
}

// A certificate that is dated in the future outdoes no other one, and is not recent.
func TestCertificatesFromTheFuture(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	future := now.AddDate(4, 0, 0)
	for _, c := range []struct {
		what          string
		first, second string // results; the first certificate is dated in the future
		put           time.Time
		refuted       bool
		passed        time.Time // zero if it never did
	}{
		{"a pass, then a failure", repo.ResultPassed, repo.ResultFailed, now.Add(-time.Hour), true, time.Time{}},
		{"a failure, then a pass", repo.ResultFailed, repo.ResultPassed, now.Add(-time.Hour), false, now},
		{"a pass on a disk with that clock, then a failure", repo.ResultPassed, repo.ResultFailed, future, true, time.Time{}},
		{"a failure on a disk with that clock, then a pass", repo.ResultFailed, repo.ResultPassed, future, false, now},
		{"only a failure", repo.ResultFailed, "", future, true, time.Time{}},
		{"only a pass", repo.ResultPassed, "", now.Add(-time.Hour), false, now.Add(-time.Hour)},
		{"only a pass on a disk with that clock", repo.ResultPassed, "", future, false, future},
	} {
		be := repotest.New(t, 1)
		opts := repotest.SmallPacks(5)
		opts.Now = func() time.Time { return now }
		r, err := repotest.Open(ctx, be, repotest.Secret, opts)
		if err != nil {
			t.Fatal(err)
		}
		s, err := repotest.FindDay(ctx, r, 1)
		if err != nil {
			t.Fatal(err)
		}
		put := func(result string, dated, put time.Time) {
			be.SetClock(func() time.Time { return put })
			_, err := r.WriteCertificate(ctx, &repo.Certificate{Snapshot: s.FirstID(), Root: s.Root, Time: dated, Kind: repo.CertificateDrill, Level: repo.LevelFolder, Result: result})
			if err != nil {
				t.Fatal(err)
			}
		}
		put(c.first, future, c.put)
		if c.second != "" {
			put(c.second, now, now)
		}
		list, damaged, err := r.Certificates(ctx)
		if err != nil || len(damaged) > 0 {
			t.Fatal(err, damaged)
		}
		_, drilled := repo.LastPassed(list, s)
		for _, x := range list {
			if old := x.OlderThan(now.Add(-2 * time.Hour)); old != (x.Time.After(now)) {
				t.Errorf("%s: the certificate of %v is old: %v", c.what, x.Time, old)
			}
		}
		if refuted := repo.Refuted(list, s) != nil; refuted != c.refuted || !drilled.Equal(c.passed) {
			t.Errorf("%s: refuted %v, passed %v", c.what, refuted, drilled)
		}
	}
}
