package agent

import (
	"bufio"
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/snap-backup/snap/device/mobilesync/keybag"
	"github.com/snap-backup/snap/device/mobilesync/manifest"
	"github.com/snap-backup/snap/device/protocol/bplist"
	"github.com/snap-backup/snap/device/protocol/plist"
	"github.com/snap-backup/snap/device/simulator/synthetic"

	_ "modernc.org/sqlite" // the driver
)

// edit is what becomes of a row of Manifest.db.
type edit int

const (
	keepRow edit = iota
	changeRow
	dropRow
)

// editManifest rewrites rows of the plain Manifest.db at path in place, so that
// unchanged ones stay where they are. judge may change the record.
func editManifest(ctx context.Context, path string, records *manifest.Records, judge func(*manifest.Record) edit) (err error) {
	todo := map[int]edit{}
	for i, rec := range records.All() {
		if e := judge(&rec); e != keepRow {
			todo[i] = e
		}
	}
	if len(todo) == 0 {
		return nil
	}
	return withManifest(ctx, path, func(tx *sql.Tx) error {
		read, err := tx.PrepareContext(ctx, "SELECT file FROM Files WHERE fileID = ?")
		if err != nil {
			return err
		}
		defer read.Close()
		write, err := tx.PrepareContext(ctx, "UPDATE Files SET file = ? WHERE fileID = ?")
		if err != nil {
			return err
		}
		defer write.Close()
		for i := range records.Len() {
			e, ok := todo[i]
			if !ok {
				continue
			}
			rec := records.At(i)
			judge(&rec)
			id := fmt.Sprintf("%x", rec.FileID)
			if e == dropRow {
				if _, err := tx.ExecContext(ctx, "DELETE FROM Files WHERE fileID = ?", id); err != nil {
					return err
				}
				continue
			}
			var blob []byte
			if err := read.QueryRowContext(ctx, id).Scan(&blob); err != nil {
				return fmt.Errorf("row %s: %w", id, err)
			}
			if _, err := write.ExecContext(ctx, synthetic.MarshalMBFile(&rec, extendedAttributes(blob)), id); err != nil {
				return fmt.Errorf("row %s: %w", id, err)
			}
		}
		return nil
	})
}

// withManifest opens a plain Manifest.db for writing. Its header comes out
// saying write-ahead log, as devices have it, though it is written without one.
func withManifest(ctx context.Context, path string, work func(*sql.Tx) error) (err error) {
	if err := setJournal(path, 1); err != nil {
		return err
	}
	db, err := openManifest(path)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, db.Close())
		if err == nil {
			err = setJournal(path, 2)
		}
	}()
	// What a foreign manifest brings along must not run.
	var foreign int
	if err := db.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema WHERE type IN ('trigger', 'view') OR sql LIKE 'CREATE VIRTUAL%'").Scan(&foreign); err != nil {
		return err
	}
	if foreign > 0 {
		return errors.New("the manifest has triggers, views or virtual tables, which no device makes")
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := work(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

func openManifest(path string) (*sql.DB, error) {
	path, err := filepath.Abs(path) // URIs have no relative form
	if err != nil {
		return nil, err
	}
	query := url.Values{"_pragma": {"journal_mode=OFF", "synchronous=OFF", "locking_mode=EXCLUSIVE", "trusted_schema=OFF", "cache_size=-16000"}}
	name := filepath.ToSlash(path)
	if !strings.HasPrefix(name, "/") {
		name = "/" + name
	}
	db, err := sql.Open("sqlite", "file://"+(&url.URL{Path: name}).EscapedPath()+"?"+query.Encode())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	return db, nil
}

// setJournal writes the two version numbers of a database's header: 1 is a
// rollback journal, 2 a write-ahead log.
func setJournal(path string, version byte) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte{version, version}, 18)
	return errors.Join(err, f.Close())
}

