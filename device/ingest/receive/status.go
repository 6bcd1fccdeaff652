package receive

import "github.com/snap-backup/snap/device/protocol/plist"

// status is what a device says about its backup in Status.plist.
type status struct {
	run   string // UUID
	state string // uploading, moving, removing, finished
	full  bool   // IsFullBackup; setStatus keeps true, since the device says false at the end
}

const (
	stateUploading = "uploading"
	stateMoving    = "moving"
	stateFinished  = "finished"
	// maxStatus bounds how many bytes of a Status.plist are parsed. Real ones have
	// 189.
	maxStatus = 64 << 10
)

// parseStatus returns what a Status.plist says. Missing values are zero.
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
