package keep

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/snap-backup/snap/internal/faultpoint"
	"golang.org/x/crypto/poly1305" //nolint:staticcheck // restic's own
	"golang.org/x/crypto/scrypt"
)

// runRestic runs restic in UTC.
func runRestic(t *testing.T, dir string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command("restic", append([]string{"--no-cache", "--quiet", "--json", "-r", filepath.Join(dir, "repo")}, args...)...)
	cmd.Env = append(os.Environ(), "RESTIC_PASSWORD=x", "TZ=UTC", "HOME="+dir)
	out, err := cmd.Output()
	if err != nil {
		stderr := ""
		if exit, ok := err.(*exec.ExitError); ok {
			stderr = string(exit.Stderr)
		}
		t.Fatalf("restic %s: %v\n%s", strings.Join(args, " "), err, stderr)
	}
	return out
}

// TestInteropRestic compares what snap and restic keep of random snapshots by random
// policies.
func TestInteropRestic(t *testing.T) {
	if _, err := exec.LookPath("restic"); err != nil {
		if os.Getenv("SNAP_TEST_INTEROP") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	if testing.Short() {
		t.Skip("opening a restic repository is slow")
	}
	rng := faultpoint.Rand(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	runRestic(t, dir, "init")
	cheapen(t, filepath.Join(dir, "repo", "keys"))
	keepsOldest := keepsOldest(t)
	// Gaps of minutes, hours, days and weeks, so that some periods have several
	// snapshots and some have none.
	var list []Snapshot
	now := time.Date(2024, 12, 20, 20, 0, 0, 0, time.UTC)
	snapshots, policies := 8, 8
	if faultpoint.All() {
		snapshots, policies = 14, 12
	}
	for range snapshots {
		now = now.Add(time.Duration(1+rng.IntN(50)) * []time.Duration{time.Minute, time.Hour, 12 * time.Hour, 24 * time.Hour}[rng.IntN(4)])
		s := Snapshot{Time: now, Complete: true}
		args := []string{"backup", "--time", now.Format(time.DateTime), filepath.Join(dir, "file")}
		for _, tag := range []string{"a", "b"} {
			if rng.IntN(3) == 0 {
				s.Tags = append(s.Tags, tag)
				args = append(args, "--tag", tag)
			}
		}
		runRestic(t, dir, args...)
		list = append(list, s)
	}
	for range policies {
		p, flags := randomPolicy(rng)
		var groups []struct {
			Keep []struct {
				Time time.Time `json:"time"`
			} `json:"keep"`
		}
		out := runRestic(t, dir, append([]string{"forget", "--dry-run"}, flags...)...)
		if err := json.Unmarshal(out, &groups); err != nil || len(groups) != 1 {
			t.Fatalf("%v: %s", err, out)
		}
		var want, got []string
		for _, s := range groups[0].Keep {
			want = append(want, s.Time.UTC().Format(time.DateTime))
		}
		for i, v := range p.Apply(list, time.Now(), time.UTC) {
			reasons := slices.DeleteFunc(slices.Clone(v.Reasons), func(reason string) bool {
				return !keepsOldest && strings.HasPrefix(reason, "oldest, ")
			})
			if len(reasons) > 0 {
				got = append(got, list[i].Time.Format(time.DateTime))
			}
		}
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%v of %+v:\ngot  %v\nwant %v", flags, list, got, want)
		}
	}
}

// cheapen replaces the only key of a restic repository by one whose password costs
// little to try. restic derives keys for half a second in each of its runs.
func cheapen(t *testing.T, keys string) {
	t.Helper()
	files, err := os.ReadDir(keys)
	if err != nil || len(files) != 1 {
		t.Fatalf("keys of restic: %v, %v", files, err)
	}
	name := filepath.Join(keys, files[0].Name())
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var key map[string]any
	var p struct {
		N, R, P    int
		Salt, Data []byte
	}
	if err := errors.Join(json.Unmarshal(text, &key), json.Unmarshal(text, &p)); err != nil {
		t.Fatal(err)
	}
	// The data are an IV, the master key in AES-CTR, and a MAC of Poly1305-AES.
	derive := func(n int) []byte {
		k, err := scrypt.Key([]byte("x"), p.Salt, n, p.R, p.P, 64)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	iv, sealed := p.Data[:aes.BlockSize], p.Data[aes.BlockSize:len(p.Data)-poly1305.TagSize]
	crypt := func(k []byte) {
		block, _ := aes.NewCipher(k[:32])
		cipher.NewCTR(block, iv).XORKeyStream(sealed, sealed)
	}
	crypt(derive(p.N))
	const cheap = 2
	k := derive(cheap)
	crypt(k)
	var mac [32]byte
	copy(mac[:], k[48:])
	block, _ := aes.NewCipher(k[32:48])
	block.Encrypt(mac[16:], iv)
	var tag [poly1305.TagSize]byte
	poly1305.Sum(&tag, sealed, &mac)
	copy(p.Data[len(p.Data)-len(tag):], tag[:])
	key["N"], key["data"] = cheap, p.Data
	if text, err = json.Marshal(key); err != nil {
		t.Fatal(err)
	}
	id := fmt.Sprintf("%x", sha256.Sum256(text))
	if err := errors.Join(os.WriteFile(filepath.Join(keys, id), text, 0o600), os.Remove(name)); err != nil {
		t.Fatal(err)
	}
}

// keepsOldest reports whether this restic also keeps the oldest snapshot if a rule has
// kept fewer than its number. Versions since 0.16.0 do.
func keepsOldest(t *testing.T) bool {
	t.Helper()
	out, err := exec.Command("restic", "version").Output()
	if err != nil {
		t.Fatal(err)
	}
	var major, minor int
	if _, err := fmt.Sscanf(string(out), "restic %d.%d", &major, &minor); err != nil {
		t.Fatalf("%q: %v", out, err)
	}
	return major > 0 || minor >= 16
}

// randomPolicy returns a policy that keeps something, and restic's flags for it.
func randomPolicy(rng *rand.Rand) (p Policy, flags []string) {
	for name, n := range map[string]*int{
		"last": &p.Last, "hourly": &p.Hourly, "daily": &p.Daily, "weekly": &p.Weekly, "monthly": &p.Monthly, "yearly": &p.Yearly,
	} {
		if rng.IntN(4) == 0 {
			*n = 1 + rng.IntN(4)
			flags = append(flags, "--keep-"+name, fmt.Sprint(*n))
		}
	}
	for name, d := range map[string]*Duration{
		"within": &p.Within, "within-hourly": &p.WithinHourly, "within-daily": &p.WithinDaily,
		"within-weekly": &p.WithinWeekly, "within-monthly": &p.WithinMonthly, "within-yearly": &p.WithinYearly,
	} {
		if rng.IntN(5) == 0 {
			*d = Duration{Months: rng.IntN(3), Days: 1 + rng.IntN(20), Hours: rng.IntN(30)}
			flags = append(flags, "--keep-"+name, d.String())
		}
	}
	if rng.IntN(3) == 0 {
		p.Tags = [][]string{{"a", "b"}}
		flags = append(flags, "--keep-tag", "a,b")
	}
	if len(flags) == 0 {
		p.Last, flags = 3, []string{"--keep-last", "3"}
	}
	return p, flags
}
