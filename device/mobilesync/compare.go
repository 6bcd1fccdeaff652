package mobilesync

import (
	"encoding/hex"
	"errors"
	"io"
	"iter"
	"math"
	"strings"

	"github.com/snap-backup/snap/device/mobilesync/folder"
	"github.com/snap-backup/snap/device/mobilesync/keybag"
	"github.com/snap-backup/snap/device/mobilesync/manifest"
)

// maxNames bounds the names that a Finding keeps.
const maxNames = 20

// Finding counts one kind of difference and keeps the first names, at most 20.
type Finding struct {
	Count int      `json:"count"`
	Names []string `json:"names,omitempty"`
}

func (f *Finding) add(name string) {
	if f.Count++; len(f.Names) < maxNames {
		f.Names = append(f.Names, name)
	}
}

// Report says how the blobs of a folder and the rows of its manifest differ.
// Rows are named "domain/path (FileID)", files by their path.
type Report struct {
	Listed int `json:"listed"` // rows that should have a blob
	Blobs  int `json:"blobs"`  // files that are blobs of a row

	// Faults: blobs that the manifest lists and that are missing.
	Missing Finding `json:"missing"`

	// Warnings.
	Size      Finding `json:"size"`       // blob of another length than the row's size allows
	Emptied   Finding `json:"emptied"`    // blob of 0 bytes of a row with a greater size, not marked as moved to a cloud
	NotBlocks Finding `json:"not_blocks"` // encrypted, but its length is not a multiple of 16
	NotFile   Finding `json:"not_file"`   // blob of a row for a folder or link
	Extra     Finding `json:"extra"`      // named like a blob, but not listed
	Other     Finding `json:"other"`      // any other file that is not part of a backup

	// Normal, for completeness.
	Dataless     int `json:"dataless"`      // blobs of 0 bytes marked as moved to a cloud
	DatabaseSize int `json:"database_size"` // SQLite files of another length, since the device compacts them
	Unpadded     int `json:"unpadded"`      // encrypted, but as long as without padding
}

// Difference is a way in which a file and a row differ; see Report.
type Difference int

// The differences, named as the fields of Report.
const (
	DiffMissing Difference = iota
	DiffSize
	DiffEmptied
	DiffNotBlocks
	DiffNotFile
	DiffExtra
	DiffOther
	// DiffPlain: the row has a key, but the length is that of a file that is not
	// encrypted. The report counts it with NotBlocks.
	DiffPlain
)

// Comparison compares files with rows, one file at a time.
type Comparison struct {
	// OnDifference, if not nil, is called for each difference. row is -1 if the
	// file has no row. path is that of the file in the backup folder.
	OnDifference func(d Difference, row int, path string)
	// Head, if not nil, returns the first bytes of a file, decrypted if possible. If
	// nil, they are read from the folder.
	Head func(path string) []byte

	b       *Backup
	records *manifest.Records
	hasBlob []uint64 // bitmap of rows that have a blob
	report  Report
}

// note counts a difference. name is what the report shows.
func (c *Comparison) note(d Difference, row int, path, name string) {
	r := &c.report
	[]*Finding{&r.Missing, &r.Size, &r.Emptied, &r.NotBlocks, &r.NotFile, &r.Extra, &r.Other, &r.NotBlocks}[d].add(name)
	if c.OnDifference != nil {
		c.OnDifference(d, row, path)
	}
}

// NewComparison begins a comparison with the rows of this backup.
func (b *Backup) NewComparison(records *manifest.Records) *Comparison {
	return &Comparison{b: b, records: records, hasBlob: make([]uint64, (records.Len()+63)/64)}
}

// Compare compares all files with all rows. An error of files ends the
// comparison.
func (b *Backup) Compare(files iter.Seq2[folder.File, error], records *manifest.Records) (Report, error) {
	c := b.NewComparison(records)
	for f, err := range files {
		if err != nil {
			return Report{}, err
		}
		c.Add(f)
	}
	return c.Report(), nil
}

// Add adds a file. Files may come in any order. If the file is the blob of a
// regular file, Add returns the row of that file. It may read the first bytes
// of a blob of unexpected length, to recognise databases.
func (c *Comparison) Add(f folder.File) (row int, ok bool) {
	if f.Dir && f.Skipped == "" {
		return 0, false
	}
	id, shaped := blobID(c.b.layout, f.Path)
	if f.Skipped != "" || !shaped {
		if !ownFile(c.b.layout, f.Path) || f.Skipped != "" {
			c.note(DiffOther, -1, f.Path, f.Path)
		}
		return 0, false
	}
	i, listed := c.records.ByFileID(id)
	if !listed {
		c.note(DiffExtra, -1, f.Path, f.Path)
		return 0, false
	}
	rec := c.records.At(i)
	if !rec.IsFile() {
		if rec.HasMeta || rec.Flags == manifest.FlagFolder || rec.Flags == manifest.FlagSymlink {
			c.note(DiffNotFile, i, f.Path, f.Path)
			return 0, false
		}
	}
	c.report.Blobs++
	c.hasBlob[i/64] |= 1 << (i % 64)
	c.checkSize(f, i, &rec)
	return i, rec.IsFile()
}

