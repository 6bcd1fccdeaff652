package synthetic

import (
	"bytes"
	"database/sql"
	"os"
	"path/filepath"
	"testing"

	"howett.net/plist"

	_ "modernc.org/sqlite" // the driver
)

// archive is an MBFile as a general property list library decodes it.
type archive struct {
	Objects []any `plist:"$objects"`
}

func decodeMBFile(t *testing.T, blob []byte) *record {
	t.Helper()
	var a archive
	if _, err := plist.Unmarshal(blob, &a); err != nil {
		t.Fatal(err)
	}
	dict := a.Objects[1].(map[string]any)
	number := func(name string) uint64 {
		if n, ok := dict[name].(int64); ok {
			return uint64(n)
		}
		n, _ := dict[name].(uint64)
		return n
	}
	object := func(name string) any {
		uid, ok := dict[name].(plist.UID)
		if !ok {
			return nil
		}
		return a.Objects[uid]
	}
	r := &record{
		mode: uint32(number("Mode")), size: int64(number("Size")), inode: number("InodeNumber"), flags: uint32(number("Flags")),
		modified: int64(number("LastModified")), changed: int64(number("LastStatusChange")), birth: int64(number("Birth")),
		uid: int64(number("UserID")), gid: int64(number("GroupID")), class: uint32(number("ProtectionClass")),
	}
	r.path, _ = object("RelativePath").(string)
	r.target, _ = object("Target").(string)
	r.digest, _ = object("Digest").([]byte)
	r.xattrs, _ = object("ExtendedAttributes").([]byte)
	if key, ok := object("EncryptionKey").(map[string]any); ok {
		r.key, _ = key["NS.data"].([]byte)
	}
	return r
}

// TestMBFileLikeReal decodes the MBFiles of a real device and encodes them again. The
// bytes must be the same.
func TestMBFileLikeReal(t *testing.T) {
	t.Parallel()
	root := os.Getenv("SNAP_TEST_SAMPLES")
	if root == "" {
		t.Skip("SNAP_TEST_SAMPLES is not set")
	}
	path := filepath.ToSlash(filepath.Join(root, "mvt", "ios_backup", "Manifest.db"))
	db, err := sql.Open("sqlite", "file:"+path+"?mode=ro&immutable=1")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.Query("SELECT flags, relativePath, file FROM Files")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	all, same := 0, 0
	for rows.Next() {
		var flags int
		var name string
		var blob []byte
		if err := rows.Scan(&flags, &name, &blob); err != nil {
			t.Fatal(err)
		}
		all++
		r := decodeMBFile(t, blob)
		if r.path != name || r.manifestFlags() != flags {
			t.Errorf("%s: decoded as %s, flags %d", name, r.path, r.manifestFlags())
		}
		if got := r.marshal(); bytes.Equal(got, blob) {
			same++
		} else if all-same < 4 {
			t.Errorf("%s\n%q\n%q", name, got, blob)
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	if all != 3721 || same != all {
		t.Errorf("only %d of %d MBFiles are encoded as on the device", same, all)
	}
}
