package verify

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/snap-backup/snap/device/finding"
	"github.com/snap-backup/snap/device/judge"
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/keybag"
	"github.com/snap-backup/snap/device/mobilesync/manifest"
	"github.com/snap-backup/snap/device/stored"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/tree"
)

// keyCheck checks the keybag and the keys of files.
type keyCheck struct {
	records  *manifest.Records
	classes  map[uint32]bool // of the keybag; nil if there is none
	keyed    int             // rows with a key
	unfit    int             // of these, keys that the keybag does not open, or that differ from the key stored in the entry
	unkeyed  int             // rows of an encrypted backup without a key
	mismatch int             // rows whose key is of another class than they say
}

// checkBag checks the keybag and the key of Manifest.db.
func (j *job) checkBag(ctx context.Context) error {
	if !j.b.Encrypted() {
		return nil
	}
	classes, sound := j.judge.Keybag()
	if j.keys.classes = classes; !sound || !j.b.Unlocked() {
		return nil
	}
	damage := func(format string, args ...any) {
		j.log.Note(finding.NoKey, repo.Damage, fmt.Sprintf(format, args...))
	}
	got, err := j.b.FileKey(&manifest.Record{EncryptionKey: j.b.ManifestKey()})
	if err != nil {
		damage("the keybag does not open the key of Manifest.db: %v", err)
		return nil
	}
	e, err := j.r.Find(ctx, j.s, tree.Key{Path: mobilesync.ManifestDB})
	if errors.Is(err, repo.ErrDamaged) {
		return nil // noted when the rows are read
	}
	if err == nil && e != nil && e.Encryption != nil && tree.FileKey(got) != e.Encryption.Key {
		damage("Manifest.plist has another key than the one that Manifest.db was encrypted with")
	}
	return err
}

// check checks the key of a file.
func (k *keyCheck) check(j *job, e *tree.Entry, rec *manifest.Record, state stored.State) {
	if !j.b.Encrypted() {
		return
	}
	if len(rec.EncryptionKey) == 0 {
		if rec.HasMeta && e.Content.Size > 0 {
			k.unkeyed++
		}
		return
	}
	k.keyed++
	reason := k.fault(j, e, rec)
	switch {
	case reason != "":
		j.log.File(finding.NoKey, j.judgeName(e, rec))
	case state == stored.Encrypted && j.s.Unlocked && !j.b.Unlocked():
		// The import knew the password and could not decrypt it.
		j.log.File(finding.Cipher, j.judgeName(e, rec))
	}
}

// fault says why a key cannot be used; "" if it can, as far as is known.
func (k *keyCheck) fault(j *job, e *tree.Entry, rec *manifest.Record) string {
	if len(rec.EncryptionKey) != keybag.WrappedFileKeyLen {
		return "form"
	}
	class := binary.LittleEndian.Uint32(rec.EncryptionKey)
	if class != rec.ProtectionClass {
		k.mismatch++
	}
	if k.classes != nil && !k.classes[class] {
		return "class"
	}
	if !j.b.Unlocked() {
		return ""
	}
	key, err := j.b.FileKey(rec)
	if err != nil {
		k.unfit++
		return "keybag"
	}
	if e.Encryption != nil && tree.FileKey(key) != e.Encryption.Key {
		k.unfit++
		return "another key"
	}
	return ""
}

// report adds findings about the backup as a whole.
func (k *keyCheck) report(to *judge.Judge) {
	log := to.Log
	to.Keys(int64(k.unfit), int64(k.keyed))
	if k.unkeyed > 0 {
		log.Count(finding.Anomaly, repo.Remark, int64(k.unkeyed), fmt.Sprintf("files of an encrypted backup that are not encrypted: %d", k.unkeyed))
	}
	if k.mismatch > 0 {
		log.Count(finding.Anomaly, repo.Remark, int64(k.mismatch), fmt.Sprintf("rows whose key is of another protection class than they say: %d", k.mismatch))
	}
}

func (j *job) judgeName(e *tree.Entry, _ *manifest.Record) string { return j.name(e) }
