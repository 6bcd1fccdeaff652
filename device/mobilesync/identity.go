package mobilesync

import (
	"path/filepath"
	"regexp"
	"strings"
	"time"
	"unicode"
)

// Device describes the device of a backup. Fields are empty if no property list
// has them. All text is valid UTF-8 without control characters.
type Device struct {
	UDID           string // 40 lower-case hex digits, or 8, a dash and 16 in upper case
	Name           string // as set by the owner
	ProductType    string // "iPhone9,3"
	ProductName    string // "iPhone 7"; written by the host, often missing
	ProductVersion string // "14.3"
	BuildVersion   string // "18C66"
	SerialNumber   string
	// FromName says that no property list has a UDID. UDID is then the name of
	// the folder, which need not look like a UDID.
	FromName bool
}

var (
	udidShape    = regexp.MustCompile(`^(?:[0-9a-fA-F]{40}|[0-9a-fA-F]{8}-[0-9a-fA-F]{16})$`)
	archiveShape = regexp.MustCompile(`^(.+)-(\d{8}-\d{6})$`)
)

// Device describes the device. The UDID is the first one found in
// Manifest.plist, Info.plist and the name of the folder, in this order.
func (b *Backup) Device() Device { return b.device }

// Dates returns when the backup was made, according to Status.plist, Manifest.plist,
// Info.plist, and the local time in the name of an archived folder, in this order.
// Missing dates are left out. The rest may be wrong: a device that lost its clock
// says 1970 or 2001.
func (b *Backup) Dates() []time.Time { return b.dates }

// Archived reports whether the folder's name ends in the time at which it was
// archived. Hosts do not change such a folder.
func (b *Backup) Archived() bool { return b.archived }

// identify sets device, dates and archived. name is the last component of the
// path by which the folder was opened.
func (b *Backup) identify(name string) {
	// Link and target may have different names; prefer the one with a UDID.
	if real := filepath.Base(b.dir); !beginsWithUDID(name) && beginsWithUDID(real) {
		name = real
	}
	stem, archivedAt := splitArchive(name)
	b.archived = !archivedAt.IsZero()
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
		Name:           first(b.manifest.Text("Lockdown/DeviceName"), b.info.Text("Device Name"), b.info.Text("Display Name")),
		ProductType:    first(b.manifest.Text("Lockdown/ProductType"), b.info.Text("Product Type")),
		ProductName:    first(b.info.Text("Product Name")),
		ProductVersion: first(b.manifest.Text("Lockdown/ProductVersion"), b.info.Text("Product Version")),
		BuildVersion:   first(b.manifest.Text("Lockdown/BuildVersion"), b.info.Text("Build Version")),
		SerialNumber:   first(b.manifest.Text("Lockdown/SerialNumber"), b.info.Text("Serial Number")),
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
		b.status.Time("Date"), b.manifest.Time("Date"), b.info.Time("Last Backup Date"), archivedAt,
	} {
		if !t.IsZero() {
			b.dates = append(b.dates, t)
		}
	}
}

type statedUDID struct{ where, udid string }

// statedUDIDs returns the UDIDs in the property lists, most trusted first.
func (b *Backup) statedUDIDs() []statedUDID {
	return []statedUDID{
		{ManifestPlist, normalUDID(b.manifest.Text("Lockdown/UniqueDeviceID"))},
		{InfoPlist, normalUDID(b.info.Text("Target Identifier"))},
		{InfoPlist, normalUDID(b.info.Text("Unique Identifier"))},
	}
}

// normalUDID returns a UDID in the case that devices use, or "" if s is not a
// UDID. Info.plist has it in upper case.
func normalUDID(s string) string {
	if !udidShape.MatchString(s) {
		return ""
	}
	if len(s) == 40 {
		return strings.ToLower(s)
	}
	return strings.ToUpper(s)
}

// beginsWithUDID reports whether a folder name begins with a UDID.
func beginsWithUDID(name string) bool {
	stem, _ := splitArchive(name)
	return normalUDID(stem) != ""
}

// splitArchive splits the name of an archived folder. The time in the name is
// local to the host that wrote it; this computer's zone is the best guess.
func splitArchive(name string) (stem string, archivedAt time.Time) {
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

// clean makes a text of a property list safe to show: valid UTF-8, one line, no
// control or invisible direction characters, at most 256 bytes.
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
