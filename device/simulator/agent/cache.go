package agent

import (
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"fmt"
	"io"

	"github.com/snap-backup/snap/device/mobilesync/keybag"
	"github.com/snap-backup/snap/device/mobilesync/manifest"
	"github.com/snap-backup/snap/device/simulator/devicefiles"
	"github.com/snap-backup/snap/device/simulator/hostfiles"
)

// fileState holds metadata of a file. If the file changes, its fileState differs.
type fileState struct {
	modified, changed, size int64
	inode                   uint64
}

func stateOf(r *manifest.Record) fileState {
	return fileState{r.ModTime, r.ChangeTime, r.Size, r.Inode}
}

// sent is a file that was sent.
type sent struct {
	state  fileState
	digest [sha1.Size]byte // of the bytes sent
	key    []byte          // wrapped file key; nil in a plain backup
}

// cache holds what a device knows about a run until the run is complete.
type cache struct {
	uuid       string
	number     uint64 // number of the run, which selects its random streams
	full       bool
	base       *digests    // the digests of the old backup; may be nil
	encryption *encryption // nil in a plain backup
	sent       map[hostfiles.FileID]sent
	tries      uint64 // number of file keys drawn
}

// encryption holds the keys of an encrypted backup.
type encryption struct {
	bag         []byte
	keys        *keybag.Keys
	manifest    keybag.FileKey // the key of Manifest.db
	manifestKey []byte         // the same key, wrapped
}

// digests holds the digests of a complete backup.
type digests struct {
	parent *digests // the older digests, for files that sums does not have
	sums   map[hostfiles.FileID][sha1.Size]byte
}

func (s *digests) digest(id hostfiles.FileID) (sum [sha1.Size]byte, ok bool) {
	for ; s != nil; s = s.parent {
		if sum, ok = s.sums[id]; ok {
			return sum, true
		}
	}
	return sum, false
}

// expected describes what the last run sent. The host must return the same.
type expected struct {
	status, plist []byte
	manifest      [sha256.Size]byte // SHA-256 of Manifest.db
	uuid          string            // UUID of the run
	older         map[string]bool   // the Manifest.plist files of earlier runs
}

func (t *session) newCache(full bool) (*cache, error) {
	a := t.agent
	c := &cache{number: a.count, full: full, sent: map[hostfiles.FileID]sent{}}
	var err error
	if c.uuid, err = newUUID(a.stream("status", c.number)); err != nil {
		return nil, err
	}
	return c, nil
}

func newUUID(random io.Reader) (string, error) {
	var b [16]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return "", err
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%X-%X-%X-%X-%X", b[:4], b[4:6], b[6:8], b[8:10], b[10:]), nil
}

// encrypt prepares encryption with bag, the keybag of the old backup, or with a new
// keybag if bag is nil.
func (t *session) encrypt(c *cache, password, bag []byte, keys *keybag.Keys) error {
	a := t.agent
	var err error
	if bag == nil {
		if bag, keys, err = keybag.New(a.stream("keybag", c.number), password, a.rounds()); err != nil {
			return err
		}
	}
	l := &encryption{bag: bag, keys: keys}
	if _, err := io.ReadFull(a.stream("manifest key", c.number), l.manifest[:]); err != nil {
		return err
	}
	if l.manifestKey, err = keys.Wrap(keybag.ClassNone, l.manifest); err != nil {
		return err
	}
	c.encryption = l
	return nil
}

// fileKey draws the key of a file.
func (c *cache) fileKey(a *Agent, r *manifest.Record) (key keybag.FileKey, wrapped []byte, err error) {
	c.tries++
	mac := hmac.New(sha256.New, fmt.Appendf(nil, "%d %d %s %d", a.opts.Seed, c.number, a.device.UDID, c.tries))
	mac.Write(r.FileID[:])
	key = keybag.FileKey(mac.Sum(nil))
	wrapped, err = c.encryption.keys.Wrap(classOf(r), key)
	return key, wrapped, err
}

// classOf returns the protection class of a file in an encrypted backup. If the
// keybag has no key for the record's class, classOf returns the most common class.
func classOf(r *manifest.Record) uint32 {
	if r.ProtectionClass >= keybag.ClassComplete && r.ProtectionClass <= keybag.ClassNone {
		return r.ProtectionClass
	}
	return keybag.ClassUntilFirstUnlock
}

// open opens a file in the form in which it is sent: encrypted if the backup is
// encrypted.
func (c *cache) open(ctx context.Context, a *Agent, from devicefiles.Source, r *manifest.Record) (*outgoing, error) {
	file, err := from.Open(r)
	if err != nil {
		return nil, err
	}
	o := &outgoing{Closer: file, sum: sha1.New()}
	var plain io.Reader = devicefiles.NewReader(ctx, file)
	if c.encryption != nil {
		key, wrapped, err := c.fileKey(a, r)
		if err != nil {
			_ = file.Close()
			return nil, err
		}
		o.key = wrapped
		if !r.Dataless() {
			plain = newEncrypting(plain, key)
		}
	}
	o.Reader = io.TeeReader(plain, o.sum)
	return o, nil
}
