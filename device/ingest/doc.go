// Package ingest turns a backup into a snapshot: Import stores one from a
// folder, Publish one that a device has just sent.
//
// Apple's formats (package mobilesync) and storage (package repo) meet here;
// neither knows of the other. It makes a snapshot only of a backup that was
// complete and did not change while it was read; with AllowIncomplete, the
// snapshot's record says what is wrong. The blobs of the backup can be rebuilt
// from the snapshot byte for byte, with all folders, modes and times. It never
// changes the backup, and prints nothing.
package ingest

import (
	"errors"
	"fmt"
	"strings"

	"github.com/snap-backup/snap/device/blob"
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/folder"
	"github.com/snap-backup/snap/device/mobilesync/manifest"
	"github.com/snap-backup/snap/repo"
)

// The kinds of failure that a caller decides on; test with errors.Is.
var (
	// ErrIncomplete says that a backup is incomplete and was not stored. The error
	// is an *IncompleteError.
	ErrIncomplete = errors.New("the backup is incomplete")
	// ErrChanged says that a backup changed while it was read. No snapshot was
	// made; the next try uses what was stored.
	ErrChanged = folder.ErrChanged
)

// Options say how to ingest a backup.
type Options struct {
	// AllowIncomplete stores a backup that is unfinished, damaged or changing,
	// and marks the snapshot as incomplete.
	AllowIncomplete bool
	// Rescan reads all files of a folder, even those that look unchanged.
	Rescan bool
	// SkipIfUnchanged makes no snapshot of a backup that has the same files as
	// its parent.
	SkipIfUnchanged bool
	Tags            []string
	Host            string
	Program         string // name and version, for the record
	Workers         int    // goroutines that read, at least 1
	Progress        *blob.Progress
}

// Result says what was done.
type Result struct {
	Snapshot  *repo.Snapshot `json:"snapshot"`
	Unchanged bool           `json:"unchanged"` // SkipIfUnchanged applied: Snapshot is the parent
	Files     int64          `json:"files"`
	Bytes     int64          `json:"bytes"`
	ReadFiles int64          `json:"read_files"` // that were not known to be unchanged
	ReadBytes int64          `json:"read_bytes"`
	// For an unlocked backup: the files that are stored decrypted, and those
	// that had to be stored encrypted.
	Unsealed int64               `json:"unsealed_files"`
	Raw      map[RawReason]int64 `json:"raw_files,omitempty"`
	Skipped  []string            `json:"skipped"`  // entries that were left out, with the reason
	Problems []Problem           `json:"problems"` // of the folder
	// Report is nil if the manifest is unreadable, or was not read because
	// nothing has changed since the last import.
	Report    *mobilesync.Report  `json:"report"` // files compared with the manifest
	Anomalies *manifest.Anomalies `json:"anomalies"`
}

// Problem is a reason to doubt a backup; see mobilesync.Problem.
type Problem struct {
	Kind  mobilesync.ProblemKind `json:"kind"`
	Fatal bool                   `json:"fatal"`
	Text  string                 `json:"text"`
}

// IncompleteError says why a backup was refused. It is ErrIncomplete.
type IncompleteError struct {
	Dir     string
	Reasons []string
}

func (e *IncompleteError) Error() string {
	return fmt.Sprintf("%s: the backup is incomplete: %s", e.Dir, strings.Join(e.Reasons, "; "))
}

// Is makes errors.Is(err, ErrIncomplete) true.
func (e *IncompleteError) Is(target error) bool { return target == ErrIncomplete }
