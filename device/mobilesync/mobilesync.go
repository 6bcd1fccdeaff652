// Package mobilesync reads MobileSync backup folders: what Finder, iTunes, Apple
// Devices and idevicebackup2 write for one iPhone or iPad.
//
// It finds such folders, identifies device and date, reports whether they are
// complete, lists and opens their files, reads the rows of the manifest, and
// compares rows and files. With the backup password it decrypts the manifest and
// unwraps file keys. It knows nothing of repositories.
//
// It accepts any folder, however damaged or hostile: it opens nothing outside
// the folder, follows no link inside it, never blocks on a read, and bounds
// memory by the size of what it reads. It never writes, so it works on read-only
// file systems.
//
// A Backup describes the folder at the time of Open. Devices update a backup in
// place, so code that imports one calls Problems first and CheckStable last.
package mobilesync

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"path/filepath"
	"time"

	"github.com/snap-backup/snap/device/mobilesync/folder"
	"github.com/snap-backup/snap/device/mobilesync/keybag"
	"github.com/snap-backup/snap/device/mobilesync/manifest"
	"github.com/snap-backup/snap/device/protocol/plist"
)

var (
	// ErrNoBackup says that a folder is not a MobileSync backup and contains none.
	ErrNoBackup = errors.New("no MobileSync backup here")
	// ErrEncrypted says that rows cannot be read without the backup password.
	ErrEncrypted = errors.New("the manifest is encrypted")
)

// Names of the files at the top of a backup folder.
const (
	InfoPlist     = "Info.plist"
	ManifestPlist = "Manifest.plist"
	StatusPlist   = "Status.plist"
	ManifestDB    = "Manifest.db"
	ManifestMBDB  = "Manifest.mbdb"
	snapshotDir   = "Snapshot"
)

// MaxPlist limits the size of a property list that is read, in bytes. Real ones
// have 189 bytes (Status.plist) to about 10 MB (Info.plist with many icons).
const MaxPlist = 64 << 20

// Layout is how a backup folder arranges its files.
type Layout int

