package receive

import "github.com/snap-backup/snap/device/protocol/plist"

// status is what a device says of its backup in Status.plist.
type status struct {
	run   string // UUID
	state string // uploading, moving, removing, finished
	full  bool   // said at some time of the backup; at its end it says no
}

const (
	stateUploading = "uploading"
	stateMoving    = "moving"
	stateFinished  = "finished"
	// maxStatus bounds the bytes that are parsed of a Status.plist. Real ones have
	// 189.
	maxStatus = 64 << 10
)

// parseStatus returns what a Status.plist says; what it does not say is zero.
func parseStatus(b []byte) status {
	d, err := plist.Dict(b)
	if err != nil {
		return status{}
	}
	run, _ := d["UUID"].(string)
	state, _ := d["SnapshotState"].(string)
	full, _ := d["IsFullBackup"].(bool)
	return status{run, state, full}
}
