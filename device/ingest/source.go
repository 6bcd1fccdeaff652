package ingest

import (
	"context"

	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/tree"
)

// Source is what the two origins of a backup, a folder and a device, tell beside
// its files.
type Source interface {
	// Parent returns the snapshot that the backup continues, nil if there is none.
	Parent(ctx context.Context) (*repo.Snapshot, error)
	// Origin describes the source, for the snapshot's record.
	Origin() repo.Source
	// Written returns what was written for this backup before.
	Written() repo.WriteStats
	// Stored returns what the repository already holds of a file; nil if the file
	// must be read. It is called for every file, in the order of the tree.
	Stored(ctx context.Context, f File) (*Stored, error)
}

// File is a file that is about to be stored.
type File struct {
	Entry  *tree.Entry // without content
	Size   int64       // of the blob, in bytes
	Parent *tree.Entry // the same file in the parent, nil if there is none
}

// Stored is a file that need not be read.
type Stored struct {
	// Entry has the file's Mode, ModTime, Stat, Content and Encryption.
	Entry tree.Entry
	// Final says that it was tried before whether the file can be stored
	// decrypted. Otherwise a file that may be is read.
	Final bool
}

// takeStored completes the entry of a file with what the repository holds of it.
// It reports false if the file must be read.
func (j *job) takeStored(ctx context.Context, f *file) (bool, error) {
	e := &f.entry
	s, err := j.src.Stored(ctx, File{Entry: e, Size: f.size, Parent: f.parent})
	if err != nil || s == nil {
		return false, err
	}
	e.Mode, e.ModTime, e.Stat = s.Entry.Mode, s.Entry.ModTime, s.Entry.Stat
	if s.Entry.Encryption == nil && s.Entry.Content.Size > 0 && !s.Final {
		if _, encrypted, _ := j.fileKey(e, f.row); encrypted {
			return false, nil
		}
	}
	e.Content, e.Encryption = s.Entry.Content, s.Entry.Encryption
	if j.b.Unlocked() && f.size > 0 {
		j.countStored(e, f.row)
	}
	return true, nil
}
