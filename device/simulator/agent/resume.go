package agent

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"

	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/keybag"
	"github.com/snap-backup/snap/device/mobilesync/manifest"
	"github.com/snap-backup/snap/device/protocol/plist"
	"github.com/snap-backup/snap/device/simulator/devicefiles"
	"github.com/snap-backup/snap/device/simulator/faults"
	"github.com/snap-backup/snap/device/simulator/mberror"
)

// loadOld downloads the old backup's manifests and lists its files. b.old stays nil
// if the run must be a full one. If finished is set, the old backup is finished, so a
// missing manifest is an error.
func (b *backup) loadOld(finished bool) error {
	if err := b.reach(faults.StepManifest); err != nil {
		return err
	}
	raw, err := b.SmallFile(b.dir + "/" + mobilesync.ManifestPlist)
	if err != nil {
		return err
	}
	if raw == nil {
		if finished {
			return mberror.Errorf(mberror.Damaged, "%s is missing", mobilesync.ManifestPlist)
		}
		return nil
	}
	old, err := b.parseOld(raw)
	if err != nil {
		return err
	}
	if old == nil {
		return b.listFiles()
	}
	path := filepath.Join(b.work, "old")
	sum, size, found, err := b.downloadTo(b.dir+"/"+mobilesync.ManifestDB, path)
	if err != nil {
		return err
	}
	if !found {
		return b.listFiles()
	}
	b.compareExpected(raw, sum)
	old.sum = sum
	if old.records, err = old.readRecords(b.ctx, path, size); err != nil {
		if b.ctx.Err() != nil {
			return b.ctx.Err()
		}
		return b.listFiles() // a full run
	}
	if finished {
		if _, err := b.readStatus(); err != nil {
			return err
		}
	}
	if err := b.listFiles(); err != nil {
		return err
	}
	for _, rec := range old.records.All() {
		if rec.IsFile() && rec.HasFileID && !b.names.Has(rec.FileID) {
			return nil // a file is missing: a full run
		}
	}
	b.old = old
	return nil
}

// listFiles lists the host's files.
func (b *backup) listFiles() error {
	if err := b.reach(faults.StepListing); err != nil {
		return err
	}
	names, _, err := b.List(b.dir)
	b.names = names
	return err
}

// compareExpected compares the host's manifests with those sent in the last run.
func (b *backup) compareExpected(raw []byte, sum [sha256.Size]byte) {
	last := parseStatus(b.agent.expected.status)
	if last == nil || last.snapshot != "finished" {
		return
	}
	now, err := plist.Dict(raw)
	if err != nil {
		return
	}
	was, err := plist.Dict(b.agent.expected.plist)
	if err != nil || now["Date"] != was["Date"] || b.agent.expected.older[string(raw)] {
		return // the manifests are of an older backup, perhaps one made in the same second
	}
	if !bytes.Equal(raw, b.agent.expected.plist) {
		b.agent.violate("%s differs from what was sent", mobilesync.ManifestPlist)
	}
	if sum != b.agent.expected.manifest {
		b.agent.violate("%s differs from what was sent", mobilesync.ManifestDB)
	}
}

// downloadTo downloads a file to path.
func (t *session) downloadTo(from, path string) (sum [sha256.Size]byte, size int64, found bool, err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return sum, 0, false, err
	}
	sum, size, found, err = t.downloadInto(from, f)
	return sum, size, found, errors.Join(err, f.Close())
}

// downloadInto downloads a file to w.
func (t *session) downloadInto(from string, w io.Writer) (sum [sha256.Size]byte, size int64, found bool, err error) {
	h := &countingHash{Hash: sha256.New()}
	found, err = t.Download(from, io.MultiWriter(w, h))
	return [sha256.Size]byte(h.Sum(nil)), h.n, found, err
}

type countingHash struct {
	hash.Hash
	n int64
}

func (c *countingHash) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return c.Hash.Write(p)
}

// parseOld reads the old Manifest.plist. It returns nil if the old backup is
// invalid, of another version, or encrypted differently. The new backup must then be
// a full one.
func (b *backup) parseOld(raw []byte) (*oldBackup, error) {
	password := b.agent.secret()
	m, err := plist.Dict(raw)
	if err != nil {
		return nil, nil
	}
	encrypted, _ := m["IsEncrypted"].(bool)
	if version, _ := m["Version"].(string); version != "10.0" || encrypted != (len(password) > 0) {
		return nil, nil
	}
	old := &oldBackup{}
	if old.bag, _ = m["BackupKeyBag"].([]byte); !encrypted {
		return old, nil
	}
	if old.keys, err = unlock(b.session, m, password); err != nil {
		if b.ctx.Err() != nil {
			return nil, b.ctx.Err()
		}
		return nil, nil
	}
	old.manifestKey, _ = m["ManifestKey"].([]byte)
	return old, nil
}

func unlock(t *session, manifest map[string]any, password []byte) (*keybag.Keys, error) {
	raw, _ := manifest["BackupKeyBag"].([]byte)
	bag, err := keybag.Parse(raw)
	if err != nil {
		return nil, err
	}
	return bag.Unlock(t.ctx, password, nil)
}

