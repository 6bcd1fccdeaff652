// Package mobilesync reads and judges MobileSync backup folders: what Finder,
// iTunes, Apple Devices and idevicebackup2 write for one iPhone or iPad.
//
// It finds such folders, says whose they are, when they were made and whether
// they are complete, lists and opens their files, reads the manifest's rows and
// compares the two. With the backup password it opens an encrypted backup's
// manifest and file keys; without, such content stays opaque. It knows nothing
// of repositories.
//
// It promises to take any folder, however damaged or hostile: nothing outside
// the folder is opened, no link inside it is followed, no read blocks, and
// memory is bounded by the size of what is read. It never writes: not even the
// side files that opening a database usually leaves behind, so it works on
// read-only file systems.
//
// A Backup is a picture of the moment of Open. Devices update a backup in
// place, so whoever takes it into a store asks Problems first, reads, and asks
// CheckStable last.
package mobilesync

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/snap-backup/snap/device/mobilesync/keybag"
)

var (
	// ErrNoBackup says that a folder is no MobileSync backup and holds none.
	ErrNoBackup = errors.New("no MobileSync backup here")
	// ErrEncrypted says that rows cannot be read without the backup password.
	ErrEncrypted = errors.New("the manifest is encrypted")
	// ErrCorrupt says that a manifest is damaged or not made by a device.
	ErrCorrupt = errors.New("the manifest is damaged")
	// ErrChanged says that the folder changed while it was read.
	ErrChanged = errors.New("the backup changed while it was read")
)

// Names of the files at the top of a backup folder.
const (
	InfoPlist     = "Info.plist"
	ManifestPlist = "Manifest.plist"
	StatusPlist   = "Status.plist"
	ManifestDB    = "Manifest.db"
	ManifestMBDB  = "Manifest.mbdb"
	snapshotDir   = "Snapshot"
	sqliteMagic   = "SQLite format 3\x00"
)

// Layout is how a backup folder arranges its files.
type Layout int

const (
	// LayoutUnknown: the folder has no manifest of rows.
	LayoutUnknown Layout = iota
	// Hashed is iOS 10 and later: Manifest.db, blobs as xx/<40 hex digits>.
	Hashed
	// Flat is iOS 9 and earlier: Manifest.mbdb, blobs beside it.
	Flat
)

func (l Layout) String() string {
	switch l {
	case Hashed:
		return "hashed"
	case Flat:
		return "flat"
	}
	return "unknown"
}

// Backup is one backup folder. Its methods may be called at the same time.
type Backup struct {
	dir    string
	folder source

	layout   Layout
	device   Device
	date     time.Time
	archived bool
	named    string // UDID in the folder's name, or ""

	// What the three property lists said, each empty when missing or unsound.
	info, manifest, status values
	faults                 map[string]error // why a property list said nothing
	seen                   map[string]fingerprint

	encrypted      bool
	saidEncrypted  bool // Manifest.plist has IsEncrypted at all
	plainDB        bool // Manifest.db begins as SQLite does
	databaseHeader []byte

	// What Unlock has opened; nil before.
	keys        *keybag.Keys
	manifestKey *keybag.FileKey
}

var infoKeys = []string{
	"Device Name", "Display Name", "Product Type", "Product Name", "Product Version", "Build Version",
	"Serial Number", "Target Identifier", "Unique Identifier", "Last Backup Date",
}

var manifestKeys = []string{
	"Version", "Date", "IsEncrypted", "WasPasscodeSet", "BackupKeyBag", "ManifestKey",
	"Lockdown/UniqueDeviceID", "Lockdown/DeviceName", "Lockdown/ProductType", "Lockdown/ProductVersion",
	"Lockdown/BuildVersion", "Lockdown/SerialNumber",
}

var statusKeys = []string{"Version", "UUID", "Date", "BackupState", "SnapshotState", "IsFullBackup"}

// Open reads the property lists of the backup folder dir and tells its layout.
// If dir itself is a symbolic link or junction it is resolved; links inside are
// never followed. Missing, damaged and odd property lists are no error here but
// a matter of Problems. ErrNoBackup when dir has none of the files that make a
// backup. The caller closes the Backup.
func Open(ctx context.Context, dir string) (*Backup, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	real, err := filepath.EvalSymlinks(dir)
	if err == nil {
		real, err = filepath.Abs(real)
	}
	if err != nil {
		return nil, fmt.Errorf("open backup: %w", withHint(err))
	}
	folder, err := openFolder(real)
	if err != nil {
		return nil, fmt.Errorf("open backup: %w", withHint(err))
	}
	return openSource(diskFolder{folder}, real, filepath.Base(filepath.Clean(dir)))
}

func openSource(folder source, dir, name string) (*Backup, error) {
	b := &Backup{dir: dir, folder: folder, faults: map[string]error{}, seen: map[string]fingerprint{}}
	if err := b.read(name); err != nil {
		folder.Close()
		return nil, fmt.Errorf("open backup %s: %w", dir, err)
	}
	return b, nil
}

