package record_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/internal/record"
	"github.com/snap-backup/snap/repo/repotest"
	"github.com/snap-backup/snap/repo/tree"
)

const (
	tableUDID = "00008110-8899AABBCCDDEEFF"
)

// passwords returns the passwords kept for a device, the newest first.
func passwords(be backend.Backend, udid string) ([]string, error) {
	r, err := repo.Open(context.Background(), be, repotest.Secret, repotest.SmallPacks(7))
	if err != nil {
		return nil, err
	}
	kept, err := r.DevicePasswords(context.Background(), udid)
	list := []string{}
	for _, p := range kept {
		list = append(list, string(p.Password))
	}
	return list, err
}

func wantPasswords(t *testing.T, be backend.Backend, udid string, want ...string) {
	t.Helper()
	if got, err := passwords(be, udid); err != nil || !slices.Equal(got, want) {
		t.Errorf("%s: %q, %v; want %q", udid, got, err, want)
	}
}

func keepSecret(t *testing.T, be backend.Backend, seed byte, udid, password string) {
	t.Helper()
	opts := repotest.SmallPacks(seed)
	r, err := repo.Open(context.Background(), be, repotest.Secret, opts)
	if err == nil {
		err = r.KeepDevicePassword(context.Background(), udid, []byte(password))
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestDevicePasswords(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := repotest.New(t, 1)
	r := repotest.MustOpen(t, be)
	for i, password := range []string{"first", "second", "first", "pässwörd 📱"} {
		if err := r.KeepDevicePassword(ctx, repotest.JobUDID, []byte(password)); err != nil {
			t.Fatal(i, err)
		}
	}
	if err := r.KeepDevicePassword(ctx, tableUDID, []byte("first")); err != nil {
		t.Fatal(err)
	}
	wantPasswords(t, be, repotest.JobUDID, "pässwörd 📱", "second", "first")
	wantPasswords(t, be, strings.ToLower(strings.ReplaceAll(repotest.JobUDID, "-", "")), "pässwörd 📱", "second", "first")
	wantPasswords(t, be, tableUDID, "first")
	wantPasswords(t, be, "unknown")

	// Device passwords do not depend on the key slots of the repository.
	if _, err := r.AddKey(ctx, repotest.OtherSecret, repotest.SlotInfo); err != nil {
		t.Fatal(err)
	}
	if _, err := r.ChangePassword(ctx, []byte("third"), crypto.PasswordSlot); err != nil {
		t.Fatal(err)
	}
	other := repotest.MustOpenWith(t, be, repotest.OtherSecret, repotest.SmallPacks(7))
	kept, err := other.DevicePasswords(ctx, repotest.JobUDID)
	if err != nil || len(kept) != 3 {
		t.Errorf("%v, %v", kept, err)
	}

	if n, err := other.ForgetDevicePasswords(ctx, repotest.JobUDID); n != 3 || err != nil {
		t.Errorf("forgot %d, %v", n, err)
	}
	if n, err := other.ForgetDevicePasswords(ctx, repotest.JobUDID); n != 0 || err != nil {
		t.Errorf("forgot %d again, %v", n, err)
	}
	kept, err = other.DevicePasswords(ctx, tableUDID)
	if err != nil || len(kept) != 1 {
		t.Errorf("%v, %v", kept, err)
	}
	if err := repotest.VerifyWith(be, repotest.OtherSecret, 1); err != nil {
		t.Error(err)
	}
}

// Neither the length of a file nor its content reveals anything about the
// password.
func TestDevicePasswordsAreSealed(t *testing.T) {
	t.Parallel()
	be := memory.New()
	repotest.Create(t, be)
	before := repotest.Content(t, be)
	sizes := map[int]bool{}
	for i, password := range []string{"x", "a much longer password", strings.Repeat("secret!", 30)} {
		keepSecret(t, be, byte(20+i), repotest.JobUDID, password)
	}
	for name, b := range repotest.Content(t, be) {
		if before[name] != nil {
			continue
		}
		sizes[len(b)] = true
		for _, word := range []string{"longer", "secret!", repotest.JobUDID, "password"} {
			for _, form := range forms([]byte(word)) {
				if bytes.Contains(b, form) {
					t.Errorf("%s holds %q", name, word)
				}
			}
		}
	}
	if len(sizes) != 1 {
		t.Errorf("files of different sizes: %v", sizes)
	}
	r, err := repo.Open(context.Background(), be, repotest.Secret, repotest.SmallPacks(30))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.KeepDevicePassword(context.Background(), repotest.JobUDID, bytes.Repeat([]byte("p"), record.MaxPasswordSize)); err == nil {
		t.Error("a password was kept that cannot be read back")
	}
	if err := r.KeepDevicePassword(context.Background(), repotest.JobUDID, bytes.Repeat([]byte("p"), record.MaxPasswordSize/4)); err != nil {
		t.Error(err)
	}
	if kept, err := r.DevicePasswords(context.Background(), repotest.JobUDID); err != nil || len(kept) != 4 {
		t.Errorf("%d kept, %v", len(kept), err)
	}
}

// forms returns ways to write a secret.
func forms(secret []byte) [][]byte {
	encoded := base64.RawStdEncoding.EncodeToString(secret)
	return [][]byte{secret, []byte(hex.EncodeToString(secret)), []byte(encoded[:len(encoded)-1])}
}

// TestDamagedDevicePassword flips every bit of one file. The other passwords are
// still found, and check names the file.
func TestDamagedDevicePassword(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := repotest.New(t, 1)
	keepSecret(t, be, 20, repotest.JobUDID, "first")
	before := repotest.Content(t, be)
	keepSecret(t, be, 21, repotest.JobUDID, "second")
	name, file := "", []byte(nil)
	for n, b := range repotest.Content(t, be) {
		if before[n] == nil {
			name, file = n, b
		}
	}
	for i := 0; i < len(file); i += 7 {
		broken := bytes.Clone(file)
		broken[i] ^= 1 << (i % 8)
		if err := be.Set(name, broken); err != nil {
			t.Fatal(err)
		}
		wantPasswords(t, be, repotest.JobUDID, "first")
	}
	report, err := repotest.MustOpen(t, be).Check(ctx, repo.CheckOptions{})
	if err != nil || !report.Clean() || len(report.Problems) != 1 || report.Problems[0].File != name || report.Problems[0].Fatal {
		t.Errorf("check: %+v, %v", report, err)
	}
	// A damaged password can be set again.
	keepSecret(t, be, 22, repotest.JobUDID, "second")
	wantPasswords(t, be, repotest.JobUDID, "second", "first")
}

// secretRuns are the operations on device passwords, with what may be kept after
// a failure and what must be kept after success.
var secretRuns = map[string]struct {
	run     func(ctx context.Context, r *repo.Repo) error
	success []string
	allowed [][]string
}{
	"keep": {
		func(ctx context.Context, r *repo.Repo) error {
			return r.KeepDevicePassword(ctx, repotest.JobUDID, []byte("third"))
		},
		[]string{"third", "second", "first"},
		[][]string{{"second", "first"}},
	},
	"keep again": {
		func(ctx context.Context, r *repo.Repo) error {
			return r.KeepDevicePassword(ctx, repotest.JobUDID, []byte("first"))
		},
		[]string{"second", "first"},
		nil,
	},
	"forget": {
		func(ctx context.Context, r *repo.Repo) error {
			_, err := r.ForgetDevicePasswords(ctx, repotest.JobUDID)
			return err
		},
		[]string{},
		[][]string{{"second", "first"}, {"second"}, {"first"}},
	},
}

func TestDevicePasswordsSurviveFaultsAndCrashes(t *testing.T) {
	t.Parallel()
	for name, s := range secretRuns {
		t.Run(name, func(t *testing.T) {
			ctx := context.Background()
			base := repotest.New(t, 1)
			for i, p := range []string{"first", "second"} {
				opts := repotest.SmallPacks(byte(20 + i))
				now := opts.Now().AddDate(0, 0, i)
				opts.Now = func() time.Time { return now }
				r, err := repo.Open(ctx, base, repotest.Secret, opts)
				if err == nil {
					err = r.KeepDevicePassword(ctx, repotest.JobUDID, []byte(p))
				}
				if err == nil {
					err = r.KeepDevicePassword(ctx, tableUDID, []byte(p))
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			run := func(be backend.Backend) error {
				opts := repotest.SmallPacks(30)
				later := opts.Now().AddDate(0, 1, 0)
				opts.Now = func() time.Time { return later }
				r, err := repo.Open(ctx, be, repotest.Secret, opts)
				if err != nil {
					return err
				}
				return s.run(ctx, r)
			}
			judge := func(be *memory.Backend, runErr error) error {
				got, err := passwords(be, repotest.JobUDID)
				if err != nil {
					return err
				}
				if !slices.Equal(got, s.success) && (runErr == nil || !slices.ContainsFunc(s.allowed, func(w []string) bool { return slices.Equal(w, got) })) {
					return fmt.Errorf("%q are kept", got)
				}
				if got, err := passwords(be, tableUDID); err != nil || !slices.Equal(got, []string{"second", "first"}) {
					return fmt.Errorf("%q are kept for the other device: %w", got, err)
				}
				if err := repotest.Verify(be, 1); err != nil {
					return err
				}
				// The operation succeeds when it is repeated.
				if err := run(be); err != nil {
					return fmt.Errorf("repeat the operation: %w", err)
				}
				if got, err := passwords(be, repotest.JobUDID); err != nil || !slices.Equal(got, s.success) {
					return fmt.Errorf("%q are kept after the operation was repeated: %w", got, err)
				}
				return nil
			}
			least := 5
			repotest.EveryFault(t, repotest.Run{Base: base, Do: run, Least: least, Want: 12}, judge)
			if name != "keep again" { // that operation changes nothing
				repotest.EveryCrash(t, repotest.Run{Base: base, Do: run, Least: 0, Want: 8}, func(be *memory.Backend) error { return judge(be, errors.New("crashed")) })
			}
		})
	}
}

// No way of printing shows a secret.
func TestSecretsAreNotPrinted(t *testing.T) {
	t.Parallel()
	password, key := []byte("very secret"), tree.FileKey([]byte("0123456789abcdefghijklmnopqrstuv"))
	seal := &tree.Encryption{Cipher: tree.CBC, Key: key}
	p := repo.DevicePassword{UDID: repotest.JobUDID, Password: password}
	values := []any{
		p, &p, []repo.DevicePassword{p}, map[string]repo.DevicePassword{"a": p},
		key, &key, *seal, seal, tree.Entry{Path: "a", Encryption: seal}, &tree.Entry{Path: "a", Encryption: seal},
	}
	words := append(forms(password), forms(key[:])...)
	for _, secret := range [][]byte{password, key[:]} {
		words = append(words, []byte(strings.Trim(fmt.Sprint(secret), "[]")), []byte(strings.Trim(fmt.Sprintf("%#v", secret[:4]), "[]byte{}")))
	}
	for _, v := range values {
		var out bytes.Buffer
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d", "%T", "%t"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		fmt.Fprintln(&out, fmt.Errorf("failed: %v", v))
		slog.New(slog.NewTextHandler(&out, nil)).Info("log", "value", v)
		for _, word := range words {
			if bytes.Contains(bytes.ToLower(out.Bytes()), bytes.ToLower(word)) {
				t.Errorf("%T is printed with %q:\n%s", v, word, out.String())
			}
		}
	}
	// Show that this test would find a secret.
	if !strings.Contains(fmt.Sprintf("%+v", struct{ P []byte }{password}), string(words[len(words)-4])) {
		t.Error("this test does not find a secret that is printed")
	}
}
