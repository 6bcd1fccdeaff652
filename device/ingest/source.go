package ingest

import (
	"context"

	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/tree"
)

// Source is the origin of a backup: a folder or a device. It provides facts
// about the backup that are not in its files.
type Source interface {
	// Parent returns the snapshot that the backup continues, nil if there is none.
	Parent(ctx context.Context) (*repo.Snapshot, error)
	// Origin describes the source, for the snapshot's record.
	Origin() repo.Source
	// Written returns statistics of what earlier writers wrote for this backup.
	Written() repo.WriteStats
	// Stored returns a file's content if the repository has it, or nil if the file
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
	// Final says that snap has tried before to store the file decrypted. If Final is
	// false, a file that is stored encrypted is read again if its key is known.
	Final bool
	// Sent says that the device has sent the file since the parent was made.
	Sent bool
	// Sum is the SHA-1 of the file as it is in the backup, if it is known.
	Sum *[20]byte
	// Short says that the file is an SQLite database that is cut off or whose beginning is
	// damaged. Zeros says that its first bytes are all zero. See judge.Ends.
	Short, Zeros bool
}

// useStored sets a file's content if the repository has it. It reports false if
// the file must be read.
func (j *job) useStored(ctx context.Context, f *file) (bool, error) {
	e := &f.entry
	if j.suspect.has(e) {
		return false, nil
	}
	s, err := j.src.Stored(ctx, File{Entry: e, Size: f.size, Parent: f.parent})
	if err != nil || s == nil {
		return false, err
	}
	e.Mode, e.ModTime, e.Stat = s.Entry.Mode, s.Entry.ModTime, s.Entry.Stat
	if s.Entry.Encryption == nil && s.Entry.Content.Size > 0 && !s.Final {
		if _, encrypted, _ := j.fileKey(e, f.size, f.row); encrypted {
			return false, nil
		}
	}
	if s.Sent && s.Sum == nil && j.doubtful(f) {
		return false, nil
	}
	e.Content, e.Encryption = s.Entry.Content, s.Entry.Encryption
	if j.b.Unlocked() && f.size > 0 {
		j.countStored(f)
	}
	j.judgeStored(f, s)
	return true, nil
}
