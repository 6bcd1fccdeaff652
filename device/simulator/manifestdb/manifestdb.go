// Package manifestdb creates plain Manifest.db files of simulated devices, and changes
// rows of existing ones.
//
// It rewrites only the rows that change, so that equal content gives equal bytes.
package manifestdb

import (
	"context"
	"crypto/sha1"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/snap-backup/snap/device/mobilesync/manifest"
	"github.com/snap-backup/snap/device/protocol/bplist"
	"github.com/snap-backup/snap/device/simulator/synthetic"

	_ "modernc.org/sqlite" // the driver
)

// Change says what Edit does with a row.
type Change int

// The changes.
const (
	Keep Change = iota
	Update
	Delete
)

// Edit changes rows of the Manifest.db at path in place. The other rows keep their
// position in the file. decide says what to do with the row of a record, and may change
// the record. Edit may call decide more than once for a record.
func Edit(ctx context.Context, path string, records *manifest.Records, decide func(*manifest.Record) Change) (err error) {
	todo := map[int]Change{}
	for i, rec := range records.All() {
		if e := decide(&rec); e != Keep {
			todo[i] = e
		}
	}
	if len(todo) == 0 {
		return nil
	}
	return Write(ctx, path, func(tx *sql.Tx) error {
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
			decide(&rec)
			id := ID(rec.FileID)
			if e == Delete {
				if _, err := tx.ExecContext(ctx, "DELETE FROM Files WHERE fileID = ?", id); err != nil {
					return err
				}
				continue
			}
			var blob []byte
			if err := read.QueryRowContext(ctx, id).Scan(&blob); err != nil {
				return fmt.Errorf("row %s: %w", id, err)
			}
			if _, err := write.ExecContext(ctx, synthetic.MarshalMBFile(&rec, ExtendedAttributes(blob)), id); err != nil {
				return fmt.Errorf("row %s: %w", id, err)
			}
		}
		return nil
	})
}

// Write runs work in a transaction on the Manifest.db at path. It uses no write-ahead
// log, but afterwards the header says that the file has one, as on devices.
func Write(ctx context.Context, path string, work func(*sql.Tx) error) error {
	if err := setJournal(path, 1); err != nil {
		return err
	}
	return write(ctx, path, func(db *sql.DB) error {
		// A manifest from elsewhere may contain SQL code, which must not run.
		var foreign int
		const query = "SELECT count(*) FROM sqlite_schema WHERE type IN ('trigger', 'view') OR sql LIKE 'CREATE VIRTUAL%'"
		if err := db.QueryRowContext(ctx, query).Scan(&foreign); err != nil {
			return err
		}
		if foreign > 0 {
			return errors.New("the manifest has triggers, views or virtual tables, which no device makes")
		}
		return nil
	}, work)
}

// Create creates a Manifest.db at path. work inserts its rows.
func Create(ctx context.Context, path string, work func(*sql.Tx) error) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return write(ctx, path, func(db *sql.DB) error {
		for _, statement := range synthetic.ManifestSchema() {
			if _, err := db.ExecContext(ctx, statement); err != nil {
				return err
			}
		}
		return nil
	}, work)
}

func write(ctx context.Context, path string, prepare func(*sql.DB) error, work func(*sql.Tx) error) (err error) {
	db, err := open(path)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, db.Close())
		if err == nil {
			err = setJournal(path, 2)
		}
	}()
	if err := prepare(db); err != nil {
		return err
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

// ID returns a fileID in the form that rows have as their key.
func ID(id [sha1.Size]byte) string { return hex.EncodeToString(id[:]) }

func open(path string) (*sql.DB, error) {
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

// setJournal sets both version numbers in a database's header: 1 means a rollback
// journal, and 2 means a write-ahead log.
func setJournal(path string, version byte) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte{version, version}, 18)
	return errors.Join(err, f.Close())
}

// ExtendedAttributes returns the extended attributes in a row's metadata, or nil if
// there are none.
func ExtendedAttributes(blob []byte) []byte {
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
