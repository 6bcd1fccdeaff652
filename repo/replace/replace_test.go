package replace_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/crash"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/replace"
	"lukechampine.com/blake3"
)

// After a crash at any point, the damaged or the good file exists. After Finish, the
// good file exists.
func TestPutSurvivesEveryCrash(t *testing.T) {
	t.Parallel()
	id := blake3.Sum256(good)
	for _, name := range []string{"packs/" + hex.EncodeToString(id[:1]) + "/" + hex.EncodeToString(id[:]), "config"} {
		t.Run(name[:5], func(t *testing.T) { putSurvivesEveryCrash(t, name, false) })
		t.Run(name[:5]+" torn", func(t *testing.T) { putSurvivesEveryCrash(t, name, true) })
	}
}

// good is complete, as a config must be: JSON followed by a newline.
var good = []byte(`{"good":1}` + "\n")

func putSurvivesEveryCrash(t *testing.T, name string, torn bool) {
	ctx := context.Background()
	base := memory.New()
	if err := base.Put(ctx, name, []byte("damaged")); err != nil {
		t.Fatal(err)
	}
	crashes := 0
	defer func() { t.Logf("%d processes died (torn: %v)", crashes, torn) }()
	for seed := range uint64(16) {
		for at := 1; ; at++ {
			process := crash.New(base.Clone(), crash.Plan{At: at, Seed: seed, Torn: torn})
			err := replace.Put(ctx, process, name, good)
			if !process.Crashed() {
				if err != nil || at < 4 {
					t.Fatal(at, err)
				}
				break
			}
			crashes++
			be := process.Reboot()
			before, _ := backend.ReadAll(ctx, be, name, 100)
			replacement, _ := backend.ReadAll(ctx, be, replace.Dir+name, 100)
			if _, err := replace.Finish(ctx, be); err != nil {
				t.Fatal(err)
			}
			want := before
			if bytes.Equal(replacement, good) {
				want = good
			}
			// An incomplete replacement changes nothing.
			b, err := backend.ReadAll(ctx, be, name, 100)
			if err != nil || !bytes.Equal(b, want) || !bytes.Equal(b, good) && string(b) != "damaged" {
				t.Fatalf("%s: %q, want %q, %v", process.Outcome(), b, want, err)
			}
			if err := be.List(ctx, replace.Dir, func(f backend.Info) error { t.Error(f.Name); return nil }); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A damaged replacement is not used.
func TestFinishIgnoresDamagedReplacements(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := memory.New()
	id := blake3.Sum256([]byte("good"))
	name := "index/" + hex.EncodeToString(id[:])
	if err := be.Put(ctx, name, []byte("good")); err != nil {
		t.Fatal(err)
	}
	if err := be.Put(ctx, replace.Dir+name, []byte("damaged")); err != nil {
		t.Fatal(err)
	}
	if _, err := replace.Finish(ctx, be); err != nil {
		t.Fatal(err)
	}
	if b, err := backend.ReadAll(ctx, be, name, 100); err != nil || string(b) != "good" {
		t.Fatalf("%q, %v", b, err)
	}
}

// Finish cannot tell whether the present config is good, so it uses the replacement,
// which was verified before.
func TestFinishPrefersReplacementOfConfig(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := memory.New()
	if err := errors.Join(be.Put(ctx, "config", []byte("damaged")), be.Put(ctx, replace.Dir+"config", good)); err != nil {
		t.Fatal(err)
	}
	if _, err := replace.Finish(ctx, be); err != nil {
		t.Fatal(err)
	}
	if b, err := backend.ReadAll(ctx, be, "config", 100); err != nil || !bytes.Equal(b, good) {
		t.Fatalf("%q, %v", b, err)
	}
}

// An incomplete replacement of config is not used, since the user may have restored
// config.
func TestFinishIgnoresIncompleteConfig(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for _, incomplete := range [][]byte{nil, good[:4], good[:len(good)-1], append(bytes.Clone(good[:6]), make([]byte, 5)...), make([]byte, 11)} {
		be := memory.New()
		if err := errors.Join(be.Put(ctx, "config", good), be.Put(ctx, replace.Dir+"config", incomplete)); err != nil {
			t.Fatal(err)
		}
		if _, err := replace.Finish(ctx, be); err != nil {
			t.Fatal(err)
		}
		if b, err := backend.ReadAll(ctx, be, "config", 100); err != nil || !bytes.Equal(b, good) {
			t.Errorf("replacement %q: config is %q, %v", incomplete, b, err)
		}
	}
}
