package verify

import (
	"context"
	"errors"
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
	"github.com/snap-backup/snap/repo/backend/fault"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
)

// TestOldLayout verifies damaged backups of iOS 9, whose manifest is Manifest.mbdb.
func TestOldLayout(t *testing.T) {
	t.Parallel()
	good := t.TempDir()
	made, err := synthetic.GenerateLegacy(t.Context(), good, synthetic.Config{Seed: 3, StateDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	good = filepath.Join(good, made.UDID)
	find := func(fits func(rec *manifest.Record) bool) (path string) {
		rows(t, good, "", func(rec manifest.Record, _ *mobilesync.Backup) bool {
			if path == "" && rec.IsFile() && rec.Size > 0 && fits(&rec) {
				path = mobilesync.BlobPath(mobilesync.Flat, rec.FileID)
			}
			return path == ""
		})
		if path == "" {
			t.Fatal("no such file")
		}
		return path
	}
	const mbdb = mobilesync.ManifestMBDB
	sms := find(func(rec *manifest.Record) bool { return rec.RelativePath == smsDB })
	digest := find(func(rec *manifest.Record) bool {
		return rec.HasDigest && !mobilesync.NamedLikeDatabase(rec.RelativePath)
	})
	database := find(func(rec *manifest.Record) bool {
		return !rec.HasDigest && mobilesync.NamedLikeDatabase(rec.RelativePath) && rec.Size > 3*4096
	})
	plist := find(func(rec *manifest.Record) bool {
		return !rec.HasDigest && strings.HasSuffix(rec.RelativePath, ".plist") && rec.Size > 100
	})
	for _, tt := range []struct {
		name, path string
		change     func([]byte) []byte
		kind       string // of damage; "" if there is none
		level      Level  // that finds it
	}{
		{"sound", sms, func(b []byte) []byte { return b }, "", Full},
		{"missing", sms, gone, finding.Missing, Quick},
		{"emptied", digest, zeros, finding.Emptied, Quick},
		{"flipped", digest, flip(-7), finding.Digest, Full},
		{"cut database", database, cut(4096), finding.Database, Full},
		{"flipped database", database, flip(4096 + 3), finding.Database, Full},
		{"flipped property list", plist, flip(0), finding.Plist, Full},
		{"cut manifest", mbdb, cut(9), finding.Manifest, Quick},
		{"flipped length in the manifest", mbdb, flip(6), finding.Manifest, Quick},
		{"no manifest", mbdb, func([]byte) []byte { return []byte("mbdb") }, finding.Manifest, Quick},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), made.UDID)
			if err := os.CopyFS(dir, os.DirFS(good)); err != nil {
				t.Fatal(err)
			}
			name := filepath.Join(dir, tt.path)
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if b = tt.change(b); b == nil {
				err = os.Remove(name)
			} else {
				err = os.WriteFile(name, b, 0o644)
			}
			if err != nil {
				t.Fatal(err)
			}
			_, r, s := imported(t, dir, "")
			old := *s
			old.Findings, old.Complete = nil, true
			for _, level := range []Level{Quick, Full} {
				rep := run(t, r, &old, Options{Level: level})
				bad := tt.kind != "" && (level == Full || tt.level == Quick)
				named := slices.ContainsFunc(rep.Findings, func(f repo.Finding) bool {
					return f.Kind == tt.kind && f.Consequence != repo.Remark &&
						(tt.path == mbdb || slices.ContainsFunc(f.Names, func(n string) bool { return strings.Contains(n, tt.path) }))
				})
				if rep.Passed == bad || bad && !named {
					t.Errorf("%s: %+v", level, rep.Findings)
				}
			}
		})
	}
}

// TestInterruption interrupts a verification at any point. It ends at once, with the
// error of its context, and never says that the backup is bad.
func TestInterruption(t *testing.T) {
	t.Parallel()
	m := newMade(t, true)
	base := memory.New()
	repotest.Create(t, base)
	importInto(t, repotest.MustOpenWith(t, base, repotest.Secret, repotest.SmallPacks(3)), m.write(), password)
	verify := func(ctx context.Context, be *fault.Backend) (*Report, error) {
		r, err := repotest.Open(ctx, be, repotest.Secret, repotest.Options(30))
		if err != nil {
			return nil, err
		}
		list, _, err := r.SnapshotsIndexed(ctx)
		if err != nil {
			return nil, err
		}
		return Verify(ctx, r, list[0], Options{Level: Full, Workers: 2, Unlock: unlock(password)})
	}
	count := fault.New(base.Clone())
	if _, err := verify(t.Context(), count); err != nil {
		t.Fatal(err)
	}
	for _, n := range faultpoint.Choose(t, count.Count(), 12) {
		ctx, cancel := context.WithCancel(t.Context())
		rep, err := verify(ctx, fault.New(base.Clone(), func(c fault.Call) fault.Action {
			if c.N == n+1 {
				cancel()
			}
			return fault.Action{}
		}))
		cancel()
		if err != nil && !errors.Is(err, context.Canceled) || err == nil && !rep.Passed {
			t.Errorf("step %d: %+v, %v", n, rep, err)
		}
	}
}
