// Package stored opens a snapshot as a backup: its property lists, the rows of its
// manifest, and each file with its row.
//
// The manifest of a snapshot that was stored decrypted can be read without the
// backup password. Only the rows are held in memory, not the entries. The package
// never writes, neither to the repository nor elsewhere.
package stored

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"

	"github.com/snap-backup/snap/device/blob"
	"github.com/snap-backup/snap/device/finding"
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/folder"
	"github.com/snap-backup/snap/device/mobilesync/manifest"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/tree"
)

// Backup is a snapshot opened as a backup. OpenFile opens only the files at the top of the
// backup folder; Walk gives the others.
type Backup struct {
	*mobilesync.Backup
	Snapshot *repo.Snapshot
	r        *repo.Repo
	top      *topFiles
}

// Open opens a snapshot. The repository's index must have been loaded. The error is
// mobilesync.ErrNoBackup if the snapshot has none of the files of a backup, and
// repo.ErrDamaged if the repository has lost one of them, so that this does not count as a
// fault of the backup. The caller must close the Backup, and can unlock it with the backup
// password.
func Open(ctx context.Context, r *repo.Repo, s *repo.Snapshot) (*Backup, error) {
	db, err := r.Find(ctx, s, tree.Key{Path: mobilesync.ManifestDB})
	if err != nil {
		return nil, fmt.Errorf("open snapshot %s as a backup: %w", s.ID.Short(), err)
	}
	open := mobilesync.OpenStore
	if db != nil && db.Encryption != nil {
		open = mobilesync.OpenDecrypted
	}
	name := s.Device.UDID
	if name == "" {
		name = s.Source.Folder
	}
	top := &topFiles{ctx: ctx, r: r, s: s}
	b, err := open(ctx, top, name)
	if failed := cmp.Or(top.failure(), top.damage); failed != nil {
		if err == nil {
			b.Close()
		}
		err = failed
	}
	if err != nil {
		return nil, fmt.Errorf("open snapshot %s as a backup: %w", s.ID.Short(), err)
	}
	return &Backup{Backup: b, Snapshot: s, r: r, top: top}, nil
}

// Err returns the first failure to read from the repository, other than damage.
// Problems counts a property list that could not be read as a fault of the backup.
func (b *Backup) Err() error { return b.top.failure() }

// File is an entry of the snapshot, with its row.
type File struct {
	Entry *tree.Entry
	Row   int // number of the row in the manifest; -1 if the entry has none
}

// Walk calls fn for all entries in the order of the tree. records may be nil.
func (b *Backup) Walk(ctx context.Context, records *manifest.Records, fn func(File) error) error {
	return b.r.Walk(ctx, b.Snapshot, "", func(e *tree.Entry) error { return fn(b.File(e, records)) })
}

// File finds the row of an entry.
func (b *Backup) File(e *tree.Entry, records *manifest.Records) File {
	f := File{e, -1}
	if records == nil || e.Kind != tree.File {
		return f
	}
	if id, ok := blob.ParsePath(e.Path, b.Layout() == mobilesync.Flat); ok {
		if row, ok := records.ByFileID(id); ok {
			f.Row = row
		}
	}
	return f
}

// State says what the repository holds of a file.
type State int

// The states.
const (
	// Plain: the content is that of the device.
	Plain State = iota
	// Decrypted: the content is that of the device. In the backup folder the file is
	// encrypted.
	Decrypted
	// Encrypted: the content is encrypted by the device.
	Encrypted
)

// State returns the state of the file e. rec is its row, or nil if it has no row or the
// rows cannot be read. Empty content counts as plain unless it was decrypted.
func (b *Backup) State(e *tree.Entry, rec *manifest.Record) State {
	switch {
	case e.Encryption != nil:
		return Decrypted
	case e.Content.Size == 0 || !b.Encrypted():
		return Plain
	case rec == nil && e.Path == mobilesync.ManifestDB:
		if _, encrypted := b.ManifestDBKey(); encrypted || !b.Readable() {
			return Encrypted
		}
	case rec == nil && !b.Readable() && b.isBlob(e.Path):
		return Encrypted
	case rec != nil && rec.Size == e.Content.Size && finding.Has(b.Snapshot.Findings, finding.Decrypted):
		return Plain
	case rec != nil && (rec.EncryptionKey != nil || !rec.HasMeta):
		return Encrypted // without HasMeta: iOS 10.0 and 10.1 encrypt the descriptions of rows
	}
	return Plain
}

func (b *Backup) isBlob(path string) bool {
	_, ok := blob.ParsePath(path, b.Layout() == mobilesync.Flat)
	return ok
}

// topFiles is a folder.Store of the files at the top of a snapshot. It gives their
// content as the repository holds it, so Manifest.db may be decrypted.
type topFiles struct {
	ctx context.Context
	r   *repo.Repo
	s   *repo.Snapshot

	mu     sync.Mutex
	err    error // first failure to read, other than damage
	damage error // first file that the repository has lost
}

func (t *topFiles) failure() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

// keep remembers an error of the repository, and returns it.
func (t *topFiles) keep(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	first := &t.err
	if errors.Is(err, repo.ErrDamaged) {
		first = &t.damage
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if *first == nil {
		*first = err
	}
	return err
}

// content is a file that remembers failures.
type content struct {
	*blob.File
	t *topFiles
}

func (c content) Read(p []byte) (int, error) {
	n, err := c.File.Read(p)
	return n, c.t.keep(err)
}

func (c content) ReadAt(p []byte, off int64) (int, error) {
	n, err := c.File.ReadAt(p, off)
	return n, c.t.keep(err)
}

func (t *topFiles) find(path string) (*tree.Entry, error) {
	e, err := t.r.Find(t.ctx, t.s, tree.Key{Path: path})
	err = t.keep(err)
	if err == nil && e == nil {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return e, nil
}

// Open implements folder.Store.
func (t *topFiles) Open(path string) (folder.Content, error) {
	e, err := t.find(path)
	if err != nil {
		return nil, err
	}
	if e.Kind != tree.File {
		return nil, fmt.Errorf("%s: %w", path, folder.ErrNotRegular)
	}
	if e.Encryption != nil && path != mobilesync.ManifestDB {
		return nil, fmt.Errorf("%s is encrypted: %w", path, errors.ErrUnsupported)
	}
	f, err := blob.OpenContent(t.ctx, t.r, &e.Content, e.ModTime.Time())
	if err != nil {
		return nil, t.keep(err)
	}
	return content{f, t}, nil
}

// Stat implements folder.Store.
func (t *topFiles) Stat(path string) (folder.File, error) {
	e, err := t.find(path)
	if err != nil {
		return folder.File{}, err
	}
	return FileInfo(e), nil
}

// List implements folder.Store. It is not needed, since Walk lists files.
func (t *topFiles) List(path string) ([]folder.File, error) {
	return nil, fmt.Errorf("list %q of snapshot %s: %w", path, t.s.ID.Short(), errors.ErrUnsupported)
}

// FileInfo describes an entry as a file of the backup folder.
func FileInfo(e *tree.Entry) folder.File {
	f := folder.File{Path: e.Path, Dir: e.Kind == tree.Dir, Mode: fs.FileMode(e.Mode).Perm(), Size: blob.Size(e), ModTime: e.ModTime.Time()}
	if f.Dir {
		f.Mode |= fs.ModeDir
	}
	return f
}
