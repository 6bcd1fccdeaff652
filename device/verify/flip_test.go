package verify

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/snap-backup/snap/device/finding"
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/manifest"
	"github.com/snap-backup/snap/device/simulator/synthetic"
	"github.com/snap-backup/snap/internal/faultpoint"
	"github.com/snap-backup/snap/repo"
)

// TestOneFlippedByte turns one byte in each of 200 places of files with a digest. Each
// must be found, by name, by the import and by a full verification that does not know
// what the import found. Sets of places in different files share an import.
func TestOneFlippedByte(t *testing.T) {
	t.Parallel()
	for _, cfg := range []synthetic.Config{{}, encrypting} {
		for _, pw := range []string{"", synthetic.DefaultPassword} {
			if pw != "" && cfg.Encryption == synthetic.EncryptNone {
				continue
			}
			t.Run(fmt.Sprintf("encryption %d, password %q", cfg.Encryption, pw), func(t *testing.T) {
				t.Parallel()
				flipBytes(t, generated(t, cfg), cfg.Encryption == synthetic.EncryptAll, pw)
			})
		}
	}
}

func flipBytes(t *testing.T, dir string, encrypted bool, pw string) {
	later := ""
	if encrypted {
		later = synthetic.DefaultPassword
	}
	var paths []string
	rows(t, dir, later, func(rec manifest.Record, _ *mobilesync.Backup) bool {
		path := mobilesync.BlobPath(mobilesync.Hashed, rec.FileID)
		if info, err := os.Stat(filepath.Join(dir, path)); rec.IsFile() && rec.HasDigest && err == nil && info.Size() > 0 {
			paths = append(paths, path)
		}
		return true
	})
	if len(paths) < 20 {
		t.Fatalf("only %d files have a digest", len(paths))
	}
	rng := faultpoint.Rand(t)
	rounds := 1
	if faultpoint.All() {
		rounds = (200 + len(paths) - 1) / len(paths)
	}
	for range rounds {
		own := filepath.Join(t.TempDir(), filepath.Base(dir))
		if err := os.CopyFS(own, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			flipOne(t, filepath.Join(own, path), rng)
		}
		_, r, s := imported(t, own, pw)
		old := *s
		old.Findings, old.Complete = nil, true
		rep := run(t, r, &old, Options{Level: Full, Unlock: unlock(later)})
		for _, path := range paths {
			id := path[strings.LastIndexByte(path, '/')+1:]
			if !names(rep.Findings, id) {
				t.Errorf("verify: %s is not named", path)
			}
			// An import that does not know the password knows no digests.
			if !(encrypted && pw == "") && !names(s.Findings, id) && !anyFull(s.Findings) {
				t.Errorf("import: %s is not named", path)
			}
		}
	}
}

func flipOne(t *testing.T, name string, rng *rand.Rand) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	b[rng.IntN(len(b))] ^= byte(1 + rng.IntN(255))
	if err := os.WriteFile(name, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// names reports whether damage of a digest, cipher or size names a blob.
func names(findings []repo.Finding, id string) bool {
	return slices.ContainsFunc(findings, func(f repo.Finding) bool {
		return f.Consequence == repo.Damage && (f.Kind == finding.Digest || f.Kind == finding.Cipher) &&
			slices.ContainsFunc(f.Names, func(n string) bool { return strings.Contains(n, id) })
	})
}

// anyFull reports whether a finding has more names than a record holds.
func anyFull(findings []repo.Finding) bool {
	return slices.ContainsFunc(findings, func(f repo.Finding) bool { return f.Count > int64(len(f.Names)) })
}
