package devicefiles

import (
	"context"
	"crypto/sha1"
	"database/sql"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/manifest"
	"github.com/snap-backup/snap/device/simulator/manifestdb"
	"github.com/snap-backup/snap/device/simulator/synthetic"
)

// Many is content that consists of any number of tiny files; there are phones with
// 870,000 files. The bytes of a file are generated when it is read.
type Many struct {
	device  mobilesync.Device
	path    string // of Manifest.db
	records *manifest.Records
}

const manyDomain = "AppDomain-com.example.many"

// NewMany returns content of n files. It writes a Manifest.db to dir, which takes
// some 500 bytes for each file.
func NewMany(ctx context.Context, dir string, device mobilesync.Device, n int) (*Many, error) {
	m := &Many{device: device, path: filepath.Join(dir, "many.db")}
	if err := m.write(ctx, n); err != nil {
		return nil, fmt.Errorf("content of %d files: %w", n, err)
	}
	f, err := os.Open(m.path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if m.records, err = manifest.ReadDB(ctx, f, info.Size()); err != nil {
		return nil, err
	}
	return m, nil
}

func (m *Many) write(ctx context.Context, n int) error {
	return manifestdb.Create(ctx, m.path, func(tx *sql.Tx) error { return insertMany(ctx, tx, n) })
}

func insertMany(ctx context.Context, tx *sql.Tx, n int) error {
	put, err := tx.PrepareContext(ctx, "INSERT INTO Files (fileID, domain, relativePath, flags, file) VALUES (?, ?, ?, ?, ?)")
	if err != nil {
		return err
	}
	defer put.Close()
	const day = 1_767_571_200 // Unix seconds
	for i := range n {
		rec := manifest.Record{
			RelativePath: fmt.Sprintf("Documents/%04d/%07d.txt", i/1000, i), Mode: 0o100644, Size: int64(len(manyText(i))),
			ModTime: day, ChangeTime: day, Birth: day, UserID: 501, GroupID: 501, Inode: uint64(i) + 10_000, ProtectionClass: 3,
		}
		id := sha1.Sum([]byte(manyDomain + "-" + rec.RelativePath))
		if _, err := put.ExecContext(ctx, manifestdb.ID(id), manyDomain, rec.RelativePath, manifest.FlagFile, synthetic.MarshalMBFile(&rec, nil)); err != nil {
			return err
		}
	}
	return nil
}

// manyText returns the content of file i. Every hundredth file is empty.
func manyText(i int) string {
	if i%100 == 0 {
		return ""
	}
	return fmt.Sprintf("note %d\n", i)
}

// Device implements Source.
func (m *Many) Device() mobilesync.Device { return m.device }

// Base implements Source.
func (m *Many) Base() map[string]any {
	return map[string]any{"SystemDomainsVersion": "24.0", "WasPasscodeSet": true, "Applications": map[string]any{}}
}

// Records implements Source.
func (m *Many) Records(context.Context) (*manifest.Records, error) { return m.records, nil }

// Manifest implements Source.
func (m *Many) Manifest(ctx context.Context, w io.Writer) error {
	f, err := os.Open(m.path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(w, NewReader(ctx, f))
	return err
}

// Open implements Source.
func (m *Many) Open(rec *manifest.Record) (io.ReadCloser, error) {
	number, ok := strings.CutSuffix(filepath.Base(rec.RelativePath), ".txt")
	i, err := strconv.Atoi(number)
	if !ok || err != nil {
		return nil, fmt.Errorf("%s: %w", rec.RelativePath, os.ErrNotExist)
	}
	return io.NopCloser(strings.NewReader(manyText(i))), nil
}
