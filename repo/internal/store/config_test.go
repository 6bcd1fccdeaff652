package store

import (
	"bytes"
	"crypto/rand"
	"errors"
	"testing"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/repo/internal/configs"
)

// A future format may have members that this one does not know.
func TestParseConfigOfTheFuture(t *testing.T) {
	if _, err := ParseConfig([]byte(`{"format": 2, "shape": "round"}`)); !errors.Is(err, ErrUnsupported) {
		t.Errorf("got %v", err)
	}
}

func TestConfigBody(t *testing.T) {
	t.Parallel()
	key := crypto.Key{1}
	for _, body := range []string{``, `{}`, `{"polynomial":"0x0"}`, `{"polynomial":"0x4"}`, `{"polynomial":"0x3"}`, `{"polynomial":"0xffffffffffffffff"}`, `{"polynomial":"0xfffffffffffffffff"}`, `{"polynomial":3}`, `[]`} {
		f := ConfigFile{configs.File{Format: 1, Features: []string{}}}
		var err error
		if f.Sealed, err = crypto.NewSealer(key.Derive(crypto.ForConfig), rand.Reader).Seal(nil, []byte(body), f.associatedData()); err != nil {
			t.Fatal(err)
		}
		if c, err := f.Open(key); err == nil {
			t.Errorf("%s: accepted as %+v", body, c)
		}
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte(`{"format":1,"features":[],"sealed":"AAAA"}` + "\n"))
	f.Add([]byte(`{"format":1,"features":["x"],"sealed":null}`))
	f.Add([]byte(`{"format":2}`))
	f.Add([]byte(`{`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseConfig(b)
		if err != nil {
			if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrUnsupported) {
				t.Fatal(err)
			}
			return
		}
		if again := c.Bytes(); !bytes.Equal(again, b) {
			t.Fatalf("%q has a second spelling %q", b, again)
		}
		if _, err := c.Open(crypto.Key{}); err == nil {
			t.Fatal("opened with a key of zeros")
		}
	})
}
