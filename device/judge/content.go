package judge

import (
	"bytes"
	"errors"
	"strings"

	"github.com/snap-backup/snap/device/finding"
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/database"
	"github.com/snap-backup/snap/device/mobilesync/manifest"
	"github.com/snap-backup/snap/device/protocol/bplist"
	"github.com/snap-backup/snap/device/protocol/plist"
)

// Form is what a file is, by its name and its first and last bytes.
type Form int

// The forms. Database and PropertyList say what a file claims to be: reading it shows
// whether it is.
const (
	Other Form = iota
	Database
	PropertyList
	BrokenDatabase     // it was a database, but its first bytes are damaged
	BrokenPropertyList // likewise
	Misnamed           // named like a property list; apps do that
)

const (
	HeadLen = 512 // bytes that MayBe needs
	tailLen = 64
	// MaxPropertyList is the largest property list that is checked, in bytes.
	MaxPropertyList = 24 << 20
)

// Ends keeps the first and last bytes of a file that is written to it. The zero value
// is an empty file.
type Ends struct {
	Size       int64
	head, tail []byte
}

// Write implements io.Writer. It returns no errors.
func (e *Ends) Write(b []byte) (int, error) {
	e.Size += int64(len(b))
	if n := min(HeadLen-len(e.head), len(b)); n > 0 {
		e.head = append(e.head, b[:n]...)
	}
	last := b[max(0, len(b)-tailLen):]
	if over := len(e.tail) + len(last) - tailLen; over > 0 {
		e.tail = e.tail[:copy(e.tail, e.tail[over:])]
	}
	e.tail = append(e.tail, last...)
	return len(b), nil
}

// Head returns the first bytes, at most 512. The caller must not change them.
func (e *Ends) Head() []byte { return e.head }

// Known reports whether there were enough bytes for MayBe.
func (e *Ends) Known() bool { return len(e.head) == HeadLen }

// MayBe reports what the file may be by its first bytes: Database, PropertyList or
// Other. Form decides at the end.
func (e *Ends) MayBe() Form {
	switch text := trimText(e.head); {
	case database.Is(e.head):
		return Database
	case bplist.Is(e.head), plist.Looks(e.head), bytes.HasPrefix(text, []byte("<")):
		return PropertyList
	}
	return Other
}

// trimText returns a text without byte order mark and space at its beginning.
func trimText(head []byte) []byte {
	return bytes.TrimLeft(bytes.TrimPrefix(head, []byte("\xef\xbb\xbf")), " \t\r\n")
}

// Form returns the form of a file by the name that it has on the device.
//
// If the first bytes are damaged, the other bytes at the beginning and the end tell what
// the file was. A file that begins with zeros and has the name of a database or property
// list counts as broken: it was probably being written.
func (e *Ends) Form(name string) Form {
	listed := strings.HasSuffix(name, ".plist")
	closed := bytes.HasSuffix(bytes.TrimRight(e.tail, " \t\r\n\x00"), []byte("</plist>"))
	may := e.MayBe()
	switch {
	case e.Size == 0:
		return Other
	case may == Database:
		return Database
	case bplist.Is(e.head), plist.Looks(e.head), may == PropertyList && closed:
		return PropertyList
	case database.Was(e.head, e.Size), e.Zeros() && mobilesync.NamedLikeDatabase(name):
		return BrokenDatabase
	case closed, bplist.Was(e.head, e.tail, e.Size), e.Zeros() && listed:
		return BrokenPropertyList
	case listed:
		return Misnamed
	}
	return Other
}

// Zeros reports whether the first bytes of the file are all zero. Form says what follows
// from that.
func (e *Ends) Zeros() bool { return len(e.head) > 0 && len(bytes.Trim(e.head, "\x00")) == 0 }

// CutDatabase reports whether a file, by the name that it has on the device, is an SQLite
// database that is cut off or whose beginning is damaged. Like Form, it relies only on
// the size and on the first and last bytes.
func (e *Ends) CutDatabase(name string) bool {
	switch e.Form(name) {
	case Database:
		return database.Size(e.head) > e.Size
	case BrokenDatabase:
		return true
	}
	return false
}

// Content adds a finding about the content of a file. It is a remark if no file of the
// device is lost: if the file's digest proves that the device wrote these bytes, or if
// the manifest does not list the file.
func (j *Judge) Content(kind, name string, rec *manifest.Record, proven bool) {
	if proven || rec == nil && j.Records != nil && !ownName(name) {
		j.Log.Remark(kind, name)
	} else {
		j.Log.File(kind, name)
	}
}

// ownName reports whether a name is that of a file at the top of a backup folder, which
// no manifest lists.
func ownName(name string) bool {
	switch name {
	case mobilesync.ManifestDB, mobilesync.ManifestMBDB, mobilesync.ManifestPlist, mobilesync.InfoPlist, mobilesync.StatusPlist:
		return true
	}
	return false
}

// PropertyList adds a finding about a property list. err is that of plist.Check.
func (j *Judge) PropertyList(err error, name string, rec *manifest.Record, proven bool) {
	switch {
	case errors.Is(err, plist.ErrForm):
		j.Log.Remark(finding.Plist, name)
	case err != nil:
		j.Content(finding.Plist, name, rec, proven)
	}
}

// Verdict adds a finding about a database that was checked.
func (j *Judge) Verdict(v database.Verdict, name string, rec *manifest.Record, proven bool) {
	switch {
	case v.Damage != "":
		j.Content(finding.Database, name, rec, proven)
	case v.Complaint != "":
		j.Log.Remark(finding.Database, name)
	}
}

// Broken adds a finding if the form is broken. It reports whether there was one.
func (j *Judge) Broken(form Form, name string, rec *manifest.Record, proven bool) bool {
	switch form {
	case BrokenDatabase:
		j.Content(finding.Database, name, rec, proven)
	case BrokenPropertyList:
		j.Content(finding.Plist, name, rec, proven)
	case Misnamed:
		j.Log.Remark(finding.Plist, name)
	default:
		return false
	}
	return true
}
