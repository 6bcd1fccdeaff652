package mobilesync

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"strconv"
	"strings"

	"github.com/snap-backup/snap/device/mobilesync/folder"
	"github.com/snap-backup/snap/device/mobilesync/manifest"
)

var errEmpty = errors.New("it is empty")

// ProblemKind names a class of Problem; its text is stable for programs.
type ProblemKind string

const (
	// Fatal kinds: the backup is incomplete, mixed or damaged.
	ProblemUnfinished     ProblemKind = "unfinished"      // Status.plist does not say that the backup finished
	ProblemSnapshot       ProblemKind = "snapshot"        // Snapshot/ exists: a backup is running or was interrupted
	ProblemPlaceholder    ProblemKind = "placeholder"     // written before a first backup that never finished
	ProblemStatusPlist    ProblemKind = "status-plist"    // missing, empty or invalid
	ProblemManifestPlist  ProblemKind = "manifest-plist"  // missing, empty or invalid
	ProblemManifest       ProblemKind = "manifest"        // no Manifest.db or Manifest.mbdb
	ProblemManifestDamage ProblemKind = "manifest-damage" // empty, cut off, or neither SQLite nor encrypted

	// The others are warnings.
	ProblemInfoPlist   ProblemKind = "info-plist"      // missing, empty or invalid
	ProblemUDID        ProblemKind = "udid"            // the property lists and the folder name disagree, or have no UDID
	ProblemEncryption  ProblemKind = "encryption"      // Manifest.plist and Manifest.db disagree, or Manifest.plist does not say
	ProblemManifestKey ProblemKind = "manifest-key"    // encrypted, but the key is missing
	ProblemWAL         ProblemKind = "write-ahead-log" // Manifest.db-wal has rows that Records does not read
	ProblemVersion     ProblemKind = "status-version"  // of another version than devices read; fatal if it is too old
	ProblemBoth        ProblemKind = "two-manifests"   // Manifest.db and Manifest.mbdb exist; Manifest.db is used
)

// Problem is one reason to doubt a backup.
type Problem struct {
	Kind  ProblemKind
	Fatal bool   // the backup is not complete
	Text  string // for people: one sentence, without a final stop
}

// Problems checks the files at the top of the folder. It reads no blobs and no
// rows. The backup is complete if no problem is fatal.
func (b *Backup) Problems(ctx context.Context) ([]Problem, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var out []Problem
	add := func(kind ProblemKind, fatal bool, format string, args ...any) {
		out = append(out, Problem{kind, fatal, fmt.Sprintf(format, args...)})
	}
	snapshot, err := folder.Exists(b.source, snapshotDir)
	if err != nil {
		return nil, fmt.Errorf("check backup %s: %w", b.dir, err)
	}
	b.checkStatus(snapshot, add)
	b.checkManifest(add)
	if err := b.readErrors[InfoPlist]; err != nil {
		add(ProblemInfoPlist, false, "Info.plist %s", fault(err))
	}
	b.checkUDID(add)
	if wal := b.walSize(); wal > 0 {
		add(ProblemWAL, false, "there is a Manifest.db-wal of %d bytes: a program has opened the manifest; snap stores this file but does not read it", wal)
	}
	return out, nil
}

// plainByDevice reports whether the device wrote an unencrypted Manifest.db in an
// encrypted backup. iOS 10.0 and 10.1 did, and wrote no ManifestKey.
func (b *Backup) plainByDevice() bool {
	if !b.encrypted || !b.plainDB || len(b.ManifestKey()) > 0 {
		return false
	}
	v := b.device.ProductVersion
	return v == "" || v == "10.0" || v == "10.1" || strings.HasPrefix(v, "10.0.") || strings.HasPrefix(v, "10.1.")
}

type addProblem func(kind ProblemKind, fatal bool, format string, args ...any)

func (b *Backup) checkStatus(snapshot bool, add addProblem) {
	state := clean(b.status.Text("SnapshotState"))
	placeholder := errors.Is(b.readErrors[ManifestPlist], errEmpty) && state == "finished"
	switch err := b.readErrors[StatusPlist]; {
	case err != nil:
		add(ProblemStatusPlist, true, "Status.plist %s, so it is unknown whether the last backup finished", fault(err))
	case state == "":
		add(ProblemUnfinished, true, "Status.plist does not say whether the last backup finished")
	case state != "finished":
		add(ProblemUnfinished, true, "the last backup did not finish: Status.plist says %q; %s", state, stateMeaning(state))
	case placeholder:
		add(ProblemPlaceholder, true, "Manifest.plist is empty although Status.plist says finished: a first backup was prepared and never finished")
	}
	if b.readErrors[StatusPlist] == nil {
		if text, refused := StatusVersion(b.status.Text("Version")); text != "" {
			add(ProblemVersion, refused, "%s", text)
		}
	}
	if snapshot {
		add(ProblemSnapshot, true, "the folder Snapshot exists: a backup is running or was interrupted")
	}
}

