package synthetic_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/device/ingest"
	"github.com/snap-backup/snap/device/materialize"
	"github.com/snap-backup/snap/device/mobilesync"
	"github.com/snap-backup/snap/device/simulator/synthetic"
	"github.com/snap-backup/snap/internal/faultpoint"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend/memory"
)

// skipMissing skips a test because a program is missing. If SNAP_TEST_INTEROP is set, the
// test fails instead.
func skipMissing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("SNAP_TEST_INTEROP") != "" {
		t.Fatalf("%s is missing", what)
	}
	t.Skipf("%s is missing", what)
}

// findPython returns the path of a Python that has the modules, or "". It tries
// several, since the first Python in PATH may not have the distribution's packages.
var findPython = sync.OnceValue(func() string {
	for _, name := range []string{"python3", "/usr/bin/python3", "python"} {
		path, err := exec.LookPath(name)
		if err == nil && exec.Command(path, "-c", "import cryptography, plistlib, sqlite3").Run() == nil {
			return path
		}
	}
	return ""
})

func python(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("it runs another program")
	}
	path := findPython()
	if path == "" {
		skipMissing(t, "python3 with python3-cryptography")
	}
	return path
}

func generate(t *testing.T, conf synthetic.Config, days int) (folders []string, devices []synthetic.Device) {
	t.Helper()
	dir := t.TempDir()
	conf.StateDir = t.TempDir()
	devices, err := synthetic.Generate(context.Background(), dir, conf, days)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range devices {
		folders = append(folders, filepath.Join(dir, d.UDID))
	}
	return folders, devices
}

// decryptFolder opens a backup folder with decrypt.py. It returns the SHA-256 of the content
// of each file.
func decryptFolder(t *testing.T, folder, password string) map[string]string {
	t.Helper()
	cmd := exec.Command(python(t), filepath.Join("testdata", "decrypt.py"), folder)
	cmd.Stdin = strings.NewReader(password + "\n")
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, problems.String())
	}
	var sums map[string]string
	if err := json.Unmarshal(out.Bytes(), &sums); err != nil {
		t.Fatal(err)
	}
	if len(sums) < 100 {
		t.Fatalf("%s has only %d files", folder, len(sums))
	}
	return sums
}

