package access

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/internal/configs"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/store"
)

func TestConfigOfTheFuture(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for name, change := range map[string]func(*store.Config){
		"format":  func(c *store.Config) { c.Version = store.FormatVersion + 1 },
		"feature": func(c *store.Config) { c.Features = []string{"time-travel"} },
	} {
		be := createHere(t)
		r := openHere(t, be)
		cfg := r.Config
		change(&cfg)
		f, err := cfg.Seal(r.MasterKey, r.Options.Rand)
		if err != nil {
			t.Fatal(err)
		}
		// A newer program stores the copy first. It may not have removed the old one yet.
		for _, name := range []string{configs.Name(f.Bytes()), layout.ConfigName} {
			if err := be.Set(name, f.Bytes()); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := Open(ctx, be, hereSecret, hereOptions()); !errors.Is(err, store.ErrUnsupported) {
			t.Errorf("%s: got %v", name, err)
		}
		if err := errors.Join(be.Delete(ctx, layout.ConfigName), be.Set(layout.SnapshotsDir+layout.FileID{}.String(), nil)); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(ctx, be, hereSecret, hereOptions()); !errors.Is(err, store.ErrUnsupported) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// The clear part of config is authenticated with the sealed part.
func TestConfigClearPartIsAuthenticated(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := createHere(t)
	r := openHere(t, be)
	cfg := r.Config
	cfg.Features = []string{"essential"}
	f, err := cfg.Seal(r.MasterKey, r.Options.Rand)
	if err != nil {
		t.Fatal(err)
	}
	b := bytes.Replace(f.Bytes(), []byte(`["essential"]`), []byte(`[]`), 1)
	if err := be.Set(layout.ConfigName, b); err != nil {
		t.Fatal(err)
	}
	if r, err := Open(ctx, be, hereSecret, hereOptions()); err != nil || !errors.Is(r.ConfigDamage, store.ErrDamaged) {
		t.Errorf("a feature was taken out: got %v", err)
	}
	if err := be.Delete(ctx, configs.Name(r.Sealed.Bytes())); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(ctx, be, hereSecret, hereOptions()); !errors.Is(err, store.ErrDamaged) {
		t.Errorf("a feature was taken out, and there is no copy: got %v", err)
	}
}

// Package repotest cannot be used here, since it imports this package.
var hereSecret = []byte("correct horse")

func hereOptions() store.Options {
	return store.Options{Cost: crypto.Cost{Time: 1, MemoryKiB: 8, Threads: 1}}
}

func createHere(t *testing.T) *memory.Backend {
	t.Helper()
	be := memory.New()
	if _, err := Create(context.Background(), be, hereSecret, crypto.SlotInfo{Kind: crypto.PasswordSlot}, hereOptions()); err != nil {
		t.Fatal(err)
	}
	return be
}

func openHere(t *testing.T, be *memory.Backend) *store.Store {
	t.Helper()
	r, err := Open(context.Background(), be, hereSecret, hereOptions())
	if err != nil {
		t.Fatal(err)
	}
	return r
}
