package repo_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/keep"
	"github.com/snap-backup/snap/repo/repotest"
)

// modelAct is something that a process can do.
type modelAct struct {
	name   string
	weight int
	do     func(context.Context, *model, *modelStore, *modelProcess) error
}

func modelActs() []modelAct {
	return []modelAct{
		{"store", 30, modelStoreDay},
		{"copy", 8, modelCopy},
		{"forget", 10, modelForget},
		{"policy", 4, modelPolicy},
		{"prune", 20, modelPrune},
		{"check", 6, modelCheck},
		{"read", 6, modelRead},
		{"label", 10, modelLabel},
		{"certify", 8, modelCertify},
		{"key", 3, modelKey},
		{"break off", 8, modelBreakOff},
	}
}

// withLock opens a store and locks it while fn runs. It lists the snapshots before
// it loads the index, so that the index has their chunks.
func (m *model) withLock(ctx context.Context, s *modelStore, p *modelProcess, kind repo.LockKind, fn func(r *repo.Repo, list []*repo.Snapshot) error) (err error) {
	r, err := m.open(ctx, s, p)
	if err != nil {
		return err
	}
	l, err := r.Lock(ctx, kind, p.name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Release()) }()
	list, _, err := r.Snapshots(ctx)
	if err != nil {
		return err
	}
	if err := r.LoadIndex(ctx); err != nil {
		return err
	}
	return fn(r, list)
}

// pick picks a snapshot, or returns nil if there are none.
func pick(list []*repo.Snapshot, n uint32) *repo.Snapshot {
	if len(list) == 0 {
		return nil
	}
	return list[int(n%uint32(len(list)))]
}

func modelStoreDay(ctx context.Context, m *model, s *modelStore, p *modelProcess) error {
	which := m.rng.IntN(len(m.devices))
	d := m.devices[which]
	d.Next(m.started)
	rec := &repo.Snapshot{Time: p.now(), Complete: true, Device: repo.Device{
		UDID: fmt.Sprintf("00008110-00000000000000%02d", which), Name: fmt.Sprint("device ", which), SerialNumber: fmt.Sprint(p.started),
	}}
	w := &wanted{files: d.Files(), state: perhaps, notes: map[string]bool{"": true}}
	s.want[keyOf(rec)] = w
	orphan := m.chance(10)
	err := m.withLock(ctx, s, p, repo.LockWrite, func(r *repo.Repo, list []*repo.Snapshot) error {
		var parent *repo.Snapshot
		for _, o := range list {
			if repo.SameDevice(o.Device.UDID, rec.Device.UDID) && !orphan {
				parent = o
			}
		}
		if parent != nil {
			rec.Parent = &parent.ID
		}
		return repotest.StoreSnapshot(ctx, r, w.files, rec, parent)
	})
	w.recordStored(err)
	return err
}

// recordStored records whether storing the snapshot succeeded.
func (w *wanted) recordStored(err error) {
	if err == nil && w.touched == 0 {
		w.state = present
	}
}

func modelForget(ctx context.Context, m *model, s *modelStore, p *modelProcess) error {
	n, k := m.rng.Uint32(), 1+m.rng.IntN(3)
	return m.withLock(ctx, s, p, repo.LockWrite, func(r *repo.Repo, list []*repo.Snapshot) error {
		if len(list) < 3 {
			return nil
		}
		var going []*repo.Snapshot
		for i := range k {
			going = append(going, pick(list, n+uint32(i)))
		}
		return m.forget(ctx, s, r, going)
	})
}

func (m *model) forget(ctx context.Context, s *modelStore, r *repo.Repo, going []*repo.Snapshot) error {
	var ids []repo.FileID
	storedAgain := map[*wanted]int{}
	for _, o := range going {
		ids = append(ids, o.ID)
		w := s.want[keyOf(o)]
		if w != nil && w.state != gone {
			w.state = perhaps
			w.touched++
			w.certified = false
		}
		if w != nil {
			storedAgain[w] = w.storedAgain
		}
	}
	if err := r.Forget(ctx, ids...); err != nil {
		return err
	}
	for _, o := range going {
		// If it was copied or its record changed meanwhile, it may still exist.
		if w := s.want[keyOf(o)]; w != nil && !w.coming && storedAgain[w] == w.storedAgain {
			w.state = gone
		}
	}
	return nil
}

