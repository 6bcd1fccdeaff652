// Package manifest reads the manifests of MobileSync backups: Manifest.db, an
// SQLite database of iOS 10 and later, and Manifest.mbdb of iOS 9 and earlier.
//
// ReadDB and ReadMBDB return all rows as Records, sorted and indexed by FileID.
// A manifest may be hostile: only plain columns of a plain table are read,
// memory is bounded by the size of the manifest, and damage is ErrCorrupt or
// counted in Anomalies. The package never writes, not even the side files that
// opening a database usually leaves behind. It knows no passwords: an encrypted
// manifest must be decrypted first.
package manifest

import (
	"crypto/sha1"
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"iter"
	"strings"
)

// Record is one row of a manifest: it describes one file, folder or symbolic
// link of the device. A number that is missing in the row is 0.
type Record struct {
	// FileID names the blob: SHA-1 of Domain + "-" + RelativePath. HasFileID is
	// false if the row has anything but 40 hexadecimal digits.
	FileID    [20]byte
	HasFileID bool

	Domain       string
	RelativePath string // "" for the root of the domain

	Flags uint32 // 1 file, 2 folder, 4 symbolic link; other values occur
	// HasMeta is false if the row has no readable description. The fields below
	// are empty then.
	HasMeta bool
	Mode    uint32 // Unix st_mode with its type bits
	Size    int64  // bytes on the device; the blob's size can differ
	// Times of the file on the device, in seconds since 1970.
	ModTime, ChangeTime, Birth int64
	UserID, GroupID            uint32
	Inode                      uint64 // on the device
	BSDFlags                   uint32
	ProtectionClass            uint32
	EncryptionKey              []byte // class and wrapped key; nil if the file is not encrypted
	Digest                     [20]byte
	HasDigest                  bool
	Target                     string // of a symbolic link
}

// Flags of a row.
const (
	FlagFile    = 1
	FlagFolder  = 2
	FlagSymlink = 4
)

const (
	modeType    = 0o170000
	modeFile    = 0o100000
	modeFolder  = 0o040000
	modeSymlink = 0o120000
	// sfDataless is set on files whose content was moved to a cloud.
	sfDataless = 0x40000000
)

// IsFile reports whether the row is about a regular file, which has a blob. It
// looks at Mode if Flags has an unknown value.
func (r *Record) IsFile() bool {
	switch r.Flags {
	case FlagFile:
		return true
	case FlagFolder, FlagSymlink:
		return false
	}
	return r.Mode&modeType == modeFile
}

// Dataless reports whether the device marked the file as moved to a cloud. Its
// blob is empty then, whatever Size says.
func (r *Record) Dataless() bool { return r.BSDFlags&sfDataless != 0 }

// Anomalies counts rows that no valid manifest has. Records keeps such rows.
type Anomalies struct {
	OddFileID       int `json:"odd_file_id"`       // not 40 lower-case hexadecimal digits
	BlobFileID      int `json:"blob_file_id"`      // correct, but stored as BLOB
	FileIDMismatch  int `json:"file_id_mismatch"`  // not the SHA-1 of domain and path
	DuplicateFileID int `json:"duplicate_file_id"` // ByFileID returns the first row
	NullText        int `json:"null_text"`         // domain or path missing, or not text
	LongText        int `json:"long_text"`         // a text too long to be real; read as empty
	OddFlags        int `json:"odd_flags"`         // other than 1, 2 and 4
	FlagsMismatch   int `json:"flags_mismatch"`    // flags and mode name different types
	NullMeta        int `json:"null_meta"`         // no description
	BadMeta         int `json:"bad_meta"`          // the description cannot be read
	LongMeta        int `json:"long_meta"`         // a description of more than 1 MiB; one of more than 16 MiB is not read
}

// Total returns the number of all anomalies; a row can have several.
func (a Anomalies) Total() int {
	return a.OddFileID + a.BlobFileID + a.FileIDMismatch + a.DuplicateFileID + a.NullText + a.LongText +
		a.OddFlags + a.FlagsMismatch + a.NullMeta + a.BadMeta + a.LongMeta
}

// String counts the anomalies in words, such as "2 without a domain or path".
func (a Anomalies) String() string {
	var parts []string
	for _, p := range []struct {
		n    int
		what string
	}{
		{a.OddFileID, "with an odd FileID"},
		{a.BlobFileID, "with a FileID of type BLOB"},
		{a.FileIDMismatch, "whose FileID is not that of their domain and path"},
		{a.DuplicateFileID, "with the FileID of another row"},
		{a.NullText, "without a domain or path"},
		{a.LongText, "with a text that is too long"},
		{a.OddFlags, "with unknown flags"},
		{a.FlagsMismatch, "whose flags and mode disagree"},
		{a.NullMeta, "without a description"},
		{a.BadMeta, "with a description that cannot be read"},
		{a.LongMeta, "with a long description"},
	} {
		if p.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.what))
		}
	}
	return strings.Join(parts, ", ")
}

