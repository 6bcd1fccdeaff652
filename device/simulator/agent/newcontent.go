package agent

import (
	"crypto/sha1"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/keybag"
	"github.com/snap-backup/snap/device/mobilesync/manifest"
	"github.com/snap-backup/snap/device/protocol/plist"
	"github.com/snap-backup/snap/device/simulator/devicefiles"
	"github.com/snap-backup/snap/device/simulator/manifestdb"
	"github.com/snap-backup/snap/device/simulator/synthetic"
)

// newContent creates the new content from the restored files and from the files of
// the device that stay.
func (r *restore) newContent() (devicefiles.Source, error) {
	path := filepath.Join(r.target, mobilesync.ManifestDB)
	if err := r.plainManifest(path); err != nil {
		return nil, err
	}
	inode := uint64(r.agent.restored) << 32 // the last one given; restored files get new inodes
	now := r.agent.opts.Clock().Unix()
	err := manifestdb.Edit(r.ctx, path, r.backup.records, func(rec *manifest.Record) manifestdb.Change {
		if !r.wanted(rec) {
			return manifestdb.Delete
		}
		if !rec.IsFile() || !rec.HasMeta {
			return manifestdb.Keep
		}
		inode++
		rec.Inode, rec.ChangeTime, rec.EncryptionKey = inode, now, nil
		if rec.HasDigest {
			rec.Digest = r.plain[rec.FileID]
		}
		return manifestdb.Update
	})
	if err != nil {
		return nil, fmt.Errorf("manifest of the restored content: %w", err)
	}
	if err := r.keepOthers(path); err != nil {
		return nil, fmt.Errorf("keep other files of the device: %w", err)
	}
	if err := r.writePlists(); err != nil {
		return nil, err
	}
	return devicefiles.OpenFolder(r.ctx, r.target, nil)
}

// plainManifest writes the backup's Manifest.db to path, decrypted if necessary.
func (r *restore) plainManifest(path string) (err error) {
	in, err := os.Open(filepath.Join(r.work, mobilesync.ManifestDB))
	if err != nil {
		return err
	}
	defer in.Close()
	var from io.ReaderAt = in
	size := r.size
	if r.backup.keys != nil {
		key, err := r.backup.keys.Unwrap(r.backup.manifestKey)
		if err != nil {
			return err
		}
		if from, size, err = devicefiles.OpenManifest(in, size, key); err != nil {
			return err
		}
	}
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, devicefiles.NewReader(r.ctx, io.NewSectionReader(from, 0, size)))
	return errors.Join(err, out.Close())
}

// keepOthers adds the files that stay on the device. Files that are not in the
// backup stay unless the host wants them removed. System files stay if the restore
// does not include system files.
func (r *restore) keepOthers(path string) error {
	current, _ := r.agent.current()
	records, err := current.Records(r.ctx)
	if err != nil {
		return err
	}
	var stay []int
	for i, rec := range records.All() {
		at, inBackup := r.backup.records.ByFileID(rec.FileID)
		if inBackup {
			other := r.backup.records.At(at)
			inBackup = r.wanted(&other)
		}
		if rec.HasFileID && !inBackup && (!r.options.RemoveOthers || !r.wanted(&rec)) {
			stay = append(stay, i)
		}
	}
	if len(stay) == 0 {
		return nil
	}
	before := filepath.Join(r.work, "before")
	if err := writeManifest(r.ctx, current, before); err != nil {
		return err
	}
	return manifestdb.Write(r.ctx, before, func(from *sql.Tx) error {
		return manifestdb.Write(r.ctx, path, func(to *sql.Tx) error {
			for _, i := range stay {
				rec := records.At(i)
				if err := r.keepOther(current, &rec, from, to); err != nil {
					return fmt.Errorf("%s/%s: %w", rec.Domain, rec.RelativePath, err)
				}
			}
			return nil
		})
	})
}

func (r *restore) keepOther(source devicefiles.Source, rec *manifest.Record, from, to *sql.Tx) error {
	id := manifestdb.ID(rec.FileID)
	var blob []byte
	if err := from.QueryRowContext(r.ctx, "SELECT file FROM Files WHERE fileID = ?", id).Scan(&blob); err != nil {
		return err
	}
	if rec.IsFile() {
		digest, err := r.copyOut(source, rec)
		if err != nil {
			return err
		}
		if rec.EncryptionKey != nil && rec.HasMeta {
			rec.EncryptionKey, rec.Digest = nil, digest
			blob = synthetic.MarshalMBFile(rec, manifestdb.ExtendedAttributes(blob))
		}
	}
	_, err := to.ExecContext(r.ctx, "INSERT OR REPLACE INTO Files (fileID, domain, relativePath, flags, file) VALUES (?, ?, ?, ?, ?)",
		id, rec.Domain, rec.RelativePath, rec.Flags, blob)
	return err
}

func (r *restore) copyOut(source devicefiles.Source, rec *manifest.Record) (digest [sha1.Size]byte, err error) {
	in, err := source.Open(rec)
	if err != nil {
		return digest, err
	}
	defer in.Close()
	out, err := r.create(rec.FileID)
	if err != nil {
		return digest, err
	}
	sum := sha1.New()
	_, err = io.Copy(io.MultiWriter(out, sum), devicefiles.NewReader(r.ctx, in))
	return [sha1.Size]byte(sum.Sum(nil)), errors.Join(err, out.Close())
}

// writePlists writes the property lists that make the folder of the new content a
// valid backup.
func (r *restore) writePlists() error {
	delete(r.manifest, "ManifestKey")
	r.manifest["IsEncrypted"] = false
	bag, keys, err := keybag.New(r.agent.stream("keybag", r.agent.count), nil, r.agent.rounds())
	if err != nil {
		return err
	}
	keys.Destroy()
	r.manifest["BackupKeyBag"] = bag
	manifest, err := plist.EncodeBinary(r.manifest)
	if err != nil {
		return err
	}
	uuid, err := newUUID(r.agent.stream("status", r.agent.count))
	if err != nil {
		return err
	}
	status, err := plist.EncodeBinary(map[string]any{"BackupState": "new", "Date": r.agent.opts.Clock().UTC(), "IsFullBackup": false,
		"SnapshotState": "finished", "UUID": uuid, "Version": "3.3"})
	if err != nil {
		return err
	}
	for name, b := range map[string][]byte{mobilesync.ManifestPlist: manifest, mobilesync.StatusPlist: status, mobilesync.InfoPlist: r.info} {
		if err := os.WriteFile(filepath.Join(r.target, name), b, 0o600); err != nil {
			return err
		}
	}
	return nil
}
