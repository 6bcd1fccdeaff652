package synthetic

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	_ "modernc.org/sqlite" // the driver
)

// schema describes an app database: its file, its tables and its daily changes.
type schema struct {
	domain, path string
	class        uint32
	sizeOff      int64 // recorded length, which is that of the live file, minus the stored length
	tables       string
	change       func(*session)
}

// database is a live database in the state folder.
type database struct {
	*schema
	live string
}

// session makes the changes of one day to a database. After an error its methods do
// nothing.
type session struct {
	ctx   context.Context
	tx    *sql.Tx
	stmts map[string]*sql.Stmt
	err   error

	m           *maker
	shape       *shape
	s           stream
	day         int
	from, to    time.Time // the changes happen between these times
	photos      []*file   // photos that are new that day
	attachments []*file
}

// exec runs a statement and returns the rowid of the last insert.
func (x *session) exec(query string, args ...any) int64 {
	if x.err != nil {
		return 0
	}
	stmt, ok := x.stmts[query]
	if !ok {
		if stmt, x.err = x.tx.PrepareContext(x.ctx, query); x.err != nil {
			return 0
		}
		x.stmts[query] = stmt
	}
	result, err := stmt.ExecContext(x.ctx, args...)
	if err != nil {
		x.err = err
		return 0
	}
	id, err := result.LastInsertId()
	x.err = err
	return id
}

// number returns the result of a query if it is positive. Otherwise, and after an
// error, it returns 1, which callers can use as a bound.
func (x *session) number(query string, args ...any) (n int) {
	if x.err == nil {
		x.err = x.tx.QueryRowContext(x.ctx, query, args...).Scan(&n)
	}
	return max(n, 1)
}

// timeAt returns the i-th of n times that are spread over the day.
func (x *session) timeAt(i, n int) time.Time {
	span := int64(x.to.Sub(x.from) / time.Second)
	return x.from.Add(time.Duration(span*int64(i)/int64(n+1)+int64(x.s.IntN(60))) * time.Second)
}

// amount returns the number of rows to add: on day 0 first, on any other day a random
// number near later.
func (x *session) amount(first, later int) int {
	if x.day == 0 {
		return first
	}
	return x.s.between(later*2/3, later*4/3+1)
}

// cocoa returns a time in the form that Core Data stores: seconds since 2001.
func cocoa(t time.Time) int64 { return t.Unix() - 978307200 }

// openLive opens a live database. It switches off SQLite's protection against crashes,
// which is not needed, since an error ends the series.
func openLive(path string, pragmas ...string) (*sql.DB, error) {
	query := url.Values{}
	for _, p := range append([]string{"page_size=4096", "journal_mode=OFF", "synchronous=OFF", "locking_mode=EXCLUSIVE", "cache_size=-16000"}, pragmas...) {
		query.Add("_pragma", p)
	}
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

// run makes the changes of a day to the live database.
func (d *database) run(x *session) (err error) {
	db, err := openLive(d.live)
	if err != nil {
		return fmt.Errorf("open %s: %w", d.path, err)
	}
	defer func() {
		if cerr := db.Close(); err == nil && cerr != nil {
			err = fmt.Errorf("close %s: %w", d.path, cerr)
		}
	}()
	if x.day == 0 {
		if _, err := db.ExecContext(x.ctx, d.tables); err != nil {
			return fmt.Errorf("create %s: %w", d.path, err)
		}
	}
	if x.tx, err = db.BeginTx(x.ctx, nil); err != nil {
		return fmt.Errorf("begin %s: %w", d.path, err)
	}
	x.stmts = map[string]*sql.Stmt{}
	d.change(x)
	for _, stmt := range x.stmts {
		_ = stmt.Close()
	}
	if x.err != nil {
		_ = x.tx.Rollback()
		return fmt.Errorf("change %s: %w", d.path, x.err)
	}
	if err := x.tx.Commit(); err != nil {
		return fmt.Errorf("commit %s: %w", d.path, err)
	}
	return nil
}

// snapshot returns the path of the file to send: the live file, or a compacted copy.
func (d *database) snapshot(ctx context.Context, compact bool) (string, error) {
	if !compact {
		return d.live, nil
	}
	target := d.live + ".compact"
	if err := os.Remove(target); err != nil && !os.IsNotExist(err) {
		return "", err
	}
	db, err := openLive(d.live)
	if err != nil {
		return "", err
	}
	_, err = db.ExecContext(ctx, "VACUUM INTO ?", target)
	if cerr := db.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return "", fmt.Errorf("compact %s: %w", d.path, err)
	}
	return target, nil
}

const headLen = 100

// copyDatabase copies a database file and sets WAL mode in the copy's header, as
// devices do.
func copyDatabase(w io.Writer, path string, buf []byte) error {
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	var head [headLen]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return fmt.Errorf("%s: header: %w", filepath.Base(path), err)
	}
	head[18], head[19] = 2, 2
	if _, err := w.Write(head[:]); err != nil {
		return err
	}
	_, err = io.CopyBuffer(w, struct{ io.Reader }{in}, buf)
	return err
}
