// Package devicefiles provides the content of a simulated device: the files of a
// backup folder, or generated files.
//
// The package streams content and never changes it.
package devicefiles

import (
	"context"
	"io"
	"io/fs"
	"strings"

	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/manifest"
)

// Source is the unencrypted content of a device.
type Source interface {
	// Device returns the device.
	Device() mobilesync.Device
	// Base returns the fields of Manifest.plist, except those for encryption and the
	// date. The caller may change the map, but not its values.
	Base() map[string]any
	// Records returns the files, folders and links.
	Records(ctx context.Context) (*manifest.Records, error)
	// Manifest writes a Manifest.db with the same records as Records.
	Manifest(ctx context.Context, w io.Writer) error
	// Open opens the content of a file. The error is fs.ErrNotExist if the file no
	// longer exists.
	Open(rec *manifest.Record) (io.ReadCloser, error)
}

// Empty returns content without files and without a manifest.
func Empty(d mobilesync.Device) Source { return empty{d} }

type empty struct{ device mobilesync.Device }

func (e empty) Device() mobilesync.Device { return e.device }
func (empty) Base() map[string]any        { return map[string]any{} }

func (empty) Records(context.Context) (*manifest.Records, error) { return &manifest.Records{}, nil }
func (empty) Manifest(context.Context, io.Writer) error          { return fs.ErrNotExist }
func (empty) Open(*manifest.Record) (io.ReadCloser, error)       { return nil, fs.ErrNotExist }

// NewReader returns a reader of r that fails when ctx is cancelled.
func NewReader(ctx context.Context, r io.Reader) io.Reader { return ctxReader{ctx, r} }

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

// HasDigests reports whether devices record, for each file of a domain, the SHA-1 of
// its stored bytes.
func HasDigests(domain string) bool { return digestDomains[domain] }

var digestDomains = map[string]bool{
	"HomeDomain": true, "RootDomain": true, "HealthDomain": true, "WirelessDomain": true, "SystemPreferencesDomain": true,
	"DatabaseDomain": true, "HomeKitDomain": true, "InstallDomain": true, "ManagedPreferencesDomain": true, "KeyboardDomain": true,
	"KeychainDomain": true, "MobileDeviceDomain": true, "NetworkDomain": true, "ProtectedDomain": true,
}

// System reports whether the files of a domain are system files. A device restores
// system files only on request.
func System(domain string) bool {
	switch kind, _, _ := strings.Cut(domain, "-"); kind {
	case "RootDomain", "WirelessDomain", "SystemPreferencesDomain", "DatabaseDomain", "InstallDomain", "ManagedPreferencesDomain",
		"MobileDeviceDomain", "NetworkDomain", "ProtectedDomain", "SysContainerDomain", "SysSharedContainerDomain":
		return true
	}
	return false
}
