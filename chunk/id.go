// Package chunk cuts content into chunks and names them.
//
// A chunk's ID is the keyed BLAKE3-256 of its bytes: equal content has equal
// IDs inside one repository, and tells nothing to whoever lacks the key. Where
// content is cut depends on the content alone (and on the repository's secret
// polynomial), so that an insertion moves few boundaries.
//
// The package knows nothing of storage.
package chunk

import (
	"encoding/hex"
	"fmt"

	"github.com/snap-backup/snap/crypto/blake"
)

// ID names a chunk: keyed BLAKE3-256 of its plaintext.
type ID [32]byte

// String returns the ID as 64 lower-case hex digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Short returns the first 8 hex digits, for people.
func (id ID) Short() string { return hex.EncodeToString(id[:4]) }

// MarshalText implements encoding.TextMarshaler.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *ID) UnmarshalText(b []byte) error {
	parsed, err := ParseID(string(b))
	if err != nil {
		return err
	}
	*id = parsed
	return nil
}

// ParseID reads 64 hex digits.
func ParseID(s string) (ID, error) {
	var id ID
	if len(s) != 2*len(id) {
		return ID{}, fmt.Errorf("chunk ID %.80q: want %d hex digits", s, 2*len(id))
	}
	if _, err := hex.Decode(id[:], []byte(s)); err != nil {
		return ID{}, fmt.Errorf("chunk ID %q: %w", s, err)
	}
	return id, nil
}

// Hasher computes chunk IDs. It keeps state between calls to save allocations,
// so each goroutine needs its own.
type Hasher struct{ h *blake.Hasher }

// NewHasher returns a hasher for a repository's ID key.
func NewHasher(key [32]byte) *Hasher {
	return &Hasher{blake.NewKeyed(key)}
}

// ID returns the ID of a chunk.
func (h *Hasher) ID(data []byte) ID { return h.h.Sum(data) }
