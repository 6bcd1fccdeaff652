package database

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// made returns a database of about n rows, with two indexes and pages of page bytes.
func made(t testing.TB, n, page int) []byte {
	t.Helper()
	name := filepath.Join(t.TempDir(), "made.db")
	db, err := sql.Open("sqlite", "file:"+name)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	r := rand.New(rand.NewPCG(1, uint64(n)))
	do := func(query string, args ...any) {
		t.Helper()
		if _, err := db.Exec(query, args...); err != nil {
			t.Fatal(err)
		}
	}
	do(fmt.Sprintf("PRAGMA page_size=%d", page))
	do("CREATE TABLE message (id INTEGER PRIMARY KEY, guid TEXT UNIQUE NOT NULL, text TEXT, at INTEGER)")
	do("CREATE INDEX message_at ON message(at)")
	do("CREATE TABLE other (a, b)")
	do("BEGIN")
	for i := range n {
		do("INSERT INTO message VALUES (?,?,?,?)", i, fmt.Sprintf("%016x", r.Uint64()), strings.Repeat("hello ", r.IntN(60)), r.IntN(1e9))
	}
	do("INSERT INTO other VALUES (1, zeroblob(20000))")
	do("COMMIT")
	do("DELETE FROM message WHERE id % 7 = 0")
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func check(t testing.TB, b []byte) Verdict {
	t.Helper()
	v, err := Check(t.Context(), bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestCheck(t *testing.T) {
	t.Parallel()
	good := made(t, 2000, 4096)
	change := func(f func(b []byte) []byte) []byte { return f(bytes.Clone(good)) }
	tests := []struct {
		name    string
		b       []byte
		damaged bool
	}{
		{"good", good, false},
		{"good, small pages", made(t, 300, 512), false},
		{"empty database", made(t, 0, 4096), false},
		{"bytes after the last page", append(bytes.Clone(good), make([]byte, 16)...), false},
		{"write-ahead log mode", change(func(b []byte) []byte { b[18], b[19] = 2, 2; return b }), false},
		{"last page missing", good[:len(good)-4096], true},
		{"cut within a page", good[:len(good)/2+100], true},
		{"only the header", good[:100], true},
		{"second page zeros", change(func(b []byte) []byte { clear(b[4096:8192]); return b }), true},
		{"two pages exchanged", change(func(b []byte) []byte {
			x := bytes.Clone(b[3*4096 : 4*4096])
			copy(b[3*4096:], b[9*4096:10*4096])
			copy(b[9*4096:], x)
			return b
		}), true},
		{"schema of noise", change(func(b []byte) []byte {
			for i := 3000; i < 4096; i++ {
				b[i] ^= 0x55
			}
			return b
		}), true},
		{"not a database", []byte("SQLite format 3\x00" + strings.Repeat("x", 5000)), true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			v := check(t, tt.b)
			if (v.Damage != "") != tt.damaged || v.Unjudged != "" {
				t.Errorf("got %+v", v)
			}
		})
	}
}

// A row that breaks a rule of the schema is no damage. Damage beside it is found.
func TestCheckRules(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "rules.db")
	db, err := sql.Open("sqlite", "file:"+name)
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	for _, q := range []string{
		"CREATE TABLE a (id INTEGER PRIMARY KEY, x TEXT)", "CREATE TABLE b (id INTEGER PRIMARY KEY, x TEXT)", "CREATE INDEX bx ON b(x)",
		"CREATE TABLE c (id INTEGER PRIMARY KEY, x)",
		"INSERT INTO a WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<300) SELECT i, NULL FROM n",
		"INSERT INTO b SELECT id, hex(id) FROM a", "INSERT INTO c VALUES (1, 'text')", "PRAGMA writable_schema=ON",
		"UPDATE sqlite_schema SET sql='CREATE TABLE a (id INTEGER PRIMARY KEY, x TEXT NOT NULL)' WHERE name='a'",
		"UPDATE sqlite_schema SET sql='CREATE TABLE c (id INTEGER PRIMARY KEY, x INT) STRICT' WHERE name='c'",
	} {
		if _, err := db.Exec(q); err != nil {
			t.Fatal(err)
		}
	}
	read := func() []byte {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if v := check(t, read()); v.Damage != "" || v.Complaint == "" {
		t.Errorf("%+v", v)
	}
	if _, err := db.Exec("UPDATE sqlite_schema SET sql='CREATE INDEX bx ON b(id)' WHERE name='bx'"); err != nil {
		t.Fatal(err)
	}
	db.Close()
	if v := check(t, read()); !strings.Contains(v.Damage, "index bx") {
		t.Errorf("%+v", v)
	}
}

// A database of SQLCipher with an unencrypted header is not judged. One of SQLite whose
// header is damaged is.
func TestCheckEncryptedByApp(t *testing.T) {
	t.Parallel()
	noise := func(reserved byte) []byte {
		b := made(t, 300, 4096)
		b[20] = reserved
		r := rand.New(rand.NewPCG(2, 3))
		for i := 32; i < len(b); i++ {
			b[i] = byte(r.Uint32())
		}
		return b
	}
	if v := check(t, noise(80)); v.Damage != "" || v.Unjudged == "" {
		t.Errorf("encrypted: %+v", v)
	}
	if v := check(t, noise(0)); v.Damage == "" {
		t.Errorf("damaged: %+v", v)
	}
}

// In the check of one table SQLite ends after 100 messages. The verdict says that the rest
// is not checked.
func TestCheckManyComplaintsOfTable(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "rules.db")
	db, err := sql.Open("sqlite", "file:"+name)
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	for _, q := range []string{
		"CREATE TABLE a (id INTEGER PRIMARY KEY, x TEXT)", "CREATE TABLE person (name TEXT)", "CREATE INDEX person_name ON person(name COLLATE NOCASE)",
		"INSERT INTO a WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<300) SELECT i, NULL FROM n",
		"PRAGMA writable_schema=ON",
		"UPDATE sqlite_schema SET sql='CREATE TABLE a (id INTEGER PRIMARY KEY, x TEXT NOT NULL)' WHERE name='a'",
		"UPDATE sqlite_schema SET sql = replace(sql, 'COLLATE NOCASE', 'COLLATE LOCALIZED') WHERE name = 'person_name'",
	} {
		if _, err := db.Exec(q); err != nil {
			t.Fatal(err)
		}
	}
	db.Close()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if v := check(t, b); v.Damage != "" || v.Complaint == "" || !strings.Contains(v.Unjudged, "the table 'a' after 100 rows") {
		t.Errorf("%+v", v)
	}
}

// TestCheckWithoutExtensions checks databases whose schema needs what only a device
// has. Damage in the other tables is found nevertheless.
func TestCheckWithoutExtensions(t *testing.T) {
	t.Parallel()
	good := made(t, 2000, 4096)
	name := filepath.Join(t.TempDir(), "odd.db")
	if err := os.WriteFile(name, good, 0o600); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", "file:"+name)
	if err != nil {
		t.Fatal(err)
	}
	for _, query := range []string{
		"CREATE TABLE person (name TEXT)",
		"INSERT INTO person VALUES ('Anna'), ('Bert')",
		"CREATE INDEX person_name ON person(name COLLATE NOCASE)",
		"PRAGMA writable_schema=ON",
		"UPDATE sqlite_schema SET sql = replace(sql, 'COLLATE NOCASE', 'COLLATE LOCALIZED') WHERE name = 'person_name'",
	} {
		if _, err := db.Exec(query); err != nil {
			t.Fatal(err)
		}
	}
	db.Close()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if v := check(t, b); v.Damage != "" || !strings.Contains(v.Unjudged, "LOCALIZED") {
		t.Errorf("intact: %+v", v)
	}
	clear(b[5*4096 : 6*4096])
	if v := check(t, b); v.Damage == "" {
		t.Errorf("damaged: %+v", v)
	}
}

var errLost = errors.New("lost")

// losing is a source that fails in the middle.
type losing struct{ *bytes.Reader }

func (l losing) ReadAt(p []byte, off int64) (int, error) {
	if off >= 40960 {
		return 0, errLost
	}
	return l.Reader.ReadAt(p, off)
}

func TestCheckTellsLossFromDamage(t *testing.T) {
	t.Parallel()
	b := made(t, 2000, 4096)
	if v, err := Check(t.Context(), losing{bytes.NewReader(b)}, int64(len(b))); !errors.Is(err, errLost) {
		t.Errorf("got %+v, %v", v, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if v, err := Check(ctx, bytes.NewReader(b), int64(len(b))); !errors.Is(err, context.Canceled) {
		t.Errorf("got %+v, %v", v, err)
	}
}

// TestCheckIsBounded checks a database with nearly no memory. Neighbours in an index
// refer to distant rows, so the check reads pages again and again, up to the limit. No
// other check may run: SQLite lets a database use what the caches of others have room for.
func TestCheckIsBounded(t *testing.T) {
	b := made(t, 2000, 512)
	db, err := Open(t.Context(), bytes.NewReader(b), int64(len(b)), Limits{Value: 1 << 20, Cache: 8, Read: 2 * int64(len(b)), Steps: 1 << 40})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	c := checker{db: db}
	if err := c.check(); !errors.Is(db.SourceErr(), ErrLimit) {
		t.Errorf("got %v, %+v; source: %v", err, c.Verdict, db.SourceErr())
	}
}

// TestInteropCheck compares verdicts with those of the program sqlite3, on databases
// with random damage.
func TestInteropCheck(t *testing.T) {
	t.Parallel()
	program, err := exec.LookPath("sqlite3")
	if err != nil {
		if os.Getenv("SNAP_TEST_INTEROP") != "" {
			t.Fatal("sqlite3 is missing")
		}
		t.Skip("sqlite3 is missing")
	}
	good := made(t, 1500, 1024)
	dir := t.TempDir()
	damaged := 0
	for seed := range 40 {
		r := rand.New(rand.NewPCG(7, uint64(seed)))
		b := bytes.Clone(good)
		switch seed % 4 {
		case 0:
			b[100+r.IntN(len(b)-100)] ^= byte(1 + r.IntN(255))
		case 1:
			at := r.IntN(len(b)/1024) * 1024
			copy(b[at:], make([]byte, min(1024, len(b)-at)))
		case 2:
			b = b[:len(b)-r.IntN(len(b)-200)]
		case 3:
			at := 1024 + r.IntN(len(b)-2048)
			copy(b[at:], b[r.IntN(len(b)-64):][:64])
		}
		name := filepath.Join(dir, fmt.Sprintf("%d.db", seed))
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(t.Context(), program, "-readonly", "file:"+name+"?immutable=1", "PRAGMA integrity_check(1)").CombinedOutput()
		theirs := err != nil || strings.TrimSpace(string(out)) != "ok"
		if theirs {
			damaged++
		}
		if v := check(t, b); (v.Damage != "") != theirs || v.Unjudged != "" {
			t.Errorf("seed %d: sqlite3 says %q (%v), we say %+v", seed, out, err, v)
		}
	}
	if damaged < 20 {
		t.Errorf("only %d databases are damaged", damaged)
	}
}

// FuzzCheck checks that no database makes a check fail or hang.
func FuzzCheck(f *testing.F) {
	f.Add(made(f, 20, 512))
	f.Add([]byte("SQLite format 3\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 1<<16 {
			return
		}
		if _, err := Check(t.Context(), io.NewSectionReader(bytes.NewReader(b), 0, int64(len(b))), int64(len(b))); err != nil {
			t.Error(err)
		}
	})
}
