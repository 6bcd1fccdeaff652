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
