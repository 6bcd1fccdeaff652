package synthetic

import (
	"slices"

	"github.com/snap-backup/snap/device/mobilesync/manifest"
)

// ManifestSchema returns the statements that create an empty Manifest.db.
func ManifestSchema() []string { return slices.Clone(manifestTables) }

// MarshalMBFile encodes the metadata of a file, folder or symlink for the column
// "file" of Manifest.db, as devices do. xattrs is the property list of its extended
// attributes, or nil.
func MarshalMBFile(r *manifest.Record, xattrs []byte) []byte {
	row := &record{
		path: r.RelativePath, mode: r.Mode, size: r.Size, modified: r.ModTime, changed: r.ChangeTime, birth: r.Birth,
		uid: int64(int32(r.UserID)), gid: int64(int32(r.GroupID)), inode: r.Inode, flags: r.BSDFlags, class: r.ProtectionClass,
		target: r.Target, key: r.EncryptionKey, xattrs: xattrs,
	}
	if r.HasDigest {
		row.digest = r.Digest[:]
	}
	return row.marshal()
}
