// Package look looks into snapshots: it lists their files by pattern, finds the versions
// of files over many snapshots, and opens one file at any offset, as it is on the device.
//
// It does not matter how a backup was stored. Files of encrypted backups come out
// decrypted; for snapshots that were stored locked, the caller unlocks the keybag with
// the backup password. The package reads only the parts of a snapshot that it needs, and
// never writes.
package look

import (
	"cmp"
	"context"
	"crypto/sha1" // names of blobs are SHA-1
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/snap-backup/snap/device/blob"
	"github.com/snap-backup/snap/device/finding"
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/keybag"
	"github.com/snap-backup/snap/device/mobilesync/manifest"
	"github.com/snap-backup/snap/device/stored"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/tree"
)

// Errors that callers may want to handle; test for them with errors.Is.
var (
	// ErrNoFile says that a snapshot has no file of a name.
	ErrNoFile = errors.New("no such file")
	// ErrLocked says that a snapshot was stored locked and its backup password is not
	// known, so that neither names nor content can be read.
	ErrLocked = errors.New("the snapshot was stored locked")
	// ErrNotDecrypted says that a file is stored as the device encrypted it, and that no
	// known key decrypts it.
	ErrNotDecrypted = errors.New("the file is stored as the device encrypted it, and cannot be decrypted")
)

// Unlock unlocks a backup with its password, if that is known; otherwise it returns nil
// and leaves the backup locked.
type Unlock func(ctx context.Context, b *mobilesync.Backup) error

// Reader is a snapshot to look into. Several goroutines may use it.
type Reader struct {
	Snapshot *repo.Snapshot
	repo     *repo.Repo
	unlock   Unlock

	mu      sync.Mutex
	opened  bool // backup and records were tried
	backup  *stored.Backup
	records *manifest.Records // nil if there are none
	failed  error
}

// Open returns a reader of a snapshot; it reads nothing yet. The repository's index must
// have been loaded. unlock may be nil; it is called at most once, and only for what
// cannot be read without the backup password. The caller closes the Reader.
func Open(r *repo.Repo, s *repo.Snapshot, unlock Unlock) *Reader {
	return &Reader{Snapshot: s, repo: r, unlock: unlock}
}

// Close forgets keys.
func (rd *Reader) Close() error {
	rd.mu.Lock()
	defer rd.mu.Unlock()
	if rd.backup == nil {
		return nil
	}
	b := rd.backup
	rd.backup, rd.records, rd.failed = nil, nil, errors.New("the reader is closed")
	return b.Close()
}

// Locked reports whether a snapshot was stored locked: its entries have no names, and
// its content is encrypted.
func Locked(s *repo.Snapshot) bool {
	// A program may have decrypted the backup in place before it was stored.
	return s.Encrypted && !s.Unlocked && !finding.Has(s.Findings, finding.Decrypted)
}

// rows opens the snapshot as a backup and reads the rows of its manifest. Most snapshots
// can be read without. records is nil if the backup is still locked or has no rows.
func (rd *Reader) rows(ctx context.Context) (*stored.Backup, *manifest.Records, error) {
	rd.mu.Lock()
	defer rd.mu.Unlock()
	if !rd.opened {
		rd.backup, rd.records, rd.failed = rd.readRows(ctx)
		rd.opened = ctx.Err() == nil
	}
	return rd.backup, rd.records, rd.failed
}

func (rd *Reader) readRows(ctx context.Context) (*stored.Backup, *manifest.Records, error) {
	b, err := stored.Open(ctx, rd.repo, rd.Snapshot)
	if err != nil {
		return nil, nil, err
	}
	if rd.unlock != nil && b.Encrypted() {
		err = rd.unlock(ctx, b.Backup)
	}
	var records *manifest.Records
	if err == nil && b.Readable() {
		records, err = b.Records(ctx)
	}
	// A fault of the repository counts more than what follows from it.
	if err = cmp.Or(b.Err(), err); err != nil {
		b.Close()
		return nil, nil, err
	}
	return b, records, nil
}

