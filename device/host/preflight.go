package host

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/snap-backup/snap/device"
	"github.com/snap-backup/snap/repo"
)

const (
	// lowBattery is the charge in percent below which there is a warning, unless
	// the device is charging.
	lowBattery = 20
	// lowStorage is the free storage in bytes below which devices are known to
	// fail: they first make a snapshot of their file system, from which they back
	// up.
	lowStorage = 1 << 30
)

func isTrue(b *bool) bool { return b != nil && *b }

// preflight refuses a backup that cannot work, and gives warnings.
func (h Host) preflight(ctx context.Context, info *device.Info, o Observer) error {
	name := nameOf(info)
	if isTrue(info.RequiresEncryption) && !isTrue(info.WillEncrypt) {
		return refuse("%s: the organisation that manages it requires encrypted backups, but encryption is off; run \"snap device encryption on %s\"", name, info.UDID)
	}
	if b := info.Battery; b != nil && b.Percent < lowBattery && !b.Charging {
		o.Warning(fmt.Sprintf("the battery of %s is at %d%%: connect it to power", name, b.Percent))
	}
	if s := info.Storage; s != nil && s.Free < lowStorage {
		o.Warning(fmt.Sprintf("%s has only %s of free storage; a backup may need more", name, h.bytes(s.Free)))
	}
	list, err := h.Repo.KnownSnapshots(ctx)
	if err != nil {
		return err
	}
	var last *repo.Snapshot
	for _, s := range list {
		if repo.SameDevice(s.Device.UDID, info.UDID) {
			last = s
		}
	}
	// Say this before the first backup of a device, and again after encryption was
	// switched off.
	if info.WillEncrypt != nil && !*info.WillEncrypt && (last == nil || last.Encrypted) {
		o.Remark(fmt.Sprintf("%s does not encrypt its backups, so they lack passwords, health data, Wi-Fi networks and call history; "+
			"to change that, run \"snap device encryption on %s\"", name, info.UDID))
	}
	return h.room(ctx, info, last, o)
}

// room warns if a first backup may not fit. Later ones are small.
func (h Host) room(ctx context.Context, info *device.Info, last *repo.Snapshot, o Observer) error {
	if last != nil || info.Storage == nil {
		return nil
	}
	free, err := h.Repo.Free(ctx)
	if err != nil {
		return nil // not every store knows its free space
	}
	if used := info.Storage.Total - info.Storage.Free; free < used/2 {
		o.Warning(fmt.Sprintf("%s holds %s, including system and apps, but the repository has only %s free", nameOf(info), h.bytes(used), h.bytes(free)))
	}
	return nil
}

// announcePasscode says that the device will, or may, ask for its passcode.
func announcePasscode(info *device.Info, o Observer) {
	if info.PasscodeSet != nil && !*info.PasscodeSet || compareVersions(info.ProductVersion, "15.7") < 0 {
		return
	}
	if isTrue(info.PasscodeSet) {
		o.Remark(fmt.Sprintf("%s will ask for its passcode: enter it on the device", nameOf(info)))
		return
	}
	o.Remark(fmt.Sprintf("if %s asks for its passcode, enter it on the device", nameOf(info)))
}

// compareVersions compares versions such as 17.5.1. Parts that are missing or not
// numbers count as 0.
func compareVersions(a, b string) int {
	x, y := strings.Split(a, "."), strings.Split(b, ".")
	for i := range max(len(x), len(y)) {
		m, n := part(x, i), part(y, i)
		if m != n {
			if m < n {
				return -1
			}
			return 1
		}
	}
	return 0
}

func part(list []string, i int) int {
	if i >= len(list) {
		return 0
	}
	n, _ := strconv.Atoi(list[i])
	return n
}
