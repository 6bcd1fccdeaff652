package virtual

import "github.com/snap-backup/snap/device/protocol/plist"

// status is what a device says of its backup in Status.plist.
type status struct {
	run   string // UUID
	state string // uploading, moving, removing, finished
	full  bool   // said at any time of the run: at the end it says no
}

const (
	stateUploading = "uploading"
	stateMoving    = "moving"
	stateFinished  = "finished"
	// maxStatus bounds a Status.plist that is looked into. Real ones have 189
	// bytes.
	maxStatus = 64 << 10
)

// parseStatus takes from a Status.plist what there is.
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