const (
	// LayoutUnknown: the folder has no manifest.
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

// Backup is one backup folder. Its methods may be called concurrently.
type Backup struct {
	dir    string
	source folder.Source

	layout   Layout
	device   Device
	dates    []time.Time
	archived bool
	named    string // UDID in the folder's name, or ""

	// Values of the three property lists, empty if the list is missing or
	// invalid.
	info, manifest, status plist.Values
	readErrors             map[string]error // by file name
	seen                   map[string]fingerprint

	encrypted        bool
	decryptedDB      bool // OpenDecrypted: Manifest.db is encrypted in the backup, but not in the Store
	statesEncryption bool // Manifest.plist has IsEncrypted
	plainDB          bool // Manifest.db is not encrypted
	manifestHeader   []byte

	// Set by Unlock.
	unlockErr   error
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

// Open reads the property lists of the backup folder dir. If dir itself is a
// symbolic link or junction, Open resolves it; links inside are never followed.
// Missing and damaged property lists are not an error; Problems reports them.
// The error is ErrNoBackup if dir has none of the files of a backup. The caller
// closes the Backup.
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
	source, err := folder.Open(real)
	if err != nil {
		return nil, fmt.Errorf("open backup: %w", withHint(err))
	}
	return openSource(source, real, filepath.Base(filepath.Clean(dir)), false)
}

// OpenStore is like Open for a backup in a Store. name is the name that its
// folder would have: the UDID. Closing the Backup does not close store.
func OpenStore(ctx context.Context, store folder.Store, name string) (*Backup, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return openSource(folder.FromStore(store), name, name, false)
}

// OpenDecrypted is like OpenStore for a store that decrypts Manifest.db. Records
// then works without Unlock.
func OpenDecrypted(ctx context.Context, store folder.Store, name string) (*Backup, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return openSource(folder.FromStore(store), name, name, true)
}

func openSource(source folder.Source, dir, name string, decryptedDB bool) (*Backup, error) {
	b := &Backup{dir: dir, source: source, decryptedDB: decryptedDB, readErrors: map[string]error{}, seen: map[string]fingerprint{}}
	if err := b.read(name); err != nil {
		source.Close()
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
	return b.source.Close()
}

func (b *Backup) read(name string) error {
	var err error
	found := false
	for _, list := range []struct {
		name   string
		keys   []string
		values *plist.Values
	}{{StatusPlist, statusKeys, &b.status}, {ManifestPlist, manifestKeys, &b.manifest}, {InfoPlist, infoKeys, &b.info}} {
		data, st, err := folder.ReadSmall(b.source, list.name, MaxPlist)
		*list.values = plist.Values{}
		if err == nil {
			found = true
			b.seen[list.name] = fingerprintOf(st, data)
			if len(data) == 0 {
				b.readErrors[list.name] = errEmpty
				continue
			}
			var got plist.Values
			if got, err = plist.Select(data, list.keys...); err == nil {
				*list.values = got
				continue
			}
		}
		b.readErrors[list.name] = err
	}
	b.layout, err = b.detectLayout()
	if err != nil {
		return err
	}
	if !found && b.layout == LayoutUnknown {
		for _, list := range []string{StatusPlist, ManifestPlist, InfoPlist} {
			if errors.Is(b.readErrors[list], fs.ErrPermission) {
				return withHint(b.readErrors[list])
			}
		}
		return ErrNoBackup
	}
	b.detectEncryption()
	b.identify(name)
	return nil
}

func (b *Backup) detectLayout() (Layout, error) {
	for _, try := range []struct {
		name   string
		layout Layout
	}{{ManifestDB, Hashed}, {ManifestMBDB, Flat}} {
		file, st, err := b.source.Open(try.name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case errors.Is(err, fs.ErrPermission):
			return 0, withHint(err)
		case err != nil:
			// Problems reports a manifest that is not a regular file.
			b.readErrors[try.name] = err
			continue
		}
		head := make([]byte, manifest.HeaderLen)
		n, err := io.ReadFull(file, head)
		file.Close()
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return 0, err
		}
		b.manifestHeader = head[:n]
		b.seen[try.name] = fingerprintOf(st, nil)
		return try.layout, nil
	}
	return LayoutUnknown, nil
}

func (b *Backup) detectEncryption() {
	b.plainDB = b.layout == Hashed && manifest.IsSQLite(b.manifestHeader)
	b.encrypted, b.statesEncryption = b.manifest.Bool("IsEncrypted")
	if !b.statesEncryption {
		b.encrypted = b.layout == Hashed && !b.plainDB && len(b.manifestHeader) > 0
	}
}

// Dir returns the absolute path of the folder, with links resolved.
func (b *Backup) Dir() string { return b.dir }

// Layout returns how the folder arranges its files.
func (b *Backup) Layout() Layout { return b.layout }

// Encrypted reports whether the device encrypted the files of this backup. If
// Manifest.plist does not say so, the first bytes of Manifest.db decide.
func (b *Backup) Encrypted() bool { return b.encrypted }

// Readable reports whether Records can read the manifest: because it is not
// encrypted, or because the Backup is unlocked. Encrypted backups of iOS 10.0
// and 10.1 and all flat ones have an unencrypted manifest.
func (b *Backup) Readable() bool { return b.layout == Flat || b.plainDB || b.Unlocked() }

// KeyBag returns the value BackupKeyBag of Manifest.plist, or nil. Unencrypted
// backups have a keybag, too.
func (b *Backup) KeyBag() []byte { return b.manifest.Data("BackupKeyBag") }

// ManifestKey returns the value ManifestKey of Manifest.plist, or nil. It is the
// wrapped key of Manifest.db.
func (b *Backup) ManifestKey() []byte { return b.manifest.Data("ManifestKey") }

// FullBackup returns IsFullBackup of Status.plist, which devices set unreliably.
func (b *Backup) FullBackup() bool {
	full, _ := b.status.Bool("IsFullBackup")
	return full
}

// StatusUUID returns Status.plist's UUID, or "". Every backup sets a new one.
func (b *Backup) StatusUUID() string { return clean(b.status.Text("UUID")) }

// Files returns everything below the backup folder: see folder.Walk.
func (b *Backup) Files(ctx context.Context) iter.Seq2[folder.File, error] {
	return b.ReadableFiles(ctx, func(_ string, err error) error { return err })
}

// ReadableFiles returns everything below the backup folder that can be read, and calls
// skip for the rest: see folder.Walk.
func (b *Backup) ReadableFiles(ctx context.Context, skip func(path string, err error) error) iter.Seq2[folder.File, error] {
	return func(yield func(folder.File, error) bool) {
		for f, err := range folder.Walk(ctx, b.source, skip) {
			if err != nil {
				err = fmt.Errorf("list files of %s: %w", b.dir, err)
			}
			if !yield(f, err) {
				return
			}
		}
	}
}

// OpenFile opens a regular file inside the backup folder. path is relative and
// slash-separated, as in folder.File. OpenFile fails for anything but a regular
// file, passes no symbolic link, and does not block.
func (b *Backup) OpenFile(path string) (folder.Content, error) {
	if err := folder.CheckPath(path); err != nil {
		return nil, fmt.Errorf("open file of %s: %w", b.dir, err)
	}
	f, _, err := b.source.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open file of backup: %w", err)
	}
	return f, nil
}

