package store

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/internal/layout"
)

func TestConfigOfTheFuture(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for name, change := range map[string]func(*Config){
		"format":  func(c *Config) { c.Version = FormatVersion + 1 },
		"feature": func(c *Config) { c.Features = []string{"time-travel"} },
	} {
		be := createHere(t)
		r := openHere(t, be)
		cfg := r.Config
		change(&cfg)
		b, err := cfg.seal(r.MasterKey, r.Options.Rand)
		if err != nil {
			t.Fatal(err)
		}
		if err := be.Set(layout.ConfigName, b); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(ctx, be, hereSecret, hereOptions()); !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	// A future format may have members that this one does not know.
	if _, err := parseConfig([]byte(`{"format": 2, "shape": "round"}`)); !errors.Is(err, ErrUnsupported) {
		t.Errorf("got %v", err)
	}
}

// What stands beside the sealed part is authenticated with it.
func TestConfigClearPartIsAuthenticated(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := createHere(t)
	r := openHere(t, be)
	cfg := r.Config
	cfg.Features = []string{"essential"}
	b, err := cfg.seal(r.MasterKey, r.Options.Rand)
	if err != nil {
		t.Fatal(err)
	}
	b = bytes.Replace(b, []byte(`["essential"]`), []byte(`[]`), 1)
	if err := be.Set(layout.ConfigName, b); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(ctx, be, hereSecret, hereOptions()); !errors.Is(err, ErrDamaged) {
		t.Errorf("a feature was taken out: got %v", err)
	}
}

func TestConfigBody(t *testing.T) {
	t.Parallel()
	r := openHere(t, createHere(t))
	for _, body := range []string{``, `{}`, `{"polynomial":"0x0"}`, `{"polynomial":"0x4"}`, `{"polynomial":"0x3"}`, `{"polynomial":"0xffffffffffffffff"}`, `{"polynomial":"0xfffffffffffffffff"}`, `{"polynomial":3}`, `[]`} {
		f := ConfigFile{Format: 1, Features: []string{}}
		var err error
		if f.Sealed, err = crypto.NewSealer(r.MasterKey.Derive(crypto.ForConfig), r.Options.Rand).Seal(nil, []byte(body), f.ad()); err != nil {
			t.Fatal(err)
		}
		if c, err := f.Open(r.MasterKey); err == nil {
			t.Errorf("%s: taken as %+v", body, c)
		}
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte(`{"format":1,"features":[],"sealed":"AAAA"}` + "\n"))
	f.Add([]byte(`{"format":1,"features":["x"],"sealed":null}`))
	f.Add([]byte(`{"format":2}`))
	f.Add([]byte(`{`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := parseConfig(b)
		if err != nil {
			if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrUnsupported) {
				t.Fatal(err)
			}
			return
		}
		if again, err := c.encode(); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%q has a second spelling %q (%v)", b, again, err)
		}
		if _, err := c.Open(crypto.Key{}); err == nil {
			t.Fatal("opened with a key of zeros")
		}
	})
}

// Package repotest cannot be used here, since it imports this package.
var hereSecret = []byte("correct horse")

func hereOptions() Options { return Options{Cost: crypto.Cost{Time: 1, MemoryKiB: 8, Threads: 1}} }

func createHere(t *testing.T) *memory.Backend {
	t.Helper()
	be := memory.New()
	if _, err := Create(context.Background(), be, hereSecret, crypto.SlotInfo{Kind: crypto.PasswordSlot}, hereOptions()); err != nil {
		t.Fatal(err)
	}
	return be
}

func openHere(t *testing.T, be *memory.Backend) *Store {
	t.Helper()
	r, err := Open(context.Background(), be, hereSecret, hereOptions())
	if err != nil {
		t.Fatal(err)
	}
	return r
}
