package manifest

import (
	"bytes"
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	sqlite "modernc.org/sqlite"
	sqlitelib "modernc.org/sqlite/lib"
	"modernc.org/sqlite/vfs"
)

// ErrCorrupt says that a manifest is damaged or not made by a device.
var ErrCorrupt = errors.New("the manifest is damaged")

const (
	dbName      = "Manifest.db"
	sqliteMagic = "SQLite format 3\x00"
	// HeaderLen is the length of the header of an SQLite database.
	HeaderLen = 100
)

// IsSQLite reports whether a file that begins with head is an SQLite database.
func IsSQLite(head []byte) bool { return bytes.HasPrefix(head, []byte(sqliteMagic)) }

// DatabaseSize returns the size of an SQLite database according to its header,
// in bytes. It returns 0 if the header has no size, as in databases of very old
// versions.
func DatabaseSize(head []byte) int64 {
	if len(head) < HeaderLen || binary.BigEndian.Uint32(head[24:]) != binary.BigEndian.Uint32(head[92:]) {
		return 0
	}
	page := int64(binary.BigEndian.Uint16(head[16:]))
	if page == 1 {
		page = 65536
	}
	return page * int64(binary.BigEndian.Uint32(head[28:]))
}

// ReadDB reads all rows of a decrypted Manifest.db. source has size bytes.
// ReadDB ignores bytes after the last page, which decryption may leave.
//
// The database may be hostile: ReadDB reads only an ordinary table named Files
// with ordinary columns, and limits values, statements and the number of rows.
func ReadDB(ctx context.Context, source io.ReaderAt, size int64) (*Records, error) {
	records, err := readDB(ctx, source, size)
	if err != nil {
		return nil, fmt.Errorf("read Manifest.db: %w", err)
	}
	return records, nil
}

func readDB(ctx context.Context, source io.ReaderAt, size int64) (_ *Records, err error) {
	head := make([]byte, len(sqliteMagic))
	if n, err := source.ReadAt(head, 0); n < len(head) && err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if !IsSQLite(head) {
		return nil, fmt.Errorf("%w: not an SQLite database", ErrCorrupt)
	}
	disk := &oneFile{source: source, size: size}
	name, system, err := vfs.New(disk)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, system.Close()) }()
	// With immutable, SQLite uses no locks and no write-ahead log, so it makes
	// no side files.
	db, err := sql.Open("sqlite", "file:"+dbName+"?mode=ro&immutable=1&vfs="+name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	records, err := scanFiles(ctx, db, size)
	if disk.err != nil {
		return nil, disk.err
	}
	return records, err
}

func scanFiles(ctx context.Context, db *sql.DB, size int64) (*Records, error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, sqlError(ctx, err)
	}
	defer conn.Close()
	if err := restrict(ctx, conn); err != nil {
		return nil, sqlError(ctx, err)
	}
	if err := checkSchema(ctx, conn); err != nil {
		return nil, sqlError(ctx, err)
	}
	b := newRecordBuilder(size)
	if err := conn.Raw(func(raw any) error { return scanRows(ctx, raw, b) }); err != nil {
		return nil, err
	}
	return b.finish(ctx)
}

// scanRows adds all rows of Files to b. It calls the driver directly, because
// database/sql copies every value once more.
func scanRows(ctx context.Context, raw any, b *recordBuilder) (err error) {
	driverConn, ok := raw.(driver.QueryerContext)
	if !ok {
		return fmt.Errorf("the database driver returns a %T, which has no queries", raw)
	}
	rows, err := driverConn.QueryContext(ctx, "SELECT fileID, domain, relativePath, flags, file FROM main.Files NOT INDEXED", nil)
	if err != nil {
		return sqlError(ctx, err)
	}
	defer func() {
		if e := rows.Close(); err == nil && e != nil {
			err = sqlError(ctx, e)
		}
	}()
	s := rowScanner{builder: b}
	values := make([]driver.Value, 5)
	for n := 0; ; n++ {
		if n%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if err := rows.Next(values); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return sqlError(ctx, err)
		}
		if err := s.scan(values); err != nil {
			return err
		}
	}
}

// restrict disables features that reading a manifest does not need.
func restrict(ctx context.Context, conn *sql.Conn) error {
	for limit, value := range map[int]int{
		sqlitelib.SQLITE_LIMIT_LENGTH:          maxMeta,
		sqlitelib.SQLITE_LIMIT_SQL_LENGTH:      16 << 10,
		sqlitelib.SQLITE_LIMIT_COLUMN:          64,
		sqlitelib.SQLITE_LIMIT_EXPR_DEPTH:      32,
		sqlitelib.SQLITE_LIMIT_COMPOUND_SELECT: 4,
		sqlitelib.SQLITE_LIMIT_FUNCTION_ARG:    8,
		sqlitelib.SQLITE_LIMIT_ATTACHED:        0,
		sqlitelib.SQLITE_LIMIT_TRIGGER_DEPTH:   1,
		sqlitelib.SQLITE_LIMIT_WORKER_THREADS:  0,
	} {
		if _, err := sqlite.Limit(conn, limit, value); err != nil {
			return err
		}
	}
	for _, pragma := range []string{
		"trusted_schema=OFF", "query_only=ON", "cell_size_check=ON", "mmap_size=0", "temp_store=MEMORY",
		"cache_size=-1024", // KiB
	} {
		if _, err := conn.ExecContext(ctx, "PRAGMA "+pragma); err != nil {
			return err
		}
	}
	return nil
}

