package database

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	sqlite "modernc.org/sqlite"
	sqlitelib "modernc.org/sqlite/lib"
)

// Verdict says what Check found.
type Verdict struct {
	// Damage says what is wrong, in the words of SQLite; empty if nothing is.
	Damage string
	// Complaint is the first rule of the schema that a row breaks, such as a NULL where
	// the app forbids it; empty if none. Pages, rows and indexes are in order: SQLite
	// reads all of it, and apps break such rules themselves.
	Complaint string
	// Unjudged says why a part of the database was not checked; empty if all of it
	// was. Databases of a device can use functions and tokenizers that only the
	// device has.
	Unjudged string
}

// Limits of a check. The cache is large enough for the indexes of large databases,
// and two checks at a time stay under the memory that snap may use.
const (
	maxCheckedValue = 64 << 20
	checkCacheKiB   = 24 << 10
	// rereads bounds how often a check reads the database on average.
	rereads = 64
	minRead = 256 << 20
	// A row of a few bytes costs some twenty steps, and as many again for each index.
	minSteps     = 5_000_000
	stepsPerByte = 50
	// maxComplaints is how many complaints of SQLite are read to find damage among them.
	maxComplaints = 100_000
	// maxOfTable is how many messages SQLite has for the check of one table.
	maxOfTable = 100
	// A check may take this long, and longer for a large database.
	minTime   = time.Minute
	timePerMB = time.Second / 4
)

// Check checks a database with SQLite's integrity_check, which reads all of it. The
// error is one of ctx or of source; damage is no error.
func Check(ctx context.Context, source io.ReaderAt, size int64) (Verdict, error) {
	head := make([]byte, HeaderLen)
	if n, err := source.ReadAt(head, 0); n < len(head) && err != nil && !errors.Is(err, io.EOF) {
		return Verdict{}, err
	}
	if encryptedByApp(head) {
		return Verdict{Unjudged: "an app has encrypted it"}, nil
	}
	if need := Size(head); need > size {
		return Verdict{Damage: fmt.Sprintf("it has %d bytes of %d", size, need)}, nil
	}
	inner, cancel := context.WithTimeout(ctx, minTime+time.Duration(size>>20)*timePerMB)
	defer cancel()
	var c checker
	db, err := Open(inner, source, size, Limits{Value: maxCheckedValue, Cache: checkCacheKiB, Read: minRead + rereads*size, Steps: minSteps + stepsPerByte*size})
	if err == nil {
		defer db.Close()
		c.db = db
		err = c.check()
	} else {
		err = c.damage(err)
	}
	switch failed := c.sourceErr(); {
	case ctx.Err() != nil:
		return Verdict{}, ctx.Err()
	case inner.Err() != nil, errors.Is(failed, ErrLimit), errors.Is(err, ErrLimit):
		return Verdict{Unjudged: ErrLimit.Error()}, nil
	case failed != nil:
		return Verdict{}, failed
	}
	return c.Verdict, err
}

// encryptedByApp reports whether a database is one of SQLCipher that leaves its first 32
// bytes unencrypted, as apps do if their database is in a folder that they share with
// other apps. These bytes are a normal SQLite header, which reserves room for an
// authentication code in each page. Bytes 72 to 91 of the header, which SQLite leaves
// zero, are encrypted and so not zero.
func encryptedByApp(head []byte) bool {
	const leastReserved = 32 // bytes of a page, for the code
	return Is(head) && validStart(head) && head[20] >= leastReserved && len(bytes.Trim(head[72:92], "\x00")) > 0
}

// validStart checks those fields in the first 32 bytes that can have only a few values.
func validStart(head []byte) bool {
	page := int(binary.BigEndian.Uint16(head[16:]))
	return (page == 1 || page >= 512 && page&(page-1) == 0) &&
		(head[18] == 1 || head[18] == 2) && (head[19] == 1 || head[19] == 2) &&
		head[21] == 64 && head[22] == 32 && head[23] == 32
}

type checker struct {
	Verdict
	db *DB
}

func (c *checker) sourceErr() error {
	if c.db == nil {
		return nil
	}
	return c.db.SourceErr()
}

// check tries the complete check first. If SQLite lacks something that the schema
// needs, it checks table by table.
func (c *checker) check() error {
	err := c.pragma("integrity_check", "")
	if err == nil || !c.lacks(err) {
		return c.damage(err)
	}
	c.Unjudged = err.Error()
	tables, err := c.tables()
	if err != nil {
		return c.damage(err)
	}
	for _, t := range tables {
		err := c.pragma("integrity_check", quote(t))
		if err != nil && c.lacks(err) {
			err = c.pragma("quick_check", quote(t))
		}
		if err != nil && c.lacks(err) {
			continue
		}
		if err := c.damage(err); err != nil || c.Damage != "" {
			return err
		}
	}
	return nil
}

// pragma runs a check of a table, or of all if it is "". It keeps the first damage that
// SQLite reports, and the first complaint.
func (c *checker) pragma(check, table string) error {
	query := fmt.Sprintf("PRAGMA %s(%d)", check, maxComplaints)
	if table != "" {
		query = fmt.Sprintf("PRAGMA %s(%s)", check, table)
	}
	rows, err := c.db.Query(query)
	if err != nil {
		return err
	}
	defer rows.Close()
	messages := 0
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			return err
		}
		if messages++; table != "" && messages == maxOfTable {
			// Damage may come after the rows that break a rule.
			c.Unjudged = fmt.Sprintf("SQLite ends the check of the table %s after %d rows that break a rule", table, maxOfTable)
		}
		switch {
		case text == "ok":
		case !breaksRule(text):
			c.Damage = text
			return nil
		case c.Complaint == "":
			c.Complaint = text
		}
	}
	return rows.Err()
}

// breaksRule reports whether SQLite reports only that a value breaks a rule of the schema.
// SQLite does not look at CHECK constraints of a database that it cannot write to.
func breaksRule(text string) bool {
	for _, begin := range []string{"NULL value in ", "NUMERIC value in ", "TEXT value in "} {
		if strings.HasPrefix(text, begin) {
			return true
		}
	}
	kind, _, ok := strings.Cut(text, " value in ") // such as "non-INT value in t.c"
	return ok && strings.HasPrefix(kind, "non-") && !strings.Contains(kind, " ")
}

func (c *checker) tables() (names []string, err error) {
	rows, err := c.db.Query("SELECT name FROM main.sqlite_schema WHERE type='table' AND rootpage > 0")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, rows.Err()
}

// damage keeps an error of SQLite in the verdict: as a limit that was reached, or
// as damage. It returns any other error.
func (c *checker) damage(err error) error {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return err
	}
	switch e.Code() & 0xff {
	case sqlitelib.SQLITE_TOOBIG, sqlitelib.SQLITE_NOMEM, sqlitelib.SQLITE_INTERRUPT:
		c.Unjudged = ErrLimit.Error()
	default:
		c.Damage = e.Error()
	}
	return nil
}

// lacks reports whether SQLite refused a check because it lacks a function,
// collation, module or tokenizer.
func (c *checker) lacks(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && e.Code()&0xff == sqlitelib.SQLITE_ERROR && c.sourceErr() == nil
}

// quote returns a name as an SQL string.
func quote(name string) string {
	out := []byte{'\''}
	for i := range len(name) {
		if name[i] == '\'' {
			out = append(out, '\'')
		}
		out = append(out, name[i])
	}
	return string(append(out, '\''))
}
