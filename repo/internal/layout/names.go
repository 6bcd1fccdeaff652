// Package layout names the files of a repository: its folders, and the IDs that
// files are named by. It reads and writes nothing.
package layout

import (
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/snap-backup/snap/index"
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
	KeysDir         = "keys/"
	ConfigsDir      = "configs/" // copies of config
	PacksDir        = "packs/"
	IndexDir        = "index/"
	SnapshotsDir    = "snapshots/"
	LocksDir        = "locks/"
	PrunesDir       = "prunes/"
	SecretsDir      = "secrets/"
	RunsDir         = "runs/"
	ChecksDir       = "checks/"
	ParityDir       = "parity/"
	CertificatesDir = "certificates/"
	LedgerDir       = "ledger/"
	HealingDir      = "healing/"
	MirroredDir     = "mirrored/" // only on the target of a mirror
)

// How the files of a folder begin, in all versions of their format. The version follows.
const (
	SnapshotMagic    = "snapsn"
	RunMagic         = "snaprn"
	SecretMagic      = "snapse"
	ParityMagic      = "snappa"
	CertificateMagic = "snapce"
	LedgerMagic      = "snaple"
)

// Magic returns how the files of a folder begin, in all versions of their format. known
// is false for folders whose files need not be recognised without a key.
func Magic(folder string) (magic string, known bool) {
	magic, known = map[string]string{
		PacksDir:        pack.Magic,
		IndexDir:        index.Magic,
		SnapshotsDir:    SnapshotMagic,
		RunsDir:         RunMagic,
		SecretsDir:      SecretMagic,
		ParityDir:       ParityMagic,
		CertificatesDir: CertificateMagic,
		LedgerDir:       LedgerMagic,
	}[folder]
	return magic, known
}

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

// ParseFileID returns the ID in the name of a repository file, which is a folder and an
// ID, or packs/XX/ and an ID. Any other name is an error: the file is not part of the
// repository, even if it is in one of its folders.
func ParseFileID(name string) (FileID, error) {
	var id FileID
	dir, hash, _ := strings.Cut(name, "/")
	if dir+"/" == PacksDir {
		first, rest, _ := strings.Cut(hash, "/")
		if hash = rest; len(first) != 2 || !strings.HasPrefix(hash, first) {
			return id, fmt.Errorf("%.200q is not the name of a pack", name)
		}
	}
	if strings.ToLower(hash) != hash {
		return id, fmt.Errorf("file ID %.80q: want lower-case hex digits", hash)
	}
	err := id.UnmarshalText([]byte(hash))
	return id, err
}

// IsFile reports whether a name below the folder of a repository, or below healing/, is
// one of a file that is part of it.
func IsFile(name string) bool {
	_, err := ParseFileID(name)
	return err == nil || name == ConfigName
}