func modelPolicy(ctx context.Context, m *model, s *modelStore, p *modelProcess) error {
	policy := keep.Policy{Last: 1, Daily: 3, Weekly: 2, Monthly: 2}
	return m.withLock(ctx, s, p, repo.LockWrite, func(r *repo.Repo, list []*repo.Snapshot) error {
		going := forgettable(list, policy, p.now())
		return m.forget(ctx, s, r, going)
	})
}

// forgettable returns the snapshots that a policy does not keep, grouped by device.
func forgettable(list []*repo.Snapshot, policy keep.Policy, now time.Time) []*repo.Snapshot {
	byDevice := map[string][]*repo.Snapshot{}
	var order []string
	for _, s := range list {
		if byDevice[s.Device.UDID] == nil {
			order = append(order, s.Device.UDID)
		}
		byDevice[s.Device.UDID] = append(byDevice[s.Device.UDID], s)
	}
	var going []*repo.Snapshot
	for _, udid := range order {
		var judged []keep.Snapshot
		for _, s := range byDevice[udid] {
			lost := !s.Complete && s.Lost != nil && s.Lost.WasComplete
			judged = append(judged, keep.Snapshot{Time: s.Time, Tags: s.Tags, Complete: s.Complete, Open: true, Lost: lost, Pinned: s.Pin != nil, Misdated: s.Misdated})
		}
		for i, v := range policy.Apply(judged, now, time.UTC) {
			if !v.Keep {
				going = append(going, byDevice[udid][i])
			}
		}
	}
	return going
}

func modelPrune(ctx context.Context, m *model, s *modelStore, p *modelProcess) error {
	opts := repotest.NoWaste
	if m.chance(30) {
		opts = repo.PruneOptions{MaxRepack: -1}
	}
	if m.chance(10) {
		opts.MaxRepack = int64(m.rng.IntN(60 << 10))
	}
	r, err := m.open(ctx, s, p)
	if err != nil {
		return err
	}
	l, err := r.Lock(ctx, repo.LockPrune, p.name)
	if err != nil {
		return err
	}
	rep, err := r.Prune(ctx, opts)
	if rep != nil {
		m.count["packs removed"] += rep.RemovedPacks
		m.count["blocks rebased"] += rep.Rebased
		m.count["prunes that wait"] += min(1, len(rep.Waiting))
	}
	if errors.Is(err, repo.ErrNoSnapshots) {
		m.count["prunes refused"]++
		err = nil
	}
	return errors.Join(err, l.Release())
}

// modelCheck checks a store. The check must find nothing, whatever other processes
// do meanwhile, unless this one slept.
func modelCheck(ctx context.Context, m *model, s *modelStore, p *modelProcess) error {
	opts := repo.CheckOptions{ReadData: float64(m.rng.IntN(3)) / 2, Seed: m.rng.Uint64()}
	return m.withLock(ctx, s, p, repo.LockRead, func(r *repo.Repo, _ []*repo.Snapshot) error {
		report, err := r.Check(ctx, opts)
		if err == nil && !report.Clean() && !p.slept() {
			err = fmt.Errorf("check finds %+v", report)
		}
		return err
	})
}

// modelRead reads a snapshot. It must be able to read all of it, whatever other
// processes do meanwhile.
func modelRead(ctx context.Context, m *model, s *modelStore, p *modelProcess) error {
	n := m.rng.Uint32()
	return m.withLock(ctx, s, p, repo.LockRead, func(r *repo.Repo, list []*repo.Snapshot) error {
		if len(list) == 0 {
			return nil
		}
		o := pick(list, n)
		w := s.want[keyOf(o)]
		if w == nil {
			return fmt.Errorf("a snapshot of %v that no process stored", o.Time)
		}
		got, err := repotest.Restore(ctx, r, o)
		if err == nil {
			err = got.Same(w.files)
		}
		return err
	})
}

func modelLabel(ctx context.Context, m *model, s *modelStore, p *modelProcess) error {
	n, note := m.rng.Uint32(), p.name
	return m.withLock(ctx, s, p, repo.LockWrite, func(r *repo.Repo, list []*repo.Snapshot) error {
		if len(list) == 0 {
			return nil
		}
		o := pick(list, n)
		w := s.want[keyOf(o)]
		before := maps.Clone(w.notes)
		w.notes[note] = true
		_, err := r.ChangeSnapshot(ctx, o, repo.Labels{Note: note})
		switch {
		case err == nil && p.alone():
			w.notes = map[string]bool{note: true}
		case errors.Is(err, repo.ErrChanged) && p.alone():
			w.notes = before
		case err != nil && !errors.Is(err, repo.ErrChanged):
			// The process may have died after it stored the new record and
			// before it removed the old one.
			if w.storedAgain++; w.state == gone {
				w.state = perhaps
			}
		}
		return err
	})
}