// StatusVersion says what is unusual about the Version of a Status.plist; "" if nothing is.
// Devices read versions 2.4 up to 4.0. refused says that no device reads this version. A
// newer version is not refused, since a newer iOS may read it.
func StatusVersion(version string) (text string, refused bool) {
	v, err := strconv.ParseFloat(version, 64)
	switch {
	case version == "":
		return "Status.plist does not say its version", false
	case err != nil || math.IsNaN(v) || v < 2.4:
		return fmt.Sprintf("Status.plist has version %q, which no device reads", clean(version)), true
	case v >= 4:
		return fmt.Sprintf("Status.plist has version %q, which is newer than the devices that snap knows", clean(version)), false
	}
	return "", false
}

// stateMeaning describes a folder whose backup stopped in this state.
func stateMeaning(state string) string {
	switch state {
	case "uploading":
		return "new files were still arriving"
	case "moving":
		return "new files were replacing old ones, so the folder is a mixture of both"
	case "removing":
		return "files of the previous backup were being removed"
	}
	return "snap does not know this state"
}

func (b *Backup) checkManifest(add addProblem) {
	if err := b.readErrors[ManifestPlist]; err != nil {
		add(ProblemManifestPlist, true, "Manifest.plist %s", fault(err))
	}
	name := ManifestDB
	switch b.layout {
	case LayoutUnknown:
		reason := "there is no Manifest.db (and no Manifest.mbdb, which older versions of iOS write)"
		if err := b.readErrors[ManifestDB]; err != nil {
			reason = "Manifest.db " + fault(err)
		}
		add(ProblemManifest, true, "%s", reason)
		return
	case Flat:
		name = ManifestMBDB
	case Hashed:
		if exists, err := folder.Exists(b.source, ManifestMBDB); exists && err == nil {
			add(ProblemBoth, false, "there is a Manifest.db and a Manifest.mbdb; snap uses Manifest.db")
		}
	}
	size := b.seen[name].Size
	if size == 0 {
		add(ProblemManifestDamage, true, "%s is empty", name)
		return
	}
	if b.layout == Flat {
		if !manifest.IsMBDB(b.manifestHeader) {
			add(ProblemManifestDamage, true, "Manifest.mbdb is damaged: it has the wrong first bytes")
		}
		return
	}
	b.checkDatabase(size, add)
}

func (b *Backup) checkDatabase(size int64, add addProblem) {
	if b.readErrors[ManifestPlist] == nil && !b.statesEncryption {
		add(ProblemEncryption, false, "Manifest.plist does not say whether the backup is encrypted")
	}
	if b.plainDB {
		switch {
		case !b.encrypted, b.decryptedDB, b.plainByDevice():
		case len(b.ManifestKey()) > 0:
			add(ProblemEncryption, false, "the backup is encrypted but its Manifest.db is not: a program has decrypted it")
		default:
			add(ProblemEncryption, false, "the backup is encrypted but its Manifest.db is not, and Manifest.plist has no key for it: a program has changed both")
		}
		if need := manifest.DatabaseSize(b.manifestHeader); need > size {
			add(ProblemManifestDamage, true, "Manifest.db is cut off: it has %d bytes of %d", size, need)
		}
		return
	}
	switch {
	case !b.encrypted:
		add(ProblemManifestDamage, true, "Manifest.plist says that the backup is not encrypted, but Manifest.db is not an SQLite database")
	case size%16 != 0:
		add(ProblemManifestDamage, true, "Manifest.db is cut off: its length of %d bytes is not a multiple of 16", size)
	case b.readErrors[ManifestPlist] == nil && len(b.ManifestKey()) == 0:
		add(ProblemManifestKey, false, "Manifest.plist has no ManifestKey, so no password can decrypt Manifest.db")
	}
}

func (b *Backup) checkUDID(add addProblem) {
	if b.device.FromName {
		add(ProblemUDID, false, "no property list names the device; snap uses the name of the folder as its UDID")
		return
	}
	for _, id := range b.statedUDIDs() {
		if id.udid != "" && id.udid != b.device.UDID {
			add(ProblemUDID, false, "%s names the device %s; snap uses %s from another file", id.where, id.udid, b.device.UDID)
			return
		}
	}
	if b.named != "" && b.named != b.device.UDID {
		add(ProblemUDID, false, "the folder is named %s, but contains a backup of %s", b.named, b.device.UDID)
	}
}

// fault describes why a property list was not read.
func fault(err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "is missing"
	case errors.Is(err, errEmpty):
		return "is empty"
	case errors.Is(err, folder.ErrNotRegular), errors.Is(err, folder.ErrLink):
		return "is not a regular file"
	}
	return fmt.Sprintf("cannot be read (%v)", err)
}