func wantSame(t *testing.T, got, want map[string]string) {
	t.Helper()
	different := 0
	for name, sum := range want {
		if got[name] != sum {
			if different++; different <= 5 {
				t.Errorf("%s is %q, want %s", name, got[name], sum)
			}
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d files, want %d", len(got), len(want))
	}
}

// roundTrip imports a backup folder with its password, and opens the repository again.
// It then materializes the snapshot without the password of the backup.
func roundTrip(t *testing.T, folder, password string) string {
	t.Helper()
	ctx := context.Background()
	be, secret := memory.New(), []byte("correct horse")
	opts := repo.Options{Cost: crypto.Cost{Time: 1, MemoryKiB: 8, Threads: 1}}
	r, err := repo.Create(ctx, be, secret, crypto.SlotInfo{Kind: crypto.PasswordSlot}, opts)
	if err != nil {
		t.Fatal(err)
	}
	b, err := mobilesync.Open(ctx, folder)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	keys, err := b.Unlock(ctx, []byte(password), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer keys.Destroy()
	stored, err := ingest.Import(ctx, r, b, ingest.Options{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	if stored.Decrypted < 100 || len(stored.Raw) > 0 {
		t.Errorf("%d files were stored decrypted, raw files %v", stored.Decrypted, stored.Raw)
	}
	again, err := repo.Open(ctx, be, secret, opts)
	if err == nil {
		err = again.LoadIndex(ctx)
	}
	if err != nil {
		t.Fatal(err)
	}
	out, err := materialize.Write(ctx, again, stored.Snapshot, t.TempDir(), materialize.Options{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	return out.Dir
}

// TestInteropDecrypt opens generated and materialized backups with decrypt.py. It
// compares their content with the plain backup of the same device.
func TestInteropDecrypt(t *testing.T) {
	t.Parallel()
	python(t)
	for name, test := range map[string]struct {
		conf     synthetic.Config
		days     int
		password string
	}{
		"first day": {synthetic.Config{Seed: 31}, 1, synthetic.DefaultPassword},
		"third day, after a password change": {
			synthetic.Config{Seed: 32, Devices: 2, PasswordChangeDay: 1, NewPassword: "größer 📱", EmptyAsZeroBytes: true}, 3, "größer 📱",
		},
	} {
		t.Run(name, func(t *testing.T) {
			plain, _ := generate(t, test.conf, test.days)
			test.conf.Encryption = synthetic.EncryptAll
			encrypted, _ := generate(t, test.conf, test.days)
			for _, i := range faultpoint.Choose(t, len(plain), 1) {
				want := decryptFolder(t, plain[i], "")
				wantSame(t, decryptFolder(t, encrypted[i], test.password), want)
				wantSame(t, decryptFolder(t, roundTrip(t, encrypted[i], test.password), test.password), want)
			}
		})
	}
}

// TestInteropDecryptRefuses tests that decrypt.py refuses a wrong password and notices
// a changed byte.
func TestInteropDecryptRefuses(t *testing.T) {
	t.Parallel()
	py := python(t)
	folders, _ := generate(t, synthetic.Config{Seed: 33, Encryption: synthetic.EncryptAll}, 1)
	refuses := func(password, want string) {
		t.Helper()
		cmd := exec.Command(py, filepath.Join("testdata", "decrypt.py"), folders[0])
		cmd.Stdin = strings.NewReader(password + "\n")
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), want) {
			t.Errorf("%v: %s", err, out)
		}
	}
	refuses("wrong", "wrong password?")
	sms := filepath.Join(folders[0], "3d", "3d0d7e5fb2ce288813306e4d4636395e047a3d28")
	b, err := os.ReadFile(sms)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(sms, b, 0o600); err != nil {
		t.Fatal(err)
	}
	refuses(synthetic.DefaultPassword, "Digest")
}

// beginWith returns the files in a folder that begin with one of heads.
func beginWith(t *testing.T, folder string, heads ...string) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		for _, head := range heads {
			if bytes.HasPrefix(b, []byte(head)) {
				found = append(found, path)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestInteropDatabases makes some days of changes, and then checks every database with
// SQLite's own program.
func TestInteropDatabases(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it runs another program")
	}
	program, err := exec.LookPath("sqlite3")
	if err != nil {
		skipMissing(t, "sqlite3")
	}
	days := 2
	if faultpoint.All() {
		days = 3
	}
	for name, compact := range map[string]bool{"live": false, "compacted": true} {
		t.Run(name, func(t *testing.T) {
			folders, _ := generate(t, synthetic.Config{Seed: 34, CompactDBs: compact}, days)
			databases := beginWith(t, folders[0], "SQLite format 3\x00")
			if len(databases) < 6 {
				t.Errorf("only %d databases", len(databases))
			}
			if !slices.Contains(databases, filepath.Join(folders[0], mobilesync.ManifestDB)) {
				t.Error("Manifest.db is not among them")
			}
			for _, path := range databases {
				// The test opens a copy, since opening a database may write to its folder.
				b, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				copied := filepath.Join(t.TempDir(), "copy.db")
				if err := os.WriteFile(copied, b, 0o600); err != nil {
					t.Fatal(err)
				}
				out, err := exec.Command(program, copied, "PRAGMA integrity_check").CombinedOutput()
				if err != nil || string(bytes.TrimSpace(out)) != "ok" {
					t.Errorf("%s: %v: %s", path, err, out)
				}
			}
		})
	}
}

// readPlists is a Python program that reads paths of property lists from standard
// input. It reads these files and prints their number. If it cannot read one of them,
// it fails.
const readPlists = `
import plistlib, sys
n = 0
for name in sys.stdin.read().split("\0"):
    try:
        with open(name, "rb") as f:
            plistlib.load(f)
    except Exception as e:
        sys.exit("%s: %r" % (name, e))
    n += 1
print(n)
`

// TestInteropPlists reads every property list of a folder with Python.
func TestInteropPlists(t *testing.T) {
	t.Parallel()
	py := python(t)
	folders, _ := generate(t, synthetic.Config{Seed: 35}, 2)
	lists := beginWith(t, folders[0], "bplist00", "<?xml")
	if len(lists) < 30 {
		t.Errorf("only %d property lists", len(lists))
	}
	cmd := exec.Command(py, "-c", readPlists)
	cmd.Stdin = strings.NewReader(strings.Join(lists, "\x00"))
	out, err := cmd.CombinedOutput()
	var n int
	if err == nil {
		err = json.Unmarshal(out, &n)
	}
	if err != nil || n != len(lists) {
		t.Errorf("%d of %d were read: %v: %s", n, len(lists), err, out)
	}
}
