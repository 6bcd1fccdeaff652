package repotest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
)

// Files is the content of a made-up backup, by path.
type Files map[string][]byte

// Same returns an error that names a difference, if there is any.
func (got Files) Same(want Files) error {
	if len(got) != len(want) {
		return fmt.Errorf("%d files, want %d", len(got), len(want))
	}
	for name, b := range want {
		if !bytes.Equal(got[name], b) {
			return fmt.Errorf("%s differs", name)
		}
	}
	return nil
}

// Noise returns bytes that do not compress.
func Noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	var key [32]byte
	key[0], key[1], key[2] = byte(seed), byte(seed>>8), 77
	rand.NewChaCha8(key).Read(b)
	return b
}

// Day returns the files of a day. They have only 300 KB, since tests store them
// hundreds of times. With SmallPacks they fill several packs of both kinds. From the
// second day on, DeltaFiles and some tree nodes are stored as deltas.
// TestDaysAreStoredAsDeltas of package check verifies that.
func Day(day int) Files {
	f, _ := days.LoadOrStore(day, sync.OnceValue(func() Files { return newDay(day) }))
	return maps.Clone(f.(func() Files)())
}

// days holds what Day has made. The contents are shared and never changed.
var days sync.Map

func newDay(day int) Files {
	f := Files{"Info.plist": fmt.Appendf(nil, "info of day %d", day), "empty": nil}
	for i := range 8 {
		version := 0
		if i%4 == day%4 {
			version = day
		}
		f[fmt.Sprintf("%02x/small%d", i, i)] = bytes.Repeat(fmt.Appendf(nil, "file %d version %d. ", i, version), 20+i*10)
	}
	f["aa/old"] = Noise(1, 30<<10)
	for i := range 4 {
		f[fmt.Sprintf("bb/new%d", i)] = Noise(uint64(1000*i+day), 30<<10)
	}
	db := append([]byte("SQLite format 3\x00"), Noise(2, 80<<10)...)
	copy(db[70<<10:], fmt.Appendf(nil, "row of day %d", day))
	f["cc/database"] = db
	// This file is cut by content. It grows at the beginning, so that all older
	// content moves.
	text := Noise(3, 40<<10)
	for d := 1; d <= day; d++ {
		text = append(fmt.Appendf(nil, "paragraph of day %d. ", d), text...)
	}
	f["dd/document"] = text
	for i := range 3 {
		settings := Noise(uint64(4+i), 700)
		copy(settings[300:], fmt.Appendf(nil, "day %d", day))
		f[fmt.Sprintf("ee/settings%d", i)] = settings
	}
	return f
}

// DeltaFiles are the files of Day that change a little every day.
var DeltaFiles = []string{"cc/database", "dd/document", "ee/settings0", "ee/settings1", "ee/settings2"}

// Diary is a device on which some pages of a database, a document and small settings
// change every day. The database grows, and sometimes a page is inserted.
type Diary struct {
	Rng      *rand.Rand
	DB       []byte
	Document []byte // cut by content
	Settings [20][]byte
}

// DiaryPage is the size of a page of a Diary's database.
const DiaryPage = 4096

// NewDiary returns a device with a database of some pages.
func NewDiary(pages int) *Diary {
	d := &Diary{Rng: rand.New(rand.NewPCG(1, 2))}
	d.DB = append(d.DB, "SQLite format 3\x00"...)
	for len(d.DB) < pages*DiaryPage {
		d.DB = append(d.DB, d.Text(400)...)
	}
	d.DB = d.DB[:pages*DiaryPage]
	d.Document = d.Text(60 << 10)
	for i := range d.Settings {
		d.Settings[i] = d.Text(1500)
	}
	return d
}

// NewSmallDiary returns a device of 30 KB.
func NewSmallDiary(seed, which uint64) *Diary {
	d := &Diary{Rng: rand.New(rand.NewPCG(seed, which+10))}
	d.DB = append([]byte("SQLite format 3\x00"), d.Text(4*DiaryPage-16)...)
	d.Document = d.Text(8 << 10)
	for i := range d.Settings {
		d.Settings[i] = d.Text(300)
	}
	return d
}

// Text returns bytes that compress to about half.
func (d *Diary) Text(n int) []byte {
	var b []byte
	for len(b) < n {
		b = fmt.Appendf(b, "%x message %d;", d.Rng.Uint32(), d.Rng.IntN(50))
	}
	return b[:n]
}

// Next changes the device as if a user had used it for a day.
func (d *Diary) Next(day int) {
	pages := len(d.DB) / DiaryPage
	for range 5 {
		at := (1+d.Rng.IntN(pages-1))*DiaryPage + d.Rng.IntN(DiaryPage-200)
		copy(d.DB[at:], d.Text(150))
	}
	if day%4 == 0 {
		d.DB = append(d.DB, d.Text(DiaryPage)...)
	}
	if day%30 == 29 {
		at := pages / 3 * DiaryPage
		d.DB = append(d.DB[:at:at], append(d.Text(DiaryPage), d.DB[at:]...)...)
	}
	if day%3 == 0 {
		at := d.Rng.IntN(len(d.Document))
		d.Document = slices.Concat(d.Document[:at], d.Text(80), d.Document[at+40*d.Rng.IntN(2)*min(1, (len(d.Document)-at)/40):])
	}
	for range 4 {
		s := d.Settings[d.Rng.IntN(len(d.Settings))]
		binary.LittleEndian.PutUint32(s[d.Rng.IntN(len(s)-4):], uint32(day))
	}
}

// Files returns the device's files.
func (d *Diary) Files() Files {
	f := Files{"db/sms.db": bytes.Clone(d.DB), "document": bytes.Clone(d.Document)}
	for i, s := range d.Settings {
		f[fmt.Sprintf("settings/%02d.plist", i)] = bytes.Clone(s)
	}
	return f
}
