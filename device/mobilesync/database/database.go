// Package database reads SQLite databases that may be hostile.
//
// A database is read from an io.ReaderAt through a read-only file system of its own,
// without locks, write-ahead log or side files, so nothing is ever written. Views,
// triggers and functions of the schema get no trust, and memory and steps are bounded.
package database

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	sqlite "modernc.org/sqlite"
	sqlitelib "modernc.org/sqlite/lib"
	"modernc.org/sqlite/vfs"
)

const (
	name  = "database"
	magic = "SQLite format 3\x00"
	// HeaderLen is the length of the header of an SQLite database.
	HeaderLen = 100
)

// Is reports whether a file that begins with head is an SQLite database.
func Is(head []byte) bool { return bytes.HasPrefix(head, []byte(magic)) }

// Was reports whether a file of size bytes was an SQLite database before its first bytes
// were damaged: at most two of them differ, or the rest of the header fits the file.
func Was(head []byte, size int64) bool {
	if Is(head) || len(head) < HeaderLen {
		return false
	}
	wrong := 0
	for i := range len(magic) {
		if head[i] != magic[i] {
			wrong++
		}
	}
	return wrong <= 2 || validStart(head) && Size(head) == size
}

// Size returns the size of an SQLite database according to its header, in bytes. It
// returns 0 if the header has no size, as in databases of very old versions.
func Size(head []byte) int64 {
	if len(head) < HeaderLen || binary.BigEndian.Uint32(head[24:]) != binary.BigEndian.Uint32(head[92:]) {
		return 0
	}
	page := int64(binary.BigEndian.Uint16(head[16:]))
	if page == 1 {
		page = 65536
	}
	return page * int64(binary.BigEndian.Uint32(head[28:]))
}

// Limits bound what a database can make SQLite do.
type Limits struct {
	Value int         // bytes of a value or row
	Cache int         // KiB of pages that are kept in memory
	Steps int64       // steps of SQLite's virtual machine
	Other map[int]int // more limits of SQLite by number, SQLITE_LIMIT_…
	// Read, if not 0, bounds the bytes that are read. Beyond it the error is
	// ErrLimit.
	Read int64
}

// ErrLimit says that a database needs more than its limits allow.
var ErrLimit = errors.New("the database needs too much time or memory")

// DB is an open database with one connection.
type DB struct {
	conn   *sql.Conn
	db     *sql.DB
	system *vfs.FS
	file   *oneFile
	handle uintptr // of SQLite
	budget budget
	free   context.Context // of all queries: one that never ends; see limitSteps
}

// Open opens a database of size bytes and reads its schema. The caller closes it. All
// queries end when ctx is done. An error of source is returned as it is.
func Open(ctx context.Context, source io.ReaderAt, size int64, limits Limits) (*DB, error) {
	d := &DB{file: &oneFile{source: source, size: size, limit: limits.Read}}
	d.budget.ctx, d.free = ctx, context.WithoutCancel(ctx)
	d.budget.left.Store(limits.Steps)
	if err := d.open(limits); err != nil {
		err = errors.Join(err, d.Close())
		if d.SourceErr() != nil {
			err = d.SourceErr()
		}
		return nil, err
	}
	return d, nil
}

func (d *DB) open(limits Limits) error {
	system, fs, err := vfs.New(d.file)
	if err != nil {
		return err
	}
	d.system = fs
	// With immutable, SQLite uses no locks and no write-ahead log, so it makes
	// no side files.
	if d.db, err = sql.Open("sqlite", "file:"+name+"?mode=ro&immutable=1&vfs="+system); err != nil {
		return err
	}
	if d.conn, err = d.db.Conn(d.free); err != nil {
		return err
	}
	if err := d.limitSteps(); err != nil {
		return err
	}
	return d.restrict(limits)
}

// Query runs a query. Its errors are those of SQLite.
func (d *DB) Query(query string, args ...any) (*sql.Rows, error) {
	return d.conn.QueryContext(d.free, query, args...)
}

// Raw calls f with the driver's connection, for queries that copy nothing. Their
// context must not be one that can end.
func (d *DB) Raw(f func(raw any) error) error { return d.conn.Raw(f) }

