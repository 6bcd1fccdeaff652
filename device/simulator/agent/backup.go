package agent

import (
	"errors"
	"os"
	"time"

	"github.com/snap-backup/snap/device/mobilesync/manifest"
	"github.com/snap-backup/snap/device/simulator/devicefiles"
	"github.com/snap-backup/snap/device/simulator/faults"
	"github.com/snap-backup/snap/device/simulator/hostfiles"
	"github.com/snap-backup/snap/device/simulator/mberror"
)

const (
	maxBatch = 128       // files in a message
	reserve  = 128 << 20 // bytes that must stay free on the host
	urgency  = 4
	purge    = 2 << 30 // bytes that the host must free in addition to the need
)

// backup is a running backup.
type backup struct {
	*session
	dir  string // the backup folder on the host
	work string // folder for working copies

	content    devicefiles.Source
	generation int
	records    *manifest.Records

	cache    *cache
	old      *oldBackup        // nil in a full run
	names    hostfiles.Listing // files of the old backup on the host; nil if unknown
	snapshot hostfiles.Listing // files of the interrupted run on the host
	plainBag []byte            // keybag of an old plain backup
	aside    string            // folder to which a backup of iOS 9 was moved
}

// folderOf returns the folder on the host that a request is about.
func (t *session) folderOf(request map[string]any) (string, error) {
	target, _ := request["TargetIdentifier"].(string)
	source, _ := request["SourceIdentifier"].(string)
	if target != t.agent.device.UDID {
		t.agent.violate("%s with the target %q on the device %s", t.run.Operation, target, t.agent.device.UDID)
		return "", mberror.Errorf(mberror.Generic, "this device is not %q", target)
	}
	if source != "" {
		return source, nil
	}
	return target, nil
}

func (t *session) backup(request map[string]any) error {
	dir, err := t.folderOf(request)
	if err != nil {
		return err
	}
	if err := t.beginUnlocked(); err != nil {
		return err
	}
	work, err := os.MkdirTemp(t.agent.opts.StateDir, "run-")
	if err != nil {
		return err
	}
	b := &backup{session: t, dir: dir, work: work}
	return errors.Join(b.perform(), os.RemoveAll(work))
}

func (b *backup) perform() error {
	if err := b.reach(faults.StepStatus); err != nil {
		return err
	}
	status, err := b.readStatus()
	if err != nil {
		return err
	}
	if err := b.reach(faults.StepScan); err != nil {
		return err
	}
	if err := b.begin(status); err != nil {
		return err
	}
	if err := b.sendAll(); err != nil {
		return err
	}
	if err := b.sendManifests(); err != nil {
		return err
	}
	if err := b.moveAll(); err != nil {
		return err
	}
	if err := b.removeAll(); err != nil {
		return err
	}
	if err := b.sendStatus(faults.StepFinished, "finished", "new", false); err != nil {
		return err
	}
	if err := b.verify(); err != nil {
		return err
	}
	b.agent.remember(b.cache)
	return nil
}

// begin begins a new run or continues an interrupted one.
func (b *backup) begin(s *status) error {
	switch {
	case s == nil:
	case s.old():
		b.aside = b.dir + "-" + b.now().Format("20060102-150405")
		if err := b.Require(nil, b.moveName(), map[string]string{b.dir: b.aside}, map[string]any{}, 0.0); err != nil {
			return err
		}
	case s.snapshot == "uploading":
		return b.resume(s)
	case s.snapshot == "moving" || s.snapshot == "removing":
		b.note(func(r *Run) { r.Resumed = s.snapshot })
		if err := b.finishInterrupted(s); err != nil {
			return err
		}
		if err := b.loadOld(true); err != nil {
			return err
		}
	case s.snapshot == "finished" && s.full:
		// A host writes such a status to get a full backup.
	case s.snapshot == "finished":
		if err := b.loadOld(true); err != nil {
			return err
		}
	}
	return b.newRun()
}

func (b *backup) newRun() error {
	c, err := b.newCache(b.old == nil)
	if err != nil {
		return err
	}
	if password := b.agent.secret(); len(password) > 0 {
		if b.old != nil {
			err = b.encrypt(c, nil, b.old.bag, b.old.keys)
		} else {
			err = b.encrypt(c, password, nil, nil)
		}
		if err != nil {
			return err
		}
	} else if b.old != nil {
		b.plainBag = b.old.bag
	}
	if b.old != nil {
		c.base = b.agent.backups[b.old.sum]
	}
	b.cache = c
	b.agent.unfinished = c
	b.note(func(r *Run) { r.UUID, r.Full = c.uuid, c.full })
	return nil
}

func (b *backup) note(change func(*Run)) { b.agent.note(b.run, change) }

func (b *backup) now() time.Time { return b.agent.opts.Clock().UTC().Truncate(time.Second) }

func (b *backup) moveName() string {
	if b.agent.opts.OldNames {
		return "DLMessageMoveFiles"
	}
	return "DLMessageMoveItems"
}

func (b *backup) removeName() string {
	if b.agent.opts.OldNames {
		return "DLMessageRemoveFiles"
	}
	return "DLMessageRemoveItems"
}

// scan reads the list of files on the device.
func (b *backup) scan() (err error) {
	b.content, b.generation = b.agent.current()
	b.records, err = b.content.Records(b.ctx)
	return err
}

func (b *backup) oldRecord(id hostfiles.FileID) (manifest.Record, bool) {
	if b.old == nil {
		return manifest.Record{}, false
	}
	i, ok := b.old.records.ByFileID(id)
	if !ok {
		return manifest.Record{}, false
	}
	return b.old.records.At(i), true
}

// unchanged reports whether the old backup has the current version of a file.
func (b *backup) unchanged(r *manifest.Record) bool {
	old, ok := b.oldRecord(r.FileID)
	return ok && old.IsFile() && stateOf(&old) == stateOf(r) && (old.EncryptionKey != nil) == (b.cache.encryption != nil)
}

// plan returns the records whose files must be sent, and their size.
func (b *backup) plan() (list []int32, size int64) {
	kept, spared, resent := 0, 0, 0
	for i, rec := range b.records.All() {
		if !rec.IsFile() || !rec.HasFileID {
			continue
		}
		if s, ok := b.cache.sent[rec.FileID]; ok {
			if s.state == stateOf(&rec) && (b.run.Rounds > 0 || b.snapshot.Has(rec.FileID)) {
				if b.run.Rounds == 0 {
					spared++
				}
				continue
			}
			if b.run.Rounds == 0 {
				resent++
			}
		} else if b.unchanged(&rec) {
			kept++
			continue
		}
		list = append(list, int32(i))
		size += rec.Size
	}
	b.note(func(r *Run) {
		if r.Rounds == 0 {
			r.Kept, r.Spared, r.Resent = kept, spared, resent
		}
	})
	return list, size
}

// remember keeps the digests of a finished run.
func (a *Agent) remember(c *cache) {
	sums := make(map[hostfiles.FileID][20]byte, len(c.sent))
	for id, s := range c.sent {
		sums[id] = s.digest
	}
	a.backups[a.expected.manifest] = &digests{parent: c.base, sums: sums}
	a.unfinished = nil
}
