package ledger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/crypto/blake"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/pack/binread"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/store"
)

const (
	magic = layout.LedgerMagic + "01"
	// maxFile bounds the bytes of a file, and maxPlain those of its plain form.
	maxFile, maxPlain = 64 << 20, 64 << 20
	// headSize is the length of what is before the sealed JSON of a snapshot record: the
	// magic and the nonce.
	headSize = 8 + 24
	// maxRecord bounds the JSON of a record.
	maxRecord = 1 << 20
	maxTurn   = 1 << 32
	// minEntry is the least length of an entry.
	minEntry = 32 + 1 + 1
)

// Entry is what the ledger says about one snapshot record.
type Entry struct {
	ID layout.FileID
	// Turn counts how often the record was removed and how often it came back. An even
	// number means that the record exists, an odd one that it was removed on purpose. Of
	// two entries, the one with the greater turn counts.
	Turn uint64
	// Removed is when the record was removed, in seconds since 1970, by the clock of the
	// computer that did it. It only decides which removals are left out first.
	Removed uint64

	// head and JSON are the beginning of the record's file and its opened rest, so that
	// the file can be made again. They are empty if the record was removed.
	head [headSize]byte
	JSON []byte
}

// Exists reports whether the record was stored and not removed since.
func (e *Entry) Exists() bool { return e.Turn%2 == 0 }

// size is about the length of the entry in a file.
func (e *Entry) size() int { return minEntry + len(e.JSON) + headSize }

// NewEntry returns the entry of a record, given the bytes of its file.
func NewEntry(r *store.Store, file []byte) (*Entry, error) {
	e := &Entry{ID: layout.FileID(blake.Sum(file))}
	if len(file) < 8+crypto.Overhead {
		return nil, errors.New("enter a snapshot record in the ledger: it is too short")
	}
	copy(e.head[:], file)
	var err error
	if e.JSON, err = r.SnapshotSealer.Open(nil, file[8:], nil); err != nil {
		return nil, fmt.Errorf("enter a snapshot record in the ledger: %w", err)
	}
	if len(e.JSON) > maxRecord {
		return nil, fmt.Errorf("enter a snapshot record in the ledger: %d bytes are too many", len(e.JSON))
	}
	return e, nil
}

// File returns the bytes of the record's file. They have the hash that is the record's ID.
func (e *Entry) File(r *store.Store) ([]byte, error) {
	out := slices.Clone(e.head[:8])
	out = r.SnapshotSealer.SealAgain(out, e.head[8:], e.JSON, nil)
	if layout.FileID(blake.Sum(out)) != e.ID {
		return nil, fmt.Errorf("the copy of snapshot record %s in the ledger is of another record", e.ID.Short())
	}
	return out, nil
}

// seal returns the bytes of a ledger file. It sorts the entries.
func seal(entries []*Entry, sealer *crypto.Sealer) ([]byte, error) {
	compressed, err := pack.Compress(appendPlain(nil, entries))
	if err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	out, err := sealer.Seal([]byte(magic), compressed, nil)
	if err == nil && len(out) > maxFile {
		err = fmt.Errorf("a file of %d bytes is too large", len(out))
	}
	if err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	return out, nil
}

// appendPlain appends the plain form of a ledger file. It sorts the entries.
func appendPlain(dst []byte, entries []*Entry) []byte {
	slices.SortFunc(entries, func(a, b *Entry) int { return slices.Compare(a.ID[:], b.ID[:]) })
	dst = append(dst, pack.PlainVersion)
	dst = binary.AppendUvarint(dst, uint64(len(entries)))
	for _, e := range entries {
		dst = append(dst, e.ID[:]...)
		dst = binary.AppendUvarint(dst, e.Turn)
		if !e.Exists() {
			dst = binary.AppendUvarint(dst, e.Removed)
			continue
		}
		dst = append(dst, e.head[:]...)
		dst = binary.AppendUvarint(dst, uint64(len(e.JSON)))
		dst = append(dst, e.JSON...)
	}
	return dst
}

// open is the inverse of seal. The error is store.ErrUnsupported if a newer program has
// written the file.
func open(b []byte, sealer *crypto.Sealer) ([]*Entry, error) {
	sealed, ok := store.CutMagic(b, magic)
	if !ok {
		return nil, errors.New("bad magic")
	}
	compressed, err := sealer.Open(nil, sealed, nil)
	if err != nil {
		return nil, err
	}
	return parse(compressed)
}

func parse(compressed []byte) ([]*Entry, error) {
	b, err := pack.Expand(compressed, maxPlain)
	if err != nil {
		return nil, err
	}
	r := binread.NewReader(b)
	if v := r.Byte(); v != pack.PlainVersion && r.Err() == nil {
		return nil, fmt.Errorf("ledger version %d: %w", v, store.ErrUnsupported)
	}
	entries := make([]*Entry, 0, r.Count(minEntry))
	for range cap(entries) {
		e := &Entry{ID: layout.FileID(r.ID()), Turn: r.UpTo(maxTurn, "turn")}
		if n := len(entries); n > 0 && slices.Compare(e.ID[:], entries[n-1].ID[:]) <= 0 {
			r.Fail("entries out of order")
		}
		if !e.Exists() {
			e.Removed = r.Uvarint()
		} else {
			copy(e.head[:], r.Take(headSize))
			e.JSON = r.Take(int(r.UpTo(maxRecord, "length of a record")))
		}
		if r.Err() != nil {
			break
		}
		entries = append(entries, e)
	}
	return entries, r.End()
}
