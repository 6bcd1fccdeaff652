package synthetic

import (
	"crypto/sha1"
	"encoding/hex"
	"path"
	"strings"
)

// kind is the kind of a file's content.
type kind uint8

const (
	kindEmpty kind = iota
	kindDataless
	kindPlist
	kindKeychain
	kindJSON
	kindText
	kindLog
	kindJPEG
	kindHEIC
	kindMovie
	kindDatabase
	kindFolder
	kindSymlink
)

// flagDataless is SF_DATALESS: the content is in a cloud, and the device does not
// send it.
const flagDataless = 0x40000000

// file is a row of Manifest.db. The seed, the device and the first fields determine
// its content.
type file struct {
	domain, path string
	kind         kind
	source       string // files of the same source and version have the same bytes
	size         int    // bytes or entries, depending on kind
	version      int    // how often it changed
	since, until int    // days of a log
	class        uint32
	mode         uint32
	flags        uint32
	target       string
	sizeOff      int64 // difference between Size in the manifest and the stored length
	xattrs       bool
	born         int64 // Unix seconds, as modified
	modified     int64
	inode        uint64
	db           *database

	// Results of the last run.
	length int64
	key    []byte
	digest []byte
}

func (f *file) name() string { return f.domain + "-" + f.path }

// id returns the fileID, which is the name of the blob.
func (f *file) id() string {
	sum := sha1.Sum([]byte(f.name()))
	return hex.EncodeToString(sum[:])
}

func (f *file) hasBlob() bool { return f.kind < kindFolder }

func parent(p string) string {
	if dir := path.Dir(p); dir != "." {
		return dir
	}
	return ""
}

const digestDomains = " HomeDomain RootDomain HealthDomain WirelessDomain SystemPreferencesDomain DatabaseDomain HomeKitDomain " +
	"InstallDomain ManagedPreferencesDomain KeyboardDomain KeychainDomain "

// hasDigest reports whether devices record the SHA-1 of the stored bytes for files
// of a domain.
func hasDigest(domain string) bool { return strings.Contains(digestDomains, " "+domain+" ") }

// row returns the file's metadata in Manifest.db.
func (f *file) row() *record {
	r := &record{
		path: f.path, mode: f.mode, modified: f.modified, changed: f.modified, birth: f.born, uid: 501, gid: 501, inode: f.inode,
		flags: f.flags, class: f.class, target: f.target, key: f.key, digest: f.digest,
	}
	if f.hasBlob() {
		r.size = f.length + f.sizeOff
	}
	switch f.domain {
	case "RootDomain", "DatabaseDomain", "SystemPreferencesDomain":
		r.uid, r.gid = 0, 0
	case "InstallDomain":
		r.uid, r.gid = 33, 33
	}
	if f.xattrs {
		r.xattrs = marshalPlist(plistDict{{"com.apple.assetsd.favorite", plistData{0, 0}}, {"com.apple.assetsd.timeZoneName", plistData("Europe/Berlin")}})
	}
	return r
}
