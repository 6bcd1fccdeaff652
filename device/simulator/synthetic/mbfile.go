package synthetic

import (
	"unicode/utf16"
)

const (
	modeFile    = 0o100644
	modeFolder  = 0o040755
	modeSymlink = 0o120755
)

// record is the metadata of a file, folder or symlink in Manifest.db.
type record struct {
	path                     string
	mode                     uint32
	size                     int64
	modified, changed, birth int64 // times in Unix seconds
	uid, gid                 int64 // -2 is "nobody"
	inode                    uint64
	flags                    uint32
	class                    uint32
	target                   string // target of a symlink
	key, digest, xattrs      []byte
}

// manifestFlags returns the column flags of Manifest.db.
func (r *record) manifestFlags() int {
	switch r.mode & 0o170000 {
	case modeFolder & 0o170000:
		return 2
	case modeSymlink & 0o170000:
		return 4
	}
	return 1
}

// marshal encodes the record as the archive of an MBFile. Keys and objects have the
// same order as in real archives.
func (r *record) marshal() []byte {
	objects := plistList{"$null", nil, r.path}
	next := func(n ...node) plistUID {
		objects = append(objects, n...)
		return plistUID(len(objects) - len(n))
	}
	var digest, key, xattrs, target node
	if r.digest != nil {
		digest = next(plistData(r.digest))
	}
	if r.key != nil {
		class := plistUID(len(objects) + 1)
		key = next(plistDict{{"NS.data", plistData(r.key)}, {"$class", class}}, plistDict{
			{"$classname", plistOwn("NSMutableData")},
			{"$classes", plistList{plistOwn("NSMutableData"), "NSData", "NSObject"}},
		})
	}
	if r.xattrs != nil {
		xattrs = next(plistData(r.xattrs))
	}
	if r.target != "" {
		target = next(r.target)
	}
	class := next(plistDict{{"$classname", "MBFile"}, {"$classes", plistList{"MBFile", "NSObject"}}})

	var dict plistDict
	put := func(name string, value node) {
		if value != nil {
			dict = append(dict, plistPair{name, value})
		}
	}
	inodeLast := r.manifestFlags() == 1
	put("LastModified", uint64(r.modified))
	if digest != nil {
		put("ProtectionClass", uint64(r.class))
	}
	put("Flags", uint64(r.flags))
	if digest == nil {
		put("ExtendedAttributes", xattrs)
	}
	put("GroupID", uint64(r.gid))
	if digest != nil {
		put("ExtendedAttributes", xattrs)
	}
	put("Target", target)
	put("$class", class)
	put("LastStatusChange", uint64(r.changed))
	put("RelativePath", plistUID(2))
	put("Birth", uint64(r.birth))
	put("EncryptionKey", key)
	put("Size", plistLong(r.size))
	if !inodeLast {
		put("InodeNumber", plistLong(r.inode))
	}
	put("Mode", uint64(r.mode))
	put("UserID", uint64(r.uid))
	put("Digest", digest)
	if inodeLast {
		put("InodeNumber", plistLong(r.inode))
	}
	if digest == nil {
		put("ProtectionClass", uint64(r.class))
	}
	objects[1] = dict
	return marshalPlist(plistDict{
		{"$version", uint64(100000)},
		{"$archiver", "NSKeyedArchiver"},
		{"$top", plistDict{{"root", plistUID(1)}}},
		{"$objects", objects},
	})
}

func utf16Units(s string) []uint16 { return utf16.Encode([]rune(s)) }
