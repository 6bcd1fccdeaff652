// Package tree stores the entries of a snapshot as a tree of nodes, which are chunks.
//
// Entries are sorted by (Domain, Name, Path). The hash of an entry's path decides
// whether the entry ends a leaf. Further bits of the hash decide whether it also ends
// inner nodes. At the top is one root. Boundaries depend only on paths: changed entries
// change only their leaves and the nodes above, and equal entries make equal trees.
//
// The package encodes and decodes nodes. It never touches storage: callers pass
// functions that save and load chunks. No node can make it panic, loop or allocate
// more than a small multiple of the node's length.
package tree

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"strings"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/pack/binread"
)

// Limits of the format.
const (
	MaxPath      = 4096 // bytes of Path
	MaxName      = 8192 // bytes of Domain and of Name
	MaxInline    = 64   // content IDs in an entry; more IDs are in lists
	MaxListLevel = 3
)

// ErrDamaged is the error for bytes that this package did not write.
var ErrDamaged = errors.New("damaged tree node")

// Kind is the kind of an entry.
type Kind uint8

// The kinds of entries.
const (
	File Kind = 0
	Dir  Kind = 1
)

// Entry is one file or folder of a backup.
type Entry struct {
	Path    string // in the backup folder, slash-separated, relative, clean
	Domain  string // of the file on the device; empty if unknown
	Name    string // path in the domain; empty if unknown
	Kind    Kind
	Mode    uint32 // permission bits in the backup folder
	ModTime Time   // mtime of the file in the backup folder

	// Stat lets a later import recognise the file without reading it; nil if the
	// source has no such data.
	Stat *Stat
	// Record is from the manifest; nil if the manifest does not list the file.
	Record *Record
	// Encryption says how to encrypt the content to get the file's bytes; nil if the
	// content has the file's bytes.
	Encryption *Encryption

	Content Content
}

// Stat is metadata of the source's file system, in addition to size and mtime.
type Stat struct {
	Inode      uint64
	ChangeTime int64 // Unix nanoseconds
}

// Record has data from a row of the manifest.
type Record struct {
	ModTime int64  // on the device, in Unix seconds
	Sum     uint64 // fingerprint of the row: equal rows have equal sums
}

// Cipher is a way to encrypt a file.
type Cipher uint8

// CBC is AES-256-CBC with an initialisation vector of zeros and PKCS #7 padding, as iOS
// encrypts the files of encrypted backups.
const CBC Cipher = 1

// Encryption says how a file is encrypted. It and the content determine the bytes in
// the backup folder.
type Encryption struct {
	Cipher Cipher
	Key    FileKey
}

// Format hides the key when an Encryption is printed. For verbs that are not for
// structs, fmt would not call FileKey.Format.
func (e Encryption) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprintf(f, "Encryption(cipher %d, hidden)", e.Cipher)
}

// FileKey is the key that a file is encrypted with. It is a secret.
type FileKey [32]byte

// Format hides the key from every verb.
func (FileKey) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "FileKey(hidden)") }

// LogValue hides the key in structured logs.
func (FileKey) LogValue() slog.Value { return slog.StringValue("FileKey(hidden)") }

// Content refers to the chunks of a file. At level 0, IDs has the IDs of the chunks. At
// higher levels, IDs has the IDs of content lists; a list has IDs of the level below.
// IDs has at most MaxInline elements.
type Content struct {
	Size  int64 // bytes
	Level uint8
	IDs   []chunk.ID
}

// Key is the sort key of an entry in a tree.
type Key struct{ Domain, Name, Path string }

// Key returns the entry's key.
func (e *Entry) Key() Key { return Key{e.Domain, e.Name, e.Path} }

// Compare orders keys by domain, name and path, each by bytes.
func (k Key) Compare(o Key) int {
	if c := strings.Compare(k.Domain, o.Domain); c != 0 {
		return c
	}
	if c := strings.Compare(k.Name, o.Name); c != 0 {
		return c
	}
	return strings.Compare(k.Path, o.Path)
}

// The flags of an encoded entry say which optional fields follow.
const (
	flagDir = 1 << iota
	flagNamed
	flagStat
	flagSource
	flagLists
	flagEncrypted
	flagWideTime
	flagsKnown = 1<<iota - 1
)

// check returns an error for an entry that cannot be stored.
func (e *Entry) check() error {
	switch {
	case len(e.Path) > MaxPath || len(e.Domain) > MaxName || len(e.Name) > MaxName:
		return fmt.Errorf("entry %.100q: name too long", e.Path)
	case !CleanPath(e.Path):
		return fmt.Errorf("entry %q: not a clean relative path", e.Path)
	case e.Kind > Dir:
		return fmt.Errorf("entry %q: unknown kind %d", e.Path, e.Kind)
	case e.Content.Size < 0:
		return fmt.Errorf("entry %q: size %d", e.Path, e.Content.Size)
	case len(e.Content.IDs) > MaxInline || e.Content.Level > MaxListLevel:
		return fmt.Errorf("entry %q: %d content IDs at level %d", e.Path, len(e.Content.IDs), e.Content.Level)
	case (e.Content.Size == 0) != (len(e.Content.IDs) == 0), e.Content.Level > 0 && len(e.Content.IDs) == 0:
		return fmt.Errorf("entry %q: %d bytes in %d chunks", e.Path, e.Content.Size, len(e.Content.IDs))
	case e.Kind == Dir && (e.Content.Size > 0 || e.Encryption != nil):
		return fmt.Errorf("folder %q with content", e.Path)
	case e.Encryption != nil && e.Encryption.Cipher != CBC:
		return fmt.Errorf("entry %q: unknown cipher %d", e.Path, e.Encryption.Cipher)
	}
	return nil
}

