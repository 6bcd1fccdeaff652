package look

import (
	"bytes"
	"context"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/snap-backup/snap/device/ingest"
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/mobilesync/keybag"
	"github.com/snap-backup/snap/device/simulator/synthetic"
	"github.com/snap-backup/snap/internal/ramtemp"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
)

func TestMain(m *testing.M) {
	defer ramtemp.Use()()
	m.Run()
}

// imported imports a generated backup, with the backup password unless it is "".
func imported(t *testing.T, cfg synthetic.Config, legacy bool, password string) (*repo.Repo, *repo.Snapshot, string) {
	t.Helper()
	ctx := context.Background()
	dir := t.TempDir()
	cfg.Seed, cfg.StateDir = 3, t.TempDir()
	var udid string
	if legacy {
		device, err := synthetic.GenerateLegacy(ctx, dir, cfg)
		if err != nil {
			t.Fatal(err)
		}
		udid = device.UDID
	} else {
		devices, err := synthetic.Generate(ctx, dir, cfg, 1)
		if err != nil {
			t.Fatal(err)
		}
		udid = devices[0].UDID
	}
	b, err := mobilesync.Open(ctx, filepath.Join(dir, udid))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if password != "" {
		keys, err := b.Unlock(ctx, []byte(password), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer keys.Destroy()
	}
	r := repotest.Create(t, memory.New())
	res, err := ingest.Import(ctx, r, b, ingest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return r, res.Snapshot, udid
}

func unlockWith(password string) Unlock {
	return func(ctx context.Context, b *mobilesync.Backup) error {
		_, err := b.Unlock(ctx, []byte(password), nil)
		return err
	}
}

const messages = "HomeDomain/Library/SMS/sms.db"

// However a backup was stored, its files are those of the device.
func TestFilesOfEveryKindOfSnapshot(t *testing.T) {
	t.Parallel()
	encrypted := synthetic.Config{Encryption: synthetic.EncryptAll}
	var want []byte // all kinds have the same device
	for _, tt := range []struct {
		name     string
		cfg      synthetic.Config
		legacy   bool
		password string // for the import
		unlock   Unlock
	}{
		{"plain", synthetic.Config{}, false, "", nil},
		{"decrypted", encrypted, false, synthetic.DefaultPassword, nil},
		{"locked", encrypted, false, "", unlockWith(synthetic.DefaultPassword)},
		{"iOS 9", synthetic.Config{}, true, "", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx := context.Background()
			r, s, _ := imported(t, tt.cfg, tt.legacy, tt.password)
			v := Open(r, s, tt.unlock)
			defer v.Close()
			n, last := 0, ""
			for f, err := range v.Files(ctx, nil) {
				if err != nil {
					t.Fatal(err)
				}
				n++
				if key := f.Domain + "\x00" + f.Name + "\x00" + f.Path; key <= last {
					t.Fatalf("%q comes after %q", key, last)
				} else {
					last = key
				}
				c, err := f.Open(ctx)
				if err != nil {
					t.Fatal(err)
				}
				all, err := io.ReadAll(c)
				if err != nil || int64(len(all)) != c.Size() {
					t.Fatalf("%s: %d of %d bytes: %v", f.FullName(), len(all), c.Size(), err)
				}
				if f.Domain != "" && f.Size != c.Size() && !mobilesync.NamedLikeDatabase(f.Name) {
					t.Errorf("%s: listed with %d bytes, has %d", f.FullName(), f.Size, c.Size())
				}
				same(ctx, t, v, &f, all)
				if f.FullName() != messages || tt.legacy {
					continue
				}
				if want == nil {
					want = all
				}
				if !bytes.Equal(all, want) {
					t.Errorf("%s has %d other bytes", messages, len(all))
				}
			}
			if n < 50 {
				t.Errorf("%d files", n)
			}
		})
	}
}

// same checks that a file is found by each of its names, and that WriteTo and ReadAt give
// the same bytes as Read.
func same(ctx context.Context, t *testing.T, v *Reader, f *File, all []byte) {
	t.Helper()
	for _, text := range []string{f.FullName(), f.Path} {
		g, err := v.File(ctx, text)
		if err != nil || g.Path != f.Path {
			t.Errorf("%s: found %q: %v", text, g.Path, err)
			continue
		}
		c, err := g.Open(ctx)
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if _, err := c.WriteTo(&b); err != nil || !bytes.Equal(b.Bytes(), all) {
			t.Errorf("%s: WriteTo gives %d bytes: %v", text, b.Len(), err)
		}
		tail := make([]byte, len(all)/3)
		if n, err := c.ReadAt(tail, int64(len(all)-len(tail))); n != len(tail) || err != nil && !errors.Is(err, io.EOF) || !bytes.HasSuffix(all, tail) {
			t.Errorf("%s: ReadAt gives %d bytes: %v", text, n, err)
		}
	}
}

func TestLockedWithoutPassword(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	r, s, _ := imported(t, synthetic.Config{Encryption: synthetic.EncryptAll}, false, "")
	v := Open(r, s, nil)
	defer v.Close()
	if _, err := v.File(ctx, messages); !errors.Is(err, ErrLocked) {
		t.Error(err)
	}
	for _, err := range v.Files(ctx, nil) {
		if !errors.Is(err, ErrLocked) {
			t.Error(err)
		}
	}
	f, err := v.File(ctx, "3d0d7e5fb2ce288813306e4d4636395e047a3d28")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Open(ctx); !errors.Is(err, ErrLocked) {
		t.Error(err)
	}
	v = Open(r, s, unlockWith("wrong"))
	defer v.Close()
	if _, err := v.File(ctx, messages); !errors.Is(err, keybag.ErrWrongPassword) {
		t.Error(err)
	}
}

func TestNoFile(t *testing.T) {
	t.Parallel()
	r, s, _ := imported(t, synthetic.Config{}, false, "")
	v := Open(r, s, nil)
	for _, text := range []string{"", "/", "HomeDomain", "HomeDomain/Library/SMS", "3d", strings.Repeat("0", 40), "HomeDomain/" + strings.Repeat("x", 1<<16)} {
		if f, err := v.File(context.Background(), text); !errors.Is(err, ErrNoFile) {
			t.Errorf("%.40q: %q, %v", text, f.Path, err)
		}
	}
}
