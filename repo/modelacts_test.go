package repo_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
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
		{"key", 3, modelKey},
		{"break off", 8, modelBreakOff},
	}
}

// locked opens a store and locks it while do runs. It lists the snapshots before
// it loads the index, so that the index has their chunks.
func (m *model) locked(ctx context.Context, s *modelStore, p *modelProcess, kind repo.LockKind, do func(r *repo.Repo, list []*repo.Snapshot) error) (err error) {
	r, err := m.open(ctx, s, p, p.name)
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
	return do(r, list)
}

// some picks a snapshot, or returns nil if there are none.
func some(list []*repo.Snapshot, n uint32) *repo.Snapshot {
	if len(list) == 0 {
		return nil
	}
	return list[int(n%uint32(len(list)))]
}

func modelStoreDay(ctx context.Context, m *model, s *modelStore, p *modelProcess) error {
	which := m.rng.IntN(len(m.devices))
	d := m.devices[which]
	d.Next(m.started)
	m.pass(time.Nanosecond) // so that no two snapshots have the same time
	rec := &repo.Snapshot{Time: m.time(), Complete: true, Device: repo.Device{UDID: fmt.Sprintf("00008110-00000000000000%02d", which), Name: fmt.Sprint("device ", which)}}
	w := &wanted{files: d.Files(), state: perhaps, notes: map[string]bool{"": true}}
	s.want[rec.Time.UnixNano()] = w
	orphan := m.chance(10)
	err := m.locked(ctx, s, p, repo.LockWrite, func(r *repo.Repo, list []*repo.Snapshot) error {
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
	w.stored(err)
	return err
}

// stored records whether storing the snapshot succeeded.
func (w *wanted) stored(err error) {
	if err == nil && w.touched == 0 {
		w.state = present
	}
}

func modelForget(ctx context.Context, m *model, s *modelStore, p *modelProcess) error {
	n, k := m.rng.Uint32(), 1+m.rng.IntN(3)
	return m.locked(ctx, s, p, repo.LockWrite, func(r *repo.Repo, list []*repo.Snapshot) error {
		if len(list) < 3 {
			return nil
		}
		var going []*repo.Snapshot
		for i := range k {
			going = append(going, some(list, n+uint32(i)))
		}
		return m.forget(ctx, s, r, going)
	})
}

func (m *model) forget(ctx context.Context, s *modelStore, r *repo.Repo, going []*repo.Snapshot) error {
	var ids []repo.FileID
	renewed := map[*wanted]int{}
	for _, o := range going {
		ids = append(ids, o.ID)
		w := s.want[o.Time.UnixNano()]
		if w != nil && w.state != gone {
			w.state = perhaps
			w.touched++
		}
		if w != nil {
			renewed[w] = w.renewed
		}
	}
	if err := r.Forget(ctx, ids...); err != nil {
		return err
	}
	for _, o := range going {
		// If it was copied or its record changed meanwhile, it may still exist.
		if w := s.want[o.Time.UnixNano()]; w != nil && !w.coming && renewed[w] == w.renewed {
			w.state = gone
		}
	}
	return nil
}

func modelPolicy(ctx context.Context, m *model, s *modelStore, p *modelProcess) error {
	policy := keep.Policy{Last: 1, Daily: 3, Weekly: 2, Monthly: 2}
	return m.locked(ctx, s, p, repo.LockWrite, func(r *repo.Repo, list []*repo.Snapshot) error {
		going := forgettable(list, policy, m.time())
		return m.forget(ctx, s, r, going)
	})
}

// forgettable returns the snapshots that a policy does not keep, device by device.
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
			lost := !s.Complete && s.Lost != nil && s.Lost.Complete
			judged = append(judged, keep.Snapshot{Time: s.Time, Tags: s.Tags, Complete: s.Complete, Lost: lost, Pinned: s.Pin != nil})
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
	r, err := m.open(ctx, s, p, p.name)
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
	return errors.Join(err, l.Release())
}

// modelCheck returns an error if a check finds anything, whatever other
// processes do meanwhile.
func modelCheck(ctx context.Context, m *model, s *modelStore, p *modelProcess) error {
	opts := repo.CheckOptions{ReadData: float64(m.rng.IntN(3)) / 2, Seed: m.rng.Uint64()}
	return m.locked(ctx, s, p, repo.LockRead, func(r *repo.Repo, _ []*repo.Snapshot) error {
		report, err := r.Check(ctx, opts)
		if err == nil && !report.Clean() && !p.slept() {
			err = fmt.Errorf("check finds %+v", report)
		}
		return err
	})
}

// modelRead returns an error if a snapshot cannot be read to its end, whatever
// other processes do meanwhile.
func modelRead(ctx context.Context, m *model, s *modelStore, p *modelProcess) error {
	n := m.rng.Uint32()
	return m.locked(ctx, s, p, repo.LockRead, func(r *repo.Repo, list []*repo.Snapshot) error {
		if len(list) == 0 {
			return nil
		}
		o := some(list, n)
		w := s.want[o.Time.UnixNano()]
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
	return m.locked(ctx, s, p, repo.LockWrite, func(r *repo.Repo, list []*repo.Snapshot) error {
		if len(list) == 0 {
			return nil
		}
		o := some(list, n)
		w := s.want[o.Time.UnixNano()]
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
			if w.renewed++; w.state == gone {
				w.state = perhaps
			}
		}
		return err
	})
}

func modelKey(ctx context.Context, m *model, s *modelStore, p *modelProcess) error {
	r, err := m.open(ctx, s, p, p.name)
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

// modelBreakOff stores an unfinished backup, as if a device was unplugged. Or it
// removes one, as a backup does that continues it.
func modelBreakOff(ctx context.Context, m *model, s *modelStore, p *modelProcess) error {
	if s != m.stores[0] {
		return nil
	}
	goOn := m.chance(40)
	d := m.devices[m.rng.IntN(len(m.devices))]
	d.Next(m.started)
	f := d.Files()
	return m.locked(ctx, s, p, repo.LockWrite, func(r *repo.Repo, _ []*repo.Snapshot) error {
		runs, _, err := r.Unfinished(ctx)
		if err != nil {
			return err
		}
		if len(runs) > 0 && goOn {
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
	source := m.process("copy from", from, true)
	p.others++
	return m.locked(ctx, from, source, repo.LockRead, func(r *repo.Repo, list []*repo.Snapshot) error {
		if len(list) == 0 {
			return nil
		}
		at := int(n) % len(list)
		list = list[at:min(len(list), at+2)]
		for _, o := range list {
			key := o.Time.UnixNano()
			if to.want[key] == nil || to.want[key].state == gone {
				to.want[key] = &wanted{files: from.want[key].files, state: perhaps, notes: map[string]bool{}}
			}
			to.want[key].notes[o.Note] = true
			to.want[key].coming = true
			to.want[key].renewed++
			defer func() { to.want[key].coming = false }()
		}
		return m.locked(ctx, to, p, repo.LockWrite, func(t *repo.Repo, _ []*repo.Snapshot) error {
			rep, err := r.CopyTo(ctx, t, list, repo.CopyOptions{})
			for _, line := range rep.Snapshots {
				w := to.want[line.Time.UnixNano()]
				if line.Outcome == repo.CopyDone && w.touched == 0 {
					w.state = present
				}
			}
			return err
		})
	})
}
