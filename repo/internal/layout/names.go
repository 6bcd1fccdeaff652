// Package layout names the files of a repository: its folders, and the IDs that
// files are named by. It reads and writes nothing.
package layout

import (
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/snap-backup/snap/pack"
)

// FileID names a repository file: BLAKE3-256 of its bytes.
type FileID [32]byte

// String returns the ID as 64 lower-case hex digits.
func (id FileID) String() string { return hex.EncodeToString(id[:]) }

// Short returns the first 8 hex digits, for people.
func (id FileID) Short() string { return hex.EncodeToString(id[:4]) }

// MarshalText implements encoding.TextMarshaler.
func (id FileID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *FileID) UnmarshalText(b []byte) error {
	if len(b) != 2*len(id) {
		return fmt.Errorf("file ID %.80q: want %d hex digits", b, 2*len(id))
	}
	_, err := hex.Decode(id[:], b)
	return err
}

// The folders of a repository, as prefixes of names.
const (
	KeysDir      = "keys/"
	PacksDir     = "packs/"
	IndexDir     = "index/"
	SnapshotsDir = "snapshots/"
	LocksDir     = "locks/"
	PrunesDir    = "prunes/"
	SecretsDir   = "secrets/"
	RunsDir      = "runs/"
	ChecksDir    = "checks/"
	ParityDir    = "parity/"
	HealingDir   = "healing/"
	MirroredDir  = "mirrored/" // only on the target of a mirror
)

// The files that are in no folder.
const (
	ConfigName = "config"
	// ReserveName is a file that keeps room for what a prune must write before it
	// can remove anything: its lock, its prune list, and new index files.
	ReserveName = "reserve"
)

// Limits on the length of files, in bytes.
const (
	MaxConfigSize = 64 << 10
	// MaxFileSize is above the length of any file. The longest are index files.
	MaxFileSize = 512 << 20
)

// PackName returns the name of a pack.
func PackName(id pack.ID) string {
	s := id.String()
	return PacksDir + s[:2] + "/" + s
}

// ParseFileID parses the ID at the end of a file's name.
func ParseFileID(name string) (FileID, error) {
	var id FileID
	err := id.UnmarshalText([]byte(name[strings.LastIndexByte(name, '/')+1:]))
	return id, err
}