// File is a file of a snapshot.
type File struct {
	Domain, Name string     // on the device; empty if the file belongs to no domain
	Path         string     // in the backup folder
	Size         int64      // bytes on the device; a few too many if it is not known
	ModTime      time.Time  // on the device if that is known, otherwise in the backup folder
	Entry        tree.Entry // in the snapshot
	rd           *Reader
}

// FullName returns DOMAIN/NAME or, without a domain, the path in the backup folder.
func (f *File) FullName() string { return fullName(f.Domain, f.Name, f.Path) }

func fullName(domain, name, path string) string {
	if domain == "" {
		return path
	}
	return domain + "/" + name
}

// named returns the file of an entry that has its names.
func (rd *Reader) named(e *tree.Entry) File {
	return File{Domain: e.Domain, Name: e.Name, Path: e.Path, Size: e.Content.Size, ModTime: modTime(e), Entry: *e, rd: rd}
}

func modTime(e *tree.Entry) time.Time {
	if e.Record != nil {
		return time.Unix(e.Record.ModTime, 0)
	}
	return e.ModTime.Time()
}

// Files returns the files that match any of the patterns, in the order of their domains
// and names; nil patterns match all files. If the repository has lost a part of the file
// list, there is an error for that part, and the rest follows if the caller goes on.
func (rd *Reader) Files(ctx context.Context, p *Patterns) iter.Seq2[File, error] {
	if Locked(rd.Snapshot) {
		return rd.lockedFiles(ctx, p)
	}
	return func(yield func(File, error) bool) {
		w := walker{load: rd.repo.Chunk, patterns: p}
		w.leaf = func(leaf *tree.Node) error {
			for i := range leaf.Entries {
				if e := &leaf.Entries[i]; e.Kind == tree.File && p.Match(e.Domain, e.Name, e.Path) && !yield(rd.named(e), nil) {
					return errStop
				}
			}
			return nil
		}
		w.lost = func(err error) error {
			if !yield(File{}, err) {
				return errStop
			}
			return nil
		}
		if err := w.walk(ctx, rd.Snapshot.Root, -1, nil); err != nil && !errors.Is(err, errStop) {
			yield(File{}, err)
		}
	}
}

// errStop ends a walk.
var errStop = errors.New("stop")

// lockedFiles is Files for a snapshot that was stored locked. The entries of its tree are
// in the order of their hashes, so it collects the files before it returns the first.
func (rd *Reader) lockedFiles(ctx context.Context, p *Patterns) iter.Seq2[File, error] {
	return func(yield func(File, error) bool) {
		b, records, err := rd.rows(ctx)
		if err == nil && records == nil {
			err = fmt.Errorf("snapshot %s: %w", rd.Snapshot.ID.Short(), ErrLocked)
		}
		if err != nil {
			yield(File{}, err)
			return
		}
		var files []File
		var lost []error
		err = rd.repo.WalkAll(ctx, rd.Snapshot, func(e *tree.Entry) error {
			if e.Kind == tree.File {
				if f := rd.withRow(e, b, records); p.Match(f.Domain, f.Name, f.Path) {
					files = append(files, f)
				}
			}
			return nil
		}, func(err error) error { lost = append(lost, err); return nil })
		if err != nil {
			lost = append(lost, err)
		}
		slices.SortFunc(files, func(a, b File) int { return a.key().Compare(b.key()) })
		for _, err := range lost {
			if !yield(File{}, err) {
				return
			}
		}
		for _, f := range files {
			if !yield(f, nil) {
				return
			}
		}
	}
}

func (f *File) key() tree.Key { return tree.Key{Domain: f.Domain, Name: f.Name, Path: f.Path} }

