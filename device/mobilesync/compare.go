package mobilesync

import (
	"encoding/hex"
	"io"
	"iter"
	"math"
	"strings"
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

// Report is how the blobs of a folder and the rows of its manifest agree. Rows
// are named "domain/path (FileID)", files by their path.
type Report struct {
	Listed int `json:"listed"` // rows that should have a blob
	Blobs  int `json:"blobs"`  // files that are blobs of a row

	// Faults: content that the manifest promises is not there.
	Missing Finding `json:"missing"`

	// Warnings.
	Size      Finding `json:"size"`       // blob of another length than the row's size allows
	Emptied   Finding `json:"emptied"`    // blob of 0 bytes, size greater, and not marked as evicted to a cloud
	NotBlocks Finding `json:"not_blocks"` // encrypted, but no whole number of cipher blocks
	NotFile   Finding `json:"not_file"`   // blob of a row for a folder or link
	Extra     Finding `json:"extra"`      // named like a blob, but not listed
	Other     Finding `json:"other"`      // any other file that a backup does not have

	// Normal, for completeness.
	Dataless     int `json:"dataless"`      // blobs of 0 bytes marked as evicted to a cloud
	DatabaseSize int `json:"database_size"` // SQLite files of another length, which the device compacts
	Unpadded     int `json:"unpadded"`      // encrypted, of a length without padding
}

// Faults returns the number of files that are promised and not there.
func (r *Report) Faults() int { return r.Missing.Count }

// Comparison sets files against rows as they come by.
type Comparison struct {
	b       *Backup
	records *Records
	have    []uint64 // bitmap of rows that have a blob
	report  Report
}

// NewComparison begins a comparison with the rows of this backup.
func (b *Backup) NewComparison(records *Records) *Comparison {
	return &Comparison{b: b, records: records, have: make([]uint64, (records.Len()+63)/64)}
}

// Compare sets all files against all rows. An error of files ends it.
func (b *Backup) Compare(files iter.Seq2[File, error], records *Records) (Report, error) {
	c := b.NewComparison(records)
	for f, err := range files {
		if err != nil {
			return Report{}, err
		}
		c.Add(f)
	}
	return c.Report(), nil
}

// Add takes the next file, in any order, and returns the row of a regular file
// that it is the blob of. In a plain backup it may look into a blob of
// unexpected length for SQLite's magic.
func (c *Comparison) Add(f File) (row int, ok bool) {
	if f.Dir && f.Skipped == "" {
		return 0, false
	}
	id, shaped := blobID(c.b.layout, f.Path)
	if f.Skipped != "" || !shaped {
		if !ownFile(c.b.layout, f.Path) || f.Skipped != "" {
			c.report.Other.add(f.Path)
		}
		return 0, false
	}
	i, listed := c.records.ByFileID(id)
	if !listed {
		c.report.Extra.add(f.Path)
		return 0, false
	}
	rec := c.records.At(i)
	if !rec.IsFile() {
		if rec.HasMeta || rec.Flags == FlagFolder || rec.Flags == FlagSymlink {
			c.report.NotFile.add(f.Path)
			return 0, false
		}
	}
	c.report.Blobs++
	c.have[i/64] |= 1 << (i % 64)
	c.checkSize(f, &rec)
	return i, rec.IsFile()
}

func (c *Comparison) checkSize(f File, rec *Record) {
	sealed := c.b.encrypted && rec.EncryptionKey != nil
	want := rec.Size
	if sealed && want >= 0 && want < math.MaxInt64-16 {
		want = (want/16 + 1) * 16
	}
	switch {
	case !rec.HasMeta, f.Size == want:
	case f.Size == 0 && rec.Size == 0:
		// Some systems store an empty file as nothing, others as padding alone.
	case f.Size == 0 && rec.Dataless():
		c.report.Dataless++
	case f.Size == 0:
		c.report.Emptied.add(f.Path)
	case sealed && f.Size%16 != 0:
		c.report.NotBlocks.add(f.Path)
	case sealed && f.Size == want-16 && rec.Size%16 == 0:
		c.report.Unpadded++
	case namedLikeDatabase(rec.RelativePath), !sealed && c.isDatabase(f.Path):
		c.report.DatabaseSize++
	default:
		c.report.Size.add(f.Path)
	}
}

func (c *Comparison) isDatabase(path string) bool {
	file, err := c.b.OpenFile(path)
	if err != nil {
		return false
	}
	defer file.Close()
	head := make([]byte, len(sqliteMagic))
	_, err = io.ReadFull(file, head)
	return err == nil && isSQLite(head)
}

// Report returns the result; call it when all files have been added.
func (c *Comparison) Report() Report {
	out := c.report
	for i := range c.records.Len() {
		if !c.records.listsFile(i) {
			continue
		}
		out.Listed++
		if c.have[i/64]&(1<<(i%64)) != 0 {
			continue
		}
		rec := c.records.At(i)
		// Of several rows with the same FileID the first carries the mark.
		if first, ok := c.records.ByFileID(rec.FileID); ok && c.have[first/64]&(1<<(first%64)) != 0 {
			continue
		}
		out.Missing.add(rec.Domain + "/" + rec.RelativePath + " (" + hex.EncodeToString(rec.FileID[:]) + ")")
	}
	return out
}

// blobID returns the FileID that a file's place in the folder stands for.
func blobID(layout Layout, path string) (id [20]byte, ok bool) {
	if layout == Hashed {
		dir, name, found := strings.Cut(path, "/")
		if !found || len(dir) != 2 || !strings.HasPrefix(name, dir) {
			return id, false
		}
		path = name
	}
	if len(path) != 40 || !isHex(path) {
		return id, false
	}
	_, err := hex.Decode(id[:], []byte(path))
	return id, err == nil
}

// ownFile reports whether a backup of this layout has this file besides blobs.
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

func namedLikeDatabase(path string) bool {
	for _, suffix := range []string{".db", ".sqlite", ".sqlite3", ".sqlitedb", ".storedata"} {
		if strings.HasSuffix(path, suffix) {
			return true
		}
	}
	return false
}

// BlobPath returns where the blob of a row is in a folder of this layout:
// "xx/<40 digits>", or flat.
func BlobPath(layout Layout, id [20]byte) string {
	name := hex.EncodeToString(id[:])
	if layout == Flat {
		return name
	}
	return name[:2] + "/" + name
}
