package manifest_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/snap-backup/snap/device/mobilesync/manifest"
	"github.com/snap-backup/snap/device/mobilesync/manifest/manifesttest"
	"github.com/snap-backup/snap/internal/faultpoint"
)

func databaseBytes(t testing.TB, fill func(tx *sql.Tx) error) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "Manifest.db")
	manifesttest.WriteDB(t, path, manifesttest.Schema, fill)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func readBytes(t testing.TB, data []byte) (*manifest.Records, error) {
	return manifest.ReadDB(t.Context(), bytes.NewReader(data), int64(len(data)))
}

func TestOddRows(t *testing.T) {
	row := manifesttest.Row(manifest.Record{Domain: "D", RelativePath: "p", Mode: 0o100644, Size: 3})
	id, meta := hex.EncodeToString(row.FileID[:]), manifesttest.MBFile(row)
	tests := []struct {
		name   string
		values []any
		want   manifest.Anomalies
		has    bool // the row can be found by its FileID
	}{
		{"valid", []any{id, "D", "p", 1, meta}, manifest.Anomalies{}, true},
		{"FileID as BLOB", []any{[]byte(id), "D", "p", 1, meta}, manifest.Anomalies{BlobFileID: 1}, true},
		{"FileID in upper case", []any{strings.ToUpper(id), "D", "p", 1, meta}, manifest.Anomalies{OddFileID: 1}, true},
		{"FileID NULL", []any{nil, "D", "p", 1, meta}, manifest.Anomalies{OddFileID: 1}, false},
		{"FileID a path", []any{"../../../../../../../../../../etc/passwd", "D", "p", 1, meta}, manifest.Anomalies{OddFileID: 1}, false},
		{"FileID as 20 bytes", []any{row.FileID[:], "D", "p", 1, meta}, manifest.Anomalies{OddFileID: 1}, false},
		{"FileID of another file", []any{id, "D", "q", 1, meta}, manifest.Anomalies{FileIDMismatch: 1}, true},
		{"domain NULL", []any{id, nil, "p", 1, meta}, manifest.Anomalies{NullText: 1, FileIDMismatch: 1}, true},
		{"path BLOB", []any{id, "D", []byte("p"), 1, meta}, manifest.Anomalies{NullText: 1}, true},
		{"path a number", []any{nil, "D", 7, 1, meta}, manifest.Anomalies{OddFileID: 1}, false}, // SQLite stores 7 as text, since the column has TEXT affinity
		{"path too long", []any{id, "D", strings.Repeat("x", 5000), 1, meta}, manifest.Anomalies{LongText: 1, FileIDMismatch: 1}, true},
		{"flags 0", []any{id, "D", "p", 0, meta}, manifest.Anomalies{OddFlags: 1}, true},
		{"flags 16", []any{id, "D", "p", 16, meta}, manifest.Anomalies{OddFlags: 1}, true},
		{"flags NULL", []any{id, "D", "p", nil, meta}, manifest.Anomalies{OddFlags: 1}, true},
		{"flags negative", []any{id, "D", "p", -1, meta}, manifest.Anomalies{OddFlags: 1}, true},
		{"flags text", []any{id, "D", "p", "file", meta}, manifest.Anomalies{OddFlags: 1}, true},
		{"flags of a folder", []any{id, "D", "p", 2, meta}, manifest.Anomalies{FlagsMismatch: 1}, true},
		{"description NULL", []any{id, "D", "p", 1, nil}, manifest.Anomalies{NullMeta: 1}, true},
		{"description empty", []any{id, "D", "p", 1, []byte{}}, manifest.Anomalies{NullMeta: 1}, true},
		{"description text", []any{id, "D", "p", 1, "text"}, manifest.Anomalies{BadMeta: 1}, true},
		{"description noise", []any{id, "D", "p", 1, []byte("bplist00noise")}, manifest.Anomalies{BadMeta: 1}, true},
		{"all NULL", []any{nil, nil, nil, nil, nil}, manifest.Anomalies{OddFileID: 1, NullText: 2, OddFlags: 1, NullMeta: 1}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			records, err := readBytes(t, databaseBytes(t, func(tx *sql.Tx) error {
				_, err := tx.Exec("INSERT INTO Files VALUES(?,?,?,?,?)", tt.values...)
				return err
			}))
			if err != nil {
				t.Fatal(err)
			}
			if records.Len() != 1 || records.Anomalies != tt.want {
				t.Errorf("%d rows, got %+v, want %+v", records.Len(), records.Anomalies, tt.want)
			}
			if _, ok := records.ByFileID(row.FileID); ok != tt.has {
				t.Errorf("found by FileID: %v", ok)
			}
		})
	}
}

