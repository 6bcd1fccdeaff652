package mobilesync

import (
	"bytes"
	"testing"
)

func TestReadMeta(t *testing.T) {
	key, digest := bytes.Repeat([]byte{7}, 44), bytes.Repeat([]byte{9}, 20)
	full := makeRow(Record{RelativePath: "x", Mode: 0o100644, Size: 1 << 40, ModTime: 1, Inode: 1<<64 - 1, EncryptionKey: key, HasDigest: true, Digest: [20]byte(digest)})
	tests := []struct {
		name                string
		blob                []byte
		ok, key, digest, at bool
	}{
		{"full", mbFile(full), true, true, true, true},
		{"key and digest in place", archive(dict{{"EncryptionKey", key}, {"Digest", digest}, {"Size", 1 << 40}}), true, true, true, true},
		{"key behind two references", archive(dict{{"EncryptionKey", uid(2)}, {"Size", 1 << 40}}, dict{{"NS.data", uid(3)}}, key), true, true, false, true},
		{"empty", archive(dict{}), true, false, false, false},
		{"odd types", archive(dict{{"EncryptionKey", 5}, {"Digest", "x"}, {"Size", "big"}, {"Mode", dict{}}, {"Target", []any{}}}), true, false, false, false},
		{"digest of odd length", archive(dict{{"Digest", []byte("short")}, {"Size", 1 << 40}}), true, false, false, true},
		{"key too long", archive(dict{{"EncryptionKey", make([]byte, 5000)}}), true, false, false, false},
		{"reference outside", archive(dict{{"EncryptionKey", uid(99)}, {"Size", 1 << 40}}), true, false, false, true},
		{"reference to itself", archive(dict{{"EncryptionKey", uid(2)}, {"Size", 1 << 40}}, uid(2)), true, false, false, true},
		{"circle", archive(dict{{"EncryptionKey", uid(2)}, {"Target", uid(3)}, {"Size", 1 << 40}}, uid(3), uid(2)), true, false, false, true},
		{"NS.data in a circle", archive(dict{{"Digest", uid(2)}, {"Size", 1 << 40}}, dict{{"NS.data", uid(2)}}), true, false, false, true},
		{"root in a circle", writePlist(dict{{"$objects", []any{"$null", uid(1)}}, {"$top", dict{{"root", uid(1)}}}}), false, false, false, false},
		{"root outside", writePlist(dict{{"$objects", []any{"$null"}}, {"$top", dict{{"root", uid(7)}}}}), false, false, false, false},
		{"no top", writePlist(dict{{"$objects", []any{"$null", dict{}}}}), false, false, false, false},
		{"no objects", writePlist(dict{{"$top", dict{{"root", uid(1)}}}}), false, false, false, false},
		{"a list", writePlist([]any{1}), false, false, false, false},
		{"text", []byte("base64 of something"), false, false, false, false},
		{"nothing", nil, false, false, false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var m metaReader
			var rec Record
			if ok := m.read(tt.blob, &rec); ok != tt.ok || rec.HasMeta != tt.ok {
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
	f.Add(mbFile(makeRow(Record{RelativePath: "a", Mode: 0o120755, Target: "b", EncryptionKey: make([]byte, 44), HasDigest: true})))
	f.Add(archive(dict{{"EncryptionKey", uid(2)}}, uid(3), uid(2)))
	f.Add(archive(dict{{"Digest", uid(2)}}, dict{{"NS.data", uid(3)}}, []byte("x")))
	f.Add([]byte("bplist00"))
	f.Fuzz(func(t *testing.T, blob []byte) {
		var m metaReader
		rec := Record{Domain: "D", RelativePath: "p"}
		if !m.read(blob, &rec) && rec.HasMeta {
			t.Error("a failed read claims a description")
		}
		if len(rec.EncryptionKey) > maxKey || len(rec.Target) > maxText {
			t.Errorf("key of %d bytes, target of %d", len(rec.EncryptionKey), len(rec.Target))
		}
		// Whatever was read must come back from the compact form.
		b := newRecordBuilder(1 << 20)
		if err := b.add(&rec); err != nil {
			t.Fatal(err)
		}
		records, err := b.finish(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got := records.At(0)
		if !bytes.Equal(got.EncryptionKey, rec.EncryptionKey) {
			t.Errorf("key %x, want %x", got.EncryptionKey, rec.EncryptionKey)
		}
		rec.EncryptionKey, got.EncryptionKey = nil, nil
		if !rec.HasMeta {
			rec = Record{Domain: "D", RelativePath: "p"}
		}
		if !equalRecords(got, rec) {
			t.Errorf("got %+v, want %+v", got, rec)
		}
	})
}
