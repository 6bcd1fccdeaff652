package manifest

import (
	"github.com/snap-backup/snap/device/protocol/bplist"
)

const (
	// longMeta is a length in bytes. No description that a device writes is longer: real
	// ones have 300 to 600 bytes, or up to about 3 KB with extended attributes.
	longMeta = 1 << 20
	// maxMeta bounds a description in bytes. A longer one is not read, because
	// reading has it in memory twice for a moment.
	maxMeta = 16 << 20
	// maxKey bounds an EncryptionKey in bytes. Keys have 44 bytes in all known
	// backups; the code of devices also has keys of 172 bytes.
	maxKey = 1024
)

// metaReader reads MBFile objects, the keyed archives in the file column. It
// reuses its buffers. The key of a Record points into them, so it is valid only
// until the next read.
type metaReader struct {
	doc     bplist.Doc
	objects bplist.List
	target  []byte
}

// read fills those fields of rec that the description has, and skips fields of
// an unexpected type. It returns false if blob is not a keyed archive with a
// dictionary at its root.
func (m *metaReader) read(blob []byte, rec *Record) bool {
	var err error
	if m.doc, err = bplist.Parse(blob); err != nil {
		return false
	}
	archive, ok := m.doc.Dict(m.doc.Top())
	if !ok {
		return false
	}
	ref, ok := m.doc.Lookup(archive, "$objects")
	if !ok {
		return false
	}
	if m.objects, ok = m.doc.Array(ref); !ok {
		return false
	}
	if ref, ok = m.doc.Lookup(archive, "$top"); !ok {
		return false
	}
	top, ok := m.doc.Dict(ref)
	if !ok {
		return false
	}
	if ref, ok = m.doc.Lookup(top, "root"); !ok {
		return false
	}
	if ref, ok = m.resolve(ref); !ok {
		return false
	}
	file, ok := m.doc.Dict(ref)
	if !ok {
		return false
	}
	for i := range file.Keys.Len() {
		if key, ok := m.doc.ASCII(file.Keys.At(i)); ok {
			m.field(key, file.Values.At(i), rec)
		}
	}
	rec.HasMeta = true
	return true
}

func (m *metaReader) field(key []byte, value bplist.Ref, rec *Record) {
	switch string(key) {
	case "Mode":
		m.small(value, &rec.Mode)
	case "Size":
		m.int(value, &rec.Size)
	case "LastModified":
		m.int(value, &rec.ModTime)
	case "LastStatusChange":
		m.int(value, &rec.ChangeTime)
	case "Birth":
		m.int(value, &rec.Birth)
	case "UserID":
		m.small(value, &rec.UserID)
	case "GroupID":
		m.small(value, &rec.GroupID)
	case "InodeNumber":
		if v, ok := m.doc.Uint(value); ok {
			rec.Inode = v
		}
	case "Flags":
		m.small(value, &rec.BSDFlags)
	case "ProtectionClass":
		m.small(value, &rec.ProtectionClass)
	case "EncryptionKey":
		if data, ok := m.data(value); ok && len(data) > 0 && len(data) <= maxKey {
			rec.EncryptionKey = data
		}
	case "Digest":
		if data, ok := m.data(value); ok && len(data) == len(rec.Digest) {
			rec.HasDigest = true
			copy(rec.Digest[:], data)
		}
	case "Target":
		if ref, ok := m.resolve(value); ok {
			if m.target, ok = m.doc.Append(m.target[:0], ref); ok && len(m.target) <= maxText {
				rec.Target = string(m.target)
			}
		}
	}
}

func (m *metaReader) int(value bplist.Ref, to *int64) {
	if v, ok := m.doc.Int(value); ok {
		*to = v
	}
}

// small keeps the low 32 bits, which preserves an owner stored as -2.
func (m *metaReader) small(value bplist.Ref, to *uint32) {
	if v, ok := m.doc.Uint(value); ok {
		*to = uint32(v)
	}
}

// data returns the bytes of value, which is data, a dictionary with data under
// NS.data, or a reference to either. NS.data may be a reference, too.
func (m *metaReader) data(value bplist.Ref) ([]byte, bool) {
	ref, ok := m.resolve(value)
	if !ok {
		return nil, false
	}
	if dict, ok := m.doc.Dict(ref); ok {
		if ref, ok = m.doc.Lookup(dict, "NS.data"); !ok {
			return nil, false
		}
		if ref, ok = m.resolve(ref); !ok {
			return nil, false
		}
		return m.doc.Data(ref)
	}
	return m.doc.Data(ref)
}

// resolve follows a reference of the archive to its object. Anything else
// resolves to itself. resolve follows at most four references, so that a cycle
// ends.
func (m *metaReader) resolve(ref bplist.Ref) (bplist.Ref, bool) {
	for range 4 {
		n, ok := m.doc.UID(ref)
		if !ok {
			return ref, true
		}
		if n >= uint64(m.objects.Len()) {
			return 0, false
		}
		ref = m.objects.At(int(n))
	}
	return 0, false
}
