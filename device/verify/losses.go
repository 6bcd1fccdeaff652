package verify

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/manifest"
	"github.com/snap-backup/snap/repo"
)

// maxLosses bounds the lines of Report.Losses.
const maxLosses = 30

// losses says in words what damaged files are, such as "12 photos of June 2026". Each
// file counts once. The most important come first.
func losses(findings []repo.Finding, records *manifest.Records) []string {
	counts := map[thing]int64{}
	seen := map[string]bool{}
	unnamed := int64(0)
	for _, f := range findings {
		if f.Consequence == repo.Remark {
			continue
		}
		for _, name := range f.Names {
			if !seen[name] {
				seen[name] = true
				counts[thingOf(name, records)]++
			}
		}
		unnamed += max(0, f.Count-int64(len(f.Names))) * int64(min(1, len(f.Names)))
	}
	if unnamed > 0 {
		counts[otherFile] += unnamed
	}
	var things []thing
	for t := range counts {
		things = append(things, t)
	}
	slices.SortFunc(things, func(a, b thing) int {
		return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.month, b.month), strings.Compare(a.one+a.of, b.one+b.of))
	})
	out := []string{}
	rest := int64(0)
	for _, t := range things {
		if len(out) == maxLosses {
			rest += counts[t]
			continue
		}
		out = append(out, t.text(counts[t]))
	}
	if rest > 0 {
		out = append(out, otherFile.text(rest))
	}
	return out
}

// thing is what a file is for its owner.
type thing struct {
	rank      int // the lowest is the most important
	one, many string
	of        string // " of the app com.example"
	month     string // "2026-06", of photos and videos
}

// Files of the backup itself.
var (
	manifestFile = thing{one: "manifest (the list of all files)", many: "manifests (the lists of all files)"}
	ownList      = thing{one: "property list of the backup itself", many: "property lists of the backup itself"}
)

var otherFile = thing{rank: 99, one: "other file", many: "other files"}

func (t thing) text(n int64) string {
	of := t.of
	if at, err := time.Parse("2006-01", t.month); err == nil {
		of += " of " + at.Format("January 2006")
	}
	if n == 1 {
		return "1 " + t.one + of
	}
	return fmt.Sprintf("%d %s%s", n, t.many, of)
}

// places are things by domain and the beginning of the path. The first that fits
// counts.
var places = []struct {
	domain, begin string
	thing         thing
}{
	{"HomeDomain", "Library/SMS/sms.db", thing{1, "message database", "message databases", "", ""}},
	{"MediaDomain", "Library/SMS/Attachments/", thing{4, "attachment of a message", "attachments of messages", "", ""}},
	{"HomeDomain", "Library/SMS/", thing{5, "file of messages", "files of messages", "", ""}},
	{"HomeDomain", "Library/AddressBook/", thing{1, "contacts database", "contacts databases", "", ""}},
	{"HomeDomain", "Library/CallHistoryDB/", thing{2, "call history", "call histories", "", ""}},
	{"HomeDomain", "Library/Calendar/", thing{2, "calendar database", "calendar databases", "", ""}},
	{"HomeDomain", "Library/Notes/", thing{1, "notes database", "notes databases", "", ""}},
	{"AppDomainGroup-group.com.apple.notes", "", thing{1, "file of notes", "files of notes", "", ""}},
	{"HomeDomain", "Library/Safari/", thing{6, "file of Safari", "files of Safari", "", ""}},
	{"HomeDomain", "Library/Voicemail/", thing{3, "voicemail file", "voicemail files", "", ""}},
	{"HomeDomain", "Library/Mail/", thing{3, "mail file", "mail files", "", ""}},
	{"HealthDomain", "", thing{1, "health file", "health files", "", ""}},
	{"KeychainDomain", "", thing{1, "file of the keychain (passwords)", "files of the keychain (passwords)", "", ""}},
	{"MediaDomain", "Media/Recordings/", thing{3, "voice memo", "voice memos", "", ""}},
	{"AppDomainGroup-group.com.apple.VoiceMemos.shared", "", thing{3, "file of voice memos", "files of voice memos", "", ""}},
	{"AppDomainGroup-group.net.whatsapp.WhatsApp.shared", "ChatStorage.sqlite", thing{1, "chat database", "chat databases", " of WhatsApp", ""}},
	{"CameraRollDomain", "Media/PhotoData/Photos.sqlite", thing{1, "database of the photo library", "databases of the photo library", "", ""}},
	{"CameraRollDomain", "Media/PhotoData/", thing{8, "file of the photo library", "files of the photo library", "", ""}},
	{"HomeDomain", "Library/Preferences/", thing{7, "settings file", "settings files", "", ""}},
	{"SystemPreferencesDomain", "", thing{7, "settings file", "settings files", "", ""}},
	{"WirelessDomain", "", thing{7, "file about networks", "files about networks", "", ""}},
}

