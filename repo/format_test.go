package repo_test

import (
	"encoding/hex"
	"encoding/json"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"lukechampine.com/blake3"
)

// TestFormatDocument reads the golden repository, by password and by recovery
// key, and compares the values that it reads with the vectors.
func TestFormatDocument(t *testing.T) {
	var v struct {
		Password string
		Recovery struct{ Bits, Text string } `json:"recovery_key"`
		Slots    []struct {
			File   string
			Secret string
			Key    string `json:"derived_key"`
		} `json:"key_slots"`
		Master string                       `json:"master_key"`
		Keys   map[string]string            `json:"derived_keys"`
		Chunks []struct{ Plain, ID string } `json:"chunk_ids"`
		Packs  []struct{ File, Header string }
		Long   struct{ Opened, Header string } `json:"compressed_header"`
		Index  []struct{ File, Plain string }  `json:"index_files"`
		Snaps  []struct {
			File, Plain string
			Files       []entry
		} `json:"snapshots"`
		Bound struct {
			Master string `json:"master_key"`
			Slots  []struct {
				File, Secret, Info string
				Key                string `json:"derived_key"`
			} `json:"key_slots"`
		} `json:"bound_key_slots"`
		Times []struct {
			Seconds     int64
			Nanoseconds int
			Node        string
		} `json:"times"`
	}
	if err := json.Unmarshal(try(os.ReadFile("../docs/format-vectors.json")), &v); err != nil {
		t.Fatal(err)
	}
	if got := recoveryText(try(hex.DecodeString(v.Recovery.Bits))); got != v.Recovery.Text {
		t.Errorf("recovery key %s, want %s", got, v.Recovery.Text)
	}
	if len(v.Slots) != 2 || len(v.Bound.Slots) != 2 || len(v.Snaps) != 2 || len(v.Packs) != 5 || len(v.Index) != 5 || len(v.Times) != 6 {
		t.Fatal("the vectors are not complete")
	}
	for _, slot := range v.Slots {
		r := open("testdata/golden-v1", slot.Secret)
		if hex.EncodeToString(r.slots[slot.File]) != slot.Key || hex.EncodeToString(r.master) != v.Master {
			t.Errorf("%s: other keys", slot.File)
		}
	}
	for _, slot := range v.Bound.Slots {
		r := open("testdata/golden-v1-keys", slot.Secret)
		if hex.EncodeToString(r.slots[slot.File]) != slot.Key || hex.EncodeToString(r.master) != v.Bound.Master || string(r.infos[slot.File]) != slot.Info {
			t.Errorf("%s: other keys or info", slot.File)
		}
	}
	r := open("testdata/golden-v1", v.Password)
	for purpose, want := range v.Keys {
		if got := hex.EncodeToString(r.key(purpose)); got != want {
			t.Errorf("key for %q: %s, want %s", purpose, got, want)
		}
	}
	for _, c := range v.Chunks {
		if got := r.chunk(string(try(hex.DecodeString(c.ID))), 0); hex.EncodeToString(got) != c.Plain {
			t.Errorf("chunk %s differs", c.ID)
		}
	}
	for _, p := range v.Packs {
		if got := hex.EncodeToString(r.header(p.File)); got != p.Header {
			t.Errorf("%s: header differs", p.File)
		}
	}
	long := plainForm(try(hex.DecodeString(v.Long.Opened)), 32<<20)
	if blocks := parseHeader(long, ""); hex.EncodeToString(long) != v.Long.Header || len(blocks) != 7 || len(v.Long.Opened) > len(v.Long.Header)*3/4 {
		t.Errorf("the compressed header has %d bytes and %d blocks", len(long), len(blocks))
	}
	for _, x := range v.Index {
		if got := hex.EncodeToString([]byte(r.plain[x.File])); got != x.Plain {
			t.Errorf("%s differs", x.File)
		}
	}
	names := []string{}
	for _, s := range v.Snaps {
		names = append(names, s.File)
		plain := try(unseal(r.key("snap v1 snapshot"), r.readNamed(s.File, "snapsn01"), ""))
		if string(plain) != s.Plain {
			t.Errorf("%s: %s, want %s", s.File, plain, s.Plain)
		}
		var record struct {
			Version int
			Root    string
			Files   int
			Bytes   int
		}
		if err := json.Unmarshal(plain, &record); err != nil || record.Version != 1 {
			t.Fatal(err, record)
		}
		var got []entry
		r.tree(string(try(hex.DecodeString(record.Root))), -1, &got)
		if !slices.Equal(got, s.Files) {
			t.Errorf("%s: %d entries %v, want %d %v", s.File, len(got), got, len(s.Files), s.Files)
		}
		files, size := 0, 0
		for _, e := range got {
			if !e.Dir {
				files++
			}
			size += e.Size
		}
		if files != record.Files || size != record.Bytes || files < 100 {
			t.Errorf("%s: %d files of %d bytes, the record says %+v", s.File, files, size, record)
		}
	}
	if got := r.list("snapshots"); !slices.Equal(got, names) {
		t.Errorf("snapshots %v, want %v", got, names)
	}
	for _, m := range v.Times {
		in := &input{try(hex.DecodeString(m.Node))}
		if head := in.take(3); string(head) != "\x01\x00\x01" {
			t.Errorf("node %s", m.Node)
		}
		flags := in.uvarint()
		in.string() // path
		in.uvarint()
		seconds, nanoseconds := in.modTime(flags)
		in.end()
		if seconds != m.Seconds || nanoseconds != m.Nanoseconds {
			t.Errorf("time %d s %d ns, want %+v", seconds, nanoseconds, m)
		}
	}
	// The headers of the packs list the same chunks as the index files.
	indexed := maps.Clone(r.places)
	clear(r.places)
	for _, p := range v.Packs {
		r.add(parseHeader(r.header(p.File), p.File))
	}
	for id := range indexed {
		r.chunk(id, 0)
	}
	if len(r.places) != len(indexed) {
		t.Errorf("%d chunks in packs, %d in the index", len(r.places), len(indexed))
	}
}

// recoveryText encodes a recovery key as section 5 describes.
func recoveryText(bits []byte) string {
	const alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
	sum := blake3.Sum256(bits)
	all := append(slices.Clone(bits), sum[:3]...) // 160 bits, then 24, of which the first 20 are used
	var out strings.Builder
	for i := range 36 {
		if i > 0 && i%6 == 0 {
			out.WriteByte('-')
		}
		letter := 0
		for bit := i * 5; bit < i*5+5; bit++ {
			letter = letter<<1 | int(all[bit/8]>>(7-bit%8)&1)
		}
		out.WriteByte(alphabet[letter])
	}
	return out.String()
}