func (o *oldBackup) readRecords(ctx context.Context, path string, size int64) (_ *manifest.Records, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return o.readRecordsFrom(ctx, f, size)
}

func (o *oldBackup) readRecordsFrom(ctx context.Context, f io.ReaderAt, size int64) (*manifest.Records, error) {
	plain, size, err := o.decrypted(f, size)
	if err != nil {
		return nil, err
	}
	return manifest.ReadDB(ctx, plain, size)
}

// decrypted returns the plaintext of a Manifest.db of size bytes, and its length.
func (o *oldBackup) decrypted(f io.ReaderAt, size int64) (io.ReaderAt, int64, error) {
	if o.keys == nil {
		return f, size, nil
	}
	key, err := o.keys.Unwrap(o.manifestKey)
	if err != nil {
		return nil, 0, err
	}
	return devicefiles.OpenManifest(f, size, key)
}

// resume continues a run that was interrupted while files were sent.
func (b *backup) resume(s *status) error {
	b.note(func(r *Run) { r.Resumed = s.snapshot })
	if err := b.reach(faults.StepListing); err != nil {
		return err
	}
	var err error
	if b.snapshot, _, err = b.List(b.dir + "/Snapshot"); err != nil {
		return err
	}
	if err := b.loadOld(false); err != nil {
		return err
	}
	c := b.agent.unfinished
	usable := c != nil && c.uuid == s.uuid && c.full == (b.old == nil) && (c.encryption != nil) == b.agent.WillEncrypt()
	if usable && c.encryption != nil && b.old != nil {
		usable = bytes.Equal(c.encryption.bag, b.old.bag)
	}
	if !usable {
		b.snapshot = nil // the files of the interrupted run may have changed on the device
		return b.newRun()
	}
	b.cache = c
	if b.old != nil {
		b.plainBag = b.old.bag
	}
	b.note(func(r *Run) { r.UUID, r.Full = c.uuid, c.full })
	return nil
}

// finishInterrupted finishes a run that was interrupted after its files were sent.
func (b *backup) finishInterrupted(s *status) error {
	if err := b.reach(faults.StepFinishing); err != nil {
		return err
	}
	// What remains to do depends only on the files on the host, not on the cache of the run.
	b.cache = &cache{uuid: s.uuid}
	if s.snapshot == "moving" {
		files, others, err := b.List(b.dir + "/Snapshot")
		if err != nil {
			return err
		}
		m := &moves{session: b.session, name: b.moveName(), total: len(files)}
		for _, id := range files.Sorted() {
			if err := m.add(b.dir+"/Snapshot/", b.dir+"/", mobilesync.BlobPath(mobilesync.Hashed, id)); err != nil {
				return err
			}
		}
		if err := m.flush(); err != nil {
			return err
		}
		for _, name := range []string{mobilesync.ManifestPlist, mobilesync.ManifestDB} {
			if !others[name] {
				continue
			}
			if err := m.add(b.dir+"/Snapshot/", b.dir+"/", name); err != nil {
				return err
			}
			if err := m.flush(); err != nil {
				return err
			}
		}
		if err := b.sendStatus(faults.StepRemoving, "removing", "new", s.full); err != nil {
			return err
		}
	}
	if err := b.removeUnknown(); err != nil {
		return err
	}
	if err := b.removeLeftovers(); err != nil {
		return err
	}
	if err := b.sendStatus(faults.StepFinished, "finished", "new", false); err != nil {
		return err
	}
	if c := b.agent.unfinished; c != nil && c.uuid == s.uuid {
		b.agent.remember(c)
	}
	return nil
}

// removeUnknown removes files that are not in the host's manifest.
func (b *backup) removeUnknown() error {
	raw, err := b.SmallFile(b.dir + "/" + mobilesync.ManifestPlist)
	if err != nil {
		return err
	}
	old, err := b.parseOld(raw)
	if err != nil || old == nil {
		return err
	}
	path := filepath.Join(b.work, "broken")
	_, size, found, err := b.downloadTo(b.dir+"/"+mobilesync.ManifestDB, path)
	if err != nil || !found {
		return err
	}
	records, err := old.readRecords(b.ctx, path, size)
	if err != nil {
		return mberror.Errorf(mberror.Damaged, "%s of the interrupted run: %v", mobilesync.ManifestDB, err)
	}
	files, _, err := b.List(b.dir)
	if err != nil {
		return err
	}
	var obsolete []string
	for _, id := range files.Sorted() {
		if _, ok := records.ByFileID(id); !ok {
			obsolete = append(obsolete, fmt.Sprintf("%s/%s", b.dir, mobilesync.BlobPath(mobilesync.Hashed, id)))
		}
	}
	for len(obsolete) > 0 {
		n := min(maxBatch, len(obsolete))
		if err := b.removeItems(obsolete[:n]...); err != nil {
			return err
		}
		obsolete = obsolete[n:]
	}
	return nil
}