// extendedAttributes finds them in a row's description; nil if it has none.
func extendedAttributes(blob []byte) []byte {
	doc, err := bplist.Parse(blob)
	if err != nil {
		return nil
	}
	top, ok := doc.Dict(doc.Top())
	if !ok {
		return nil
	}
	ref, ok := doc.Lookup(top, "$objects")
	if !ok {
		return nil
	}
	objects, ok := doc.Array(ref)
	if !ok || objects.Len() < 2 {
		return nil
	}
	file, ok := doc.Dict(objects.At(1))
	if !ok {
		return nil
	}
	if ref, ok = doc.Lookup(file, "ExtendedAttributes"); !ok {
		return nil
	}
	if uid, ok := doc.UID(ref); ok {
		if uid >= uint64(objects.Len()) {
			return nil
		}
		ref = objects.At(int(uid))
	}
	data, ok := doc.Data(ref)
	if !ok {
		return nil
	}
	return data
}

// buildManifest writes the manifest of a run to a file, in the clear: that of
// the content, with keys and digests as the files were sent. It returns those
// that are in it.
func (b *backup) buildManifest(path string) (err error) {
	if err := writeManifest(b.ctx, b.content, path); err != nil {
		return err
	}
	return editManifest(b.ctx, path, b.records, b.row)
}

func writeManifest(ctx context.Context, content Content, path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 256<<10)
	err = content.Manifest(ctx, w)
	if err == nil {
		err = w.Flush()
	}
	return errors.Join(err, f.Close())
}

// row makes of a row of the content that of the backup.
func (b *backup) row(rec *manifest.Record) edit {
	if !rec.IsFile() || !rec.HasFileID || !rec.HasMeta {
		return keepRow
	}
	var digest [20]byte
	var hasDigest bool
	var key []byte
	if s, ok := b.cache.sent[rec.FileID]; ok {
		digest, key = s.digest, s.key
		hasDigest = rec.HasDigest || digestDomains[rec.Domain]
	} else if old, ok := b.oldRecord(rec.FileID); ok && stateOf(&old) != stateOf(rec) {
		*rec = old // it could not be read, so the old state stands
		return changeRow
	} else if ok {
		digest, hasDigest, key = old.Digest, old.HasDigest, old.EncryptionKey
	} else {
		return dropRow // it could not be read
	}
	if digest == rec.Digest && hasDigest == rec.HasDigest && string(key) == string(rec.EncryptionKey) {
		return keepRow
	}
	if !hasDigest {
		digest = rec.Digest
		if string(key) == string(rec.EncryptionKey) && !rec.HasDigest {
			return keepRow
		}
	}
	rec.Digest, rec.HasDigest, rec.EncryptionKey = digest, hasDigest, key
	if key != nil {
		rec.ProtectionClass = classOf(rec)
	}
	return changeRow
}

// manifestPlist is the property list beside the manifest.
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
	for k, v := range map[string]string{"UniqueDeviceID": a.me.UDID, "DeviceName": a.me.Name, "ProductType": a.me.ProductType,
		"ProductVersion": a.me.ProductVersion, "BuildVersion": a.me.BuildVersion, "SerialNumber": a.me.SerialNumber} {
		if v != "" {
			lockdown[k] = v
		}
	}
	p["Lockdown"] = lockdown
	p["Version"] = "10.0"
	p["Date"] = b.now()
	p["IsEncrypted"] = b.cache.locks != nil
	if l := b.cache.locks; l != nil {
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

// sealedFile opens the file at path as it goes to the host.
func sealedFile(path string, l *locks) (io.ReadCloser, error) {
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
	}{newSealing(f, l.manifest), f}, nil
}

// oldSet is a complete backup that the host gave back.
type oldSet struct {
	records     *manifest.Records
	bag         []byte
	keys        *keybag.Keys // of an encrypted one, as is manifestKey
	manifestKey []byte
	sum         [sha256.Size]byte
}
