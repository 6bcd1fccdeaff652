package agent

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"strconv"

	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/protocol/plist"
	"github.com/snap-backup/snap/device/simulator/faults"
	"github.com/snap-backup/snap/device/simulator/mberror"
)

// status is the content of Status.plist.
type status struct {
	version, uuid, snapshot string
	full                    bool
}

// old reports whether iOS 9 or earlier made the backup.
func (s *status) old() bool {
	v, err := strconv.ParseFloat(s.version, 64)
	return err != nil || v < 3.3
}

// parseStatus parses a Status.plist. It returns nil if b is malformed.
func parseStatus(b []byte) *status {
	d, err := plist.Dict(b)
	if err != nil {
		return nil
	}
	s := &status{}
	s.version, _ = d["Version"].(string)
	if v, ok := d["Version"].(float64); ok {
		s.version = strconv.FormatFloat(v, 'f', -1, 64)
	}
	s.uuid, _ = d["UUID"].(string)
	s.snapshot, _ = d["SnapshotState"].(string)
	s.full, _ = d["IsFullBackup"].(bool)
	return s
}

// readStatus downloads Status.plist. It returns nil if the host has no valid
// Status.plist.
func (b *backup) readStatus() (*status, error) {
	raw, err := b.SmallFile(b.dir + "/" + mobilesync.StatusPlist)
	if err != nil || raw == nil {
		return nil, err
	}
	s := parseStatus(raw)
	if s != nil && s.uuid == b.agent.expected.uuid && !bytes.Equal(raw, b.agent.expected.status) && b.agent.expected.status != nil {
		if last := parseStatus(b.agent.expected.status); last != nil && last.uuid == s.uuid && last.snapshot == s.snapshot {
			b.agent.violate("%s differs from what was sent", mobilesync.StatusPlist)
		}
	}
	return s, nil
}

// sendStatus sends a Status.plist with the progress of the run.
func (b *backup) sendStatus(step faults.Step, snapshot, state string, full bool) error {
	if err := b.reach(step); err != nil {
		return err
	}
	raw, err := plist.EncodeBinary(map[string]any{
		"BackupState": state, "Date": b.now(), "IsFullBackup": full, "SnapshotState": snapshot, "UUID": b.cache.uuid, "Version": "3.3",
	})
	if err != nil {
		return err
	}
	if err := b.UploadBytes(b.dir+"/"+mobilesync.StatusPlist, raw); err != nil {
		return err
	}
	b.agent.expected.status = raw
	return nil
}

// verify checks, at the end of a run, that the host has the complete backup.
func (b *backup) verify() error {
	if err := b.reach(faults.StepVerify); err != nil {
		return err
	}
	for _, f := range []struct {
		name string
		want []byte
	}{{mobilesync.StatusPlist, b.agent.expected.status}, {mobilesync.ManifestPlist, b.agent.expected.plist}} {
		raw, err := b.SmallFile(b.dir + "/" + f.name)
		if err != nil {
			return err
		}
		if !bytes.Equal(raw, f.want) {
			b.agent.violate("%s differs from what was sent", f.name)
			return mberror.Errorf(mberror.Damaged, "%s is not what was sent", f.name)
		}
	}
	sum := sha256.New()
	found, err := b.Download(b.dir+"/"+mobilesync.ManifestDB, sum)
	if err != nil {
		return err
	}
	if !found || [32]byte(sum.Sum(nil)) != b.agent.expected.manifest {
		b.agent.violate("%s differs from what was sent", mobilesync.ManifestDB)
		return mberror.Errorf(mberror.Damaged, "%s is not what was sent", mobilesync.ManifestDB)
	}
	if b.agent.opts.NoListing {
		return nil
	}
	names, _, err := b.List(b.dir)
	if err != nil {
		return err
	}
	for _, rec := range b.records.All() {
		if !rec.IsFile() || !rec.HasFileID || names.Has(rec.FileID) {
			continue
		}
		if _, sent := b.cache.sent[rec.FileID]; !sent {
			if _, kept := b.oldRecord(rec.FileID); !kept {
				continue // the device could not read the file
			}
		}
		b.agent.violate("%s is not listed", mobilesync.BlobPath(mobilesync.Hashed, rec.FileID))
		return mberror.Errorf(mberror.Damaged, "Manifest references files not in backup: %s", fmt.Sprintf("%x", rec.FileID))
	}
	return nil
}