// Records reads all rows of the manifest. The error is ErrEncrypted if the
// manifest is encrypted and not unlocked, and manifest.ErrCorrupt if the
// manifest is damaged.
func (b *Backup) Records(ctx context.Context) (*manifest.Records, error) {
	records, err := b.records(ctx)
	if wal := b.walSize(); errors.Is(err, manifest.ErrCorrupt) && wal > 0 {
		err = fmt.Errorf("%w; a program has opened Manifest.db and left %d bytes of it in Manifest.db-wal, which snap does not read: "+
			`back up the device again, or copy the folder and run "sqlite3 Manifest.db 'PRAGMA wal_checkpoint(TRUNCATE)'" in the copy`, err, wal)
	}
	return records, err
}

// walSize returns the size of Manifest.db-wal in bytes, 0 if it does not matter. A
// program leaves that file if it opens an unencrypted Manifest.db.
func (b *Backup) walSize() int64 {
	wal, err := b.source.Lstat(ManifestDB + "-wal")
	if !b.plainDB || err != nil {
		return 0
	}
	return wal.Size
}

func (b *Backup) records(ctx context.Context) (*manifest.Records, error) {
	file, size, err := b.OpenManifest()
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if b.layout == Flat {
		return manifest.ReadMBDB(ctx, file, size)
	}
	if b.manifestKey != nil {
		plain, n, err := decryptManifest(file, size, *b.manifestKey)
		if err != nil {
			return nil, fmt.Errorf("read manifest of %s: %w", b.dir, err)
		}
		return manifest.ReadDB(ctx, plain, n)
	}
	if !b.plainDB && b.encrypted {
		return nil, fmt.Errorf("read manifest of %s: %w", b.dir, ErrEncrypted)
	}
	return manifest.ReadDB(ctx, file, size)
}

// OpenManifest opens Manifest.db or Manifest.mbdb without decrypting it, and
// returns its size in bytes.
func (b *Backup) OpenManifest() (folder.Content, int64, error) {
	name := ManifestDB
	switch b.layout {
	case Flat:
		name = ManifestMBDB
	case LayoutUnknown:
		return nil, 0, fmt.Errorf("open manifest of %s: %w", b.dir, fs.ErrNotExist)
	}
	file, st, err := b.source.Open(name)
	if err != nil {
		return nil, 0, fmt.Errorf("open manifest: %w", err)
	}
	return file, st.Size, nil
}
