package blob

import (
	"encoding/hex"
	"strings"

	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/folder"
)

// ID is the SHA-1 that names a blob.
type ID [20]byte

// ParsePath returns the ID of the blob with this path in a backup folder. In the
// flat layout of old devices, all blobs are at the top. In the other layout, a
// blob is in a folder whose name is the first two digits of the ID.
func ParsePath(path string, flat bool) (id ID, ok bool) {
	name := path
	if !flat {
		dir, base, found := strings.Cut(path, "/")
		if !found || len(dir) != 2 || !strings.HasPrefix(base, dir) {
			return id, false
		}
		name = base
	}
	if len(name) != 2*len(id) {
		return id, false
	}
	for i := range len(name) {
		if c := name[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return id, false
		}
	}
	_, err := hex.Decode(id[:], []byte(name))
	return id, err == nil
}

// Path is the inverse of ParsePath.
func (id ID) Path(flat bool) string {
	layout := mobilesync.Hashed
	if flat {
		layout = mobilesync.Flat
	}
	return mobilesync.BlobPath(layout, id)
}

// IsFolderName reports whether name can be the name of a backup folder, such as a
// UDID.
func IsFolderName(name string) bool {
	return folder.CheckPath(name) == nil && !strings.Contains(name, "/")
}

// Below returns the part of a path that is below the folder of a device, "" for
// that folder itself.
func Below(udid, path string) (rest string, ok bool) {
	if path == udid {
		return "", true
	}
	return strings.CutPrefix(path, udid+"/")
}
