package synthetic

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
)

// GenerateLegacy generates the folder dir/<UDID> of the first device on day 0, in the
// layout of iOS 9 and earlier: all blobs are in one folder, Manifest.mbdb replaces
// Manifest.db, no file is in a cloud, and the keybag uses one stage of PBKDF2 instead of two.
func GenerateLegacy(ctx context.Context, dir string, conf Config) (made Device, err error) {
	s, err := New(conf)
	if err != nil {
		return Device{}, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	d := s.devices[0]
	d.flat = true
	d.UDID = d.m.stream("old identity").hex(20)
	d.ProductType, d.ProductVersion, d.BuildVersion = "iPhone6,2", "9.3.5", "13G36"
	if err := d.run(ctx, dir, 0); err != nil {
		return Device{}, fmt.Errorf("synthetic: device %s, old layout: %w", d.UDID, err)
	}
	return d.Device, nil
}

// sendRecords writes Manifest.mbdb.
func (d *device) sendRecords() error {
	_, err := d.send("Manifest.mbdb", nil, false, func(w io.Writer) error {
		if _, err := io.WriteString(w, "mbdb\x05\x00"); err != nil {
			return err
		}
		for _, f := range d.order {
			if f == nil {
				continue
			}
			if _, err := w.Write(mbdbRecord(f)); err != nil {
				return err
			}
		}
		return nil
	})
	return err
}

func mbdbRecord(f *file) []byte {
	r := f.row()
	var b []byte
	text := func(s []byte) {
		if s == nil {
			b = binary.BigEndian.AppendUint16(b, math.MaxUint16)
			return
		}
		b = append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
	}
	var target []byte
	if r.target != "" {
		target = []byte(r.target)
	}
	text([]byte(f.domain))
	text([]byte(r.path))
	text(target)
	text(r.digest)
	text(r.key)
	b = binary.BigEndian.AppendUint16(b, uint16(r.mode))
	b = binary.BigEndian.AppendUint64(b, r.inode)
	for _, v := range []int64{r.uid, r.gid, r.modified, r.changed, r.birth} {
		b = binary.BigEndian.AppendUint32(b, uint32(v))
	}
	if f.kind == kindDataless {
		r.size = 0 // a row has no flag for it, and iOS 9 moves no files to a cloud
	}
	b = binary.BigEndian.AppendUint64(b, uint64(r.size))
	b = append(b, byte(r.class), 0)
	if f.xattrs {
		b[len(b)-1] = 1
		text([]byte("com.apple.assetsd.favorite"))
		text([]byte{0, 0})
	}
	return b
}