// withRow returns the file of an entry, with the names that the manifest has for it.
func (rd *Reader) withRow(e *tree.Entry, b *stored.Backup, records *manifest.Records) File {
	f := rd.named(e)
	if at := b.File(e, records); at.Row >= 0 {
		rec := records.At(at.Row)
		f.Domain, f.Name = rec.Domain, rec.RelativePath
		if rec.HasMeta {
			f.ModTime = time.Unix(rec.ModTime, 0)
		}
		if keybag.EncryptedSize(rec.Size) == e.Content.Size {
			f.Size = rec.Size
		}
	}
	return f
}

// File returns the file that a text names: DOMAIN/NAME, the path in the backup folder, or
// the 40 digits that name its blob. The error is ErrNoFile if there is none, and ErrLocked
// if only the backup password could tell.
func (rd *Reader) File(ctx context.Context, text string) (File, error) {
	f, err := rd.find(ctx, text)
	if err != nil {
		return File{}, fmt.Errorf("%q in snapshot %s: %w", text, rd.Snapshot.ID.Short(), err)
	}
	return f, nil
}

func (rd *Reader) find(ctx context.Context, text string) (File, error) {
	domain, name, inside := strings.Cut(text, "/")
	if domain == "" {
		return File{}, ErrNoFile
	}
	if ids := paths(text); len(ids) > 1 || isBlobPath(text) || !inside {
		if f, err := rd.findKeys(ctx, "", "", ids...); !errors.Is(err, ErrNoFile) {
			return f, err
		}
		return rd.first(ctx, onPaths(ids))
	}
	sum := blob.ID(sha1.Sum([]byte(domain + "-" + name)))
	byID := []string{sum.Path(false), sum.Path(true)}
	f, err := rd.findKeys(ctx, domain, name, byID...)
	if errors.Is(err, ErrNoFile) {
		f, err = rd.findKeys(ctx, "", "", text)
	}
	if errors.Is(err, ErrNoFile) && Locked(rd.Snapshot) {
		return rd.findLocked(ctx, byID)
	}
	if errors.Is(err, ErrNoFile) {
		return rd.first(ctx, Exactly(domain, name)) // the name of its blob is not that of others
	}
	return f, err
}

// findKeys finds the file with one of these keys.
func (rd *Reader) findKeys(ctx context.Context, domain, name string, paths ...string) (File, error) {
	for _, path := range paths {
		e, err := rd.repo.Find(ctx, rd.Snapshot, tree.Key{Domain: domain, Name: name, Path: path})
		if err != nil {
			return File{}, err
		}
		if e != nil && e.Kind == tree.File {
			return rd.named(e), nil
		}
	}
	return File{}, ErrNoFile
}

// first returns the first file that matches.
func (rd *Reader) first(ctx context.Context, p *Patterns) (File, error) {
	for f, err := range rd.Files(ctx, p) {
		return f, err
	}
	return File{}, ErrNoFile
}

// findLocked finds a blob in a snapshot that was stored locked, if the manifest lists it.
func (rd *Reader) findLocked(ctx context.Context, paths []string) (File, error) {
	b, records, err := rd.rows(ctx)
	if err == nil && records == nil {
		err = ErrLocked
	}
	if err != nil {
		return File{}, err
	}
	f, err := rd.findKeys(ctx, "", "", paths...)
	if err == nil {
		f = rd.withRow(&f.Entry, b, records)
	}
	return f, err
}

// paths returns the paths in the backup folder that a text can mean: itself and, if it is
// the name of a blob, that of the blob.
func paths(text string) []string {
	var id blob.ID
	if raw, err := hex.DecodeString(text); err == nil && len(raw) == len(id) {
		copy(id[:], raw)
		return []string{id.Path(false), id.Path(true)}
	}
	return []string{text}
}

func isBlobPath(path string) bool {
	_, hashed := blob.ParsePath(path, false)
	_, flat := blob.ParsePath(path, true)
	return hashed || flat
}
