package mobilesync

import (
	"path/filepath"
	"regexp"
	"strings"
	"time"
	"unicode"
)

// Device says whose backup it is. Fields are empty where the property lists
// are silent. All text is valid UTF-8 without control characters, but was
// written by the device's owner.
type Device struct {
	UDID           string // 40 lower-case hex digits, or 8-16 upper-case ones
	Name           string // as set by the owner
	ProductType    string // "iPhone9,3"
	ProductName    string // "iPhone 7"; host's words, often missing
	ProductVersion string // "14.3"
	BuildVersion   string // "18C66"
	SerialNumber   string
	// FromName says that no property list names the device, and UDID is the
	// name of the folder, whatever that looks like.
	FromName bool
}

var (
	udidShape    = regexp.MustCompile(`^(?:[0-9a-fA-F]{40}|[0-9a-fA-F]{8}-[0-9a-fA-F]{16})$`)
	archiveShape = regexp.MustCompile(`^(.+)-(\d{8}-\d{6})$`)
)

// Device returns whose backup it is. A UDID in Manifest.plist outranks one in
// Info.plist, and that one the name of the folder.
func (b *Backup) Device() Device { return b.device }

// Date returns when the backup was made: by Status.plist, else Manifest.plist,
// else Info.plist; for an archived folder whose property lists are silent, the
// local time in its name. Zero when nothing says.
func (b *Backup) Date() time.Time { return b.date }

// Archived reports whether the folder's name carries the time at which it was
// set aside; the host does not touch such a folder again.
func (b *Backup) Archived() bool { return b.archived }

// identify fills in device, date and archived; name is the last component of
// the path by which the folder was opened.
func (b *Backup) identify(name string) {
	// Through a link, either name may be the one that means something.
	if real := filepath.Base(b.dir); !looksNamed(name) && looksNamed(real) {
		name = real
	}
	stem, aside := splitArchive(name)
	b.archived = !aside.IsZero()
	b.named = normalUDID(stem)
	first := func(texts ...string) string {
		for _, t := range texts {
			if t = clean(t); t != "" {
				return t
			}
		}
		return ""
	}
	b.device = Device{
		Name:           first(b.manifest.text("Lockdown/DeviceName"), b.info.text("Device Name"), b.info.text("Display Name")),
		ProductType:    first(b.manifest.text("Lockdown/ProductType"), b.info.text("Product Type")),
		ProductName:    first(b.info.text("Product Name")),
		ProductVersion: first(b.manifest.text("Lockdown/ProductVersion"), b.info.text("Product Version")),
		BuildVersion:   first(b.manifest.text("Lockdown/BuildVersion"), b.info.text("Build Version")),
		SerialNumber:   first(b.manifest.text("Lockdown/SerialNumber"), b.info.text("Serial Number")),
	}
	for _, id := range b.statedUDIDs() {
		if id.udid != "" {
			b.device.UDID = id.udid
			break
		}
	}
	if b.device.UDID == "" {
		b.device.FromName = true
		if b.device.UDID = normalUDID(stem); b.device.UDID == "" {
			b.device.UDID = clean(stem)
		}
	}
	for _, t := range []time.Time{
		b.status.date("Date"), b.manifest.date("Date"), b.info.date("Last Backup Date"), aside,
	} {
		if plausible(t) {
			b.date = t
			break
		}
	}
}

type statedUDID struct{ where, udid string }

// statedUDIDs returns what the property lists say, most trusted first.
func (b *Backup) statedUDIDs() []statedUDID {
	return []statedUDID{
		{ManifestPlist, normalUDID(b.manifest.text("Lockdown/UniqueDeviceID"))},
		{InfoPlist, normalUDID(b.info.text("Target Identifier"))},
		{InfoPlist, normalUDID(b.info.text("Unique Identifier"))},
	}
}

// normalUDID returns a UDID in the case that devices use, or "" if s has not
// the shape of one. Info.plist writes it in upper case.
func normalUDID(s string) string {
	if !udidShape.MatchString(s) {
		return ""
	}
	if len(s) == 40 {
		return strings.ToLower(s)
	}
	return strings.ToUpper(s)
}

// looksNamed reports whether a folder name begins with a UDID.
func looksNamed(name string) bool {
	stem, _ := splitArchive(name)
	return normalUDID(stem) != ""
}

// splitArchive cuts the time off the name of an archived folder. The time is
// local by the clock of the host that wrote it; the local zone here is the best
// guess there is.
func splitArchive(name string) (stem string, aside time.Time) {
	m := archiveShape.FindStringSubmatch(name)
	if m == nil {
		return name, time.Time{}
	}
	t, err := time.ParseInLocation("20060102-150405", m[2], time.Local)
	if err != nil {
		return name, time.Time{}
	}
	return m[1], t
}

// plausible refuses dates that no backup has: the first was in 2007, and a
// device whose clock was lost says 1970 or 2001.
func plausible(t time.Time) bool { return t.Year() >= 2005 && t.Year() < 2200 }

// clean makes a text from a property list fit to show: valid UTF-8, one line,
// no control or invisible direction characters, at most 256 bytes.
func clean(s string) string {
	const longest = 256
	if len(s) > longest {
		s = s[:longest]
	}
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == unicode.ReplacementChar {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, ""))
	return strings.TrimSpace(s)
}
