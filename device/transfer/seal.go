package transfer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/folder"
	"github.com/snap-backup/snap/device/mobilesync/keybag"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/tree"
)

// RawReason says why a file of an unlocked backup was stored as the sealed
// bytes that it is.
type RawReason string

// The reasons, as --json shows them.
const (
	RawNoKey       RawReason = "no_key"          // the manifest has none: old iOS versions left some files in the clear
	RawUnsupported RawReason = "unsupported_key" // a wrapped key of an unknown form
	RawNoClass     RawReason = "no_class_key"    // the keybag has no usable key of its class
	RawBadKey      RawReason = "damaged_key"     // the wrapped key fails its check
	RawLength      RawReason = "odd_length"      // no whole number of cipher blocks
	RawPadding     RawReason = "bad_padding"     // cut off, edited by a tool, or damaged
	RawDifferent   RawReason = "not_canonical"   // sealing it again gives other bytes
)

// sealOf returns the key that a file is sealed with. reason says why there is
// none, empty for files that are never sealed.
func (im *importer) sealOf(e *tree.Entry, row int32) (key keybag.FileKey, sealed bool, reason RawReason) {
	if !im.b.Unlocked() {
		return key, false, ""
	}
	if row < 0 {
		key, sealed = im.b.ManifestDBKey()
		return key, sealed && e.Path == mobilesync.ManifestDB, ""
	}
	rec := im.records.At(int(row))
	key, err := im.b.FileKey(&rec)
	switch {
	case err == nil:
		return key, true, ""
	case errors.Is(err, mobilesync.ErrNoKey):
		return key, false, RawNoKey
	case errors.Is(err, keybag.ErrNoClass):
		return key, false, RawNoClass
	case errors.Is(err, keybag.ErrUnsupportedKey):
		return key, false, RawUnsupported
	}
	return key, false, RawBadKey
}

// storeSealed stores the plain form of a sealed file and proves on the way that
// its bytes follow from it. A reason means that they do not, and that the file
// has to be stored as it is; src is then used up.
func (im *importer) storeSealed(ctx context.Context, lane *repo.ContentWriter, f io.ReaderAt, src *sourceReader, key keybag.FileKey, before *tree.Entry) (content tree.Content, reason RawReason, err error) {
	// The padding comes last but is looked at first: a large file that fails
	// there would leave all of its content behind for nothing.
	_, _, err = keybag.OpenerAt(f, src.size, key)
	switch {
	case err == nil:
	case src.size%keybag.BlockSize != 0:
		return content, RawLength, nil
	case errors.Is(err, keybag.ErrPadding), errors.Is(err, io.ErrUnexpectedEOF):
		return content, RawPadding, nil
	default:
		src.err = err
		return content, "", err
	}
	content, err = lane.Store(ctx, keybag.NewProver(src, key), im.plainOf(before))
	switch {
	case src.err != nil || err == nil:
		return content, "", err
	case errors.Is(err, keybag.ErrPadding):
		return tree.Content{}, RawPadding, nil
	case errors.Is(err, keybag.ErrNotCanonical):
		return tree.Content{}, RawDifferent, nil
	}
	return tree.Content{}, "", err
}

// storeFile stores an open file: its plain form where that is proven, else its
// bytes.
func (im *importer) storeFile(ctx context.Context, lane *repo.ContentWriter, f folder.Content, src *sourceReader, e *tree.Entry, row int32, before *tree.Entry) error {
	key, sealed, reason := im.sealOf(e, row)
	if sealed {
		content, why, err := im.storeSealed(ctx, lane, f, src, key, before)
		if err != nil {
			return err
		}
		if why == "" {
			e.Content, e.Encryption = content, &tree.Encryption{Cipher: tree.CBC, Key: tree.FileKey(key)}
			im.count(true, "")
			return nil
		}
		reason = why
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			src.err = err
			return err
		}
		src.rewind()
	}
	if reason != "" {
		im.count(false, reason)
	}
	var prev *tree.Content
	if before != nil && before.Encryption == nil {
		prev = &before.Content // plain bytes are of no use for sealed ones
	}
	content, err := lane.Store(ctx, src, prev)
	e.Content = content
	return err
}

// plainOf returns what a file held before, if the parent has that.
func (im *importer) plainOf(before *tree.Entry) *tree.Content {
	if before == nil || before.Encryption == nil && im.parent.Encrypted {
		return nil
	}
	return &before.Content
}

// count keeps the books of an unlocked backup.
func (im *importer) count(sealed bool, reason RawReason) {
	im.mu.Lock()
	defer im.mu.Unlock()
	if sealed {
		im.res.Unsealed++
		return
	}
	if im.res.Raw == nil {
		im.res.Raw = map[RawReason]int64{}
	}
	im.res.Raw[reason]++
}

// countKept keeps the books for a file that was taken over from the parent.
func (im *importer) countKept(e *tree.Entry, row int32) {
	if e.Encryption != nil {
		im.count(true, "")
		return
	}
	switch _, sealed, reason := im.sealOf(e, row); {
	case reason != "":
		im.count(false, reason)
	case sealed && e.Content.Size%keybag.BlockSize != 0:
		im.count(false, RawLength)
	case sealed:
		im.count(false, RawPadding)
	}
}

// blobSize is the length of a file in the backup folder, in bytes.
func blobSize(e *tree.Entry) int64 {
	if e.Encryption != nil {
		return keybag.SealedSize(e.Content.Size)
	}
	return e.Content.Size
}

// writeBlob writes a file's bytes as they were in the backup folder.
func writeBlob(ctx context.Context, r *repo.Repo, w io.Writer, e *tree.Entry) error {
	if e.Encryption == nil {
		return r.WriteContent(ctx, w, &e.Content)
	}
	s := keybag.NewSealer(w, keybag.FileKey(e.Encryption.Key))
	if err := r.WriteContent(ctx, s, &e.Content); err != nil {
		return err
	}
	return s.Close()
}

// sameBlob reports whether src holds a file's bytes as they were in the backup
// folder.
func sameBlob(ctx context.Context, r *repo.Repo, src io.Reader, e *tree.Entry) (bool, error) {
	if e.Encryption == nil {
		return r.SameContent(ctx, src, &e.Content)
	}
	same, err := r.SameContent(ctx, keybag.NewProver(src, keybag.FileKey(e.Encryption.Key)), &e.Content)
	if errors.Is(err, keybag.ErrPadding) || errors.Is(err, keybag.ErrNotCanonical) {
		return false, nil
	}
	return same, err
}

// KeyBag returns the keybag of an encrypted backup from its snapshot.
func KeyBag(ctx context.Context, r *repo.Repo, s *repo.Snapshot) ([]byte, error) {
	e, err := r.Find(ctx, s, tree.Key{Path: mobilesync.ManifestPlist})
	if err != nil {
		return nil, err
	}
	if e == nil {
		return nil, fmt.Errorf("snapshot %s has no %s", s.ID.Short(), mobilesync.ManifestPlist)
	}
	if e.Content.Size > mobilesync.MaxPlist {
		return nil, fmt.Errorf("snapshot %s: %s has %d bytes", s.ID.Short(), mobilesync.ManifestPlist, e.Content.Size)
	}
	var b bytes.Buffer
	if err := r.WriteContent(ctx, &b, &e.Content); err != nil {
		return nil, err
	}
	bag, err := mobilesync.ParseKeyBag(b.Bytes())
	if err != nil {
		return nil, fmt.Errorf("snapshot %s: %w", s.ID.Short(), err)
	}
	return bag, nil
}
