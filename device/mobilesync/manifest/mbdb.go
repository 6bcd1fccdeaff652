package manifest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// mbdbMagic begins Manifest.mbdb: its name and version 5.0.
const mbdbMagic = "mbdb\x05\x00"

// ReadMBDB reads all rows of a Manifest.mbdb, the manifest of iOS 9 and earlier.
// source has size bytes. The rows of the file have no Flags and no FileID.
// ReadMBDB derives Flags from the mode, and FileID from domain and path.
func ReadMBDB(ctx context.Context, source io.Reader, size int64) (*Records, error) {
	r := mbdbReader{in: bufio.NewReaderSize(io.LimitReader(source, size), 256<<10)}
	records, err := r.readAll(ctx, size)
	if err != nil {
		return nil, fmt.Errorf("read Manifest.mbdb: byte %d: %w", r.pos, err)
	}
	return records, nil
}

// IsMBDB reports whether a file that begins with head is a Manifest.mbdb.
func IsMBDB(head []byte) bool { return bytes.HasPrefix(head, []byte(mbdbMagic)) }

type mbdbReader struct {
	in      *bufio.Reader
	pos     int64
	strings [5][]byte // buffers, reused for every row
	name    []byte
	text    []byte
}

func (r *mbdbReader) readAll(ctx context.Context, size int64) (*Records, error) {
	var magic [len(mbdbMagic)]byte
	if err := r.full(magic[:]); err != nil {
		return nil, err
	}
	if string(magic[:]) != mbdbMagic {
		return nil, fmt.Errorf("%w: it does not begin with mbdb and version 5.0", ErrCorrupt)
	}
	// A row in memory is longer than in the file, since it also has the FileID.
	b := newRecordBuilder(2*size + pageSize)
	for n := 0; ; n++ {
		if n%4096 == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if _, err := r.in.Peek(1); errors.Is(err, io.EOF) {
			return b.finish(ctx)
		}
		var rec Record
		if err := r.row(&rec, &b.out.Anomalies); err != nil {
			return nil, err
		}
		if err := b.add(&rec); err != nil {
			return nil, err
		}
	}
}

func (r *mbdbReader) row(rec *Record, a *Anomalies) error {
	const domain, path, target, digest, key = 0, 1, 2, 3, 4
	var null [5]bool
	for i := range r.strings {
		var err error
		if r.strings[i], null[i], err = r.str(r.strings[i]); err != nil {
			return err
		}
	}
	var fixed [40]byte
	if err := r.full(fixed[:]); err != nil {
		return err
	}
	rec.HasMeta = true
	rec.Mode = uint32(binary.BigEndian.Uint16(fixed[0:]))
	rec.Inode = binary.BigEndian.Uint64(fixed[2:])
	rec.UserID = binary.BigEndian.Uint32(fixed[10:])
	rec.GroupID = binary.BigEndian.Uint32(fixed[14:])
	rec.ModTime = int64(binary.BigEndian.Uint32(fixed[18:]))
	rec.ChangeTime = int64(binary.BigEndian.Uint32(fixed[22:]))
	rec.Birth = int64(binary.BigEndian.Uint32(fixed[26:]))
	rec.Size = int64(binary.BigEndian.Uint64(fixed[30:]))
	rec.ProtectionClass = uint32(fixed[38])
	for range 2 * int(fixed[39]) {
		var err error
		if r.text, _, err = r.str(r.text); err != nil {
			return err
		}
	}
	if rec.Size < 0 {
		return fmt.Errorf("%w: a file of %d bytes", ErrCorrupt, uint64(rec.Size))
	}
	keep := func(i int) string {
		if len(r.strings[i]) > maxText {
			a.LongText++
			return ""
		}
		return string(r.strings[i])
	}
	if null[domain] || null[path] {
		a.NullText++
	}
	rec.Domain, rec.RelativePath, rec.Target = keep(domain), keep(path), keep(target)
	if d := r.strings[digest]; len(d) == len(rec.Digest) {
		rec.HasDigest = true
		copy(rec.Digest[:], d)
	}
	if k := r.strings[key]; len(k) > 0 && len(k) <= maxKey {
		rec.EncryptionKey = k
	}
	rec.Flags = flagsOf(rec.Mode)
	r.name = append(append(append(r.name[:0], r.strings[domain]...), '-'), r.strings[path]...)
	rec.FileID, rec.HasFileID = sha1.Sum(r.name), true
	return nil
}

// str reads a string into buf. Length 0xFFFF means null.
func (r *mbdbReader) str(buf []byte) (text []byte, null bool, err error) {
	var length [2]byte
	if err := r.full(length[:]); err != nil {
		return buf[:0], false, err
	}
	n := int(binary.BigEndian.Uint16(length[:]))
	if n == 0xffff {
		return buf[:0], true, nil
	}
	if cap(buf) < n {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	return buf, false, r.full(buf)
}

func (r *mbdbReader) full(p []byte) error {
	n, err := io.ReadFull(r.in, p)
	r.pos += int64(n)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it is cut off", ErrCorrupt)
	}
	return err
}
