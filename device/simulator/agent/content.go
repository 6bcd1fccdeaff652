package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/keybag"
	"github.com/snap-backup/snap/device/mobilesync/manifest"
	"github.com/snap-backup/snap/device/protocol/plist"
)

// Content is what is on a device, in the clear.
type Content interface {
	// Device says whose content it is.
	Device() mobilesync.Device
	// Base returns what Manifest.plist says besides encryption and date. The
	// caller may change the map, but nothing below it.
	Base() map[string]any
	// Records returns the files, folders and links.
	Records(ctx context.Context) (*manifest.Records, error)
	// Manifest writes a Manifest.db with these records.
	Manifest(ctx context.Context, w io.Writer) error
	// Open opens the content of a file. fs.ErrNotExist if it is gone.
	Open(rec *manifest.Record) (io.ReadCloser, error)
}

// Folder is the Content that a backup folder holds. It stays good while the
// folder is brought to another day, but then gives the new day's content for
// the old records, as a live device does.
type Folder struct {
	backup  *mobilesync.Backup
	base    map[string]any
	records *manifest.Records
}

// OpenFolder opens the backup folder dir, of iOS 10 or later; password is that of
// an encrypted one.
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
		return nil, errors.New("only backups of iOS 10 and later can be played")
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

// Device implements Content.
func (f *Folder) Device() mobilesync.Device { return f.backup.Device() }

// Base implements Content.
func (f *Folder) Base() map[string]any {
	base := make(map[string]any, len(f.base))
	for k, v := range f.base {
		base[k] = v
	}
	return base
}

// Records implements Content.
func (f *Folder) Records(context.Context) (*manifest.Records, error) { return f.records, nil }

// Manifest implements Content.
func (f *Folder) Manifest(ctx context.Context, w io.Writer) error {
	file, size, err := f.backup.OpenManifest()
	if err != nil {
		return err
	}
	defer file.Close()
	var from io.ReaderAt = file
	if key, sealed := f.backup.ManifestDBKey(); sealed {
		if from, size, err = openSealed(file, size, key); err != nil {
			return err
		}
	}
	_, err = io.Copy(w, ctxReader{ctx, io.NewSectionReader(from, 0, size)})
	return err
}

// openSealed opens a Manifest.db, which some tools leave without padding.
func openSealed(r io.ReaderAt, size int64, key keybag.FileKey) (io.ReaderAt, int64, error) {
	plain, n, err := keybag.OpenerAt(r, size, key)
	if errors.Is(err, keybag.ErrPadding) {
		plain, err = keybag.UnpaddedOpenerAt(r, size, key)
		n = size
	}
	return plain, n, err
}

// Open implements Content.
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
	if info.Size() == 0 { // evicted to a cloud, or an empty file of some tools
		return file, nil
	}
	key, err := f.backup.FileKey(rec)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return struct {
		io.Reader
		io.Closer
	}{keybag.NewOpener(file, key), file}, nil
}

// ctxReader ends with the error of ctx once that is cancelled.
type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (r ctxReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

// digestDomains are those for whose files devices record the SHA-1 of the stored
// bytes.
var digestDomains = map[string]bool{
	"HomeDomain": true, "RootDomain": true, "HealthDomain": true, "WirelessDomain": true, "SystemPreferencesDomain": true,
	"DatabaseDomain": true, "HomeKitDomain": true, "InstallDomain": true, "ManagedPreferencesDomain": true, "KeyboardDomain": true,
	"KeychainDomain": true, "MobileDeviceDomain": true, "NetworkDomain": true, "ProtectedDomain": true,
}

// systemDomain reports whether files of a domain count as system files, which
// are restored only on request.
func systemDomain(domain string) bool {
	switch kind, _, _ := strings.Cut(domain, "-"); kind {
	case "RootDomain", "WirelessDomain", "SystemPreferencesDomain", "DatabaseDomain", "InstallDomain", "ManagedPreferencesDomain",
		"MobileDeviceDomain", "NetworkDomain", "ProtectedDomain", "SysContainerDomain", "SysSharedContainerDomain":
		return true
	}
	return false
}

// Verify compares the backup folder dir with content: the same files, folders
// and links with the same bytes and descriptions, encrypted or not. It reports
// the first few differences, or nothing.
func Verify(ctx context.Context, content Content, dir string, password []byte) ([]string, error) {
	b, err := OpenFolder(ctx, dir, password)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	c := &comparison{ctx: ctx}
	problems, err := b.backup.Problems(ctx)
	if err != nil {
		return nil, err
	}
	for _, p := range problems {
		c.differ("%s", p.Text)
	}
	if err := c.contents(content, b); err != nil {
		return nil, err
	}
	return c.found, nil
}

const maxDifferences = 20

type comparison struct {
	ctx   context.Context
	found []string
}

func (c *comparison) differ(format string, args ...any) {
	if len(c.found) < maxDifferences {
		c.found = append(c.found, fmt.Sprintf(format, args...))
	}
}

func (c *comparison) contents(want, have Content) error {
	a, err := want.Records(c.ctx)
	if err != nil {
		return err
	}
	b, err := have.Records(c.ctx)
	if err != nil {
		return err
	}
	if a.Len() != b.Len() {
		c.differ("%d rows in place of %d", b.Len(), a.Len())
	}
	for _, rec := range a.All() {
		i, ok := b.ByFileID(rec.FileID)
		if !ok {
			c.differ("%s/%s is missing", rec.Domain, rec.RelativePath)
			continue
		}
		other := b.At(i)
		if !sameFile(&rec, &other) {
			c.differ("%s/%s is described differently", rec.Domain, rec.RelativePath)
		}
		if !rec.IsFile() {
			continue
		}
		same, err := sameBytes(c.ctx, want, &rec, have, &other)
		if err != nil {
			c.differ("%s/%s: %v", rec.Domain, rec.RelativePath, err)
		} else if !same {
			c.differ("%s/%s has other content", rec.Domain, rec.RelativePath)
		}
	}
	return nil
}

// sameFile compares two descriptions but for what a backup changes: keys,
// digests, and where a file lies.
func sameFile(a, b *manifest.Record) bool {
	return a.Domain == b.Domain && a.RelativePath == b.RelativePath && a.Flags == b.Flags && a.Mode == b.Mode && a.Size == b.Size &&
		a.ModTime == b.ModTime && a.Birth == b.Birth && a.UserID == b.UserID && a.GroupID == b.GroupID && a.BSDFlags == b.BSDFlags &&
		a.ProtectionClass == b.ProtectionClass && a.Target == b.Target
}

func sameBytes(ctx context.Context, a Content, ra *manifest.Record, b Content, rb *manifest.Record) (bool, error) {
	x, err := a.Open(ra)
	if err != nil {
		return false, err
	}
	defer x.Close()
	y, err := b.Open(rb)
	if err != nil {
		return false, err
	}
	defer y.Close()
	var p, q [32 << 10]byte
	for {
		n, errX := io.ReadFull(ctxReader{ctx, x}, p[:])
		m, errY := io.ReadFull(y, q[:])
		if !bytes.Equal(p[:n], q[:m]) {
			return false, nil
		}
		if errX != nil || errY != nil {
			return ended(errX) && ended(errY), errors.Join(failed(errX), failed(errY))
		}
	}
}

func ended(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }

func failed(err error) error {
	if err == nil || ended(err) {
		return nil
	}
	return err
}
