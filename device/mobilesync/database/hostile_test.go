package database

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// schemaDB returns the database that statements make, which has pages of 512 bytes.
func schemaDB(t testing.TB, statements ...string) []byte {
	t.Helper()
	name := filepath.Join(t.TempDir(), "hostile.db")
	db, err := sql.Open("sqlite", "file:"+name)
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	for _, s := range append([]string{"PRAGMA page_size=512"}, statements...) {
		if _, err := db.Exec(s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// rewriteSchema returns statements that replace the text of a table in sqlite_schema,
// though the table itself stays as it is.
func rewriteSchema(name, text string) []string {
	return []string{
		"PRAGMA writable_schema=ON",
		"UPDATE sqlite_schema SET sql = '" + strings.ReplaceAll(text, "'", "''") + "' WHERE name = '" + name + "'",
	}
}

// sharedPages returns the database b with another tree below page root: 12 inner pages
// below each other and one leaf, the old content of the page. Each inner page refers to
// the next one more than 20 times, so whoever follows all references reads the leaf more
// than 20^12 times.
func sharedPages(t testing.TB, b []byte, root int) []byte {
	t.Helper()
	const page, depth, fan = 512, 12, 30
	b = bytes.Clone(b)
	leaf := bytes.Clone(b[(root-1)*page : root*page])
	first := len(b)/page + 1
	for level := range depth {
		at := (root - 1) * page
		if level > 0 {
			at = len(b)
			b = append(b, make([]byte, page)...)
		}
		p, header := b[at:at+page], 0
		if at == 0 {
			header = HeaderLen
		}
		clear(p[header:])
		child := uint32(first + level)
		p[header] = 5 // inner page of a table
		cells := fan
		if at == 0 {
			cells = 20
		}
		binary.BigEndian.PutUint16(p[header+3:], uint16(cells))
		content := page - 5*cells
		binary.BigEndian.PutUint16(p[header+5:], uint16(content))
		binary.BigEndian.PutUint32(p[header+8:], child)
		for i := range cells {
			binary.BigEndian.PutUint16(p[header+12+2*i:], uint16(content+5*i))
			binary.BigEndian.PutUint32(p[content+5*i:], child)
			p[content+5*i+4] = 1 // row number
		}
	}
	if root == 1 {
		// Only page 1 begins with the header of the file. Without that, the header of
		// the page is at offset 0. The cells stay where they are.
		copy(leaf, leaf[HeaderLen:HeaderLen+64])
	}
	b = append(b, leaf...)
	binary.BigEndian.PutUint32(b[28:], uint32(len(b)/page))
	copy(b[92:96], b[24:28]) // otherwise SQLite ignores the number of pages
	return b
}

// TestSharedPages checks that a few pages that stand for an immense tree do not keep the
// opening of a database, a check or a query busy, and that a context ends a query in any
// of its steps.
func TestSharedPages(t *testing.T) {
	t.Parallel()
	plain := schemaDB(t, "CREATE TABLE a (x)", "INSERT INTO a VALUES (1)", "CREATE TABLE b (id INTEGER PRIMARY KEY, u UNIQUE)")
	limits := Limits{Value: 1 << 20, Cache: 1024, Steps: 2_000_000}
	for name, root := range map[string]int{"schema": 1, "table": 2} {
		b := sharedPages(t, plain, root)
		db, err := Open(t.Context(), bytes.NewReader(b), int64(len(b)), limits)
		if root == 1 {
			if err == nil {
				t.Errorf("%s: it was opened, although nobody can read its schema to the end", name)
				db.Close()
			}
		} else if err != nil {
			t.Errorf("%s: %v", name, err)
		} else {
			// This query returns a first row. Then it searches all rows of a for another one,
			// and finds none.
			rows, err := db.Query("SELECT 1 UNION ALL SELECT x FROM a WHERE x > 1")
			if err != nil {
				t.Fatal(err)
			}
			for rows.Next() {
			}
			if rows.Err() == nil || !errors.Is(db.SourceErr(), ErrLimit) {
				t.Errorf("%s: the query ended with %v, the source with %v; want ErrLimit", name, rows.Err(), db.SourceErr())
			}
			rows.Close()
			db.Close()
		}
		if v := check(t, b); v.Damage == "" && v.Unjudged == "" {
			t.Errorf("%s: the check found nothing: %+v", name, v)
		}
	}
	b := sharedPages(t, plain, 2)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	limits.Steps = 1 << 62
	db, err := Open(ctx, bytes.NewReader(b), int64(len(b)), limits)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.Query("SELECT 1 UNION ALL SELECT x FROM a WHERE x > 1")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
	}
	if rows.Err() == nil || ctx.Err() == nil {
		t.Errorf("the query ended with %v, the context with %v; want an error of both", rows.Err(), ctx.Err())
	}
}

// hostileSchemas has schemas in which Files is no table though it may look like one, or
// is a table that makes whoever reads it compute for long. Each is a list of statements.
func hostileSchemas() map[string][]string {
	endless := "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n)"
	return map[string][]string{
		"fts5":   {"CREATE VIRTUAL TABLE Files USING fts5(fileID, domain)", "INSERT INTO Files VALUES ('a', 'b')"},
		"rtree":  {"CREATE VIRTUAL TABLE Files USING rtree(id, a, b)", "INSERT INTO Files VALUES (1, 2, 3)"},
		"a view": {"CREATE VIEW Files AS " + endless + " SELECT i AS fileID FROM n"},
		"a virtual table with a comment": append([]string{"CREATE TABLE Files (fileID)"},
			rewriteSchema("Files", "CREATE/* */VIRTUAL TABLE Files USING fts5(fileID, domain)")...),
		"a shadow table": append([]string{"CREATE VIRTUAL TABLE Files USING fts5(x)"},
			rewriteSchema("Files_data", "CREATE TABLE Files_data (id INTEGER PRIMARY KEY, block, more AS (hex(zeroblob(10000000))))")...),
		"a generated column":        {"CREATE TABLE Files (fileID, domain AS (hex(zeroblob(100000))))", "INSERT INTO Files VALUES (1)"},
		"an index on an expression": {"CREATE TABLE Files (fileID)", "CREATE INDEX i ON Files(hex(zeroblob(100000)))", "INSERT INTO Files VALUES (1)"},
		"a table WITHOUT ROWID":     {"CREATE TABLE Files (fileID PRIMARY KEY, domain) WITHOUT ROWID", "INSERT INTO Files VALUES (1, 2)"},
		"a trigger":                 {"CREATE TABLE Files (fileID)", "CREATE TRIGGER t INSERT ON Files BEGIN INSERT INTO Files SELECT * FROM Files; END"},
		"a view of views":           views(25),
		"a deep expression": append([]string{"CREATE TABLE Files (fileID)"},
			rewriteSchema("Files", "CREATE TABLE Files (fileID CHECK ("+strings.Repeat("(", 900)+"1"+strings.Repeat(")", 900)+"))")...),
	}
}

// views returns n views, each of which joins the one before with itself.
func views(n int) (statements []string) {
	statements = []string{"CREATE TABLE Files (fileID)", "INSERT INTO Files VALUES (1)", "CREATE VIEW v0 AS SELECT 1 AS x"}
	for i := range n {
		a, b := "v"+string(rune('A'+i)), "v"+string(rune('A'+i-1))
		if i == 0 {
			b = "v0"
		}
		statements = append(statements, "CREATE VIEW "+a+" AS SELECT p.x FROM "+b+" p, "+b+" q")
	}
	return statements
}

// TestHostileSchemas checks that nothing in a schema keeps a check busy, and that Kind
// says what Files is in truth: a table, a view or a virtual table.
func TestHostileSchemas(t *testing.T) {
	t.Parallel()
	kinds := map[string]string{
		"fts5": "virtual", "rtree": "virtual", "a virtual table with a comment": "virtual", "a shadow table": "virtual", "a view": "view",
	}
	for name, statements := range hostileSchemas() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := schemaDB(t, statements...)
			start := time.Now()
			v := check(t, b)
			if took := time.Since(start); took > 30*time.Second {
				t.Errorf("a check took %v: %+v", took, v)
			}
			db, err := Open(t.Context(), bytes.NewReader(b), int64(len(b)), Limits{Value: 1 << 20, Cache: 1024, Steps: 2_000_000})
			if err != nil {
				t.Logf("not opened: %v", err)
				return
			}
			defer db.Close()
			want := kinds[name]
			if want == "" {
				want = "table"
			}
			if kind, err := db.Kind("fILES"); err != nil || kind != want {
				t.Errorf("kind %q, %v, want %q", kind, err, want)
			}
		})
	}
}
