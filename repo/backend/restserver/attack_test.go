package restserver

import (
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/keep"
	"github.com/snap-backup/snap/repo/repotest"
)

// stolen is a repository of which an attacker has the password, and rights to append.
type stolen struct {
	*testing.T
	clock atomic.Int64
	root  *memory.Backend
}

func (a *stolen) now() time.Time { return time.Unix(a.clock.Load(), 0).UTC() }

// open opens the repository with the clock of a computer.
func (a *stolen) open(be backend.Backend, clock func() time.Time, seed byte) *repo.Repo {
	a.Helper()
	opts := repotest.Options(seed)
	opts.Now = clock
	r, err := repotest.Open(a.Context(), be, repotest.Secret, opts)
	if err != nil {
		a.Fatal(err)
	}
	return r
}

// store stores a snapshot as it is.
func (a *stolen) store(r *repo.Repo, s repo.Snapshot) *repo.Snapshot {
	a.Helper()
	w := r.NewWriter(a.Context())
	defer w.Close()
	if err := w.Commit(a.Context(), &s); err != nil {
		a.Fatal(err)
	}
	return &s
}

// forge stores everything that might make a policy remove the snapshots of others.
func (a *stolen) forge(be backend.Backend, victims []*repo.Snapshot) (forged int) {
	a.Helper()
	at := a.now()
	r := a.open(be, func() time.Time { return at }, 3)
	store := func(s repo.Snapshot) {
		a.clock.Add(10)
		forged++
		a.store(r, s)
	}
	everyID := []repo.FileID{}
	for _, v := range victims {
		everyID = append(everyID, v.ID)
	}
	for i, v := range victims {
		bare := repo.Snapshot{Device: v.Device, Complete: true, Unlocked: true, Root: v.Root}
		at = v.StoredAt
		twin := bare
		twin.Time, twin.Files, twin.Bytes = v.Time, v.Files, v.Bytes
		store(twin)
		at = at.Add(time.Hour)
		later := bare
		later.Time = at
		store(later)
		at = a.now()
		recent := bare
		recent.Time = at.Add(time.Duration(i-20) * time.Hour)
		store(recent)
		changed := *v
		changed.Original, changed.Former, changed.Changed = &v.ID, everyID, &at
		changed.Complete, changed.Time, changed.Bytes = false, v.Time.AddDate(-1, 0, 0), 1
		store(changed)
		if _, err := r.WriteCertificate(a.Context(), &repo.Certificate{
			Snapshot: v.ID, Root: v.Root, Kind: repo.CertificateDrill, Level: repo.LevelDevice, Result: repo.ResultFailed, Time: at,
		}); err != nil {
			a.Fatal(err)
		}
	}
	return forged
}

// remaining returns which of the snapshots a policy keeps.
func (a *stolen) remaining(of []*repo.Snapshot, policy *keep.Policy) (kept, removed []repo.FileID) {
	a.Helper()
	r := a.open(a.root, a.now, 4)
	list, damaged, err := r.Snapshots(a.Context())
	if policy.Arrival {
		list, damaged, err = r.ArrivedSnapshots(a.Context())
	}
	certificates, _, cerr := r.Certificates(a.Context())
	if err != nil || cerr != nil || len(damaged) > 0 {
		a.Fatal(err, cerr, damaged)
	}
	removed = idsOf(repo.Forgotten(repo.Retain(list, list, certificates, policy, a.now(), time.UTC)))
	return slices.DeleteFunc(idsOf(of), func(id repo.FileID) bool {
		return slices.Contains(removed, id) || !slices.Contains(idsOf(list), id)
	}), removed
}

func idsOf(list []*repo.Snapshot) (ids []repo.FileID) {
	for _, s := range list {
		ids = append(ids, s.ID)
	}
	return ids
}

// Malware on a computer that may only append adds snapshots with invented dates, records that
// claim to replace others, and certificates of failures. Whoever forgets by arrival loses
// nothing that would have stayed.
func TestForgedDates(t *testing.T) {
	t.Parallel()
	a := &stolen{T: t, root: memory.New()}
	start := time.Date(2026, 1, 1, 22, 0, 0, 0, time.UTC)
	a.clock.Store(start.Unix())
	a.root.SetClock(a.now)
	open := serveStolen(t, a)
	first := repotest.CommitChunks(t, a.root, 1, []byte("photo"))
	sample, err := repotest.MustOpen(t, a.root).LoadSnapshot(t.Context(), first)
	if err != nil {
		t.Fatal(err)
	}
	anna := a.open(open, a.now, 2)
	var nights []*repo.Snapshot
	for day := range 40 {
		a.clock.Store(start.AddDate(0, 0, day).Unix())
		nights = append(nights, a.store(anna, repo.Snapshot{
			Device: repo.Device{UDID: "A"}, Complete: true, Time: a.now(), Root: sample.Root, Files: 1, Bytes: int64(day),
		}))
	}
	a.clock.Add(12 * 3600)
	byArrival := &keep.Policy{Daily: 7, Weekly: 5, Monthly: 12, Arrival: true}
	byDate := *byArrival
	byDate.Arrival = false
	want, _ := a.remaining(nights, byArrival)
	honest, _ := a.remaining(nights, &byDate)
	forged := a.forge(open, nights)
	left, _ := a.remaining(nights, &byDate)
	if n := len(slices.DeleteFunc(left, func(id repo.FileID) bool { return !slices.Contains(honest, id) })); n > len(honest)/2 {
		t.Errorf("the attack leaves %d of %d snapshots without arrival, so this test proves nothing", n, len(honest))
	}
	got, removed := a.remaining(nights, byArrival)
	lost := slices.DeleteFunc(slices.Clone(want), func(id repo.FileID) bool { return slices.Contains(got, id) })
	t.Logf("%d of %d snapshots stay without %d forged ones, and %d with them", len(want), len(nights), forged, len(got))
	// The first forged one takes the place of a day, as another backup would.
	if len(lost) > 1 {
		t.Errorf("%d snapshots are lost: %v", len(lost), lost)
	}
	r := a.open(a.root, a.now, 5)
	if err := r.Forget(t.Context(), removed...); err != nil {
		t.Fatal(err)
	}
	// A person who looks at the list removes the records that claim to be the successors.
	all, _, err := r.Snapshots(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		if s.Original != nil {
			if err := r.Forget(t.Context(), s.ID); err != nil {
				t.Fatal(err)
			}
		}
	}
	list, _, err := r.ArrivedSnapshots(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range got {
		if !slices.Contains(idsOf(list), id) {
			t.Errorf("snapshot %s is gone, although nothing forgot it", id.Short())
		}
	}
}

// serveStolen creates the repository, and returns the store as a client that may only append.
func serveStolen(t *testing.T, a *stolen) backend.Backend {
	t.Helper()
	be := backend.Backend(a.root)
	open := start(t, inside{be, "phones/"}, Options{AppendOnly: func(user string) bool { return user == "anna" }}, "root", "anna")
	opts := repotest.Options(1)
	opts.Now = a.now
	if _, err := repo.Create(t.Context(), a.root, repotest.Secret, crypto.SlotInfo{Kind: crypto.PasswordSlot}, opts); err != nil {
		t.Fatal(err)
	}
	return open("anna", "/phones")
}