// Media by the ends of their names.
var (
	photoEnds = []string{".jpg", ".jpeg", ".heic", ".heif", ".png", ".gif", ".dng", ".tif", ".tiff", ".webp"}
	videoEnds = []string{".mov", ".mp4", ".m4v", ".3gp"}
)

// picture returns what a file of the camera is, by its name.
func picture(rel string) (t thing, ok bool) {
	switch end := strings.ToLower(path.Ext(rel)); {
	case slices.Contains(photoEnds, end):
		return thing{rank: 2, one: "photo", many: "photos"}, true
	case slices.Contains(videoEnds, end):
		return thing{rank: 2, one: "video", many: "videos"}, true
	}
	return t, false
}

// thingOf says what the file with a name of a finding is.
func thingOf(name string, records *manifest.Records) thing {
	switch name {
	case mobilesync.ManifestDB, mobilesync.ManifestMBDB:
		return manifestFile
	case mobilesync.ManifestPlist, mobilesync.StatusPlist, mobilesync.InfoPlist:
		return ownList
	}
	domain, rel, modTime := place(name, records)
	if domain == "" {
		return otherFile
	}
	if domain == "CameraRollDomain" && strings.HasPrefix(rel, "Media/DCIM/") {
		if t, ok := picture(rel); ok {
			if modTime > 0 {
				t.month = time.Unix(modTime, 0).UTC().Format("2006-01")
			}
			return t
		}
	}
	for _, p := range places {
		if p.domain == domain && strings.HasPrefix(rel, p.begin) {
			return p.thing
		}
	}
	for _, prefix := range []string{"AppDomain-", "AppDomainGroup-", "AppDomainPlugin-"} {
		if app, ok := strings.CutPrefix(domain, prefix); ok {
			of := " of the app " + strings.TrimPrefix(app, "group.")
			if mobilesync.NamedLikeDatabase(rel) {
				return thing{3, "database", "databases", of, ""}
			}
			return thing{6, "file", "files", of, ""}
		}
	}
	if mobilesync.NamedLikeDatabase(rel) {
		return thing{4, "other database", "other databases", "", ""}
	}
	return otherFile
}

// place returns the domain, path and time of a file by its name in a finding, which
// ends in the name of its blob.
func place(name string, records *manifest.Records) (domain, rel string, modTime int64) {
	i := strings.LastIndex(name, " (")
	if i < 0 {
		return "", "", 0
	}
	begin, id := name[:i], strings.TrimSuffix(name[i+2:], ")")
	domain, rel, _ = strings.Cut(begin, "/")
	blob, err := hex.DecodeString(id)
	if err != nil || len(blob) != 20 || records == nil {
		return domain, rel, 0
	}
	if row, ok := records.ByFileID([20]byte(blob)); ok {
		rec := records.At(row)
		return rec.Domain, rec.RelativePath, rec.ModTime
	}
	return domain, rel, 0
}