// CleanPath reports whether p is a relative slash-separated path without empty, "." and
// ".." elements.
func CleanPath(p string) bool {
	if p == "" || strings.ContainsRune(p, 0) {
		return false
	}
	for e := range strings.SplitSeq(p, "/") {
		if e == "" || e == "." || e == ".." {
			return false
		}
	}
	return true
}

func (e *Entry) append(b []byte) []byte {
	flags := uint64(0)
	set := func(flag uint64, on bool) {
		if on {
			flags |= flag
		}
	}
	set(flagDir, e.Kind == Dir)
	set(flagNamed, e.Domain != "" || e.Name != "")
	set(flagStat, e.Stat != nil)
	set(flagSource, e.Record != nil)
	set(flagLists, e.Content.Level > 0)
	set(flagEncrypted, e.Encryption != nil)
	mtime, wide := e.ModTime.Nanosecond()
	set(flagWideTime, wide)
	b = binary.AppendUvarint(b, flags)
	b = appendString(b, e.Path)
	if flags&flagNamed != 0 {
		b = appendString(b, e.Domain)
		b = appendString(b, e.Name)
	}
	b = binary.AppendUvarint(b, uint64(e.Mode))
	if wide {
		b = binary.LittleEndian.AppendUint64(b, uint64(e.ModTime.sec))
		b = binary.AppendUvarint(b, uint64(e.ModTime.nsec))
	} else {
		b = binary.LittleEndian.AppendUint64(b, uint64(mtime))
	}
	if e.Stat != nil {
		b = binary.AppendUvarint(b, e.Stat.Inode)
		b = binary.LittleEndian.AppendUint64(b, uint64(e.Stat.ChangeTime))
	}
	if e.Record != nil {
		b = binary.AppendVarint(b, e.Record.ModTime)
		b = binary.LittleEndian.AppendUint64(b, e.Record.Sum)
	}
	if e.Kind == Dir {
		return b
	}
	if e.Encryption != nil {
		b = append(b, byte(e.Encryption.Cipher))
		b = append(b, e.Encryption.Key[:]...)
	}
	b = binary.AppendUvarint(b, uint64(e.Content.Size))
	if e.Content.Level > 0 {
		b = append(b, e.Content.Level)
	}
	return appendIDs(b, e.Content.IDs)
}

func readEntry(r *binread.Reader) Entry {
	var e Entry
	flags := r.Uvarint()
	if flags&^uint64(flagsKnown) != 0 {
		r.Fail("unknown entry flags %#x", flags)
	}
	e.Path = r.String(MaxPath)
	if flags&flagNamed != 0 {
		e.Domain = r.String(MaxName)
		e.Name = r.String(MaxName)
	}
	mode := r.Uvarint()
	if mode > math.MaxUint32 {
		r.Fail("mode %d", mode)
	}
	e.Mode = uint32(mode)
	e.ModTime = readTime(r, flags&flagWideTime != 0)
	if flags&flagStat != 0 {
		e.Stat = &Stat{Inode: r.Uvarint(), ChangeTime: int64(r.Uint64())}
	}
	if flags&flagSource != 0 {
		e.Record = &Record{ModTime: r.Varint(), Sum: r.Uint64()}
	}
	if flags&flagDir != 0 {
		e.Kind = Dir
		if flags&(flagLists|flagEncrypted) != 0 {
			r.Fail("folder with content")
		}
	} else {
		if flags&flagEncrypted != 0 {
			e.Encryption = &Encryption{Cipher: Cipher(r.Byte())}
			copy(e.Encryption.Key[:], r.Take(len(e.Encryption.Key)))
		}
		e.Content.Size = int64(r.Uvarint())
		if flags&flagLists != 0 {
			if e.Content.Level = r.Byte(); e.Content.Level == 0 {
				r.Fail("list level 0")
			}
		}
		e.Content.IDs = r.IDs(MaxInline)
	}
	if r.Err() == nil {
		if err := e.check(); err != nil {
			r.Fail("%w", err)
		}
	}
	return e
}

// readTime reads a modification time. A wide time that would fit in nanoseconds is
// refused, so that equal entries have equal bytes.
func readTime(r *binread.Reader, wide bool) Time {
	n := int64(r.Uint64())
	if !wide {
		return AtNanosecond(n)
	}
	t := Time{n, uint32(r.UpTo(nanoseconds-1, "nanoseconds"))}
	if _, wide := t.Nanosecond(); !wide && r.Err() == nil {
		r.Fail("%v is not a wide time", t)
	}
	return t
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendIDs(b []byte, ids []chunk.ID) []byte {
	b = binary.AppendUvarint(b, uint64(len(ids)))
	for _, id := range ids {
		b = append(b, id[:]...)
	}
	return b
}