func (c *Comparison) checkSize(f folder.File, row int, rec *manifest.Record) {
	encrypted := c.b.encrypted && rec.EncryptionKey != nil
	want := rec.Size
	if encrypted && want >= 0 && want < math.MaxInt64-16 {
		want = (want/16 + 1) * 16
	}
	switch {
	case !rec.HasMeta, f.Size == want:
	case f.Size == 0 && rec.Size == 0:
		// Some versions store an empty file as 0 bytes, others as a block of
		// padding.
	case f.Size == 0 && rec.Dataless():
		c.report.Dataless++
	case f.Size == 0:
		c.note(DiffEmptied, row, f.Path, f.Path)
	case encrypted && f.Size%16 != 0 && f.Size == rec.Size:
		c.note(DiffPlain, row, f.Path, f.Path)
	case encrypted && f.Size%16 != 0:
		c.note(DiffNotBlocks, row, f.Path, f.Path)
	case encrypted && f.Size == want-16 && rec.Size%16 == 0:
		c.report.Unpadded++
	case c.isDatabase(f, rec):
		c.report.DatabaseSize++
	default:
		c.note(DiffSize, row, f.Path, f.Path)
	}
}

// isDatabase reports whether a file begins like an SQLite database. If the file cannot
// be read or decrypted, its name decides.
func (c *Comparison) isDatabase(f folder.File, rec *manifest.Record) bool {
	named := NamedLikeDatabase(rec.RelativePath)
	if c.Head != nil {
		head := c.Head(f.Path)
		return manifest.IsSQLite(head) || named && len(head) == 0
	}
	file, err := c.b.OpenFile(f.Path)
	if err != nil {
		return named
	}
	defer file.Close()
	decide := func(head []byte, err error) bool {
		read := err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		return manifest.IsSQLite(head) || named && !read
	}
	head := make([]byte, manifest.HeaderLen)
	if !c.b.encrypted || rec.EncryptionKey == nil {
		n, err := io.ReadFull(file, head)
		return decide(head[:n], err)
	}
	key, err := c.b.FileKey(rec)
	if err != nil {
		return named
	}
	plain, err := keybag.UnpaddedDecrypterAt(file, f.Size, key)
	if err != nil {
		return named
	}
	n, err := plain.ReadAt(head, 0)
	return decide(head[:n], err)
}

// Report finds the rows without a blob and returns the result, after all files
// have been added.
func (c *Comparison) Report() Report {
	c.report.Listed, c.report.Missing = 0, Finding{}
	for i := range c.records.Len() {
		if !c.records.ListsFile(i) {
			continue
		}
		c.report.Listed++
		if c.hasBlob[i/64]&(1<<(i%64)) != 0 {
			continue
		}
		rec := c.records.At(i)
		// If several rows have the same FileID, only the first is marked as having
		// a blob.
		if first, ok := c.records.ByFileID(rec.FileID); ok && c.hasBlob[first/64]&(1<<(first%64)) != 0 {
			continue
		}
		c.note(DiffMissing, i, BlobPath(c.b.layout, rec.FileID), rec.Domain+"/"+rec.RelativePath+" ("+hex.EncodeToString(rec.FileID[:])+")")
	}
	return c.report
}

// blobID returns the FileID in the path of a blob.
func blobID(layout Layout, path string) (id [20]byte, ok bool) {
	if layout == Hashed {
		dir, name, found := strings.Cut(path, "/")
		if !found || len(dir) != 2 || !strings.HasPrefix(name, dir) {
			return id, false
		}
		path = name
	}
	if len(path) != 40 || strings.Trim(path, "0123456789abcdef") != "" {
		return id, false
	}
	_, err := hex.Decode(id[:], []byte(path))
	return id, err == nil
}

// ownFile reports whether path is one of the files other than blobs that a
// backup of this layout has.
func ownFile(layout Layout, path string) bool {
	switch path {
	case InfoPlist, ManifestPlist, StatusPlist:
		return true
	case ManifestDB:
		return layout == Hashed
	case ManifestMBDB, "Manifest.mbdx":
		return layout == Flat
	}
	return false
}

// NamedLikeDatabase reports whether a file's name is one that SQLite databases
// usually have.
func NamedLikeDatabase(path string) bool {
	for _, suffix := range []string{".db", ".sqlite", ".sqlite3", ".sqlitedb", ".storedata"} {
		if strings.HasSuffix(path, suffix) {
			return true
		}
	}
	return false
}

// BlobPath returns the path of a row's blob in a folder of this layout:
// "xx/<40 digits>", or "<40 digits>" if it is flat.
func BlobPath(layout Layout, id [20]byte) string {
	name := hex.EncodeToString(id[:])
	if layout == Flat {
		return name
	}
	return name[:2] + "/" + name
}
