package mobilesync

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/snap-backup/snap/device/mobilesync/folder"
	"github.com/snap-backup/snap/device/mobilesync/manifest"
	"github.com/snap-backup/snap/device/mobilesync/manifest/manifesttest"
)

func TestCompare(t *testing.T) {
	file := func(path string, size int64) manifest.Record {
		return manifesttest.Row(manifest.Record{Domain: "HomeDomain", RelativePath: path, Mode: 0o100644, Size: size})
	}
	encrypted := func(path string, size int64) manifest.Record {
		r := file(path, size)
		r.EncryptionKey = make([]byte, 44)
		return r
	}
	inCloud := file("in a cloud", 100)
	inCloud.BSDFlags = 0x40000000
	folder := manifesttest.Row(manifest.Record{Domain: "HomeDomain", RelativePath: "folder", Mode: 0o40755})
	odd := file("odd flags", 3)
	odd.Flags = 0
	count := func(r Report) string {
		return fmt.Sprintf("listed %d blobs %d missing %d size %d emptied %d blocks %d notfile %d extra %d other %d dataless %d database %d unpadded %d",
			r.Listed, r.Blobs, r.Missing.Count, r.Size.Count, r.Emptied.Count, r.NotBlocks.Count, r.NotFile.Count, r.Extra.Count, r.Other.Count, r.Dataless, r.DatabaseSize, r.Unpadded)
	}
	const keep = -1
	tests := []struct {
		name      string
		row       manifest.Record
		encrypted bool
		blob      int64 // length of the blob; keep means the row's Size
		want      func(*Report)
	}{
		{"as listed", file("a", 5), false, keep, func(r *Report) { r.Blobs = 1 }},
		{"odd flags", odd, false, 3, func(r *Report) { r.Blobs = 1 }},
		{"shorter", file("a", 5), false, 4, func(r *Report) { r.Blobs, r.Size.Count = 1, 1 }},
		{"zeros in place of a database", file("a.db", 5), false, 4096, func(r *Report) { r.Blobs, r.Size.Count = 1, 1 }},
		{"empty", file("a", 0), false, 0, func(r *Report) { r.Blobs = 1 }},
		{"emptied", file("a", 9), false, 0, func(r *Report) { r.Blobs, r.Emptied.Count = 1, 1 }},
		{"in a cloud", inCloud, false, 0, func(r *Report) { r.Blobs, r.Dataless = 1, 1 }},
		{"folder with a blob", folder, false, 3, func(r *Report) { r.Listed, r.NotFile.Count = 0, 1 }},
		{"encrypted", encrypted("a", 5), true, 16, func(r *Report) { r.Blobs = 1 }},
		{"encrypted, complete blocks", encrypted("a", 32), true, 48, func(r *Report) { r.Blobs = 1 }},
		{"encrypted, unpadded", encrypted("a", 32), true, 32, func(r *Report) { r.Blobs, r.Unpadded = 1, 1 }},
		{"encrypted, empty", encrypted("a", 0), true, 16, func(r *Report) { r.Blobs = 1 }},
		{"encrypted, empty without padding", encrypted("a", 0), true, 0, func(r *Report) { r.Blobs = 1 }},
		{"encrypted, emptied", encrypted("a", 5), true, 0, func(r *Report) { r.Blobs, r.Emptied.Count = 1, 1 }},
		{"encrypted, broken block", encrypted("a", 5), true, 15, func(r *Report) { r.Blobs, r.NotBlocks.Count = 1, 1 }},
		{"encrypted, longer", encrypted("a", 5), true, 32, func(r *Report) { r.Blobs, r.Size.Count = 1, 1 }},
		{"encrypted database", encrypted("a.sqlite", 5), true, 4112, func(r *Report) { r.Blobs, r.DatabaseSize = 1, 1 }},
		{"no key in an encrypted backup", file("a", 5), true, 5, func(r *Report) { r.Blobs = 1 }},
		{"decrypted in place", encrypted("a", 5), false, 5, func(r *Report) { r.Blobs = 1 }},
		{"absurd size", encrypted("a", 1<<63-1), true, 16, func(r *Report) { r.Blobs, r.Size.Count = 1, 1 }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			row := tt.row
			if tt.blob != keep {
				row.Size = 0
			}
			dir := backupSpec{rows: []manifest.Record{row}, encrypted: tt.encrypted}.build(t)
			if tt.blob != keep {
				put(t, dir, BlobPath(Hashed, row.FileID), make([]byte, tt.blob))
				os.Remove(filepath.Join(dir, ManifestDB))
				manifesttest.WriteDB(t, filepath.Join(dir, ManifestDB), manifesttest.Schema, manifesttest.Insert([]manifest.Record{tt.row}))
			}
			b := mustOpen(t, dir)
			want := Report{Listed: 1}
			tt.want(&want)
			if got := mustCompare(t, b, mustRecords(t, b)); count(got) != count(want) {
				t.Errorf("got  %s\nwant %s", count(got), count(want))
			}
		})
	}
}

