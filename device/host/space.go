package host

import (
	"context"
	"errors"
	"fmt"

	"github.com/snap-backup/snap/device"
	"github.com/snap-backup/snap/device/protocol/backup2"
	"github.com/snap-backup/snap/repo/backend"
)

// noSpaceForBackup says that a device does not begin a backup, since it wants more
// space than it was told there is. It wraps the device's error.
type noSpaceForBackup struct {
	error
	text, udid string
}

func (e noSpaceForBackup) Error() string { return e.text }
func (e noSpaceForBackup) Unwrap() error { return e.error }

// Hint implements the hints of errors, see backup2.DeviceError.
func (e noSpaceForBackup) Hint() string {
	return fmt.Sprintf(`free space where the repository is, or run "snap backup --ignore-space %s": devices may overestimate what they will send, and a full repository harms no snapshot`, e.udid)
}

// explainSpace explains a device's error about too little space on the computer: it
// adds how much the device wants and how much is free. It returns other errors as
// they are, including those of a full store.
func (h Host) explainSpace(ctx context.Context, info *device.Info, wanted int64, err error) error {
	var reported *backup2.DeviceError
	if !errors.As(err, &reported) || reported.Code != backup2.CodeHostFull || backend.IsNoSpace(err) {
		return err
	}
	text := fmt.Sprintf("the device reports error %d: not enough space on the computer", reported.Code)
	if wanted > 0 {
		text += ": the device wants " + h.bytes(wanted)
	}
	if free, err := h.Repo.Free(ctx); err == nil { // not every store knows its free space
		text += "; the repository has " + h.bytes(free) + " free"
	}
	return noSpaceForBackup{err, text, info.UDID}
}