// OddRow is a row that has an anomaly, as far as it can be named.
type OddRow struct {
	Domain, RelativePath string
	FileID               [20]byte
	HasFileID            bool
}

// maxOddRows bounds Records.OddRows.
const maxOddRows = 1000

// Records holds all rows of a manifest, sorted by domain and relative path (in
// byte order; equal ones by FileID). It does not change and may be used by
// several goroutines. In memory it takes the bytes of the rows' texts and keys,
// and about 40 bytes per row.
type Records struct {
	Anomalies Anomalies
	Odd       int      // rows with anomalies
	OddRows   []OddRow // the first of them, at most 1,000

	domains []string // by number, in order of appearance
	ordered []string // domains, sorted
	pages   []string // encoded rows, see appendRow
	refs    []rowRef // in sorted order
	table   []uint32 // hash table by FileID with open addressing: index into refs plus 1, or 0 if free
	seed    maphash.Seed
}

// rowRef locates a row: page number and offset.
type rowRef uint32

const (
	pageBits = 20
	pageSize = 1 << pageBits
	maxPages = 1 << (32 - pageBits)
)

// keepOdd keeps a row with an anomaly.
func (r *Records) keepOdd(rec *Record) {
	if r.Odd++; len(r.OddRows) < maxOddRows {
		r.OddRows = append(r.OddRows, OddRow{strings.Clone(rec.Domain), strings.Clone(rec.RelativePath), rec.FileID, rec.HasFileID})
	}
}

// Len returns the number of rows.
func (r *Records) Len() int { return len(r.refs) }

// Domains returns the domains in order. The caller must not modify the slice.
func (r *Records) Domains() []string { return r.ordered }

// At returns row i, which must be at least 0 and under Len.
func (r *Records) At(i int) Record {
	row := r.row(r.refs[i])
	rec := Record{
		HasFileID: row.has&hasFileID != 0,
		HasMeta:   row.has&hasMeta != 0,
		HasDigest: row.has&hasDigest != 0,
		Domain:    r.domains[row.domain],
	}
	rec.RelativePath, row.rest = row.path, row.rest[len(row.path):]
	rec.FileID, _ = r.takeFileID(&row)
	rec.Flags = uint32(row.uvarint())
	if rec.HasMeta {
		rec.Mode = uint32(row.uvarint())
		rec.Size = row.varint()
		rec.ModTime = row.varint()
		rec.ChangeTime = rec.ModTime + row.varint()
		rec.Birth = rec.ModTime + row.varint()
		rec.UserID = uint32(row.uvarint())
		rec.GroupID = uint32(row.uvarint())
		rec.Inode = row.uvarint()
		rec.BSDFlags = uint32(row.uvarint())
		rec.ProtectionClass = uint32(row.uvarint())
	}
	if rec.HasDigest {
		copy(rec.Digest[:], row.take(20))
	}
	if row.has&hasKey != 0 {
		rec.EncryptionKey = []byte(row.take(int(row.uvarint())))
	}
	if row.has&hasTarget != 0 {
		rec.Target = row.take(int(row.uvarint()))
	}
	return rec
}

// Name returns domain and relative path of row i. It costs less than At.
func (r *Records) Name(i int) (domain, path string) {
	w := r.row(r.refs[i])
	return r.domains[w.domain], w.path
}

// ListsFile reports whether row i is about a regular file and has a FileID, so
// that the backup should have its blob.
func (r *Records) ListsFile(i int) bool {
	w := r.row(r.refs[i])
	if w.has&hasFileID == 0 {
		return false
	}
	w.rest = w.rest[len(w.path):]
	if w.has&usualID == 0 {
		w.take(20)
	}
	rec := Record{Flags: uint32(w.uvarint())}
	if w.has&hasMeta != 0 {
		rec.Mode = uint32(w.uvarint())
	}
	return rec.IsFile()
}

// All returns an iterator over all rows in order.
func (r *Records) All() iter.Seq2[int, Record] {
	return func(yield func(int, Record) bool) {
		for i := range r.refs {
			if !yield(i, r.At(i)) {
				return
			}
		}
	}
}

// ByFileID returns the index of the row with this FileID.
func (r *Records) ByFileID(id [20]byte) (int, bool) {
	if len(r.table) == 0 {
		return 0, false
	}
	mask := uint64(len(r.table) - 1)
	for at := maphash.Bytes(r.seed, id[:]) & mask; r.table[at] != 0; at = (at + 1) & mask {
		i := int(r.table[at] - 1)
		row := r.row(r.refs[i])
		if got, ok := r.fileID(&row); ok && got == id {
			return i, true
		}
	}
	return 0, false
}