// unreadable is a folder whose blobs cannot be read.
type unreadable struct{ folder.Source }

func (s unreadable) Open(path string) (folder.Content, folder.Stat, error) {
	c, st, err := s.Source.Open(path)
	if err == nil && strings.Contains(path, "/") {
		c = unreadableContent{c}
	}
	return c, st, err
}

type unreadableContent struct{ folder.Content }

func (unreadableContent) Read([]byte) (int, error)          { return 0, syscall.EIO }
func (unreadableContent) ReadAt([]byte, int64) (int, error) { return 0, syscall.EIO }

// If a file of unexpected length cannot be read, its name says whether it is a database.
func TestCompareUnreadable(t *testing.T) {
	var rows []manifest.Record
	for _, name := range []string{"a.sqlite", "a.jpg"} {
		rows = append(rows, manifesttest.Row(manifest.Record{Domain: "D", RelativePath: name, Mode: 0o100644, Size: 5}))
	}
	dir := backupSpec{rows: rows}.build(t)
	for _, r := range rows {
		put(t, dir, BlobPath(Hashed, r.FileID), make([]byte, 4096))
	}
	b := mustOpen(t, dir)
	records := mustRecords(t, b)
	b.source = unreadable{b.source}
	if r := mustCompare(t, b, records); r.DatabaseSize != 1 || r.Size.Count != 1 || r.Size.Names[0] != BlobPath(Hashed, rows[1].FileID) {
		t.Errorf("report %+v", r)
	}
}

func TestCompareNames(t *testing.T) {
	var rows []manifest.Record
	for i := range 30 {
		rows = append(rows, manifesttest.Row(manifest.Record{Domain: "D", RelativePath: fmt.Sprintf("%02d", i), Mode: 0o100644, Size: 1}))
	}
	dir := backupSpec{rows: rows}.build(t)
	for _, r := range rows[:25] {
		os.Remove(filepath.Join(dir, filepath.FromSlash(BlobPath(Hashed, r.FileID))))
	}
	put(t, dir, BlobPath(Hashed, rows[29].FileID), []byte("SQLite format 3\x00x"))
	extra := strings.Repeat("ab", 20)
	put(t, dir, "ab/"+extra, nil)
	put(t, dir, "aa/"+extra, nil) // the name of a blob in another folder
	put(t, dir, "ab/"+strings.ToUpper(extra), nil)
	put(t, dir, extra, nil)
	put(t, dir, "._x", nil)
	b := mustOpen(t, dir)
	r := mustCompare(t, b, mustRecords(t, b))
	if r.Missing.Count != 25 || len(r.Missing.Names) != 20 || !strings.HasPrefix(r.Missing.Names[0], "D/00 (") {
		t.Errorf("missing %+v", r.Missing)
	}
	if want := []string{"ab/" + extra}; !slices.Equal(r.Extra.Names, want) {
		t.Errorf("extra %v", r.Extra)
	}
	if r.Other.Count < 3 || r.DatabaseSize != 1 || r.Size.Count != 0 {
		t.Errorf("report %+v", r)
	}
}
