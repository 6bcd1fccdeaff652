package agent

import (
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/simulator/faults"
)

// moveAll moves the sent files from Snapshot to their places, if the manifest has
// them.
func (b *backup) moveAll() error {
	if err := b.sendStatus(faults.StepMoving, "moving", "new", b.cache.full); err != nil {
		return err
	}
	moves := &moves{session: b.session, name: b.moveName(), total: len(b.cache.sent)}
	for _, rec := range b.records.All() {
		if _, ok := b.cache.sent[rec.FileID]; ok && rec.IsFile() {
			if err := moves.add(b.dir+"/Snapshot/", b.dir+"/", mobilesync.BlobPath(mobilesync.Hashed, rec.FileID)); err != nil {
				return err
			}
		}
	}
	// The data files move first, then each manifest in a request of its own.
	for _, name := range []string{"", mobilesync.ManifestPlist, mobilesync.ManifestDB} {
		if name != "" {
			if err := moves.add(b.dir+"/Snapshot/", b.dir+"/", name); err != nil {
				return err
			}
		}
		if err := moves.flush(); err != nil {
			return err
		}
	}
	return nil
}

// moves collects moves and requests them in batches.
type moves struct {
	*session
	name  string
	total int
	done  int
	batch map[string]string
}

func (m *moves) add(from, to, name string) error {
	if m.batch == nil {
		m.batch = map[string]string{}
	}
	m.batch[from+name] = to + name
	if len(m.batch) == maxBatch {
		return m.flush()
	}
	return nil
}

func (m *moves) flush() error {
	if len(m.batch) == 0 {
		return nil
	}
	if err := m.reach(faults.StepMove); err != nil {
		return err
	}
	if err := m.Require(nil, m.name, m.batch, map[string]any{}, 100*float64(m.done)/float64(max(m.total, 1))); err != nil {
		return err
	}
	m.done += len(m.batch)
	m.agent.note(m.run, func(r *Run) { r.Moved += len(m.batch) })
	clear(m.batch)
	return nil
}

// removeAll removes files that are not in the manifest, and leftovers of the run.
func (b *backup) removeAll() error {
	if err := b.sendStatus(faults.StepRemoving, "removing", "new", b.cache.full); err != nil {
		return err
	}
	var obsolete []string
	for _, id := range b.names.Sorted() {
		if _, ok := b.records.ByFileID(id); !ok {
			obsolete = append(obsolete, b.dir+"/"+mobilesync.BlobPath(mobilesync.Hashed, id))
		}
	}
	b.note(func(r *Run) { r.Removed = len(obsolete) })
	for len(obsolete) > 0 {
		n := min(maxBatch, len(obsolete))
		if err := b.removeItems(obsolete[:n]...); err != nil {
			return err
		}
		obsolete = obsolete[n:]
	}
	return b.removeLeftovers()
}

func (b *backup) removeLeftovers() error {
	last := []string{b.dir + "/Snapshot", b.dir + "/Manifest.mbdx"}
	if b.aside != "" {
		last = append(last, b.aside)
	}
	for _, path := range last {
		if err := b.removeItems(path); err != nil {
			return err
		}
	}
	return nil
}

func (b *backup) removeItems(paths ...string) error {
	if err := b.reach(faults.StepRemove); err != nil {
		return err
	}
	return b.Require(nil, b.removeName(), paths, map[string]any{}, 99.0)
}
