package simulator

import (
	"context"
	"fmt"
	"net"

	"github.com/snap-backup/snap/device/simulator/afcd"
	"github.com/snap-backup/snap/device/simulator/synclock"
)

// SyncCancelRequest is the name of the notification that tells hosts that the owner
// tapped "Cancel". Notify posts it.
const SyncCancelRequest = "com.apple.itunes-client.syncCancelRequest"

// ReadFile returns the content of a file of AFC, and whether the file exists.
func (d *Device) ReadFile(p string) ([]byte, bool) { return d.files.ReadFile(p) }

// WriteFile writes a file of AFC and creates its directories. It returns false if
// there was not enough space.
func (d *Device) WriteFile(p string, data []byte) bool { return d.files.WriteFile(p, data) }

// SetLockBusy makes the next n attempts to take the sync lock fail with "would block",
// as if another program held the lock.
func (d *Device) SetLockBusy(n int) { d.sync.SetBusy(n) }

// Syncing reports whether a host holds the sync lock and has announced that its sync
// started. A backup should run only then.
func (d *Device) Syncing(ctx context.Context) bool { return d.sync.Syncing(ctx) }

// serveAFC serves the file service, AFC.
func (d *Device) serveAFC(ctx context.Context, conn net.Conn) {
	s := afcd.Server{
		Files: d.files, Info: d.afcInfo, Sync: d.sync, SyncFile: synclock.File,
		Log:     func(kind, detail string) { d.Log(AFC, kind, detail) },
		Violate: func(format string, args ...any) { d.Violate("%s: %s", AFC, fmt.Sprintf(format, args...)) },
	}
	s.Serve(ctx, conn, func() bool { return endedByHost(ctx, conn) })
}

func (d *Device) afcInfo() []string {
	number := func(key string) string { return fmt.Sprint(d.Value(DomainDiskUsage, key)) }
	return []string{"Model", d.text("", "ProductType"), "FSTotalBytes", number("TotalDataCapacity"),
		"FSFreeBytes", number("TotalDataAvailable"), "FSBlockSize", "4096"}
}