func modelCertify(ctx context.Context, m *model, s *modelStore, p *modelProcess) error {
	n := m.rng.Uint32()
	return m.withLock(ctx, s, p, repo.LockRead, func(r *repo.Repo, list []*repo.Snapshot) error {
		if len(list) == 0 {
			return nil
		}
		o := pick(list, n)
		w := s.want[keyOf(o)]
		touched := w.touched
		_, err := repotest.Certify(ctx, r, o)
		if err == nil && w.state == present && w.touched == touched {
			w.certified = true
			m.count["certificates stored"]++
		}
		return err
	})
}

func modelKey(ctx context.Context, m *model, s *modelStore, p *modelProcess) error {
	r, err := m.open(ctx, s, p)
	if err != nil {
		return err
	}
	secret := []byte("secret of " + p.name)
	s.secrets = append(s.secrets, secret)
	if p.n%2 == 0 {
		_, err = r.ChangePassword(ctx, secret, crypto.PasswordSlot)
		return err
	}
	_, err = r.AddKey(ctx, secret, repotest.SlotInfo)
	return err
}

// modelBreakOff stores an unfinished backup, as if a device had been unplugged. Or
// it removes one, as the backup that continues it would.
func modelBreakOff(ctx context.Context, m *model, s *modelStore, p *modelProcess) error {
	if s != m.stores[0] {
		return nil
	}
	remove := m.chance(40)
	d := m.devices[m.rng.IntN(len(m.devices))]
	d.Next(m.started)
	f := d.Files()
	return m.withLock(ctx, s, p, repo.LockWrite, func(r *repo.Repo, _ []*repo.Snapshot) error {
		runs, _, err := r.Unfinished(ctx)
		if err != nil {
			return err
		}
		if len(runs) > 0 && remove {
			return r.RemoveUnfinished(ctx, runs[0])
		}
		u, err := r.NewUnfinished(repo.UnfinishedBackup, "00008110-0000000000000000")
		if err != nil {
			return err
		}
		for range 2 {
			w := r.NewWriter(ctx)
			rec := &repo.Snapshot{}
			err = repotest.StoreTree(ctx, r, w, f, rec, nil)
			if err == nil {
				err = w.Finish(ctx)
			}
			if err = errors.Join(err, w.Close()); err != nil {
				return err
			}
			u.Parts = append(u.Parts, rec.Root)
			if err := r.SaveUnfinished(ctx, u); err != nil {
				return err
			}
			f = repotest.Files{"later": []byte(p.name)}
		}
		return nil
	})
}

// modelCopy copies from the first store to the second one.
func modelCopy(ctx context.Context, m *model, _ *modelStore, p *modelProcess) error {
	from, to := m.stores[0], m.stores[1]
	if m.copying {
		return nil // two concurrent copies of a snapshot store it twice
	}
	m.copying = true
	defer func() { m.copying = false }()
	n := m.rng.Uint32()
	source := m.startProcess("copy from", from, true)
	source.host = p.host
	p.started++
	return m.withLock(ctx, from, source, repo.LockRead, func(r *repo.Repo, list []*repo.Snapshot) error {
		if len(list) == 0 {
			return nil
		}
		at := int(n) % len(list)
		list = list[at:min(len(list), at+2)]
		for _, o := range list {
			key := keyOf(o)
			if to.want[key] == nil || to.want[key].state == gone {
				to.want[key] = &wanted{files: from.want[key].files, state: perhaps, notes: map[string]bool{}}
			}
			to.want[key].notes[o.Note] = true
			to.want[key].coming = true
			to.want[key].storedAgain++
			defer func() { to.want[key].coming = false }()
		}
		return m.withLock(ctx, to, p, repo.LockWrite, func(t *repo.Repo, _ []*repo.Snapshot) error {
			rep, err := r.CopyTo(ctx, t, list, repo.CopyOptions{})
			for _, line := range rep.Snapshots {
				at := slices.IndexFunc(list, func(o *repo.Snapshot) bool { return o.ID == line.Snapshot })
				w := to.want[keyOf(list[at])]
				if line.Outcome == repo.CopyDone && w.touched == 0 {
					w.state = present
				}
			}
			return err
		})
	})
}
