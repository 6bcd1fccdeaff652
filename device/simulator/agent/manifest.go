package agent

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os"

	"github.com/snap-backup/snap/device/mobilesync/keybag"
	"github.com/snap-backup/snap/device/mobilesync/manifest"
	"github.com/snap-backup/snap/device/protocol/plist"
	"github.com/snap-backup/snap/device/simulator/devicefiles"
	"github.com/snap-backup/snap/device/simulator/manifestdb"
)

// buildManifest writes the unencrypted manifest of a run to a file: the manifest of
// the content, with the keys and digests of the sent files.
func (b *backup) buildManifest(path string) (err error) {
	if err := writeManifest(b.ctx, b.content, path); err != nil {
		return err
	}
	return manifestdb.Edit(b.ctx, path, b.records, b.row)
}

func writeManifest(ctx context.Context, from devicefiles.Source, path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 256<<10)
	err = from.Manifest(ctx, w)
	if err == nil {
		err = w.Flush()
	}
	return errors.Join(err, f.Close())
}

// row turns a record of the content into the record of the backup.
func (b *backup) row(rec *manifest.Record) manifestdb.Change {
	if !rec.IsFile() || !rec.HasFileID || !rec.HasMeta {
		return manifestdb.Keep
	}
	var digest [20]byte
	var hasDigest bool
	var key []byte
	if s, ok := b.cache.sent[rec.FileID]; ok {
		digest, key = s.digest, s.key
		hasDigest = rec.HasDigest || devicefiles.HasDigests(rec.Domain)
	} else if old, ok := b.oldRecord(rec.FileID); ok && stateOf(&old) != stateOf(rec) {
		*rec = old // the file could not be read, so the backup keeps its old version
		return manifestdb.Update
	} else if ok {
		digest, hasDigest, key = old.Digest, old.HasDigest, old.EncryptionKey
	} else {
		return manifestdb.Delete // the file could not be read
	}
	if digest == rec.Digest && hasDigest == rec.HasDigest && string(key) == string(rec.EncryptionKey) {
		return manifestdb.Keep
	}
	if !hasDigest {
		digest = rec.Digest
		if string(key) == string(rec.EncryptionKey) && !rec.HasDigest {
			return manifestdb.Keep
		}
	}
	rec.Digest, rec.HasDigest, rec.EncryptionKey = digest, hasDigest, key
	if key != nil {
		rec.ProtectionClass = classOf(rec)
	}
	return manifestdb.Update
}

// manifestPlist returns Manifest.plist.
func (b *backup) manifestPlist() ([]byte, error) {
	a := b.agent
	p := b.content.Base()
	for _, k := range []string{"BackupKeyBag", "ManifestKey"} {
		delete(p, k)
	}
	lockdown := map[string]any{}
	if l, ok := p["Lockdown"].(map[string]any); ok {
		for k, v := range l {
			lockdown[k] = v
		}
	}
	for k, v := range map[string]string{"UniqueDeviceID": a.device.UDID, "DeviceName": a.device.Name, "ProductType": a.device.ProductType,
		"ProductVersion": a.device.ProductVersion, "BuildVersion": a.device.BuildVersion, "SerialNumber": a.device.SerialNumber} {
		if v != "" {
			lockdown[k] = v
		}
	}
	p["Lockdown"] = lockdown
	p["Version"] = "10.0"
	p["Date"] = b.now()
	p["IsEncrypted"] = b.cache.encryption != nil
	if l := b.cache.encryption; l != nil {
		p["BackupKeyBag"], p["ManifestKey"] = l.bag, l.manifestKey
		return plist.EncodeBinary(p)
	}
	bag := b.plainBag
	if bag == nil {
		var keys *keybag.Keys
		var err error
		if bag, keys, err = keybag.New(a.stream("keybag", b.cache.number), nil, a.rounds()); err != nil {
			return nil, err
		}
		keys.Destroy()
	}
	p["BackupKeyBag"] = bag
	return plist.EncodeBinary(p)
}

// encryptedFile opens a file in the form in which it is sent: encrypted, or as it is
// if l is nil.
func encryptedFile(path string, l *encryption) (io.ReadCloser, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if l == nil {
		return f, nil
	}
	return struct {
		io.Reader
		io.Closer
	}{newEncrypting(f, l.manifest), f}, nil
}

// oldBackup is a complete backup on the host.
type oldBackup struct {
	records     *manifest.Records
	bag         []byte
	keys        *keybag.Keys // keys and manifestKey are nil in a plain backup
	manifestKey []byte
	sum         [sha256.Size]byte
}
