package keybag

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"howett.net/plist"

	"github.com/snap-backup/snap/internal/faultpoint"
)

type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

type bagVector struct {
	Name, Password string
	Iter, DPIC     uint32
	Wrap           map[string]uint32
	ClassKeys      map[string]hexBytes `json:"class_keys"`
	Keybag         hexBytes
}

type vectors struct {
	Bags        []bagVector
	WrappedKeys []struct {
		Class uint32
		Blob  hexBytes
		Key   hexBytes
	} `json:"wrapped_keys"`
	FileKey hexBytes `json:"file_key"`
	Files   []struct{ Plain, Sealed hexBytes }

	ManifestFirstBlock hexBytes `json:"manifest_first_block"`
	RFC3394            struct{ Kek, Key, Wrapped hexBytes }
}

func loadVectors(t testing.TB) *vectors {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "vectors.json"))
	if err != nil {
		t.Fatal(err)
	}
	v := &vectors{}
	if err := json.Unmarshal(text, v); err != nil {
		t.Fatal(err)
	}
	if len(v.Bags) != 3 || len(v.WrappedKeys) != 2 || len(v.Files) != 8 {
		t.Fatalf("vectors.json holds %d bags, %d keys, %d files", len(v.Bags), len(v.WrappedKeys), len(v.Files))
	}
	return v
}

