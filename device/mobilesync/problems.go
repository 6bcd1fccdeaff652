package mobilesync

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
)

var errEmpty = errors.New("it is empty")

// ProblemKind names a class of Problem; its text is stable for programs.
type ProblemKind string

const (
	// Fatal kinds: the backup is incomplete, mixed or damaged.
	ProblemUnfinished     ProblemKind = "unfinished"      // Status.plist does not say that the run finished
	ProblemSnapshot       ProblemKind = "snapshot"        // Snapshot/ exists: a run is under way or was cut off
	ProblemPlaceholder    ProblemKind = "placeholder"     // made before a first run that never finished
	ProblemStatusPlist    ProblemKind = "status-plist"    // missing, empty or unsound
	ProblemManifestPlist  ProblemKind = "manifest-plist"  // missing, empty or unsound
	ProblemManifest       ProblemKind = "manifest"        // no Manifest.db or Manifest.mbdb
	ProblemManifestDamage ProblemKind = "manifest-damage" // empty, cut off, or neither SQLite nor encrypted

	// The others are warnings.
	ProblemInfoPlist   ProblemKind = "info-plist"      // missing, empty or unsound
	ProblemUDID        ProblemKind = "udid"            // the property lists or the folder name disagree, or are silent
	ProblemEncryption  ProblemKind = "encryption"      // Manifest.plist and Manifest.db disagree, or the former is silent
	ProblemManifestKey ProblemKind = "manifest-key"    // encrypted, but no password will open it
	ProblemWAL         ProblemKind = "write-ahead-log" // Manifest.db-wal holds rows that Records does not see
	ProblemBoth        ProblemKind = "two-manifests"   // Manifest.db and Manifest.mbdb; the former is used
)

// Problem is one reason to doubt a backup.
type Problem struct {
	Kind  ProblemKind
	Fatal bool   // not to be taken in as a complete backup
	Text  string // for people: one sentence, no final stop
}

// Problems judges the folder from its top files; it reads no blobs and no rows.
// An empty result means complete as far as these tell.
func (b *Backup) Problems(ctx context.Context) ([]Problem, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var out []Problem
	add := func(kind ProblemKind, fatal bool, format string, args ...any) {
		out = append(out, Problem{kind, fatal, fmt.Sprintf(format, args...)})
	}
	snapshot, err := exists(b.folder, snapshotDir)
	if err != nil {
		return nil, fmt.Errorf("judge backup %s: %w", b.dir, err)
	}
	b.judgeStatus(snapshot, add)
	b.judgeManifest(add)
	if err := b.faults[InfoPlist]; err != nil {
		add(ProblemInfoPlist, false, "Info.plist %s", fault(err))
	}
	b.judgeUDID(add)
	if wal, err := b.folder.lstat(ManifestDB + "-wal"); b.plainDB && err == nil && wal.size > 0 {
		add(ProblemWAL, false, "Manifest.db-wal of %d bytes lies beside Manifest.db: some tool opened the manifest, and what it wrote there is kept but not looked at", wal.size)
	}
	return out, nil
}

type addProblem func(kind ProblemKind, fatal bool, format string, args ...any)

func (b *Backup) judgeStatus(snapshot bool, add addProblem) {
	state := clean(b.status.text("SnapshotState"))
	placeholder := errors.Is(b.faults[ManifestPlist], errEmpty) && state == "finished"
	switch err := b.faults[StatusPlist]; {
	case err != nil:
		add(ProblemStatusPlist, true, "Status.plist %s, so nothing says that the last run finished", fault(err))
	case state == "":
		add(ProblemUnfinished, true, "Status.plist does not say whether the last run finished")
	case state != "finished":
		add(ProblemUnfinished, true, "the last run did not finish: Status.plist says %q; %s", state, stateMeaning(state))
	case placeholder:
		add(ProblemPlaceholder, true, "Manifest.plist is empty although Status.plist says finished: a first run was prepared and never finished")
	}
	if snapshot {
		add(ProblemSnapshot, true, "the folder Snapshot exists: a run is under way, or was cut off")
	}
}

