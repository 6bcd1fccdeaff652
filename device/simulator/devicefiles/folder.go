package devicefiles

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"

	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/keybag"
	"github.com/snap-backup/snap/device/mobilesync/manifest"
	"github.com/snap-backup/snap/device/protocol/plist"
)

// Folder is the content of a backup folder. If the files in the folder change later,
// Open returns their new bytes, but Records stays the same. A live device behaves
// like this too.
type Folder struct {
	backup  *mobilesync.Backup
	base    map[string]any
	records *manifest.Records
}

// OpenFolder opens the backup folder dir, which iOS 10 or later must have made.
// password is needed only if the backup is encrypted.
func OpenFolder(ctx context.Context, dir string, password []byte) (*Folder, error) {
	b, err := mobilesync.Open(ctx, dir)
	if err != nil {
		return nil, err
	}
	f, err := openFolder(ctx, b, password)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("content of %s: %w", dir, err), b.Close())
	}
	return f, nil
}

func openFolder(ctx context.Context, b *mobilesync.Backup, password []byte) (*Folder, error) {
	if b.Layout() != mobilesync.Hashed {
		return nil, errors.New("a device cannot have the content of a backup of iOS 9 or earlier")
	}
	if b.Encrypted() {
		if _, err := b.Unlock(ctx, password, nil); err != nil {
			return nil, err
		}
	}
	records, err := b.Records(ctx)
	if err != nil {
		return nil, err
	}
	file, err := b.OpenFile(mobilesync.ManifestPlist)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	raw, err := io.ReadAll(io.LimitReader(file, mobilesync.MaxPlist))
	if err != nil {
		return nil, err
	}
	base, err := plist.Dict(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", mobilesync.ManifestPlist, err)
	}
	return &Folder{backup: b, base: base, records: records}, nil
}

// Dir returns the folder.
func (f *Folder) Dir() string { return f.backup.Dir() }

// Close releases the folder.
func (f *Folder) Close() error { return f.backup.Close() }

// Device implements Source.
func (f *Folder) Device() mobilesync.Device { return f.backup.Device() }

// Base implements Source.
func (f *Folder) Base() map[string]any {
	return maps.Clone(f.base)
}

// Records implements Source.
func (f *Folder) Records(context.Context) (*manifest.Records, error) { return f.records, nil }

// Manifest implements Source.
func (f *Folder) Manifest(ctx context.Context, w io.Writer) error {
	file, size, err := f.backup.OpenManifest()
	if err != nil {
		return err
	}
	defer file.Close()
	var from io.ReaderAt = file
	if key, encrypted := f.backup.ManifestDBKey(); encrypted {
		if from, size, err = OpenManifest(file, size, key); err != nil {
			return err
		}
	}
	_, err = io.Copy(w, NewReader(ctx, io.NewSectionReader(from, 0, size)))
	return err
}

// OpenManifest decrypts a Manifest.db. The padding may be missing, since some tools
// write none.
func OpenManifest(r io.ReaderAt, size int64, key keybag.FileKey) (io.ReaderAt, int64, error) {
	plain, n, err := keybag.DecrypterAt(r, size, key)
	if errors.Is(err, keybag.ErrPadding) {
		plain, err = keybag.UnpaddedDecrypterAt(r, size, key)
		n = size
	}
	return plain, n, err
}

// Open implements Source.
func (f *Folder) Open(rec *manifest.Record) (io.ReadCloser, error) {
	file, err := f.backup.OpenFile(mobilesync.BlobPath(mobilesync.Hashed, rec.FileID))
	if err != nil {
		return nil, err
	}
	if !f.backup.Encrypted() || rec.EncryptionKey == nil {
		return file, nil
	}
	info, err := file.Stat()
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	if info.Size() == 0 { // the content is only in a cloud, or a tool stored an empty file without padding
		return file, nil
	}
	key, err := f.backup.FileKey(rec)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return struct {
		io.Reader
		io.Closer
	}{keybag.NewDecrypter(file, key), file}, nil
}