func mustUnlock(t testing.TB, raw []byte, password string) *Keys {
	t.Helper()
	bag, err := Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := bag.Unlock(context.Background(), []byte(password), nil)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func TestVectorBags(t *testing.T) {
	for _, v := range loadVectors(t).Bags {
		t.Run(v.Name, func(t *testing.T) {
			bag, err := Parse(v.Keybag)
			if err != nil {
				t.Fatal(err)
			}
			if bag.Iter != v.Iter || bag.DPIC != v.DPIC || bag.TwoStage() != (v.DPIC != 0) || bag.Type != TypeBackup {
				t.Errorf("iter %d, dpic %d, type %d", bag.Iter, bag.DPIC, bag.Type)
			}
			if len(bag.Classes) != 11 {
				t.Fatalf("%d classes", len(bag.Classes))
			}
			keys := mustUnlock(t, v.Keybag, v.Password)
			for _, class := range bag.Classes {
				name := strconv.Itoa(int(class.Number))
				if class.Wrap != v.Wrap[name] {
					t.Errorf("class %s: wrap %d, want %d", name, class.Wrap, v.Wrap[name])
				}
				key := keys.open[class.Number]
				if bound := class.Wrap&WrapDevice != 0; bound != (key == nil) {
					t.Errorf("class %s: wrap %d, key %t", name, class.Wrap, key != nil)
				}
				if key != nil && !bytes.Equal(key[:], v.ClassKeys[name]) {
					t.Errorf("class %s: wrong key", name)
				}
			}
			if _, err := bag.Unlock(context.Background(), []byte(v.Password+"x"), nil); !errors.Is(err, ErrWrongPassword) {
				t.Errorf("wrong password: %v", err)
			}
		})
	}
}

func TestVectorFileKeys(t *testing.T) {
	v := loadVectors(t)
	keys := mustUnlock(t, v.Bags[0].Keybag, v.Bags[0].Password)
	for _, w := range v.WrappedKeys {
		key, err := keys.Unwrap(w.Blob)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(key[:], w.Key) {
			t.Errorf("class %d: wrong key", w.Class)
		}
		blob, err := keys.Wrap(w.Class, key)
		if err != nil || !bytes.Equal(blob, w.Blob) {
			t.Errorf("class %d: wrapped as %x, %v", w.Class, blob, err)
		}
	}
}

func TestVectorFiles(t *testing.T) {
	v := loadVectors(t)
	for _, f := range v.Files {
		if encrypted := encryptBytes(t, f.Plain, FileKey(v.FileKey)); !bytes.Equal(encrypted, f.Sealed) {
			t.Errorf("%d bytes: encrypted as %x, want %x", len(f.Plain), encrypted, f.Sealed)
		}
		plain, err := io.ReadAll(NewDecrypter(bytes.NewReader(f.Sealed), FileKey(v.FileKey)))
		if err != nil || !bytes.Equal(plain, f.Plain) {
			t.Errorf("%d bytes: decrypted as %x, %v", len(f.Plain), plain, err)
		}
	}
	manifestKey := FileKey(v.WrappedKeys[0].Key)
	encrypted := encryptBytes(t, []byte("SQLite format 3\x00"), manifestKey)
	if !bytes.Equal(encrypted[:16], v.ManifestFirstBlock) {
		t.Errorf("first block of Manifest.db: %x", encrypted[:16])
	}
}

func TestVectorRFC3394(t *testing.T) {
	v := loadVectors(t).RFC3394
	kek, key := [32]byte(v.Kek), [32]byte(v.Key)
	wrapped, err := wrapKey(&kek, &key)
	if err != nil || !bytes.Equal(wrapped[:], v.Wrapped) {
		t.Fatalf("wrap: %x, %v", wrapped, err)
	}
	back, ok, err := unwrapKey(&kek, &wrapped)
	if err != nil || !ok || back != key {
		t.Fatalf("unwrap: %x, %t, %v", back, ok, err)
	}
	for i := range wrapped {
		bad := wrapped
		bad[i] ^= 1
		if back, ok, _ := unwrapKey(&kek, &bad); ok || back != [32]byte{} {
			t.Errorf("bit flip in byte %d passes", i)
		}
	}
}

// sampleDir returns a folder of the public samples. Without samples it skips
// the test; if only this folder is missing, the test fails.
func sampleDir(t *testing.T, name string) string {
	t.Helper()
	root := os.Getenv("SNAP_TEST_SAMPLES")
	if root == "" {
		t.Skip("SNAP_TEST_SAMPLES is not set")
	}
	dir := filepath.Join(root, name)
	if _, err := os.Stat(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestSamplePasswordVectors(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(sampleDir(t, "john-hashcat-vectors"), "vectors.json"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Vectors []struct{ Origin, Password, Hash string }
	}
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Vectors) != 7 {
		t.Fatalf("%d vectors", len(file.Vectors))
	}
	for _, v := range file.Vectors {
		bag := bagOfHash(t, v.Hash)
		if bag.DPIC > 1_000_000 && !faultpoint.All() {
			continue // real round counts take seconds; TestSampleChain has one
		}
		keys, err := bag.Unlock(context.Background(), []byte(v.Password), nil)
		if err != nil {
			t.Errorf("%s: %v", v.Origin, err)
			continue
		}
		if got := keys.Classes(); len(got) != 1 || got[0] != ClassNone {
			t.Errorf("%s: open classes %v", v.Origin, got)
		}
	}
}

// bagOfHash returns a bag with one class and the values of line, a hash for a
// password cracker.
func bagOfHash(t *testing.T, line string) *Bag {
	t.Helper()
	part := strings.Split(line, "*")
	number := func(s string) uint32 {
		n, _ := strconv.ParseUint(s, 10, 32)
		return uint32(n)
	}
	unhex := func(s string) []byte {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	bag := &Bag{Iter: number(part[3]), Salt: unhex(part[4])}
	bag.Classes = []Class{{Number: ClassNone, Wrap: WrapPassword, WrappedKey: unhex(part[2])}}
	if part[1] == "10" {
		bag.hasDPIC, bag.DPIC, bag.DPSL = true, number(part[5]), unhex(part[6])
	}
	return bag
}

func TestSampleUnencryptedBag(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join(sampleDir(t, "TrollRestore"), "backup_keybag.bin"))
	if err != nil {
		t.Fatal(err)
	}
	keys := mustUnlock(t, raw, "")
	if got := keys.Classes(); len(got) != 4 || got[0] != 1 || got[3] != 4 || len(keys.Damaged()) != 0 {
		t.Errorf("open %v, damaged %v", got, keys.Damaged())
	}
	made, _, err := New(bytes.NewReader(make([]byte, 1<<12)), nil, NewOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(shape(t, made), shape(t, raw)) {
		t.Error("New writes another order of tags or other lengths than the real bag")
	}
}

// shape returns the tags, lengths and numbers of a bag, but no random values.
func shape(t *testing.T, raw []byte) []byte {
	t.Helper()
	var out []byte
	for rest := raw; len(rest) > 0; {
		rec, tail, err := nextRecord(rest)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, rest[:8]...)
		if len(rec.Value) == 4 {
			out = append(out, rec.Value...)
		}
		rest = tail
	}
	return out
}

func TestSampleChain(t *testing.T) {
	dir := sampleDir(t, "pyiosbackup")
	for layout, blob := range map[string]string{
		"encrypted-ios10.2-layout": "57/5727bd1c5fa1055e15d8b4a75a74793c84b5ffdc",
		"encrypted-mbdb-layout":    "5727bd1c5fa1055e15d8b4a75a74793c84b5ffdc",
	} {
		t.Run(layout, func(t *testing.T) {
			if testing.Short() {
				t.Skip("real round counts")
			}
			text, err := os.ReadFile(filepath.Join(dir, layout, "Manifest.plist"))
			if err != nil {
				t.Fatal(err)
			}
			var manifest struct{ BackupKeyBag, ManifestKey []byte }
			if _, err := plist.Unmarshal(text, &manifest); err != nil {
				t.Fatal(err)
			}
			keys := mustUnlock(t, manifest.BackupKeyBag, "0000")
			encrypted, err := os.ReadFile(filepath.Join(dir, layout, filepath.FromSlash(blob)))
			if err != nil {
				t.Fatal(err)
			}
			key := sampleFileKey(t, keys, filepath.Join(dir, layout), manifest.ManifestKey)
			plain, err := io.ReadAll(NewDecrypter(bytes.NewReader(encrypted), key))
			if err != nil || string(plain) != "Test data" {
				t.Errorf("blob is decrypted to %q, %v", plain, err)
			}
		})
	}
}

// sampleFileKey finds the only wrapped key of a sample. In Manifest.mbdb the key
// follows its length; in Manifest.db it is data in a property list.
func sampleFileKey(t *testing.T, keys *Keys, dir string, manifestKey []byte) FileKey {
	t.Helper()
	name, marker := "Manifest.mbdb", []byte{0x00, WrappedFileKeyLen}
	if manifestKey != nil {
		name, marker = "Manifest.db", []byte{0x4f, 0x10, WrappedFileKeyLen}
	}
	text, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	if manifestKey != nil {
		text = openSampleManifest(t, keys, manifestKey, text)
	}
	i := bytes.Index(text, marker)
	if i < 0 {
		t.Fatal("no wrapped key in " + name)
	}
	key, err := keys.Unwrap(text[i+len(marker):][:WrappedFileKeyLen])
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func openSampleManifest(t *testing.T, keys *Keys, manifestKey, encrypted []byte) []byte {
	t.Helper()
	key, err := keys.Unwrap(manifestKey)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := DecrypterAt(bytes.NewReader(encrypted), int64(len(encrypted)), key); !errors.Is(err, ErrPadding) {
		t.Errorf("a Manifest.db without padding was opened: %v", err)
	}
	r, err := UnpaddedDecrypterAt(bytes.NewReader(encrypted), int64(len(encrypted)), key)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(io.NewSectionReader(r, 0, int64(len(encrypted))))
	if err != nil || !bytes.HasPrefix(plain, []byte("SQLite format 3\x00")) {
		t.Fatalf("Manifest.db cannot be decrypted: %v", err)
	}
	return plain
}
