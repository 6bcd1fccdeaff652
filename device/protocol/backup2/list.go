package backup2

import (
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"math"
	"time"
	"unicode/utf16"

	"github.com/snap-backup/snap/device/protocol/devicelink"
)

func (r *operation) list(m devicelink.Message) error {
	path, ok := m.Text(1)
	if !ok {
		return r.malformed(m)
	}
	if failure := r.scope.checkRead(path); failure != nil {
		if err := r.refuse(path, failure); err != nil {
			return err
		}
		return r.writeStatus(failure)
	}
	if r.report.phase == PhaseFinishing {
		r.report.setPhase(PhaseVerifying)
	}
	items, err := r.folder.List(r.ctx, path)
	if errors.Is(err, fs.ErrNotExist) {
		items, err = nil, nil // devices expect an empty answer
	}
	if err != nil {
		r.report.warn("list %q: %v", path, err)
		return r.writeStatus(err)
	}
	l := newListing(items)
	return r.link.WriteEncoded(l.size, l.write)
}

// listing is the answer to a request for the names in a folder: a binary property
// list that is encoded while it is sent. Folders can have close to a million names,
// for which a general encoder needs more than a gigabyte and half a minute.
//
//	objects   the array of the answer; its code; the dictionary of names; the
//	          texts that all items share; the items' names; for each item a
//	          dictionary, its size and its date
//	offsets   of the objects, four bytes each
//	trailer
type listing struct {
	items   []Item
	refSize int   // bytes of a reference to an object
	objects int64 // bytes before the offsets
	size    int64 // bytes in total
}

const (
	plistMagic   = "bplist00"
	trailerSize  = 32
	offsetSize   = 4
	partsPerItem = 3
)

// The numbers of the objects before the items' names.
const (
	objAnswer = iota
	objCode
	objNames
	objType // the texts that all items share begin here
	objSize
	objDate
	objFolder
	objFile
	objStatus
	objNoText
	objFirstName
)

var listingTexts = [objFirstName - objType]string{
	"DLFileType", "DLFileSize", "DLFileModificationDate", "DLFileTypeDirectory", "DLFileTypeRegular",
	devicelink.StatusResponse, devicelink.NoText,
}

func newListing(items []Item) *listing {
	l := &listing{items: items, refSize: 1, objects: int64(len(plistMagic))}
	for l.count() > 1<<(8*l.refSize) {
		l.refSize++
	}
	_ = l.eachObject(func(object []byte) error { // cannot fail
		l.objects += int64(len(object))
		return nil
	})
	l.size = l.objects + int64(l.count())*offsetSize + trailerSize
	return l
}

// part returns the object number of a part of an item.
func (l *listing) part(item, part int) int {
	return objFirstName + len(l.items) + item*partsPerItem + part
}

func (l *listing) count() int { return l.part(len(l.items), 0) }

// write writes the list, which has l.size bytes.
func (l *listing) write(out io.Writer) error {
	if _, err := io.WriteString(out, plistMagic); err != nil {
		return err
	}
	err := l.eachObject(func(object []byte) error {
		_, err := out.Write(object)
		return err
	})
	if err != nil {
		return err
	}
	offset, b := uint32(len(plistMagic)), make([]byte, 0, trailerSize)
	err = l.eachObject(func(object []byte) error {
		_, err := out.Write(binary.BigEndian.AppendUint32(b, offset))
		offset += uint32(len(object))
		return err
	})
	if err != nil {
		return err
	}
	b = append(b, 0, 0, 0, 0, 0, 0, offsetSize, byte(l.refSize))
	b = binary.BigEndian.AppendUint64(b, uint64(l.count()))
	b = binary.BigEndian.AppendUint64(b, objAnswer)
	b = binary.BigEndian.AppendUint64(b, uint64(l.objects))
	_, err = out.Write(b)
	return err
}

// eachObject calls fn with the bytes of each object until fn fails. The bytes are
// valid during the call only.
func (l *listing) eachObject(fn func(object []byte) error) error {
	b := make([]byte, 0, 1024)
	emit := func(object []byte) error {
		b = object[:0]
		return fn(object)
	}
	if err := emit(l.refs(appendHead(b, 0xa0, 4), objStatus, objCode, objNoText, objNames)); err != nil {
		return err
	}
	if err := emit(append(b, 0x10, devicelink.StatusOK)); err != nil {
		return err
	}
	names := appendHead(make([]byte, 0, 16+2*len(l.items)*l.refSize), 0xd0, len(l.items))
	for i := range l.items {
		names = l.refs(names, objFirstName+i)
	}
	for i := range l.items {
		names = l.refs(names, l.part(i, 0))
	}
	if err := fn(names); err != nil {
		return err
	}
	for _, s := range listingTexts {
		if err := emit(appendText(b, s)); err != nil {
			return err
		}
	}
	for i := range l.items {
		if err := emit(appendText(b, l.items[i].Name)); err != nil {
			return err
		}
	}
	for i, item := range l.items {
		kind := objFile
		if item.Dir {
			kind = objFolder
		}
		entry := l.refs(appendHead(b, 0xd0, partsPerItem), objType, objSize, objDate, kind, l.part(i, 1), l.part(i, 2))
		if err := emit(entry); err != nil {
			return err
		}
		if err := emit(binary.BigEndian.AppendUint64(append(b, 0x13), uint64(max(item.Size, 0)))); err != nil {
			return err
		}
		if err := emit(appendDate(b, item.ModTime)); err != nil {
			return err
		}
	}
	return nil
}

func (l *listing) refs(b []byte, numbers ...int) []byte {
	for _, n := range numbers {
		for shift := 8 * (l.refSize - 1); shift >= 0; shift -= 8 {
			b = append(b, byte(n>>shift))
		}
	}
	return b
}

// appendHead appends the head of an object with n elements.
func appendHead(b []byte, kind byte, n int) []byte {
	if n < 15 {
		return append(b, kind|byte(n))
	}
	return binary.BigEndian.AppendUint32(append(b, kind|15, 0x12), uint32(n))
}

func appendText(b []byte, s string) []byte {
	ascii := true
	for i := 0; i < len(s) && ascii; i++ {
		ascii = s[i] < 0x80
	}
	if ascii {
		return append(appendHead(b, 0x50, len(s)), s...)
	}
	units := utf16.Encode([]rune(s))
	b = appendHead(b, 0x60, len(units))
	for _, u := range units {
		b = binary.BigEndian.AppendUint16(b, u)
	}
	return b
}

// appendDate appends t as seconds since 2001, and the zero time as 0.
func appendDate(b []byte, t time.Time) []byte {
	seconds := 0.0
	if !t.IsZero() {
		epoch := time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC)
		seconds = float64(t.Unix()-epoch.Unix()) + float64(t.Nanosecond())/1e9
	}
	return binary.BigEndian.AppendUint64(append(b, 0x33), math.Float64bits(seconds))
}
