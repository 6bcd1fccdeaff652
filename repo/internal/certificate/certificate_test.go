package certificate

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/record"
	"github.com/snap-backup/snap/repo/internal/store"
)

func testSealer() *crypto.Sealer {
	return crypto.NewSealer(crypto.Key{1}, rand.NewChaCha8([32]byte{1}))
}

// names returns random names, which cannot be compressed well.
func names(n int, seed uint64) []string {
	rng := rand.New(rand.NewPCG(1, seed))
	var list []string
	for range n {
		list = append(list, fmt.Sprintf("AppDomain/%016x%016x", rng.Uint64(), rng.Uint64()))
	}
	return list
}

// A certificate holds as many names as fit. Counts stay.
func TestTooManyNames(t *testing.T) {
	t.Parallel()
	c := &Certificate{Version: Version, Kind: Import, Result: Failed}
	for i := range uint64(3) {
		c.Findings = append(c.Findings, record.Finding{Kind: "missing", Consequence: record.Damage, Count: 5000, Names: names(5000, i), Text: "5,000 files are missing"})
	}
	for _, limit := range []struct{ size, plain, least, most int }{
		{MaxSize, maxPlain, 5000, 5000},
		{MaxSize, 400 << 10, 1500, 4999},
		{200 << 10, maxPlain, 1000, 4999},
		{1 << 10, maxPlain, 1, 5},
	} {
		b, err := seal(c, testSealer(), limit.size, limit.plain)
		if err != nil || len(b) > limit.size {
			t.Fatalf("%d bytes, %v", len(b), err)
		}
		got, err := open(b, testSealer())
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range got.Findings {
			if n := len(f.Names); n < limit.least || n > limit.most || f.Count != 5000 {
				t.Errorf("limit %d: %d names, count %d", limit.size, n, f.Count)
			}
		}
	}
	if _, err := seal(c, testSealer(), 100, maxPlain); err == nil {
		t.Error("100 bytes are enough")
	}
}

// A small file that expands to many bytes is damage, and takes no memory.
func TestBomb(t *testing.T) {
	t.Parallel()
	plain := append([]byte{pack.PlainVersion}, strings.Repeat(" ", maxPlain+1)...)
	form, err := pack.Compress(plain)
	if err != nil || len(form) > 1<<20 {
		t.Fatal(len(form), err)
	}
	if _, err := parse(form); !errors.Is(err, pack.ErrDamaged) {
		t.Errorf("got %v", err)
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	for form, want := range map[string]string{
		"":                            "unknown form",
		"\x01":                        "JSON",
		"\x03{\"version\":1}":         "unknown form",
		"\x01{\"version\":2}":         store.ErrUnsupported.Error(),
		"\x01{\"version\":1}x":        "after top-level value",
		"\x01{\"version\":1,\"a\":1}": "",
	} {
		_, err := parse([]byte(form))
		if got := fmt.Sprint(err); (err == nil) != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%q: got %v, want %q", form, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	whole, err := json.Marshal(&Certificate{
		Version: 1, Snapshot: layout.FileID{1}, Root: chunk.ID{2}, Kind: Drill, Level: Device, Result: Passed, NotChecked: []string{"mail"},
		Findings:   []record.Finding{{Kind: "digest", Consequence: record.Damage, Count: 1, Names: []string{"a/b"}, Text: "text"}},
		CopiedFrom: &Origin{Repository: "00", Certificate: layout.FileID{3}},
	})
	if err != nil {
		f.Fatal(err)
	}
	plain := append([]byte{pack.PlainVersion}, whole...)
	f.Add(plain)
	padded, err := pack.Compress(append(plain, strings.Repeat(" ", 8<<10)...))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(padded)
	f.Add(padded[:len(padded)/2])
	f.Add([]byte("\x01{\"version\":1,\"kind\":\"import\",\"level\":\"unchanged\",\"result\":\"passed\"}"))
	f.Add([]byte("\x01{\"version\":1,\"findings\":[null],\"seconds\":1e308}"))
	f.Add([]byte("\x02\xff\xff\xff\xff\xff\xff\xff\xff\x7f"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := parse(b)
		if err != nil {
			return
		}
		sealed, err := seal(c, testSealer(), MaxSize, maxPlain)
		if err != nil {
			return // a time beyond year 9999
		}
		got, err := open(sealed, testSealer())
		if err != nil {
			t.Fatal(err)
		}
		again, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		c.ID = layout.FileID{}
		c.Findings = record.Clip(c.Findings, len(again))
		if want, _ := json.Marshal(c); !bytes.Equal(want, again) {
			t.Fatalf("%s became %s", want, again)
		}
	})
}

func FuzzOpen(f *testing.F) {
	sealer := testSealer()
	sealed, err := sealer.Seal([]byte(magic), []byte("\x01{\"version\":1}"), nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sealed)
	f.Add(sealed[:len(sealed)-1])
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := open(b, sealer); err == nil && !bytes.Equal(b, sealed) {
			t.Fatal("bytes were accepted that were not sealed")
		}
	})
}
