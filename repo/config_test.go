package repo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/repo/backend/memory"
)

func TestConfigOfTheFuture(t *testing.T) {
	ctx := context.Background()
	for name, change := range map[string]func(*Config){
		"format":  func(c *Config) { c.Version = FormatVersion + 1 },
		"feature": func(c *Config) { c.Features = []string{"time-travel"} },
	} {
		be := createHere(t)
		r := openHere(t, be)
		cfg := r.Config()
		change(&cfg)
		b, err := cfg.seal(r.master, r.opts.Rand)
		if err != nil {
			t.Fatal(err)
		}
		if err := be.Set(configName, b); err != nil {
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
	ctx := context.Background()
	be := createHere(t)
	r := openHere(t, be)
	cfg := r.Config()
	cfg.Features = []string{"essential"}
	b, err := cfg.seal(r.master, r.opts.Rand)
	if err != nil {
		t.Fatal(err)
	}
	b = bytes.Replace(b, []byte(`["essential"]`), []byte(`[]`), 1)
	if err := be.Set(configName, b); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(ctx, be, hereSecret, hereOptions()); !errors.Is(err, ErrDamaged) {
		t.Errorf("a feature was taken out: got %v", err)
	}
}

func TestConfigBody(t *testing.T) {
	r := openHere(t, createHere(t))
	for _, body := range []string{``, `{}`, `{"polynomial":"0x0"}`, `{"polynomial":"0x4"}`, `{"polynomial":"0x3"}`, `{"polynomial":"0xffffffffffffffff"}`, `{"polynomial":"0xfffffffffffffffff"}`, `{"polynomial":3}`, `[]`} {
		f := configFile{Format: 1, Features: []string{}}
		var err error
		if f.Sealed, err = crypto.NewSealer(r.master.Derive(crypto.ForConfig), r.opts.Rand).Seal(nil, []byte(body), f.ad()); err != nil {
			t.Fatal(err)
		}
		if c, err := f.open(r.master); err == nil {
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
		if _, err := c.open(crypto.Key{}); err == nil {
			t.Fatal("opened with a key of zeros")
		}
	})
}

func FuzzParseSnapshot(f *testing.F) {
	whole, _ := json.Marshal(&Snapshot{Version: 1, Tags: []string{"a"}, Parent: &FileID{1}})
	f.Add(whole)
	f.Add([]byte(`{"version":1,"root":"zz"}`))
	f.Add([]byte(`{"version":2}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseSnapshot(b)
		if err != nil {
			return
		}
		plain, err := json.Marshal(s)
		if err != nil {
			t.Skip() // a time beyond year 9999
		}
		if _, err := parseSnapshot(plain); err != nil {
			t.Fatalf("%s: %v", plain, err)
		}
	})
}

func FuzzOpenSnapshot(f *testing.F) {
	sealer := crypto.NewSealer(crypto.Key{1}, bytes.NewReader(make([]byte, 1<<10)))
	sealed, err := sealer.Seal([]byte(snapshotMagic), []byte(`{"version":1}`), nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sealed)
	f.Add(sealed[:len(sealed)-1])
	f.Add([]byte(snapshotMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := openSnapshot(b, sealer); err == nil && !bytes.Equal(b, sealed) {
			t.Fatal("bytes were accepted that nobody sealed")
		}
	})
}

func TestSnapshotRecord(t *testing.T) {
	ctx := context.Background()
	r := openHere(t, createHere(t))
	if err := r.LoadIndex(ctx); err != nil {
		t.Fatal(err)
	}
	s := &Snapshot{Problems: []string{strings.Repeat("x", maxSnapshotSize)}}
	w := r.NewWriter(ctx)
	if err := w.Commit(ctx, s); err == nil {
		t.Error("a record was written that no reader would take")
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if _, err := parseSnapshot([]byte(`{"version":2}`)); !errors.Is(err, ErrUnsupported) {
		t.Errorf("got %v", err)
	}
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

func openHere(t *testing.T, be *memory.Backend) *Repo {
	t.Helper()
	r, err := Open(context.Background(), be, hereSecret, hereOptions())
	if err != nil {
		t.Fatal(err)
	}
	return r
}
