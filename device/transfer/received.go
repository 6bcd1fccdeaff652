package transfer

import (
	"context"

	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/tree"
)

// Received is what is known of a backup that a device has sent to this program
// itself, so that most of it is in the repository already.
type Received struct {
	// Parent is the snapshot that the device has continued, nil for none.
	Parent *repo.Snapshot
	Source repo.Source
	// Before is what storing the files has added so far.
	Before repo.WriteStats
	// Held returns what the repository holds of a file; nil for one that has to
	// be read. It is called for every file, in the order of the tree.
	Held func(ctx context.Context, path string) (*Held, error)
}

// Held is a file that need not be read.
type Held struct {
	// Mode, ModTime, Stat, Content and Seal count.
	Entry tree.Entry
	// Final says that nothing is to be gained by looking whether the file can
	// be stored unsealed: it was tried before.
	Final bool
}

// takeHeld completes an entry with what is held of it. It reports whether that
// was all: otherwise the file is to be read.
func (im *importer) takeHeld(ctx context.Context, e *tree.Entry, row int32) (bool, error) {
	if im.opts.Received == nil || e.Kind == tree.Dir {
		return false, nil
	}
	h, err := im.opts.Received.Held(ctx, e.Path)
	if err != nil || h == nil {
		return false, err
	}
	e.Mode, e.ModTime, e.Stat = h.Entry.Mode, h.Entry.ModTime, h.Entry.Stat
	if h.Entry.Encryption == nil && h.Entry.Content.Size > 0 && !h.Final {
		if _, sealed, _ := im.sealOf(e, row); sealed {
			return false, nil
		}
	}
	e.Content, e.Encryption = h.Entry.Content, h.Entry.Encryption
	if im.b.Unlocked() && blobSize(e) > 0 {
		im.countKept(e, row)
	}
	return true, nil
}

// lacking refuses what a device has sent if the manifest promises more. A
// folder on a disk is nobody's fault, and better kept than not.
func (im *importer) lacking() error {
	rep := im.res.Report
	if im.opts.Received == nil || rep == nil || rep.Faults() == 0 {
		return nil
	}
	return &IncompleteError{im.b.Dir(), []string{first(rep.Missing.Count, "a file that the manifest lists was not received",
		"files that the manifest lists were not received", rep.Missing.Names[0])}}
}
