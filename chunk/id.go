// Package chunk cuts content into chunks and computes their IDs.
//
// A chunk's ID is the keyed BLAKE3-256 of its bytes: equal chunks have equal IDs in one
// repository, and an ID reveals nothing without the key. Boundaries depend only on the
// content and on the repository's secret polynomial, so an insertion moves few
// boundaries.
//
// The package never stores anything.
package chunk

import (
	"encoding/hex"
	"fmt"

	"github.com/snap-backup/snap/crypto/blake"
)

// ID is the name of a chunk: the keyed BLAKE3-256 of its plaintext.
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

// ParseID parses 64 hex digits.
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

// Hasher computes chunk IDs. It keeps a buffer between calls and is not safe for
// concurrent use.
type Hasher struct{ h *blake.Hasher }

// NewHasher returns a hasher for a repository's ID key.
func NewHasher(key [32]byte) *Hasher {
	return &Hasher{blake.NewKeyed(key)}
}

// ID returns the ID of a chunk.
func (h *Hasher) ID(data []byte) ID { return h.h.Sum(data) }
