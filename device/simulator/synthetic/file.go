package synthetic

import (
	"crypto/sha1"
	"encoding/hex"
	"path"
	"strings"
)

// kind is a kind of content of files.
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

// flagDataless is SF_DATALESS, the flag of a file whose content is only in a cloud. A
// device does not send such content.
const flagDataless = 0x40000000

// file is a row of Manifest.db. Its content follows from the seed, the device and the
// fields from domain to modified.
type file struct {
	domain, path string
	kind         kind
	source       string // files with the same source and version have the same bytes
	size         int    // number of bytes or entries, depending on kind
	version      int    // how often the file has changed
	since, until int    // first and last day of a log
	class        uint32
	mode         uint32
	flags        uint32
	target       string
	sizeOff      int64 // Size in the manifest minus the stored length
	xattrs       bool
	born         int64 // creation time in Unix seconds, like modified
	modified     int64
	inode        uint64
	db           *database

	// The fields from here on are results of the last run.
	length int64
	key    []byte
	digest []byte
}

func (f *file) name() string { return f.domain + "-" + f.path }

// id returns the fileID, which is also the name of the file's blob.
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

// hasDigest reports whether devices record, for each file of a domain, the SHA-1 of
// its stored bytes.
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
