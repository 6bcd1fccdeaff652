package materialize

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/snap-backup/snap/device/blob"
	"github.com/snap-backup/snap/device/finding"
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/manifest"
	"github.com/snap-backup/snap/device/naming"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/tree"
)

// decryptedSuffix is the end of the folder's name, so that the folder is not
// mistaken for a backup.
const decryptedSuffix = "-decrypted"

// WriteDecrypted writes the files of a snapshot as they are on the device, by
// domain and path, to target/UDID-decrypted. That folder is for people; no
// device can be restored from it. Otherwise WriteDecrypted works like Write.
//
// Characters that some system does not allow in names are escaped (%3A for a
// colon). A file or folder gets "~2" if its name is taken, even if the two names differ
// only by case. A path that is too long is shortened. Result.Renamed lists the files
// whose path has such a number or is shortened.
//
// A file that could not be decrypted when it was stored is not written, since
// it would be noise under the name of a file. Result.NotDecrypted lists such files.
func WriteDecrypted(ctx context.Context, r *repo.Repo, s *repo.Snapshot, target string, opts Options) (*Result, error) {
	if s.Encrypted && !s.Unlocked && !finding.Has(s.Findings, finding.Decrypted) {
		return nil, fmt.Errorf("snapshot %s: %w", s.ID.Short(), ErrLocked)
	}
	name, err := folderName(s)
	if err != nil {
		return nil, err
	}
	undecrypted, err := findUndecrypted(ctx, r, s, opts.Incomplete)
	if err != nil {
		return nil, err
	}
	return write(ctx, r, s, target, name+decryptedSuffix, func(l *lists) mapper { return newDecryptedMapper(undecrypted, l) }, opts)
}

// mapper returns the entry to write for an entry of the snapshot, or false if
// nothing is written for it. Each walk needs its own mapper.
type mapper func(*tree.Entry) (tree.Entry, bool)

// lists are what mappers report about files.
type lists struct {
	renamed     []Renamed
	undecrypted []string
}

// asStored returns the mapper of Write, which changes nothing.
func asStored(*lists) mapper { return func(e *tree.Entry) (tree.Entry, bool) { return *e, true } }

// newDecryptedMapper returns the mapper of WriteDecrypted. It gives files their
// paths by domain and name, their plaintext, and the times that they have on the
// device. l may be nil.
func newDecryptedMapper(undecrypted func(*tree.Entry) bool, l *lists) mapper {
	names := naming.New()
	return func(e *tree.Entry) (tree.Entry, bool) {
		if e.Kind == tree.Dir {
			return tree.Entry{}, false
		}
		name := naming.Full(e.Domain, e.Name, e.Path)
		if undecrypted(e) {
			if l != nil {
				l.undecrypted = append(l.undecrypted, finding.Name(e.Domain, e.Name, e.Path))
			}
			return tree.Entry{}, false
		}
		out := tree.Entry{Mode: 0o600, ModTime: e.ModTime, Content: e.Content}
		if e.Record != nil {
			out.ModTime = tree.AtSecond(e.Record.ModTime)
		}
		var changed bool
		if out.Path, changed = names.Path(name); changed && l != nil {
			l.renamed = append(l.renamed, Renamed{name, out.Path})
		}
		return out, true
	}
}

// findUndecrypted returns a function that reports whether an entry of an unlocked
// snapshot is stored as the device encrypted it: its row in the manifest has a
// key, but the entry has none. A file of a folder that a program has decrypted is not
// encrypted if it has the length that its row says.
func findUndecrypted(ctx context.Context, r *repo.Repo, s *repo.Snapshot, incomplete bool) (func(*tree.Entry) bool, error) {
	no := func(*tree.Entry) bool { return false }
	decrypted := finding.Has(s.Findings, finding.Decrypted)
	if !s.Unlocked && !decrypted {
		return no, nil
	}
	records, err := readManifest(ctx, r, s)
	if errors.Is(err, manifest.ErrCorrupt) || incomplete && errors.Is(err, repo.ErrDamaged) {
		// Nothing says which files are encrypted.
		return func(e *tree.Entry) bool { return e.Encryption == nil && isBlob(e) }, nil
	}
	if err != nil || records == nil {
		return no, err
	}
	return func(e *tree.Entry) bool {
		if e.Encryption != nil || e.Content.Size == 0 {
			return false
		}
		id, ok := blob.ParsePath(e.Path, false)
		if !ok {
			return false
		}
		i, ok := records.ByFileID(id)
		if !ok {
			return false
		}
		rec := records.At(i)
		return rec.EncryptionKey != nil && !(decrypted && rec.Size == e.Content.Size)
	}, nil
}

// readManifest returns the records of Manifest.db, or nil if there is none.
func readManifest(ctx context.Context, r *repo.Repo, s *repo.Snapshot) (*manifest.Records, error) {
	e, err := r.Find(ctx, s, tree.Key{Path: mobilesync.ManifestDB})
	if err != nil || e == nil {
		return nil, err
	}
	f, err := blob.OpenContent(ctx, r, &e.Content, time.Time{})
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return manifest.ReadDB(ctx, f, e.Content.Size)
}

func isBlob(e *tree.Entry) bool {
	_, ok := blob.ParsePath(e.Path, false)
	return ok
}