// A value that is too long makes one odd row. The other values of this row and all
// other rows are read.
func TestLongValues(t *testing.T) {
	row := manifesttest.Row(manifest.Record{Domain: "D", RelativePath: "p", Mode: 0o100644, Size: 3, EncryptionKey: bytes.Repeat([]byte{7}, 44)})
	id, meta := hex.EncodeToString(row.FileID[:]), manifesttest.MBFile(row)
	long := func(n int) []byte {
		return manifesttest.MBFile(row, manifesttest.Pair{"ExtendedAttributes", make([]byte, n)})
	}
	tests := []struct {
		name   string
		values []any
		want   manifest.Anomalies
		meta   bool // the description is read
	}{
		{"1 MB", []any{id, "D", "p", 1, long(1_000_000)}, manifest.Anomalies{}, true},
		{"1.2 MB", []any{id, "D", "p", 1, long(1_200_000)}, manifest.Anomalies{LongMeta: 1}, true},
		{"16 MB", []any{id, "D", "p", 1, long(16_000_000)}, manifest.Anomalies{LongMeta: 1}, true},
		{"17 MB", []any{id, "D", "p", 1, long(17_000_000)}, manifest.Anomalies{LongMeta: 1, BadMeta: 1}, false},
		{"100 MB", []any{id, "D", "p", 1, long(100_000_000)}, manifest.Anomalies{LongMeta: 1, BadMeta: 1}, false},
		{"long text as description", []any{id, "D", "p", 1, strings.Repeat("x", 17<<20)}, manifest.Anomalies{LongMeta: 1, BadMeta: 1}, false},
		{"long path", []any{id, "D", strings.Repeat("x", 17<<20), 1, meta}, manifest.Anomalies{LongText: 1, NullText: 1, FileIDMismatch: 1}, true},
		{"long domain", []any{id, strings.Repeat("x", 17<<20), "p", 1, meta}, manifest.Anomalies{LongText: 1, NullText: 1, FileIDMismatch: 1}, true},
		{"long FileID", []any{strings.Repeat("x", 17<<20), "D", "p", 1, meta}, manifest.Anomalies{OddFileID: 1}, true},
		{"long flags", []any{id, "D", "p", strings.Repeat("x", 17<<20), meta}, manifest.Anomalies{OddFlags: 1}, true},
	}
	others := manifesttest.Rows()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			records, err := readBytes(t, databaseBytes(t, func(tx *sql.Tx) error {
				if _, err := tx.Exec("INSERT INTO Files VALUES(?,?,?,?,?)", tt.values...); err != nil {
					return err
				}
				return manifesttest.Insert(others)(tx)
			}))
			if err != nil {
				t.Fatal(err)
			}
			if records.Len() != len(others)+1 || records.Anomalies != tt.want {
				t.Errorf("%d rows, got %+v, want %+v", records.Len(), records.Anomalies, tt.want)
			}
			for _, want := range others {
				if i, ok := records.ByFileID(want.FileID); !ok || !equalRecords(records.At(i), want) {
					t.Errorf("%s differs", want.RelativePath)
				}
			}
			if i, ok := records.ByFileID(row.FileID); ok != (tt.want.OddFileID == 0) || ok && (records.At(i).HasMeta != tt.meta || tt.meta && !bytes.Equal(records.At(i).EncryptionKey, row.EncryptionKey)) {
				t.Errorf("row %v: %+v", ok, records.At(i))
			}
		})
	}
}

// A row that is odd in two ways is one odd row.
func TestOddDuplicate(t *testing.T) {
	row := manifesttest.Row(manifest.Record{Domain: "D", RelativePath: "p", Mode: 0o100644, Size: 3})
	id, meta := hex.EncodeToString(row.FileID[:]), manifesttest.MBFile(row)
	records, err := readBytes(t, databaseBytes(t, func(tx *sql.Tx) error {
		_, err := tx.Exec("INSERT INTO Files VALUES(?,'D','p',1,?), (?,'D','q',1,?)", id, meta, strings.ToUpper(id), meta)
		return err
	}))
	if err != nil {
		t.Fatal(err)
	}
	want := manifest.Anomalies{OddFileID: 1, FileIDMismatch: 1, DuplicateFileID: 1}
	if records.Anomalies != want || records.Odd != 1 || len(records.OddRows) != 1 || records.OddRows[0].RelativePath != "q" {
		t.Errorf("%+v, %d odd rows: %+v", records.Anomalies, records.Odd, records.OddRows)
	}
}

