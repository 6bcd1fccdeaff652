package manifest_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/snap-backup/snap/device/mobilesync/manifest"
	"github.com/snap-backup/snap/device/mobilesync/manifest/manifesttest"
	"github.com/snap-backup/snap/internal/faultpoint"
)

func equalRecords(a, b manifest.Record) bool { return reflect.DeepEqual(a, b) }

// mbdbRow encodes a record. properties are pairs of name and value.
func mbdbRow(rec manifest.Record, properties ...string) []byte {
	var out []byte
	str := func(s string, null bool) {
		if null {
			out = append(out, 0xff, 0xff)
			return
		}
		out = binary.BigEndian.AppendUint16(out, uint16(len(s)))
		out = append(out, s...)
	}
	str(rec.Domain, false)
	str(rec.RelativePath, false)
	str(rec.Target, rec.Target == "")
	str(string(rec.Digest[:]), !rec.HasDigest)
	str(string(rec.EncryptionKey), rec.EncryptionKey == nil)
	out = binary.BigEndian.AppendUint16(out, uint16(rec.Mode))
	out = binary.BigEndian.AppendUint64(out, rec.Inode)
	for _, v := range []uint32{rec.UserID, rec.GroupID, uint32(rec.ModTime), uint32(rec.ChangeTime), uint32(rec.Birth)} {
		out = binary.BigEndian.AppendUint32(out, v)
	}
	out = binary.BigEndian.AppendUint64(out, uint64(rec.Size))
	out = append(out, byte(rec.ProtectionClass), byte(len(properties)/2))
	for _, p := range properties {
		str(p, false)
	}
	return out
}

func mbdbRows() []manifest.Record {
	return []manifest.Record{
		manifesttest.Row(manifest.Record{Domain: "AppDomain-a", RelativePath: "link", Mode: 0o120755, Target: "/x", ModTime: 1<<32 - 1}),
		manifesttest.Row(manifest.Record{Domain: "HomeDomain", Mode: 0o40755, Inode: 1<<64 - 1, UserID: 501, GroupID: 502, ModTime: 3, ChangeTime: 2, Birth: 1}),
		manifesttest.Row(manifest.Record{Domain: "HomeDomain", RelativePath: "a/b", Mode: 0o100600, Size: 1 << 40, ProtectionClass: 3, EncryptionKey: bytes.Repeat([]byte{1}, 44), HasDigest: true, Digest: [20]byte{9}}),
	}
}

func TestReadMBDB(t *testing.T) {
	rows := mbdbRows()
	data := []byte(manifest.MBDBMagic)
	for _, i := range []int{2, 0, 1} {
		data = append(data, mbdbRow(rows[i], "com.apple.x", strings.Repeat("v", 300))...)
	}
	records, err := manifest.ReadMBDB(t.Context(), bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	manifesttest.Check(t, records)
	if records.Len() != len(rows) || records.Anomalies.Total() != 0 {
		t.Fatalf("%d rows, %+v", records.Len(), records.Anomalies)
	}
	for i, want := range rows {
		if got := records.At(i); !equalRecords(got, want) {
			t.Errorf("row %d is\n%+v, want\n%+v", i, got, want)
		}
	}
	ends := map[int]bool{len(manifest.MBDBMagic): true}
	for i, at := 0, len(manifest.MBDBMagic); i < 3; i++ {
		at += len(mbdbRow(rows[[]int{2, 0, 1}[i]], "com.apple.x", strings.Repeat("v", 300)))
		ends[at] = true
	}
	cuts := slices.Collect(maps.Keys(ends))
	cuts = append(cuts[:len(cuts):len(cuts)], faultpoint.Choose(t, len(data), 100)...)
	for _, cut := range cuts {
		if cut == len(data) {
			continue
		}
		_, err := manifest.ReadMBDB(t.Context(), bytes.NewReader(data[:cut]), int64(cut))
		if ends[cut] != (err == nil) || err != nil && !errors.Is(err, manifest.ErrCorrupt) {
			t.Errorf("cut to %d bytes: %v", cut, err)
		}
	}
	huge := rows[2]
	huge.Size = -1
	data = append([]byte(manifest.MBDBMagic), mbdbRow(huge)...)
	if _, err := manifest.ReadMBDB(t.Context(), bytes.NewReader(data), int64(len(data))); !errors.Is(err, manifest.ErrCorrupt) {
		t.Errorf("negative size: %v", err)
	}
}

func FuzzReadMBDB(f *testing.F) {
	for _, r := range mbdbRows() {
		f.Add(append([]byte(manifest.MBDBMagic), mbdbRow(r, "n", "v")...))
	}
	f.Add([]byte(manifest.MBDBMagic))
	f.Add([]byte(manifest.MBDBMagic + strings.Repeat("\xff", 80)))
	f.Fuzz(func(t *testing.T, data []byte) {
		records, err := manifest.ReadMBDB(t.Context(), bytes.NewReader(data), int64(len(data)))
		if err != nil {
			return
		}
		manifesttest.Check(t, records)
	})
}