// stateMeaning says what a folder holds when its run stopped in this state.
func stateMeaning(state string) string {
	switch state {
	case "uploading":
		return "new files were still arriving"
	case "moving":
		return "new files were being moved over old ones, so the folder is mixed"
	case "removing":
		return "files of the old state were being removed"
	}
	return "this state is not known"
}

func (b *Backup) judgeManifest(add addProblem) {
	if err := b.faults[ManifestPlist]; err != nil {
		add(ProblemManifestPlist, true, "Manifest.plist %s", fault(err))
	}
	name := ManifestDB
	switch b.layout {
	case LayoutUnknown:
		reason := "there is no Manifest.db (nor Manifest.mbdb, as older systems have)"
		if err := b.faults[ManifestDB]; err != nil {
			reason = "Manifest.db " + fault(err)
		}
		add(ProblemManifest, true, "%s", reason)
		return
	case Flat:
		name = ManifestMBDB
	case Hashed:
		if there, err := exists(b.folder, ManifestMBDB); there && err == nil {
			add(ProblemBoth, false, "both Manifest.db and Manifest.mbdb are there; Manifest.db counts")
		}
	}
	size := b.seen[name].size
	if size == 0 {
		add(ProblemManifestDamage, true, "%s is empty", name)
		return
	}
	if b.layout == Flat {
		if string(b.databaseHeader[:min(len(b.databaseHeader), len(mbdbMagic))]) != mbdbMagic {
			add(ProblemManifestDamage, true, "Manifest.mbdb does not begin as it must")
		}
		return
	}
	b.judgeDatabase(size, add)
}

func (b *Backup) judgeDatabase(size int64, add addProblem) {
	if b.faults[ManifestPlist] == nil && !b.saidEncrypted {
		add(ProblemEncryption, false, "Manifest.plist does not say whether the backup is encrypted")
	}
	if b.plainDB {
		if b.encrypted {
			add(ProblemEncryption, false, "the backup is encrypted but its Manifest.db is not: made by iOS 10.0 or 10.1, or decrypted by some tool")
		}
		if need := databaseSize(b.databaseHeader); need > size {
			add(ProblemManifestDamage, true, "Manifest.db is cut off: it has %d bytes of %d", size, need)
		}
		return
	}
	switch {
	case !b.encrypted:
		add(ProblemManifestDamage, true, "Manifest.plist says that the backup is not encrypted, but Manifest.db is no SQLite database")
	case size%16 != 0:
		add(ProblemManifestDamage, true, "Manifest.db is cut off: %d bytes are not a whole number of cipher blocks", size)
	case b.faults[ManifestPlist] == nil && len(b.ManifestKey()) == 0:
		add(ProblemManifestKey, false, "Manifest.plist has no ManifestKey, so no password will open Manifest.db")
	}
}

// databaseSize returns the bytes that an SQLite header claims, or 0 if it makes
// no valid claim (as databases written by very old versions of SQLite).
func databaseSize(head []byte) int64 {
	if len(head) < 100 || binary.BigEndian.Uint32(head[24:]) != binary.BigEndian.Uint32(head[92:]) {
		return 0
	}
	page := int64(binary.BigEndian.Uint16(head[16:]))
	if page == 1 {
		page = 65536
	}
	return page * int64(binary.BigEndian.Uint32(head[28:]))
}

func (b *Backup) judgeUDID(add addProblem) {
	if b.device.FromName {
		add(ProblemUDID, false, "no property list names the device; the name of the folder stands for its UDID")
		return
	}
	for _, id := range b.statedUDIDs() {
		if id.udid != "" && id.udid != b.device.UDID {
			add(ProblemUDID, false, "%s names the device %s, but %s is trusted more", id.where, id.udid, b.device.UDID)
			return
		}
	}
	if b.named != "" && b.named != b.device.UDID {
		add(ProblemUDID, false, "the folder is named after %s, but holds a backup of %s", b.named, b.device.UDID)
	}
}

// fault says in words what was wrong with a property list.
func fault(err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "is missing"
	case errors.Is(err, errEmpty):
		return "is empty"
	case errors.Is(err, errNotRegular), errors.Is(err, errLink):
		return "is not a regular file"
	}
	return fmt.Sprintf("cannot be read (%v)", err)
}