func TestDuplicates(t *testing.T) {
	row := manifesttest.Row(manifest.Record{Domain: "D", RelativePath: "p", Mode: 0o100644})
	id := hex.EncodeToString(row.FileID[:])
	records, err := readBytes(t, databaseBytes(t, func(tx *sql.Tx) error {
		for _, v := range []any{id, []byte(id), strings.ToUpper(id)} {
			if _, err := tx.Exec("INSERT INTO Files VALUES(?,?,?,?,?)", v, "D", "p", 1, nil); err != nil {
				return err
			}
		}
		return nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	if records.Len() != 3 || records.Anomalies.DuplicateFileID != 2 {
		t.Errorf("%d rows, %+v", records.Len(), records.Anomalies)
	}
}

func TestPaddingBehindDatabase(t *testing.T) {
	data := databaseBytes(t, manifesttest.Insert(manifesttest.Rows()))
	records, err := readBytes(t, append(data, bytes.Repeat([]byte{16}, 16)...))
	if err != nil || records.Len() != len(manifesttest.Rows()) {
		t.Errorf("%v, %v", records, err)
	}
}

func TestReadDBFails(t *testing.T) {
	data := databaseBytes(t, fillMany(300, 0))
	for name, bad := range map[string][]byte{
		"empty": nil, "short": data[:10], "header only": data[:100], "cut": data[:len(data)/2], "noise": bytes.Repeat([]byte("x"), 8192),
		"wiped": append(data[:4096:4096], make([]byte, len(data)-4096)...),
	} {
		if _, err := readBytes(t, bad); !errors.Is(err, manifest.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := manifest.ReadDB(ctx, bytes.NewReader(data), int64(len(data))); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	// An error of the source is returned, so that callers can act on it.
	broken := failingAt{bytes.NewReader(data), int64(len(data)) / 2}
	if _, err := manifest.ReadDB(t.Context(), broken, int64(len(data))); !errors.Is(err, iotest.ErrTimeout) || errors.Is(err, manifest.ErrCorrupt) {
		t.Errorf("failing source: %v", err)
	}
}

type failingAt struct {
	*bytes.Reader
	from int64
}

func (f failingAt) ReadAt(p []byte, off int64) (int, error) {
	if off >= f.from {
		return 0, iotest.ErrTimeout
	}
	return f.Reader.ReadAt(p, off)
}

// TestBudget reads rows without end, as from a database whose pages all refer
// to the same page.
func TestBudget(t *testing.T) {
	row := manifesttest.Row(manifest.Record{Domain: "D", RelativePath: strings.Repeat("p", 100), Mode: 0o100644})
	rows := 0
	_, err := manifest.Build(t.Context(), 100_000, func() *manifest.Record {
		if rows++; rows > 1<<20 {
			return nil
		}
		return &row
	})
	if !errors.Is(err, manifest.ErrCorrupt) || rows < 700 {
		t.Errorf("after %d rows: %v", rows, err)
	}
}

// TestPretendedTables reads manifests whose Files is no table, or makes work for SQLite.
// Each is refused, and soon.
func TestPretendedTables(t *testing.T) {
	columns := "fileID, domain, relativePath, flags, file"
	for name, schema := range map[string]string{
		"fts5":              "CREATE VIRTUAL TABLE Files USING fts5(" + columns + ")",
		"fts5 in a comment": "CREATE TABLE Files (x); PRAGMA writable_schema=ON; UPDATE sqlite_schema SET sql = 'CREATE/* */VIRTUAL TABLE Files USING fts5(" + columns + ")'",
		"a view":            "CREATE VIEW Files AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n) SELECT i AS fileID, i AS domain, i AS relativePath, i AS flags, i AS file FROM n",
		"a computed column": "CREATE TABLE Files (fileID, domain, relativePath, flags, file AS (hex(zeroblob(100000))))",
		"too few columns":   "CREATE TABLE Files (fileID)",
		"another name":      "CREATE TABLE Folders (" + columns + ")",
	} {
		path := filepath.Join(t.TempDir(), "Manifest.db")
		manifesttest.WriteDB(t, path, schema, func(*sql.Tx) error { return nil })
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := readBytes(t, data); !errors.Is(err, manifest.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// An ordinary table without row numbers is read.
	path := filepath.Join(t.TempDir(), "Manifest.db")
	manifesttest.WriteDB(t, path, "CREATE TABLE Files (fileID PRIMARY KEY, domain, relativePath, flags, file) WITHOUT ROWID", manifesttest.Insert(manifesttest.Rows()))
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if records, err := readBytes(t, data); err != nil || records.Len() != len(manifesttest.Rows()) {
		t.Errorf("without row numbers: %v, %v", records, err)
	}
}

// TestDamagedDatabases reads damaged databases. Reading each must return an
// error or rows.
func TestDamagedDatabases(t *testing.T) {
	data := databaseBytes(t, fillMany(300, 0))
	rounds := faultpoint.Choose(t, 300, 60)
	failed := 0
	for _, round := range rounds {
		r := rand.New(rand.NewPCG(3, uint64(round)))
		bad := bytes.Clone(data)
		for range 1 + r.IntN(20) {
			at := r.IntN(len(bad))
			if r.IntN(2) == 0 { // damage page headers more often, since they matter most
				at = at&^4095 + r.IntN(64)
			}
			bad[at] = byte(r.Uint32())
		}
		copy(bad, manifest.SQLiteMagic)
		records, err := readBytes(t, bad)
		if err != nil {
			failed++
			if !errors.Is(err, manifest.ErrCorrupt) {
				t.Errorf("%v", err)
			}
			continue
		}
		manifesttest.Check(t, records)
	}
	if failed == 0 {
		t.Error("no damage was noticed")
	}
	t.Logf("%d of %d refused", failed, len(rounds))
}

func FuzzReadDB(f *testing.F) {
	f.Add(databaseBytes(f, manifesttest.Insert(manifesttest.Rows())))
	f.Add([]byte(manifest.SQLiteMagic))
	f.Fuzz(func(t *testing.T, data []byte) {
		records, err := readBytes(t, data)
		if err == nil {
			manifesttest.Check(t, records)
		}
	})
}