// A row is encoded as: one byte of the bits below, domain number, path length, path,
// FileID, flags, the numbers of the description, digest, key and target. A part that has a
// bit is omitted if the bit is not set, and the FileID also if it is usual. The second and
// third time are differences from the first.
const (
	hasFileID = 1 << iota
	hasMeta
	hasDigest
	hasKey
	hasTarget
	usualID // the FileID is that of the domain and path, and is not in the encoded row
	isOdd   // it has an anomaly of its own; see Records.OddRows
)

// row is a cursor into an encoded row. It checks nothing, since it reads only
// what appendRow wrote.
type row struct {
	has    byte
	domain uint32
	path   string
	rest   string // from the path on
}

func (r *Records) row(ref rowRef) row {
	page := r.pages[ref>>pageBits]
	w := row{has: page[ref&(pageSize-1)], rest: page[ref&(pageSize-1)+1:]}
	w.domain = uint32(w.uvarint())
	n := int(w.uvarint())
	w.path = w.rest[:n]
	return w
}

// fileID returns the FileID of a row that was not read beyond its path.
func (r *Records) fileID(w *row) (id [20]byte, ok bool) {
	after := *w
	after.rest = after.rest[len(w.path):]
	return r.takeFileID(&after)
}

// takeFileID reads the FileID of a row that was read up to it.
func (r *Records) takeFileID(w *row) (id [20]byte, ok bool) {
	switch {
	case w.has&hasFileID == 0:
		return id, false
	case w.has&usualID != 0:
		return usualFileID(r.domains[w.domain], w.path), true
	}
	return [20]byte([]byte(w.take(20))), true
}

// usualFileID returns the FileID that every row should have.
func usualFileID(domain, path string) [20]byte {
	var room [256]byte // most are shorter, and need no memory of their own
	return sha1.Sum(append(append(append(room[:0], domain...), '-'), path...))
}

func (w *row) take(n int) string {
	s := w.rest[:n]
	w.rest = w.rest[n:]
	return s
}

func (w *row) uvarint() uint64 {
	var v uint64
	for i, shift := 0, 0; ; i, shift = i+1, shift+7 {
		c := w.rest[i]
		v |= uint64(c&0x7f) << shift
		if c < 0x80 {
			w.rest = w.rest[i+1:]
			return v
		}
	}
}

func (w *row) varint() int64 {
	u := w.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

// appendRow encodes rec; domain is its domain's number. usual says that it has the FileID of
// its domain and path, odd that it has an anomaly of its own.
func appendRow(b []byte, rec *Record, domain uint32, usual, odd bool) []byte {
	var has byte
	set := func(bit byte, on bool) {
		if on {
			has |= bit
		}
	}
	set(hasFileID, rec.HasFileID)
	set(usualID, usual)
	set(hasMeta, rec.HasMeta)
	set(hasDigest, rec.HasDigest)
	set(hasKey, rec.EncryptionKey != nil)
	set(hasTarget, rec.Target != "")
	set(isOdd, odd)
	b = append(b, has)
	b = binary.AppendUvarint(b, uint64(domain))
	b = binary.AppendUvarint(b, uint64(len(rec.RelativePath)))
	b = append(b, rec.RelativePath...)
	if rec.HasFileID && !usual {
		b = append(b, rec.FileID[:]...)
	}
	b = binary.AppendUvarint(b, uint64(rec.Flags))
	if rec.HasMeta {
		b = binary.AppendUvarint(b, uint64(rec.Mode))
		b = binary.AppendVarint(b, rec.Size)
		b = binary.AppendVarint(b, rec.ModTime)
		b = binary.AppendVarint(b, rec.ChangeTime-rec.ModTime)
		b = binary.AppendVarint(b, rec.Birth-rec.ModTime)
		b = binary.AppendUvarint(b, uint64(rec.UserID))
		b = binary.AppendUvarint(b, uint64(rec.GroupID))
		b = binary.AppendUvarint(b, rec.Inode)
		b = binary.AppendUvarint(b, uint64(rec.BSDFlags))
		b = binary.AppendUvarint(b, uint64(rec.ProtectionClass))
	}
	if rec.HasDigest {
		b = append(b, rec.Digest[:]...)
	}
	if rec.EncryptionKey != nil {
		b = binary.AppendUvarint(b, uint64(len(rec.EncryptionKey)))
		b = append(b, rec.EncryptionKey...)
	}
	if rec.Target != "" {
		b = binary.AppendUvarint(b, uint64(len(rec.Target)))
		b = append(b, rec.Target...)
	}
	return b
}
