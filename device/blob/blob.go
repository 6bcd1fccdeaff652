// Package blob maps entries of a snapshot to blobs of a backup folder and back.
//
// An entry holds plaintext if the backup password was known. Its blob is then
// rebuilt by encrypting the plaintext again with the key in the entry. Open,
// Write, Same and Size handle both kinds of entries.
//
// The repository has authenticated all bytes that the package returns; damage
// is an error. The package never writes to a repository.
package blob

import (
	"context"
	"errors"
	"io"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/device/mobilesync/keybag"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/tree"
)

// FileMode and DirMode are the modes of files and folders that a device sends.
// idevicebackup2 sets the same modes.
const (
	FileMode = 0o644
	DirMode  = 0o755
)

// BatchFiles and BatchBytes bound a batch: neighbouring files that one
// goroutine reads or writes. A batch is large enough to fill blocks with
// neighbours, and small enough to keep all goroutines busy.
const (
	BatchFiles = 256
	BatchBytes = 4 << 20
)

// Size returns the length of a file in the backup folder, in bytes.
func Size(e *tree.Entry) int64 {
	if e.Encryption != nil {
		return keybag.EncryptedSize(e.Content.Size)
	}
	return e.Content.Size
}

// Write writes a file's bytes as they were in the backup folder.
func Write(ctx context.Context, r *repo.Repo, w io.Writer, e *tree.Entry) error {
	if e.Encryption == nil {
		return r.WriteContent(ctx, w, &e.Content)
	}
	s := keybag.NewEncrypter(w, keybag.FileKey(e.Encryption.Key))
	if err := r.WriteContent(ctx, s, &e.Content); err != nil {
		return err
	}
	return s.Close()
}

// Same reports whether src holds a file's bytes as they were in the backup
// folder.
func Same(ctx context.Context, r *repo.Repo, src io.Reader, e *tree.Entry) (bool, error) {
	if e.Encryption == nil {
		return r.SameContent(ctx, src, &e.Content)
	}
	same, err := r.SameContent(ctx, keybag.NewVerifier(src, keybag.FileKey(e.Encryption.Key)), &e.Content)
	if errors.Is(err, keybag.ErrPadding) || errors.Is(err, keybag.ErrNotCanonical) {
		return false, nil
	}
	return same, err
}

// Present reports whether present returns true for all chunks of a content,
// including its content lists. A list that cannot be read counts as absent. The
// only error is that of ctx.
func Present(ctx context.Context, r *repo.Repo, c *tree.Content, present func(chunk.ID) bool) (bool, error) {
	absent := errors.New("absent")
	check := func(id chunk.ID) error {
		if !present(id) {
			return absent
		}
		return nil
	}
	err := c.All(ctx, r.Chunk, check, check)
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	return err == nil, nil
}