// Kind returns what SQLite takes an object for: table, view, virtual (a table that a
// module makes up) or shadow (one that belongs to a virtual one). It returns "" if
// there is no such object. The SQL text that made an object can pretend anything.
func (d *DB) Kind(object string) (kind string, err error) {
	// The pragma would also prepare a query for every view and virtual table, which a
	// hostile database can make expensive. The result does not depend on these queries,
	// so they are refused.
	if err := d.authorize(onlyPragmas); err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, d.authorize(nil)) }()
	rows, err := d.Query("PRAGMA main.table_list(" + quote(object) + ")")
	if err != nil {
		return "", err
	}
	defer rows.Close()
	for rows.Next() {
		var schema, name string
		var columns, withoutRows, strict int
		if err := rows.Scan(&schema, &name, &kind, &columns, &withoutRows, &strict); err != nil {
			return "", err
		}
	}
	return kind, rows.Err()
}

func onlyPragmas(action sqlite.AuthorizerActionCode, _, _, _, _ string) sqlite.AuthorizerReturnCode {
	if action == sqlite.AuthPragma {
		return sqlite.AuthorizerOK
	}
	return sqlite.AuthorizerDeny
}

// authorize sets what statements may do, or allows everything if f is nil.
func (d *DB) authorize(f sqlite.AuthorizerFn) error {
	return d.Raw(func(raw any) error {
		conn, ok := raw.(sqlite.AuthorizerRegisterer)
		if !ok {
			return errNoHandle
		}
		return conn.RegisterAuthorizer(f)
	})
}

// SourceErr returns the first failure of the source, or ErrLimit if Limits.Read or
// Limits.Steps was reached. SQLite reports these as damage or as an interruption.
func (d *DB) SourceErr() error {
	if d.file.err == nil && d.budget.left.Load() < 0 {
		return ErrLimit
	}
	return d.file.err
}

// Close closes the database.
func (d *DB) Close() error {
	var errs []error
	budgets.Delete(d.handle) // first, since SQLite uses the handle of a closed connection again
	if d.conn != nil {
		errs = append(errs, d.conn.Close())
	}
	if d.db != nil {
		errs = append(errs, d.db.Close())
	}
	if d.system != nil {
		errs = append(errs, d.system.Close())
	}
	return errors.Join(errs...)
}

// restrict disables features that reading does not need.
func (d *DB) restrict(limits Limits) error {
	for limit, value := range limits.Other {
		if err := d.Limit(limit, value); err != nil {
			return err
		}
	}
	for limit, value := range map[int]int{
		sqlitelib.SQLITE_LIMIT_LENGTH:         limits.Value,
		sqlitelib.SQLITE_LIMIT_ATTACHED:       0,
		sqlitelib.SQLITE_LIMIT_TRIGGER_DEPTH:  1,
		sqlitelib.SQLITE_LIMIT_WORKER_THREADS: 0,
	} {
		if err := d.Limit(limit, value); err != nil {
			return err
		}
	}
	for _, pragma := range []string{
		"trusted_schema=OFF", "query_only=ON", "cell_size_check=ON", "mmap_size=0", "temp_store=MEMORY",
		fmt.Sprintf("cache_size=-%d", limits.Cache),
	} {
		if _, err := d.conn.ExecContext(d.free, "PRAGMA "+pragma); err != nil {
			return err
		}
	}
	return nil
}

// Limit sets a limit of SQLite by its number, SQLITE_LIMIT_….
func (d *DB) Limit(limit, value int) error {
	_, err := sqlite.Limit(d.conn, limit, value)
	return err
}

// oneFile is a file system for SQLite that has only the database.
type oneFile struct {
	source io.ReaderAt
	size   int64
	limit  int64 // bytes that may be read, 0 for any number
	read   int64
	err    error // first failure of source
}

func (o *oneFile) Open(path string) (fs.File, error) {
	if path != name {
		return nil, fs.ErrNotExist
	}
	return &oneOpenFile{o, io.NewSectionReader(o.source, 0, o.size)}, nil
}

type oneOpenFile struct {
	*oneFile
	*io.SectionReader
}

func (f *oneOpenFile) Read(p []byte) (int, error) {
	if f.read += int64(len(p)); f.limit > 0 && f.read > f.limit && f.err == nil {
		f.err = ErrLimit
	}
	if f.err != nil {
		return 0, f.err
	}
	n, err := f.SectionReader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		f.err = err
	}
	return n, err
}

func (f *oneOpenFile) Stat() (fs.FileInfo, error) { return oneInfo{f.size}, nil }
func (f *oneOpenFile) Close() error               { return nil }

type oneInfo struct{ size int64 }

func (i oneInfo) Name() string     { return name }
func (i oneInfo) Size() int64      { return i.size }
func (oneInfo) Mode() fs.FileMode  { return 0o400 }
func (oneInfo) ModTime() time.Time { return time.Time{} }
func (oneInfo) IsDir() bool        { return false }
func (oneInfo) Sys() any           { return nil }
