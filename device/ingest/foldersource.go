package ingest

import (
	"context"
	"path/filepath"

	"github.com/snap-backup/snap/device/blob"
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/tree"
)

// folderSource is the Source of a backup in a folder.
type folderSource struct {
	r      *repo.Repo
	b      *mobilesync.Backup
	rescan bool
	parent *repo.Snapshot // set by Parent
}

// Parent returns the snapshot that this backup most likely continues: the
// latest of the same device, preferably from the same folder.
func (f *folderSource) Parent(ctx context.Context) (*repo.Snapshot, error) {
	list, err := f.r.KnownSnapshots(ctx)
	if err != nil {
		return nil, err
	}
	udid, path := f.b.Device().UDID, f.b.Dir()
	better := func(a, b *repo.Snapshot) bool { // whether a is a better parent than b
		if b == nil {
			return true
		}
		sameA, sameB := a.Source.Path == path, b.Source.Path == path
		if sameA != sameB {
			return sameA
		}
		return a.StoredAt.After(b.StoredAt)
	}
	for _, s := range list {
		// A snapshot stored after the index was loaded cannot be read.
		if repo.SameDevice(s.Device.UDID, udid) && f.r.Index().Has(s.Root) && better(s, f.parent) {
			f.parent = s
		}
	}
	return f.parent, nil
}

// Origin implements Source.
func (f *folderSource) Origin() repo.Source {
	dir := f.b.Dir()
	return repo.Source{
		Kind: repo.FromFolder, Path: dir, Folder: filepath.Base(dir),
		RunID: f.b.StatusUUID(), Full: f.b.FullBackup(), Archived: f.b.Archived(),
	}
}

// Written implements Source.
func (f *folderSource) Written() repo.WriteStats { return repo.WriteStats{} }

// Stored returns the content that the parent has of a file, if the file has not
// changed.
func (f *folderSource) Stored(ctx context.Context, file File) (*Stored, error) {
	old := file.Parent
	if old == nil || f.rescan || file.Size == 0 || !unchanged(old, file.Entry, file.Size) || old.Encryption != nil && !f.b.Unlocked() {
		return nil, nil
	}
	if ok, err := present(ctx, f.r, old); err != nil || !ok {
		return nil, err
	}
	e := *file.Entry
	e.Content, e.Encryption = old.Content, old.Encryption
	return &Stored{Entry: e, Final: f.parent.Unlocked == f.b.Unlocked()}, nil
}

// present reports whether a new snapshot may rely on all content of an entry.
// If not, the file is read and stored again.
func present(ctx context.Context, r *repo.Repo, e *tree.Entry) (bool, error) {
	return blob.Present(ctx, r, &e.Content, r.Index().Reusable)
}

// unchanged reports whether a file has the same metadata as in the parent:
// size, mtime, inode, change time, and the manifest's record. It returns false
// on a system without inodes and change times, since the other metadata proves
// too little.
func unchanged(old, e *tree.Entry, size int64) bool {
	return old.Kind == e.Kind && old.Key() == e.Key() &&
		blob.Size(old) == size && old.ModTime == e.ModTime &&
		old.Stat != nil && e.Stat != nil && *old.Stat == *e.Stat &&
		equalRecord(old.Record, e.Record)
}

func equalRecord(a, b *tree.Record) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}
