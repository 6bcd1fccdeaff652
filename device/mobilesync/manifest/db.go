package manifest

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/snap-backup/snap/device/mobilesync/database"
	sqlite "modernc.org/sqlite"
	sqlitelib "modernc.org/sqlite/lib"
)

// ErrCorrupt says that a manifest is damaged or not made by a device.
var ErrCorrupt = errors.New("the manifest is damaged")

// HeaderLen is the length of the header of an SQLite database.
const HeaderLen = database.HeaderLen

// IsSQLite reports whether a file that begins with head is an SQLite database.
func IsSQLite(head []byte) bool { return database.Is(head) }

// DatabaseSize returns the size of an SQLite database according to its header, in
// bytes; see database.Size.
func DatabaseSize(head []byte) int64 { return database.Size(head) }

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
	head := make([]byte, HeaderLen)
	if n, err := source.ReadAt(head, 0); n < len(head) && err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if !IsSQLite(head) {
		return nil, fmt.Errorf("%w: not an SQLite database", ErrCorrupt)
	}
	db, err := database.Open(ctx, source, size, database.Limits{
		Value: maxSchema, Cache: cacheKiB, Steps: minSteps + stepsPerByte*size,
		Other: map[int]int{
			sqlitelib.SQLITE_LIMIT_SQL_LENGTH:      16 << 10,
			sqlitelib.SQLITE_LIMIT_COLUMN:          64,
			sqlitelib.SQLITE_LIMIT_EXPR_DEPTH:      32,
			sqlitelib.SQLITE_LIMIT_COMPOUND_SELECT: 4,
			sqlitelib.SQLITE_LIMIT_FUNCTION_ARG:    8,
		},
	})
	var bad *sqlite.Error
	if errors.As(err, &bad) || errors.Is(err, database.ErrLimit) {
		err = sqlError(ctx, err)
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	records, err := scanFiles(ctx, db, size)
	if failed := db.SourceErr(); errors.Is(failed, database.ErrLimit) {
		return nil, sqlError(ctx, failed)
	} else if failed != nil {
		return nil, failed
	}
	return records, err
}

// SQLite makes some 20 steps for a row, and 60 if values are long. A row has at least 40
// bytes, unless the manifest is hostile.
const (
	minSteps     = 1_000_000
	stepsPerByte = 4
)

// maxSchema bounds values while SQLite reads the schema, in bytes.
const maxSchema = 1 << 20

// cacheKiB bounds the pages that SQLite keeps. Rows are read only once.
const cacheKiB = 1024

func scanFiles(ctx context.Context, db *database.DB, size int64) (*Records, error) {
	if err := checkSchema(db); err != nil {
		return nil, sqlError(ctx, err)
	}
	if err := db.Limit(sqlitelib.SQLITE_LIMIT_LENGTH, maxMeta); err != nil {
		return nil, sqlError(ctx, err)
	}
	for _, query := range []string{allRows, boundedRows} {
		b := newRecordBuilder(size)
		err := db.Raw(func(raw any) error { return scanRows(ctx, raw, query, b, size) })
		var e *sqlite.Error
		if errors.As(err, &e) && e.Code() == sqlitelib.SQLITE_TOOBIG && query == allRows {
			continue
		}
		if err != nil {
			return nil, err
		}
		return b.finish(ctx)
	}
	return nil, ErrCorrupt // not reached
}

// SQLite ends allRows with an error if a value is longer than its limit.
// boundedRows is slower, but replaces long values: descriptions and flags by NULL,
// and a text by maxText+1 zero bytes, which func text refuses as too long.
const allRows = "SELECT fileID, domain, relativePath, flags, file, NULL FROM main.Files NOT INDEXED"

var boundedRows = func() string {
	bounded := func(column string, limit int, instead string) string {
		return fmt.Sprintf("CASE WHEN octet_length(%s) > %d THEN %s ELSE %s END", column, limit, instead, column)
	}
	long := fmt.Sprintf("zeroblob(%d)", maxText+1)
	return fmt.Sprintf("SELECT %s, %s, %s, %s, %s, octet_length(file) FROM main.Files NOT INDEXED",
		bounded("fileID", maxText, long), bounded("domain", maxText, long), bounded("relativePath", maxText, long),
		bounded("flags", maxText, "NULL"), bounded("file", maxMeta, "NULL"))
}()

// scanRows adds all rows of Files to b. It calls the driver directly, because
// database/sql copies every value once more.
func scanRows(ctx context.Context, raw any, query string, b *recordBuilder, size int64) (err error) {
	driverConn, ok := raw.(driver.QueryerContext)
	if !ok {
		return fmt.Errorf("the database driver returns a %T, which has no queries", raw)
	}
	rows, err := driverConn.QueryContext(context.WithoutCancel(ctx), query, nil) // see database.DB.Raw
	if err != nil {
		return sqlError(ctx, err)
	}
	defer func() {
		if e := rows.Close(); err == nil && e != nil {
			err = sqlError(ctx, e)
		}
	}()
	s := rowScanner{builder: b, left: size}
	values := make([]driver.Value, 6)
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

// checkSchema refuses a Files that is not a plain table with the five columns. A
// view, virtual table or generated column would run code of the author of the
// database.
func checkSchema(db *database.DB) error {
	kind, err := db.Kind("Files")
	switch {
	case err != nil:
		return err
	case kind == "":
		return fmt.Errorf("%w: it has no table Files", ErrCorrupt)
	case kind != "table":
		return fmt.Errorf("%w: Files is not an ordinary table", ErrCorrupt)
	}
	columns, err := db.Query("SELECT name, hidden FROM pragma_table_xinfo('Files','main')")
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
	left    int64 // bytes of descriptions still allowed; rows of a hostile manifest may share pages
	meta    metaReader
	rec     Record
}

// scan adds a row with the values of fileID, domain, relativePath, flags, file, and
// perhaps the length of file.
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
		if n, ok := values[5].(int64); ok && n > 0 {
			a.LongMeta++
			a.BadMeta++
		} else {
			a.NullMeta++
		}
	case []byte:
		if s.left -= int64(len(blob)); s.left < 0 {
			return fmt.Errorf("%w: its descriptions are longer than the file", ErrCorrupt)
		}
		s.readMeta(blob, a)
	default:
		a.BadMeta++
	}
	return s.builder.add(&s.rec)
}

func (s *rowScanner) readMeta(blob []byte, a *Anomalies) {
	if len(blob) > longMeta {
		a.LongMeta++
	}
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
