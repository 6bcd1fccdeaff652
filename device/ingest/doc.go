// Package ingest turns a backup into a snapshot: Import stores a backup folder,
// Publish a backup that a device has just sent.
//
// It connects package mobilesync (Apple's formats) and package repo (storage),
// which do not depend on each other. It makes a snapshot only of a backup that
// the device has finished and that did not change while it was read. With
// AllowIncomplete it also stores other backups. It compares the sizes of all
// files with the manifest, and verifies the content of the files that it reads.
// The snapshot's record says what is wrong; a backup with damaged or missing
// files is stored, too. The blobs of the backup can be rebuilt from the snapshot
// byte for byte, with all folders, modes and times. The package never changes the
// backup, and prints nothing.
package ingest

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/snap-backup/snap/device/blob"
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/folder"
	"github.com/snap-backup/snap/device/mobilesync/manifest"
	"github.com/snap-backup/snap/repo"
)

// Errors that callers may want to handle; test for them with errors.Is.
var (
	// ErrIncomplete says that a backup is incomplete and was not stored. The error
	// returned is an *IncompleteError.
	ErrIncomplete = errors.New("the backup is incomplete")
	// ErrNoManifest says that a backup is incomplete because the list of its files is gone.
	// It is an ErrIncomplete.
	ErrNoManifest = fmt.Errorf("%w: it has no manifest", ErrIncomplete)
	// ErrChanged says that a backup changed while it was read. No snapshot was
	// made; the next attempt reuses the content that was stored.
	ErrChanged = folder.ErrChanged
)

// Options say how to ingest a backup.
type Options struct {
	// AllowIncomplete stores a backup that is unfinished, damaged or changing,
	// and marks the snapshot as incomplete.
	AllowIncomplete bool
	// Broken, if not nil, says why a device did not finish the backup. It implies
	// AllowIncomplete.
	Broken error
	// Rescan reads all files of a folder, even those that look unchanged.
	Rescan bool
	// SkipIfUnchanged makes no snapshot of a backup that has the same files as
	// its parent.
	SkipIfUnchanged bool
	// Locked stores a locked backup anew, even if its parent is the same backup, stored
	// decrypted.
	Locked bool
	// Unlock, if not nil, unlocks an encrypted backup that is still locked. Import calls it
	// only if it cannot tell without the password that the backup is unchanged.
	Unlock func(context.Context) error
	// Complaints are what the device said about its own errors.
	Complaints []repo.Complaint
	Tags       []string
	Host       string
	Program    string // name and version, for the record
	Workers    int    // goroutines that read, at least 1
	Progress   *blob.Progress
}

// Result says what was done.
type Result struct {
	Snapshot  *repo.Snapshot `json:"snapshot"`
	Unchanged bool           `json:"unchanged"` // SkipIfUnchanged applied: Snapshot is the parent
	// NoPassword says that the backup was not unlocked, and that Snapshot is stored decrypted
	// all the same, since the parent is the same backup and was unlocked.
	NoPassword bool  `json:"no_password,omitempty"`
	Files      int64 `json:"files"`
	Bytes      int64 `json:"bytes"`
	ReadFiles  int64 `json:"read_files"` // files that were read, since they may have changed
	ReadBytes  int64 `json:"read_bytes"`
	// Of an unlocked backup: the number of files that were decrypted, and the number
	// that were stored as they are, for each reason.
	Decrypted int64               `json:"unsealed_files"`
	Raw       map[RawReason]int64 `json:"raw_files,omitempty"`
	Skipped   []string            `json:"skipped"`  // entries that were left out, with the reason
	Problems  []Problem           `json:"problems"` // of the files at the top of the folder
	// Findings are everything that is wrong or unusual, with the names of all
	// affected files.
	Findings []repo.Finding `json:"findings"`
	// Report is the result of comparing the files with the manifest. It is nil if
	// the manifest is unreadable, or was not read because nothing has changed since
	// the last import.
	Report    *mobilesync.Report  `json:"report"`
	Anomalies *manifest.Anomalies `json:"anomalies"`
}

// Problem is a reason to doubt a backup; see mobilesync.Problem.
type Problem struct {
	Kind  mobilesync.ProblemKind `json:"kind"`
	Fatal bool                   `json:"fatal"`
	Text  string                 `json:"text"`
}

// IncompleteError says why a backup was refused. It matches ErrIncomplete.
type IncompleteError struct {
	Dir        string
	Reasons    []string
	NoManifest bool // the file with the list of files is missing
}

func (e *IncompleteError) Error() string {
	return fmt.Sprintf("%s: the backup is incomplete: %s", e.Dir, strings.Join(e.Reasons, "; "))
}

// Is makes errors.Is(err, ErrIncomplete) true, and errors.Is(err, ErrNoManifest) if that is
// the reason.
func (e *IncompleteError) Is(target error) bool {
	return target == ErrIncomplete || e.NoManifest && target == ErrNoManifest
}