// checkSchema refuses a Files that is not a plain table with the five columns. A
// view, virtual table or generated column would run code of the author of the
// database.
func checkSchema(ctx context.Context, conn *sql.Conn) error {
	var kind string
	var statement sql.NullString
	err := conn.QueryRowContext(ctx, "SELECT type, sql FROM main.sqlite_schema WHERE name = 'Files' COLLATE NOCASE AND type IN ('table','view')").Scan(&kind, &statement)
	if errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("%w: it has no table Files", ErrCorrupt)
	}
	if err != nil {
		return err
	}
	if words := strings.Fields(statement.String); kind != "table" || len(words) < 2 || !strings.EqualFold(words[1], "TABLE") {
		return fmt.Errorf("%w: Files is not an ordinary table", ErrCorrupt)
	}
	columns, err := conn.QueryContext(ctx, "SELECT name, hidden FROM pragma_table_xinfo('Files','main')")
	if err != nil {
		return err
	}
	defer columns.Close()
	missing := map[string]bool{"fileid": true, "domain": true, "relativepath": true, "flags": true, "file": true}
	for columns.Next() {
		var name string
		var hidden int
		if err := columns.Scan(&name, &hidden); err != nil {
			return err
		}
		if hidden != 0 {
			return fmt.Errorf("%w: the column %q of Files is computed", ErrCorrupt, name)
		}
		delete(missing, strings.ToLower(name))
	}
	if err := columns.Err(); err != nil {
		return err
	}
	for name := range missing {
		return fmt.Errorf("%w: Files has no column %s", ErrCorrupt, name)
	}
	return nil
}

// rowScanner turns rows of Files into records.
type rowScanner struct {
	builder *recordBuilder
	meta    metaReader
	rec     Record
}

// scan adds a row with the values of fileID, domain, relativePath, flags, file.
func (s *rowScanner) scan(values []driver.Value) error {
	a := &s.builder.out.Anomalies
	s.rec = Record{}
	switch id := values[0].(type) {
	case string:
		s.rec.setFileID([]byte(id), a)
	case []byte:
		if s.rec.setFileID(id, a); s.rec.HasFileID {
			a.BlobFileID++
		}
	default:
		a.OddFileID++
	}
	s.rec.Domain = text(values[1], a)
	s.rec.RelativePath = text(values[2], a)
	if flags, ok := values[3].(int64); ok && flags >= 0 && flags <= 1<<31 {
		s.rec.Flags = uint32(flags)
	}
	switch blob := values[4].(type) {
	case nil:
		a.NullMeta++
	case []byte:
		s.readMeta(blob, a)
	default:
		a.BadMeta++
	}
	return s.builder.add(&s.rec)
}

func (s *rowScanner) readMeta(blob []byte, a *Anomalies) {
	if len(blob) == 0 {
		a.NullMeta++
	} else if !s.meta.read(blob, &s.rec) {
		a.BadMeta++
	}
}

// text returns the text of a column. It counts a column of another type as an
// anomaly.
func text(column driver.Value, a *Anomalies) string {
	var s string
	switch v := column.(type) {
	case string:
		s = v
	case []byte:
		s = string(v)
		a.NullText++
	default:
		a.NullText++
	}
	if len(s) > maxText {
		a.LongText++
		return ""
	}
	return s
}

// sqlError returns an error that distinguishes a cancelled call from a damaged
// database.
func sqlError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, ErrCorrupt) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrCorrupt, err)
}

// oneFile is a file system for SQLite that has only the database.
type oneFile struct {
	source io.ReaderAt
	size   int64
	err    error // first failure of source
}

func (o *oneFile) Open(name string) (fs.File, error) {
	if name != dbName {
		return nil, fs.ErrNotExist
	}
	return &oneOpenFile{o, io.NewSectionReader(o.source, 0, o.size)}, nil
}

type oneOpenFile struct {
	*oneFile
	*io.SectionReader
}

func (f *oneOpenFile) Read(p []byte) (int, error) {
	n, err := f.SectionReader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) && f.err == nil {
		f.err = err
	}
	return n, err
}

func (f *oneOpenFile) Stat() (fs.FileInfo, error) { return oneInfo{f.size}, nil }
func (f *oneOpenFile) Close() error               { return nil }

type oneInfo struct{ size int64 }

func (i oneInfo) Name() string     { return dbName }
func (i oneInfo) Size() int64      { return i.size }
func (oneInfo) Mode() fs.FileMode  { return 0o400 }
func (oneInfo) ModTime() time.Time { return time.Time{} }
func (oneInfo) IsDir() bool        { return false }
func (oneInfo) Sys() any           { return nil }