// Close releases the folder and forgets the key of the manifest.
func (b *Backup) Close() error {
	if b.manifestKey != nil {
		clear(b.manifestKey[:])
	}
	b.keys, b.manifestKey = nil, nil
	return b.folder.Close()
}

func (b *Backup) read(name string) error {
	var err error
	found := false
	for _, list := range []struct {
		name   string
		keys   []string
		values *values
	}{{StatusPlist, statusKeys, &b.status}, {ManifestPlist, manifestKeys, &b.manifest}, {InfoPlist, infoKeys, &b.info}} {
		data, st, err := readSmall(b.folder, list.name, MaxPlist)
		*list.values = values{}
		if err == nil {
			found = true
			b.seen[list.name] = fingerprintOf(st, data)
			if len(data) == 0 {
				b.faults[list.name] = errEmpty
				continue
			}
			var got values
			if got, err = readPlist(data, list.keys...); err == nil {
				*list.values = got
				continue
			}
		}
		b.faults[list.name] = err
	}
	b.layout, err = b.detectLayout()
	if err != nil {
		return err
	}
	if !found && b.layout == LayoutUnknown {
		for _, list := range []string{StatusPlist, ManifestPlist, InfoPlist} {
			if errors.Is(b.faults[list], fs.ErrPermission) {
				return withHint(b.faults[list])
			}
		}
		return ErrNoBackup
	}
	b.judgeEncryption()
	b.identify(name)
	return nil
}

func (b *Backup) detectLayout() (Layout, error) {
	for _, try := range []struct {
		name   string
		layout Layout
	}{{ManifestDB, Hashed}, {ManifestMBDB, Flat}} {
		file, st, err := b.folder.open(try.name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case errors.Is(err, fs.ErrPermission):
			return 0, withHint(err)
		case err != nil:
			// A manifest that is no regular file is as good as none.
			b.faults[try.name] = err
			continue
		}
		head := make([]byte, 100) // SQLite's file header
		n, err := io.ReadFull(file, head)
		file.Close()
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return 0, err
		}
		b.databaseHeader = head[:n]
		b.seen[try.name] = fingerprintOf(st, nil)
		return try.layout, nil
	}
	return LayoutUnknown, nil
}

func (b *Backup) judgeEncryption() {
	b.plainDB = b.layout == Hashed && isSQLite(b.databaseHeader)
	b.encrypted, b.saidEncrypted = b.manifest.bool("IsEncrypted")
	if !b.saidEncrypted {
		b.encrypted = b.layout == Hashed && !b.plainDB && len(b.databaseHeader) > 0
	}
}

func isSQLite(head []byte) bool {
	return len(head) >= len(sqliteMagic) && string(head[:len(sqliteMagic)]) == sqliteMagic
}

// Dir returns the absolute path of the folder, links resolved.
func (b *Backup) Dir() string { return b.dir }

// Layout returns how the folder arranges its files.
func (b *Backup) Layout() Layout { return b.layout }

// Encrypted reports whether the device encrypted the files of this backup, by
// Manifest.plist or, when that says nothing, by the look of Manifest.db.
func (b *Backup) Encrypted() bool { return b.encrypted }

// Readable reports whether Records can work now: because Unlock has opened the
// manifest, or because it is in the clear. That can differ from Encrypted: iOS
// 10.0 and 10.1 and all flat backups leave the manifest of an encrypted backup
// in the clear.
func (b *Backup) Readable() bool { return b.layout == Flat || b.plainDB || b.Unlocked() }

// KeyBag returns Manifest.plist's BackupKeyBag, or nil. It is there in
// unencrypted backups too.
func (b *Backup) KeyBag() []byte { return b.manifest.data("BackupKeyBag") }

// ManifestKey returns Manifest.plist's ManifestKey, which wraps the key of
// Manifest.db, or nil.
func (b *Backup) ManifestKey() []byte { return b.manifest.data("ManifestKey") }

// FullBackup returns what Status.plist says in IsFullBackup. Devices set it
// unreliably.
func (b *Backup) FullBackup() bool {
	full, _ := b.status.bool("IsFullBackup")
	return full
}

// StatusUUID returns Status.plist's UUID, which is new at every run, or "".
func (b *Backup) StatusUUID() string { return clean(b.status.text("UUID")) }

// OpenManifest opens Manifest.db or Manifest.mbdb as it is on disk, and returns
// its size in bytes.
func (b *Backup) OpenManifest() (Content, int64, error) {
	name := ManifestDB
	switch b.layout {
	case Flat:
		name = ManifestMBDB
	case LayoutUnknown:
		return nil, 0, fmt.Errorf("open manifest of %s: %w", b.dir, fs.ErrNotExist)
	}
	file, st, err := b.folder.open(name)
	if err != nil {
		return nil, 0, fmt.Errorf("open manifest: %w", err)
	}
	return file, st.size, nil
}
