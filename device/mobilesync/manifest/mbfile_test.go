package manifest_test

import (
	"bytes"
	"testing"

	"github.com/snap-backup/snap/device/mobilesync/manifest"
	"github.com/snap-backup/snap/device/mobilesync/manifest/manifesttest"
)

func TestReadMeta(t *testing.T) {
	key, digest := bytes.Repeat([]byte{7}, 44), bytes.Repeat([]byte{9}, 20)
	full := manifesttest.Row(manifest.Record{RelativePath: "x", Mode: 0o100644, Size: 1 << 40, ModTime: 1, Inode: 1<<64 - 1, EncryptionKey: key, HasDigest: true, Digest: [20]byte(digest)})
	tests := []struct {
		name                string
		blob                []byte
		ok, key, digest, at bool
	}{
		{"full", manifesttest.MBFile(full), true, true, true, true},
		{"key and digest in place", manifesttest.Archive(manifesttest.Dict{{"EncryptionKey", key}, {"Digest", digest}, {"Size", 1 << 40}}), true, true, true, true},
		{"key behind two references", manifesttest.Archive(manifesttest.Dict{{"EncryptionKey", manifesttest.UID(2)}, {"Size", 1 << 40}}, manifesttest.Dict{{"NS.data", manifesttest.UID(3)}}, key), true, true, false, true},
		{"empty", manifesttest.Archive(manifesttest.Dict{}), true, false, false, false},
		{"odd types", manifesttest.Archive(manifesttest.Dict{{"EncryptionKey", 5}, {"Digest", "x"}, {"Size", "big"}, {"Mode", manifesttest.Dict{}}, {"Target", []any{}}}), true, false, false, false},
		{"digest of odd length", manifesttest.Archive(manifesttest.Dict{{"Digest", []byte("short")}, {"Size", 1 << 40}}), true, false, false, true},
		{"key too long", manifesttest.Archive(manifesttest.Dict{{"EncryptionKey", make([]byte, 5000)}}), true, false, false, false},
		{"reference outside", manifesttest.Archive(manifesttest.Dict{{"EncryptionKey", manifesttest.UID(99)}, {"Size", 1 << 40}}), true, false, false, true},
		{"reference to itself", manifesttest.Archive(manifesttest.Dict{{"EncryptionKey", manifesttest.UID(2)}, {"Size", 1 << 40}}, manifesttest.UID(2)), true, false, false, true},
		{"circle", manifesttest.Archive(manifesttest.Dict{{"EncryptionKey", manifesttest.UID(2)}, {"Target", manifesttest.UID(3)}, {"Size", 1 << 40}}, manifesttest.UID(3), manifesttest.UID(2)), true, false, false, true},
		{"NS.data in a circle", manifesttest.Archive(manifesttest.Dict{{"Digest", manifesttest.UID(2)}, {"Size", 1 << 40}}, manifesttest.Dict{{"NS.data", manifesttest.UID(2)}}), true, false, false, true},
		{"root in a circle", manifesttest.Plist(manifesttest.Dict{{"$objects", []any{"$null", manifesttest.UID(1)}}, {"$top", manifesttest.Dict{{"root", manifesttest.UID(1)}}}}), false, false, false, false},
		{"root outside", manifesttest.Plist(manifesttest.Dict{{"$objects", []any{"$null"}}, {"$top", manifesttest.Dict{{"root", manifesttest.UID(7)}}}}), false, false, false, false},
		{"no top", manifesttest.Plist(manifesttest.Dict{{"$objects", []any{"$null", manifesttest.Dict{}}}}), false, false, false, false},
		{"no objects", manifesttest.Plist(manifesttest.Dict{{"$top", manifesttest.Dict{{"root", manifesttest.UID(1)}}}}), false, false, false, false},
		{"a list", manifesttest.Plist([]any{1}), false, false, false, false},
		{"text", []byte("base64 of something"), false, false, false, false},
		{"nothing", nil, false, false, false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var rec manifest.Record
			if ok := manifest.ReadMeta(tt.blob, &rec); ok != tt.ok || rec.HasMeta != tt.ok {
				t.Fatalf("read: %v", ok)
			}
			if got := bytes.Equal(rec.EncryptionKey, key); got != tt.key || !got && rec.EncryptionKey != nil {
				t.Errorf("key %x", rec.EncryptionKey)
			}
			if got := bytes.Equal(rec.Digest[:], digest); got != tt.digest || got != rec.HasDigest {
				t.Errorf("digest %x", rec.Digest)
			}
			if got := rec.Size == 1<<40; got != tt.at {
				t.Errorf("size %d", rec.Size)
			}
		})
	}
}

func FuzzReadMeta(f *testing.F) {
	f.Add(manifesttest.MBFile(manifesttest.Row(manifest.Record{RelativePath: "a", Mode: 0o120755, Target: "b", EncryptionKey: make([]byte, 44), HasDigest: true})))
	f.Add(manifesttest.Archive(manifesttest.Dict{{"EncryptionKey", manifesttest.UID(2)}}, manifesttest.UID(3), manifesttest.UID(2)))
	f.Add(manifesttest.Archive(manifesttest.Dict{{"Digest", manifesttest.UID(2)}}, manifesttest.Dict{{"NS.data", manifesttest.UID(3)}}, []byte("x")))
	f.Add([]byte("bplist00"))
	f.Fuzz(func(t *testing.T, blob []byte) {
		rec := manifest.Record{Domain: "D", RelativePath: "p"}
		if !manifest.ReadMeta(blob, &rec) && rec.HasMeta {
			t.Error("a failed read sets HasMeta")
		}
		if len(rec.EncryptionKey) > manifest.MaxKey || len(rec.Target) > manifest.MaxText {
			t.Errorf("key of %d bytes, target of %d", len(rec.EncryptionKey), len(rec.Target))
		}
		// The compact form must preserve what was read.
		next := &rec
		records, err := manifest.Build(t.Context(), 1<<20, func() (r *manifest.Record) {
			r, next = next, nil
			return r
		})
		if err != nil {
			t.Fatal(err)
		}
		got := records.At(0)
		if !bytes.Equal(got.EncryptionKey, rec.EncryptionKey) {
			t.Errorf("key %x, want %x", got.EncryptionKey, rec.EncryptionKey)
		}
		rec.EncryptionKey, got.EncryptionKey = nil, nil
		if !rec.HasMeta {
			rec = manifest.Record{Domain: "D", RelativePath: "p"}
		}
		if !equalRecords(got, rec) {
			t.Errorf("got %+v, want %+v", got, rec)
		}
	})
}
