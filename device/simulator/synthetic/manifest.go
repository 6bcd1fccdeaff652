package synthetic

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"path/filepath"
)

// manifestTables is the exact schema of Manifest.db.
var manifestTables = []string{
	`CREATE TABLE Files (fileID TEXT PRIMARY KEY, domain TEXT, relativePath TEXT, flags INTEGER, file BLOB)`,
	`CREATE INDEX FilesDomainIdx ON Files(domain)`,
	`CREATE INDEX FilesRelativePathIdx ON Files(relativePath)`,
	`CREATE INDEX FilesFlagsIdx ON Files(flags)`,
	`CREATE TABLE Properties (key TEXT PRIMARY KEY, value BLOB)`,
	`PRAGMA user_version=2`,
}

func (d *device) manifestPath() string { return filepath.Join(d.state, "manifest.db") }

// updateManifest updates the live manifest. The rows of unchanged files keep their
// places in the database, as on devices.
func (d *device) updateManifest(ctx context.Context) error {
	return d.cache.once(d.manifestDay(), d.manifestPath(), func() error { return d.changeManifest(ctx) })
}

func (d *device) changeManifest(ctx context.Context) (err error) {
	db, err := openLive(d.manifestPath(), "auto_vacuum=INCREMENTAL")
	if err != nil {
		return err
	}
	defer func() {
		if cerr := db.Close(); err == nil {
			err = cerr
		}
	}()
	if d.day == 0 {
		for _, statement := range manifestTables {
			if _, err := db.ExecContext(ctx, statement); err != nil {
				return err
			}
		}
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := d.writeRows(ctx, tx); err != nil {
		_ = tx.Rollback()
		return err
	}
	return tx.Commit()
}

func (d *device) writeRows(ctx context.Context, tx *sql.Tx) error {
	put, err := tx.PrepareContext(ctx, `INSERT OR REPLACE INTO Files (fileID, domain, relativePath, flags, file) VALUES (?, ?, ?, ?, ?)`)
	if err != nil {
		return err
	}
	defer put.Close()
	for _, f := range d.changed.put {
		if d.rows[f.name()] != f {
			continue
		}
		row := f.row()
		if _, err := put.ExecContext(ctx, f.id(), f.domain, f.path, row.manifestFlags(), row.marshal()); err != nil {
			return fmt.Errorf("row of %s: %w", f.name(), err)
		}
	}
	for _, f := range d.changed.removed {
		if _, err := tx.ExecContext(ctx, `DELETE FROM Files WHERE fileID = ?`, f.id()); err != nil {
			return fmt.Errorf("row of %s: %w", f.name(), err)
		}
	}
	return nil
}

// sendManifest writes Manifest.db. If the device is encrypted, Manifest.db gets a new
// key in every run.
func (d *device) sendManifest() error {
	content := func(w io.Writer) error { return copyDatabase(w, d.manifestPath(), d.copyBuf) }
	if !d.Encrypted {
		_, err := d.send("Manifest.db", nil, false, content)
		return err
	}
	key := d.drawKey("manifest key", d.day)
	wrapped, err := d.keys.Wrap(4, key)
	if err != nil {
		return err
	}
	d.manifestKey = wrapped
	_, err = d.send("Manifest.db", &key, false, content)
	return err
}
