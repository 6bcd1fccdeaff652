package synthetic

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"howett.net/plist"
)

// maker generates the content of the files of a device.
type maker struct {
	seed   uint64
	device int
	words  *lexicon
	first  time.Time // time of the first backup
}

func (m *maker) stream(parts ...any) stream {
	return newStream(m.seed, append([]any{"device", m.device}, parts...)...)
}

// write writes the content of a file that is not a database.
func (m *maker) write(w io.Writer, f *file) error {
	switch f.kind {
	case kindEmpty, kindDataless:
		return nil
	case kindPlist:
		return writeAll(w, m.preferences(f))
	case kindKeychain:
		return writeAll(w, m.keychain(f))
	case kindJSON:
		return writeAll(w, m.json(f))
	case kindText:
		return writeAll(w, func() ([]byte, error) {
			return []byte(m.words.paragraph(m.stream("text", f.source), f.size)), nil
		})
	case kindLog:
		return m.log(w, f)
	case kindJPEG, kindHEIC, kindMovie:
		return m.media(w, f)
	}
	return fmt.Errorf("no content for kind %d", f.kind)
}

func writeAll(w io.Writer, makeBytes func() ([]byte, error)) error {
	b, err := makeBytes()
	if err != nil {
		return err
	}
	_, err = w.Write(b)
	return err
}

var preferenceNames = strings.Fields(`Enabled Version LastSyncDate Identifier LaunchCount Theme SortOrder ShowsPreviews AccountState
	MigrationVersion CachePolicy BadgeCount WindowState LastViewed Language Region Consent Experiment Cohort Quota Expiry Token`)

// preferences generates a property list of settings. Each new version of the file
// changes a counter, a date, an identifier and sometimes a setting.
func (m *maker) preferences(f *file) func() ([]byte, error) {
	return func() ([]byte, error) {
		s := m.stream("plist", f.source)
		dict := map[string]any{}
		for i := range f.size {
			key := fmt.Sprintf("%s%s", m.words.name(s), pick(s, preferenceNames))
			switch i % 7 {
			case 0:
				dict[key] = s.IntN(2) == 0
			case 1:
				dict[key] = s.IntN(100000)
			case 2:
				dict[key] = s.uuid()
			case 3:
				dict[key] = m.words.sentence(s, 3)
			case 4:
				dict[key] = m.first.Add(-time.Duration(s.IntN(86400*700)) * time.Second)
			case 5:
				dict[key] = s.bytes(s.between(8, 64))
			case 6:
				list := make([]any, s.between(1, 9))
				for j := range list {
					list[j] = map[string]any{"name": m.words.word(s), "id": s.IntN(1 << 30), "seen": s.IntN(2) == 0}
				}
				dict[key] = list
			}
		}
		v := m.stream("plist", f.source, f.version)
		dict["LaunchCount"] = 10 + f.version*3
		dict["LastActiveDate"] = time.Unix(f.modified, 0).UTC()
		dict["SessionIdentifier"] = v.uuid()
		if f.version%3 == 2 {
			dict["PendingNotice"] = m.words.sentence(v, 5)
		}
		return plist.Marshal(dict, plist.BinaryFormat)
	}
}

// keychain generates keychain-backup.plist. Every item changes in every run.
func (m *maker) keychain(f *file) func() ([]byte, error) {
	return func() ([]byte, error) {
		v := m.stream("keychain", f.version)
		dict := map[string]any{}
		for _, name := range []string{"genp", "inet", "cert", "keys"} {
			var items []any
			for range f.size/4/400 + 1 {
				items = append(items, map[string]any{"v_Data": v.bytes(v.between(200, 420)), "v_PersistentRef": v.bytes(20)})
			}
			dict[name] = items
		}
		return plist.Marshal(dict, plist.BinaryFormat)
	}
}

// json generates the cache of an app. Each version of the file has at most one changed
// record and up to four additional ones.
func (m *maker) json(f *file) func() ([]byte, error) {
	type item struct {
		ID      string   `json:"id"`
		URL     string   `json:"url"`
		Title   string   `json:"title"`
		Updated int64    `json:"updated"`
		Read    bool     `json:"read"`
		Tags    []string `json:"tags"`
	}
	return func() ([]byte, error) {
		s := m.stream("json", f.source)
		host := "https://api." + m.words.rareWord(s) + ".example/v2/"
		changed := -1
		if f.version > 0 {
			changed = m.stream("json", f.source, f.version).IntN(f.size + 1)
		}
		var items []item
		for i := range f.size + f.version%5 {
			it := item{ID: s.hex(8), Title: m.words.sentence(s, s.between(3, 12)), Updated: f.born - int64(s.IntN(86400*60))}
			it.URL = host + m.words.word(s) + "/" + it.ID
			it.Tags = []string{m.words.word(s), m.words.word(s)}
			if i == changed {
				it.Read, it.Updated = true, f.modified
			}
			items = append(items, it)
		}
		return json.Marshal(map[string]any{"etag": m.stream("etag", f.source, f.version).hex(10), "fetched": f.modified, "items": items})
	}
}

var processes = strings.Fields("backupd apsd assetsd cloudd dasd healthd identityservicesd locationd mediaserverd nsurlsessiond photoanalysisd wifid")

// log generates the lines of a log, day by day. f.size is the number of lines of one
// day.
func (m *maker) log(w io.Writer, f *file) error {
	var b strings.Builder
	for day := f.since; day <= f.until; day++ {
		s := m.stream("log", f.source, day)
		at := m.first.Add(time.Duration(day-1) * 24 * time.Hour)
		step := 86400 / (f.size + 1)
		for range f.size {
			at = at.Add(time.Duration(s.between(1, step+1)) * time.Second)
			fmt.Fprintf(&b, "%s %s[%d] <%s>: %s (code=%d, id=%s)\n", at.Format("2006-01-02 15:04:05+0000"), pick(s, processes),
				s.between(40, 900), pick(s, []string{"Notice", "Notice", "Info", "Error"}), m.words.sentence(s, s.between(4, 14)), s.IntN(40), s.hex(6))
		}
		if _, err := io.WriteString(w, b.String()); err != nil {
			return err
		}
		b.Reset()
	}
	return nil
}

var mediaHeads = map[kind][]byte{
	kindJPEG:  []byte("\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x48\x00\x48\x00\x00\xff\xe1\x02\x00Exif\x00\x00MM\x00*\x00\x00\x00\x08Apple\x00iPhone\x00"),
	kindHEIC:  []byte("\x00\x00\x00\x24ftypheic\x00\x00\x00\x00mif1MiHEmiafheictmap\x00\x00\x00\x00\x00\x00\x01\x00meta"),
	kindMovie: []byte("\x00\x00\x00\x14ftypqt  \x00\x00\x00\x00qt  \x00\x00\x00\x08wide"),
}

// media generates an incompressible file that begins with the header of its kind.
// f.size is its length in bytes.
func (m *maker) media(w io.Writer, f *file) error {
	head := append([]byte(nil), mediaHeads[f.kind]...)
	if f.kind == kindMovie {
		head = append(binary.BigEndian.AppendUint32(head, uint32(f.size-len(head))), "mdat"...)
	}
	if len(head) > f.size {
		head = head[:f.size]
	}
	if _, err := w.Write(head); err != nil {
		return err
	}
	s := m.stream("media", f.source)
	buf := make([]byte, min(64<<10, f.size))
	for left := f.size - len(head); left > 0; {
		p := buf[:min(left, len(buf))]
		_, _ = s.Read(p)
		if _, err := w.Write(p); err != nil {
			return err
		}
		left -= len(p)
	}
	return nil
}
