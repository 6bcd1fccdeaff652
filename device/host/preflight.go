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
	// lowBattery is the charge in percent below which a device that does not
	// charge is warned about.
	lowBattery = 20
	// lowStorage is the free storage, in bytes, below which devices are known
	// to fail to make the snapshot that they back up from.
	lowStorage = 1 << 30
)

func yes(b *bool) bool { return b != nil && *b }

// preflight refuses what cannot work, and says what is good to know.
func (h Host) preflight(ctx context.Context, info *device.Info, o Observer) error {
	name := nameOf(info)
	if yes(info.RequiresEncryption) && !yes(info.WillEncrypt) {
		return refuse("%s: the organisation that manages it requires encrypted backups, and encryption is off", name)
	}
	if b := info.Battery; b != nil && b.Percent < lowBattery && !b.Charging {
		o.Warning(fmt.Sprintf("the battery of %s is at %d%%: connect it to power", name, b.Percent))
	}
	if s := info.Storage; s != nil && s.Free < lowStorage {
		o.Warning(fmt.Sprintf("%s has only %s of storage left; a backup may need more than that", name, h.bytes(s.Free)))
	}
	list, _, err := h.Repo.Snapshots(ctx)
	if err != nil {
		return err
	}
	var last *repo.Snapshot
	for _, s := range list {
		if repo.SameDevice(s.Device.UDID, info.UDID) {
			last = s
		}
	}
	// Once for each device, and again when encryption was switched off.
	if info.WillEncrypt != nil && !*info.WillEncrypt && (last == nil || last.Encrypted) {
		o.Remark(fmt.Sprintf("backups of %s are not encrypted by it, and lack passwords, health data, Wi-Fi networks and call history; "+
			"\"snap device encryption on %s\" changes that", name, info.UDID))
	}
	return h.room(ctx, info, last, o)
}

// room warns if a first backup is likely not to fit. Later ones are small.
func (h Host) room(ctx context.Context, info *device.Info, last *repo.Snapshot, o Observer) error {
	if last != nil || info.Storage == nil {
		return nil
	}
	free, err := h.Repo.Free(ctx)
	if err != nil {
		return nil // not every store knows
	}
	if used := info.Storage.Total - info.Storage.Free; free < used/2 {
		o.Warning(fmt.Sprintf("%s holds %s, system and apps included, and the repository has room for %s", nameOf(info), h.bytes(used), h.bytes(free)))
	}
	return nil
}

// announcePasscode tells beforehand that the device will ask, where it is known
// to.
func announcePasscode(info *device.Info, o Observer) {
	if info.PasscodeSet != nil && !*info.PasscodeSet || compareVersions(info.ProductVersion, "15.7") < 0 {
		return
	}
	if yes(info.PasscodeSet) {
		o.Remark(fmt.Sprintf("%s is going to ask for its passcode: enter it on the device", nameOf(info)))
		return
	}
	o.Remark(fmt.Sprintf("if %s asks for its passcode, enter it on the device", nameOf(info)))
}

// compareVersions compares versions such as 17.5.1, of which each part may be
// missing; what is no number counts as 0.
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
