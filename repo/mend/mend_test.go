package mend_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/crash"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/mend"
	"lukechampine.com/blake3"
)

// Wherever it is cut off, the damaged file or the good one is there, and the
// good one after Finish.
func TestPutSurvivesEveryCrash(t *testing.T) {
	id := blake3.Sum256([]byte("good"))
	for _, name := range []string{"packs/xx/" + hex.EncodeToString(id[:]), "config"} {
		t.Run(name[:5], func(t *testing.T) { putSurvivesEveryCrash(t, name) })
	}
}

func putSurvivesEveryCrash(t *testing.T, name string) {
	ctx := context.Background()
	good := []byte("good")
	base := memory.New()
	if err := base.Put(ctx, name, []byte("damaged")); err != nil {
		t.Fatal(err)
	}
	for seed := range uint64(8) {
		for at := 1; ; at++ {
			process := crash.New(base.Clone(), crash.Plan{At: at, Seed: seed})
			err := mend.Put(ctx, process, name, good)
			if !process.Crashed() {
				if err != nil || at < 4 {
					t.Fatal(at, err)
				}
				break
			}
			be := process.Reboot()
			begun := false
			if err := be.List(ctx, mend.Dir, func(backend.Info) error { begun = true; return nil }); err != nil {
				t.Fatal(err)
			}
			if err := mend.Finish(ctx, be); err != nil {
				t.Fatal(err)
			}
			b, err := backend.ReadAll(ctx, be, name, 100)
			if err != nil || begun && !bytes.Equal(b, good) {
				t.Fatalf("%s: %q, %v", process.Outcome(), b, err)
			}
			if err := be.List(ctx, mend.Dir, func(f backend.Info) error { t.Error(f.Name); return nil }); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// What is damaged on its way replaces nothing.
func TestFinishLooksAtBytes(t *testing.T) {
	ctx := context.Background()
	be := memory.New()
	id := blake3.Sum256([]byte("good"))
	name := "index/" + hex.EncodeToString(id[:])
	if err := be.Put(ctx, name, []byte("good")); err != nil {
		t.Fatal(err)
	}
	if err := be.Put(ctx, mend.Dir+name, []byte("torn")); err != nil {
		t.Fatal(err)
	}
	if err := mend.Finish(ctx, be); err != nil {
		t.Fatal(err)
	}
	if b, err := backend.ReadAll(ctx, be, name, 100); err != nil || string(b) != "good" {
		t.Fatalf("%q, %v", b, err)
	}
}

// Any bytes could be a config: the one on its way was found good, the one in its
// place was not.
func TestFinishPrefersConfigOnItsWay(t *testing.T) {
	ctx := context.Background()
	be := memory.New()
	if err := errors.Join(be.Put(ctx, "config", []byte("damaged")), be.Put(ctx, mend.Dir+"config", []byte("good"))); err != nil {
		t.Fatal(err)
	}
	if err := mend.Finish(ctx, be); err != nil {
		t.Fatal(err)
	}
	if b, err := backend.ReadAll(ctx, be, "config", 100); err != nil || string(b) != "good" {
		t.Fatalf("%q, %v", b, err)
	}
}
