package host

import (
	"context"
	"fmt"

	"github.com/snap-backup/snap/device"
	"github.com/snap-backup/snap/repo"
)

// summary describes a backup that is about to begin: the device, the parent
// snapshot, whether the device encrypts, and the free space.
func (h Host) summary(ctx context.Context, info *device.Info, parent *repo.Snapshot, full bool) string {
	text := fmt.Sprintf("%s (%s, iOS %s", nameOf(info), info.Model, info.ProductVersion)
	if info.Connection == device.Network {
		text += ", by Wi-Fi"
	}
	encrypts := isTrue(info.WillEncrypt)
	switch {
	case parent == nil:
		text += "): full backup, the first one"
	case full:
		text += "): full backup"
	case info.WillEncrypt != nil && parent.Encrypted != encrypts:
		text += "): full backup, since encryption was switched on or off"
	default:
		text += fmt.Sprintf("): incremental backup since snapshot %s of %s", parent.ID.Short(), parent.Time.Local().Format("2006-01-02 15:04"))
	}
	if info.WillEncrypt != nil && encrypts {
		text += "; encrypted by the device"
	} else if info.WillEncrypt != nil {
		text += "; not encrypted by the device"
	}
	if free, err := h.Repo.Free(ctx); err == nil { // not every store knows its free space
		text += fmt.Sprintf("; the repository has %s free", h.bytes(free))
	}
	return text
}
