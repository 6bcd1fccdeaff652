package ingest

import (
	"context"
	"errors"
	"io"

	"github.com/snap-backup/snap/device/finding"
	"github.com/snap-backup/snap/device/judge"
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/keybag"
	"github.com/snap-backup/snap/device/mobilesync/manifest"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/tree"
)

// RawReason says why a file of an unlocked backup was not decrypted, but stored as
// it is in the backup.
type RawReason string

// The reasons, as --json shows them.
const (
	RawNoKey       RawReason = "no_key"          // its record has no key: old iOS versions left some files unencrypted
	RawUnsupported RawReason = "unsupported_key" // its wrapped key has an unknown form
	RawNoClass     RawReason = "no_class_key"    // the keybag has no usable key of its class
	RawBadKey      RawReason = "damaged_key"     // its wrapped key fails the check
	RawLength      RawReason = "odd_length"      // its size is not a multiple of the cipher's block
	RawPadding     RawReason = "bad_padding"     // truncated, edited by a tool, or damaged
	RawDifferent   RawReason = "not_canonical"   // encrypting it again gives other bytes
	RawDecrypted   RawReason = "decrypted"       // a program has decrypted it in the backup folder
)

// fileKey returns the key that a file is encrypted with; size is the file's. If there is
// no key, reason says why; reason is empty for files that are never encrypted.
func (j *job) fileKey(e *tree.Entry, size int64, row int32) (key keybag.FileKey, encrypted bool, reason RawReason) {
	if !j.b.Unlocked() {
		return key, false, ""
	}
	if row < 0 {
		key, encrypted = j.b.ManifestDBKey()
		return key, encrypted && e.Path == mobilesync.ManifestDB, ""
	}
	rec := j.records.At(int(row))
	if j.decryptedFile(&rec, size) {
		return key, false, RawDecrypted
	}
	key, err := j.b.FileKey(&rec)
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

// decryptedFile reports whether a program has decrypted a file in the backup folder.
func (j *job) decryptedFile(rec *manifest.Record, size int64) bool {
	return j.decrypted && rec.EncryptionKey != nil && rec.Size == size
}

// storeFile stores an open file. It stores an encrypted file decrypted if the
// encrypted bytes can provably be rebuilt.
func (j *job) storeFile(ctx context.Context, w *repo.ContentWriter, src *sourceReader, f *file) error {
	key, encrypted, reason := j.fileKey(&f.entry, f.size, f.row)
	if encrypted {
		content, why, err := j.storeDecrypted(ctx, w, src, key, f)
		if err != nil {
			return err
		}
		if why == "" {
			f.entry.Content, f.entry.Encryption = content, &tree.Encryption{Cipher: tree.CBC, Key: tree.FileKey(key)}
			j.count(f, true, "")
			return nil
		}
		reason = why
		if err := src.rewind(); err != nil {
			return err
		}
	}
	if reason != "" {
		j.count(f, false, reason)
	}
	// What the parent has stored decrypted does not resemble these encrypted bytes.
	var prev *tree.Content
	if f.parent != nil && f.parent.Encryption == nil {
		prev = &f.parent.Content
	}
	var ends judge.Ends
	content, err := w.Store(ctx, io.TeeReader(src, &ends), prev)
	f.entry.Content = content
	if err == nil && !encrypted {
		j.judgeDatabase(f, &ends)
	}
	return err
}

// storeDecrypted stores the plaintext of an encrypted file and verifies that
// encrypting it again gives the same bytes. If the bytes differ, reason says
// why; the caller must then rewind src and store the file encrypted.
func (j *job) storeDecrypted(ctx context.Context, w *repo.ContentWriter, src *sourceReader, key keybag.FileKey, f *file) (content tree.Content, reason RawReason, err error) {
	// Check the padding first, although it is at the end: otherwise a large file
	// with bad padding would leave useless chunks in the repository.
	_, _, err = keybag.DecrypterAt(src.f, src.size, key)
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
	var ends judge.Ends
	content, err = w.Store(ctx, io.TeeReader(keybag.NewVerifier(src, key), &ends), j.plaintextOf(f.parent))
	switch {
	case src.err != nil || err == nil:
		if err == nil {
			j.judgeDatabase(f, &ends)
		}
		return content, "", err
	case errors.Is(err, keybag.ErrPadding):
		return tree.Content{}, RawPadding, nil
	case errors.Is(err, keybag.ErrNotCanonical):
		return tree.Content{}, RawDifferent, nil
	}
	return tree.Content{}, "", err
}

// plaintextOf returns the plaintext that the parent has of a file, nil if it
// has none.
func (j *job) plaintextOf(parent *tree.Entry) *tree.Content {
	if parent == nil || parent.Encryption == nil && j.parent.Encrypted {
		return nil
	}
	return &parent.Content
}

// count counts a file of an unlocked backup. A file that should open and does not
// is damage.
func (j *job) count(f *file, decrypted bool, reason RawReason) {
	switch reason {
	case RawNoClass, RawUnsupported, RawBadKey:
		j.log.File(finding.NoKey, nameOf(&f.entry))
	case RawLength, RawPadding, RawDifferent:
		f.doubts = append(f.doubts, finding.Cipher)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if decrypted {
		j.res.Decrypted++
		return
	}
	if j.res.Raw == nil {
		j.res.Raw = map[RawReason]int64{}
	}
	j.res.Raw[reason]++
}

// countStored counts a file that was not read. If it is stored encrypted, the
// reason is guessed from its size.
func (j *job) countStored(f *file) {
	e := &f.entry
	if e.Encryption != nil {
		j.count(f, true, "")
		return
	}
	switch _, encrypted, reason := j.fileKey(e, e.Content.Size, f.row); {
	case reason != "":
		j.count(f, false, reason)
	case encrypted && e.Content.Size%keybag.BlockSize != 0:
		j.count(f, false, RawLength)
	case encrypted:
		j.count(f, false, RawPadding)
	}
}
