package repo_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/internal/faultpoint"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/fault"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
)

// opens reports whether a secret opens a repository. Any failure other than a
// wrong password is an error.
func opens(be backend.Backend, secret []byte) (bool, error) {
	_, err := repo.Open(context.Background(), be, secret, repotest.SmallPacks(5))
	if errors.Is(err, repo.ErrWrongPassword) {
		return false, nil
	}
	return err == nil, err
}

// currentKey returns the key slot that opened a repository.
func currentKey(t *testing.T, r *repo.Repo) repo.FileID {
	t.Helper()
	keys, err := r.Keys(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		if k.Current {
			return k.ID
		}
	}
	t.Fatal("no key slot is the current one")
	return repo.FileID{}
}

func TestKeys(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := repotest.New(t, 1)
	r := repotest.MustOpen(t, be)
	first := currentKey(t, r)
	if _, err := r.RemoveKey(ctx, first.Short()); !errors.Is(err, repo.ErrLastKey) {
		t.Errorf("last key: got %v", err)
	}
	second, err := r.AddKey(ctx, repotest.OtherSecret, crypto.SlotInfo{Kind: crypto.RecoverySlot, Label: "drawer"})
	if err != nil {
		t.Fatal(err)
	}
	keys, err := r.Keys(ctx)
	if err != nil || len(keys) != 2 {
		t.Fatal(keys, err)
	}
	for _, k := range keys {
		want := repo.KeyInfo{ID: first, Kind: repotest.SlotInfo.Kind, Label: repotest.SlotInfo.Label, Created: k.Created, Current: true, Bound: true}
		if k.ID == second {
			want = repo.KeyInfo{ID: second, Kind: crypto.RecoverySlot, Label: "drawer", Created: k.Created, Bound: true}
		}
		if k != want || k.Created.IsZero() {
			t.Errorf("got %+v, want %+v", k, want)
		}
	}
	for _, secret := range [][]byte{repotest.Secret, repotest.OtherSecret} {
		if err := repotest.VerifyWith(be, secret, 1); err != nil {
			t.Errorf("with %q: %v", secret, err)
		}
	}
	if _, err := r.RemoveKey(ctx, ""); !errors.Is(err, repo.ErrNoKey) {
		t.Errorf("no prefix: got %v", err)
	}
	if _, err := r.RemoveKey(ctx, "xyz"); !errors.Is(err, repo.ErrNoKey) {
		t.Errorf("no such key: got %v", err)
	}
	if _, err := r.RemoveOtherKey(ctx, first.String()); !errors.Is(err, repo.ErrKeyInUse) {
		t.Errorf("the key in use: got %v", err)
	}
	if gone, err := r.RemoveKey(ctx, first.String()); err != nil || gone.ID != first || len(gone.Doubts)+len(gone.Copies) > 0 {
		t.Errorf("remove the key in use: %+v, %v", gone, err)
	}
	if ok, err := opens(be, repotest.Secret); ok || err != nil {
		t.Errorf("the removed key: %v, %v", ok, err)
	}
	if _, err := r.RemoveKey(ctx, second.String()); !errors.Is(err, repo.ErrLastKey) {
		t.Errorf("last key: got %v", err)
	}
}

func TestAmbiguousKey(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	r := repotest.MustOpen(t, repotest.New(t))
	// 17 keys cannot all begin with different digits.
	for i := range 16 {
		if _, err := r.AddKey(ctx, fmt.Appendf(nil, "secret %d", i), repotest.SlotInfo); err != nil {
			t.Fatal(err)
		}
	}
	keys, err := r.Keys(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ambiguous := 0
	for i, k := range keys[1:] {
		if k.ID.String()[0] == keys[i].ID.String()[0] {
			ambiguous++
			if _, err := r.RemoveKey(ctx, k.ID.String()[:1]); !errors.Is(err, repo.ErrAmbiguous) {
				t.Errorf("got %v", err)
			}
		}
	}
	if ambiguous == 0 {
		t.Fatal("no two keys begin with the same digit")
	}
}

// Two slots with the same secret would mislead someone who removes one of them.
func TestAddKeyWithAKnownSecret(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	r := repotest.MustOpen(t, repotest.New(t))
	if _, err := r.AddKey(ctx, repotest.Secret, repotest.SlotInfo); !errors.Is(err, repo.ErrKeyExists) {
		t.Errorf("the secret in use: %v", err)
	}
	info := repotest.SlotInfo
	info.Label = "another"
	if _, err := r.AddKey(ctx, repotest.OtherSecret, info); err != nil {
		t.Fatal(err)
	}
	if _, err := r.ChangePassword(ctx, repotest.OtherSecret, crypto.PasswordSlot); !errors.Is(err, repo.ErrKeyExists) {
		t.Errorf("change to the secret of another slot: %v", err)
	}
	if keys, err := r.Keys(ctx); err != nil || len(keys) != 2 {
		t.Errorf("%d keys, %v", len(keys), err)
	}
	// Changing a password to itself replaces the slot.
	if _, err := r.ChangePassword(ctx, repotest.Secret, crypto.PasswordSlot); err != nil {
		t.Error(err)
	}
}

func TestChangePassword(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := repotest.New(t, 1)
	r := repotest.MustOpen(t, be)
	id, err := r.ChangePassword(ctx, repotest.OtherSecret, crypto.KeyFileSlot)
	if err != nil || id != currentKey(t, r) {
		t.Fatal(id, err)
	}
	if ok, err := opens(be, repotest.Secret); ok || err != nil {
		t.Errorf("old password: %v, %v", ok, err)
	}
	if err := repotest.VerifyWith(be, repotest.OtherSecret, 1); err != nil {
		t.Error(err)
	}
	keys, err := r.Keys(ctx)
	if err != nil || len(keys) != 1 || keys[0].Label != repotest.SlotInfo.Label || keys[0].Kind != crypto.KeyFileSlot || !keys[0].Current {
		t.Errorf("%+v, %v", keys, err)
	}
}

// keyRuns are the operations on keys. At any time, Secret or newSecret must open the
// repository. When a run has reported success, newSecret must open it, and oldSecret
// must not.
var keyRuns = map[string]struct {
	run       func(ctx context.Context, r *repo.Repo) error
	newSecret []byte // opens the repository after success
	oldSecret []byte // does not open it after success; may be nil
}{
	"add": {func(ctx context.Context, r *repo.Repo) error {
		_, err := r.AddKey(ctx, repotest.OtherSecret, repotest.SlotInfo)
		return err
	}, repotest.OtherSecret, nil},
	"change": {func(ctx context.Context, r *repo.Repo) error {
		_, err := r.ChangePassword(ctx, repotest.OtherSecret, crypto.KeyFileSlot)
		return err
	}, repotest.OtherSecret, repotest.Secret},
	"remove": {func(ctx context.Context, r *repo.Repo) error {
		keys, err := r.Keys(ctx)
		if err != nil {
			return err
		}
		for _, k := range keys {
			if k.Current {
				_, err = r.RemoveKey(ctx, k.ID.String())
			}
		}
		return err
	}, []byte("second"), repotest.Secret},
}

func TestKeyOperationsSurviveFaultsAndCrashes(t *testing.T) {
	t.Parallel()
	for name, k := range keyRuns {
		t.Run(name, func(t *testing.T) {
			ctx := context.Background()
			base := repotest.New(t, 1)
			if name == "remove" {
				if _, err := repotest.MustOpen(t, base).AddKey(ctx, k.newSecret, repotest.SlotInfo); err != nil {
					t.Fatal(err)
				}
			}
			run := func(be backend.Backend) error {
				r, err := repo.Open(ctx, be, repotest.Secret, repotest.SmallPacks(4))
				if err != nil {
					return err
				}
				return k.run(ctx, r)
			}
			judge := func(be *memory.Backend, runErr error) error {
				before, err := opens(be, repotest.Secret)
				if err != nil {
					return err
				}
				after, err := opens(be, k.newSecret)
				switch {
				case err != nil:
					return err
				case !before && !after:
					return errors.New("nobody can open it")
				case runErr == nil && !after:
					return errors.New("success was reported, but the key does not open")
				case runErr == nil && k.oldSecret != nil && before:
					return errors.New("success was reported, but the old key opens")
				}
				secret := repotest.Secret
				if after {
					secret = k.newSecret
				}
				if err := repotest.VerifyWith(be, secret, 1); err != nil {
					return err
				}
				r, err := repotest.Open(ctx, be, secret, repotest.SmallPacks(6))
				if err == nil {
					_, err = repotest.Store(ctx, r, repotest.Day(2), 2)
				}
				return err
			}
			repotest.EveryFault(t, repotest.Run{Base: base, Do: run, Least: 3, Want: 12}, judge)
			repotest.EveryCrash(t, repotest.Run{Base: base, Do: run, Least: 1, Want: 8}, func(be *memory.Backend) error { return judge(be, errors.New("crashed")) })
		})
	}
}

// A disk may tear the slot that is being written. All secrets that the run does
// not remove must still open the repository, check must name only that slot, the
// next run must succeed, and the torn slot can be removed.
func TestKeyOperationsSurviveTornFiles(t *testing.T) {
	t.Parallel()
	third := []byte("third")
	for name, k := range keyRuns {
		t.Run(name, func(t *testing.T) {
			ctx := context.Background()
			base := repotest.New(t, 1)
			stay := [][]byte{third}
			if k.oldSecret == nil {
				stay = append(stay, repotest.Secret)
			}
			if name == "remove" {
				stay = append(stay, k.newSecret)
			}
			for _, secret := range stay {
				if _, err := repotest.MustOpen(t, base).AddKey(ctx, secret, repotest.SlotInfo); err != nil && !errors.Is(err, repo.ErrKeyExists) {
					t.Fatal(err)
				}
			}
			seed, torn := byte(0), 0
			run := func(be backend.Backend) error {
				seed++ // so that no two runs make the same slot
				r, err := repo.Open(ctx, be, repotest.Secret, repotest.SmallPacks(60+seed))
				if err != nil {
					return err
				}
				return k.run(ctx, r)
			}
			judge := func(be *memory.Backend, bad []string) error {
				for _, secret := range stay {
					if ok, err := opens(be, secret); !ok {
						return fmt.Errorf("%q does not open any more: %w", secret, err)
					}
				}
				v, err := repotest.Examine(be, third)
				if err != nil || !slices.Equal(v.Days, []int{1}) || len(v.Report.Affected) > 0 {
					return fmt.Errorf("days %v, %w", v.Days, err)
				}
				var named []string
				for _, p := range v.Report.Problems {
					named = append(named, p.File)
				}
				if slices.Sort(named); !slices.Equal(named, bad) {
					return fmt.Errorf("check names %v, but %v are torn", named, bad)
				}
				return nil
			}
			crashes := func(be *memory.Backend) error {
				bad := repotest.DamagedFiles(t, be)
				torn += len(bad)
				if err := judge(be, bad); err != nil {
					return err
				}
				before, err := opens(be, repotest.Secret)
				if err != nil {
					return err
				}
				if after, err := opens(be, k.newSecret); !before && !after {
					return fmt.Errorf("neither the old nor the new secret opens: %w", err)
				}
				if before { // otherwise the run has removed Secret
					if err := run(be); err != nil && (k.oldSecret != nil || !errors.Is(err, repo.ErrKeyExists)) {
						return fmt.Errorf("the next run: %w", err)
					}
				}
				if ok, err := opens(be, k.newSecret); !ok {
					return fmt.Errorf("after the next run the new secret does not open: %w", err)
				}
				if ok, err := opens(be, repotest.Secret); ok != (k.oldSecret == nil) || err != nil {
					return fmt.Errorf("after the next run the old secret opens: %v, %v", ok, err)
				}
				if err := judge(be, bad); err != nil {
					return fmt.Errorf("after the next run: %w", err)
				}
				for _, name := range bad {
					r, err := repo.Open(ctx, be, third, repotest.SmallPacks(6))
					if err != nil {
						return err
					}
					if _, err := r.RemoveKey(ctx, strings.TrimPrefix(name, repotest.KeysDir)); err != nil {
						return fmt.Errorf("remove the torn slot: %w", err)
					}
				}
				return judge(be, nil)
			}
			repotest.EveryTear(t, repotest.Run{Base: base, Do: run, Least: 0, Want: 8}, crashes)
			if name != "remove" && torn == 0 && faultpoint.All() { // removing a key writes no slot
				t.Error("no slot was ever torn")
			}
		})
	}
}

func TestCreateSurvivesEveryFault(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	run := func(be backend.Backend) error {
		_, err := repo.Create(ctx, be, repotest.Secret, repotest.SlotInfo, repotest.SmallPacks(1))
		return err
	}
	repotest.EveryFault(t, repotest.Run{Base: memory.New(), Do: run, Least: 2, Want: 12}, func(be *memory.Backend, runErr error) error {
		if err := run(be); err != nil && (!errors.Is(err, repo.ErrExists) || errors.Is(runErr, repo.ErrExists)) {
			return fmt.Errorf("create again: %w", err)
		}
		return repotest.Verify(be)
	})
}

// A key slot that cannot be read at the moment is listed with the reason. It does not
// count as a key that opens, so the last key that does is not removed.
func TestUnreadableKey(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := repotest.New(t)
	store := fault.New(be)
	r, err := repo.Open(ctx, store, repotest.Secret, repotest.SmallPacks(3))
	if err != nil {
		t.Fatal(err)
	}
	key := currentKey(t, r)
	store.SetPlan(fault.On(fault.ReadAt, repotest.KeysDir, fault.From(1, fault.ErrInjected)))
	if keys, err := r.Keys(ctx); err != nil || len(keys) != 1 || !strings.Contains(keys[0].Damaged, fault.ErrInjected.Error()) {
		t.Errorf("keys: got %+v, %v", keys, err)
	}
	store.SetPlan(fault.From(1, fault.ErrInjected))
	if _, err := r.Keys(ctx); !errors.Is(err, fault.ErrInjected) {
		t.Errorf("keys of a store that does not answer: got %v", err)
	}
	if _, err := r.RemoveKey(ctx, key.String()); err == nil {
		t.Error("the last key was removed")
	}
	if ok, err := opens(be, repotest.Secret); !ok || err != nil {
		t.Error(ok, err)
	}
}

func TestDamagedKeySlot(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := repotest.New(t, 1)
	r := repotest.MustOpen(t, be)
	if _, err := r.AddKey(ctx, repotest.OtherSecret, repotest.SlotInfo); err != nil {
		t.Fatal(err)
	}
	name := repotest.KeysDir + currentKey(t, r).String()
	file := repotest.Content(t, be)[name]
	for _, i := range faultpoint.Choose(t, len(file), 60) {
		broken := bytes.Clone(file)
		broken[i] ^= 1 << (i % 8)
		if err := be.Set(name, broken); err != nil {
			t.Fatal(err)
		}
		if _, err := repo.Open(ctx, be, repotest.Secret, repotest.SmallPacks(3)); !errors.Is(err, repo.ErrWrongPassword) || !errors.Is(err, repo.ErrDamaged) {
			t.Fatalf("byte %d: the damaged slot: got %v", i, err)
		}
		if _, err := repo.Open(ctx, be, repotest.OtherSecret, repotest.SmallPacks(3)); err != nil {
			t.Fatalf("byte %d: the other slot: %v", i, err)
		}
	}
	report, err := repotest.MustOpenWith(t, be, repotest.OtherSecret, repotest.SmallPacks(7)).Check(ctx, repo.CheckOptions{})
	if err != nil || report.Clean() || len(report.Problems) != 1 || report.Problems[0].File != name {
		t.Errorf("check: %+v, %v", report, err)
	}
	// The damaged slot can be removed. The other slot still opens the repository.
	if _, err := r.RemoveKey(ctx, currentKey(t, r).String()); err != nil {
		t.Error(err)
	}
	if err := repotest.VerifyWith(be, repotest.OtherSecret, 1); err != nil {
		t.Error(err)
	}
}

// A slot of a newer version is no damage, and this program does not judge it.
func TestNewerKeySlot(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := repotest.New(t, 1)
	mine := repotest.KeysDir + currentKey(t, repotest.MustOpen(t, be)).String()
	newer := repotest.PutNamed(t, be, repotest.KeysDir, []byte(`{"version":3,"kdf":"balloon","time":"long"}`))
	r := repotest.MustOpen(t, be)
	keys, err := r.Keys(ctx)
	if err != nil || len(keys) != 2 {
		t.Fatal(keys, err)
	}
	for _, k := range keys {
		if k.Newer != (k.ID == newer) || k.Damaged != "" || k.Damage() != nil {
			t.Errorf("got %+v", k)
		}
	}
	if report, err := r.Check(ctx, repo.CheckOptions{}); err != nil || !report.Clean() || len(report.Problems) != 1 || report.Problems[0].File != repotest.KeysDir+newer.String() {
		t.Errorf("check: %+v, %v", report, err)
	}
	if _, err := r.InspectKey(ctx, newer.String()); !errors.Is(err, repo.ErrUnsupported) || errors.Is(err, repo.ErrDamaged) {
		t.Errorf("inspect: got %v", err)
	}
	// It may be good, but nothing proves that.
	if _, err := r.RemoveKey(ctx, currentKey(t, r).String()); !errors.Is(err, repo.ErrUnprovenKeys) {
		t.Errorf("remove the key in use: got %v", err)
	}
	if _, err := repo.Open(ctx, be, []byte("wrong"), repotest.SmallPacks(3)); !errors.Is(err, repo.ErrWrongPassword) || !errors.Is(err, repo.ErrUnsupported) {
		t.Errorf("a wrong password: got %v", err)
	}
	without := be.Clone()
	repotest.Remove(t, without, mine)
	if _, err := repo.Open(ctx, without, repotest.Secret, repotest.SmallPacks(3)); !errors.Is(err, repo.ErrUnsupported) || errors.Is(err, repo.ErrDamaged) {
		t.Errorf("without another key: got %v", err)
	}
	if gone, err := r.RemoveKey(ctx, newer.String()); err != nil || len(gone.Doubts) != 1 {
		t.Errorf("remove the newer key: %+v, %v", gone, err)
	}
}

func TestNoKeyLeft(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := repotest.New(t, 1)
	r := repotest.MustOpen(t, be)
	if err := be.Delete(ctx, repotest.KeysDir+currentKey(t, r).String()); err != nil {
		t.Fatal(err)
	}
	if _, err := repo.Open(ctx, be, repotest.Secret, repotest.SmallPacks(3)); !errors.Is(err, repo.ErrDamaged) {
		t.Errorf("open: got %v", err)
	}
	report, err := r.Check(ctx, repo.CheckOptions{})
	if err != nil || report.Clean() {
		t.Errorf("check: %+v, %v", report, err)
	}
}

// A slot of another repository with the same password does not prevent opening.
func TestForeignKeySlot(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	first := 0
	for seed := range byte(12) { // so that the foreign slot sorts before the right one for some seeds
		be := repotest.New(t, 1)
		own, err := repo.Open(ctx, be, repotest.Secret, repotest.SmallPacks(50+seed))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := own.ChangePassword(ctx, repotest.Secret, crypto.PasswordSlot); err != nil {
			t.Fatal(err)
		}
		other := memory.New()
		foreign, err := repo.Create(ctx, other, repotest.Secret, repotest.SlotInfo, repotest.SmallPacks(100+seed))
		if err != nil {
			t.Fatal(err)
		}
		if currentKey(t, foreign).String() < currentKey(t, own).String() {
			first++
		}
		name := repotest.KeysDir + currentKey(t, foreign).String()
		if err := be.Put(ctx, name, repotest.Content(t, other)[name]); err != nil {
			t.Fatal(err)
		}
		v, err := repotest.Examine(be, repotest.Secret)
		if err != nil || len(v.Days) != 1 {
			t.Fatalf("seed %d: %v, %v", seed, v, err)
		}
		if p := v.Report.Problems; len(p) != 1 || p[0].File != name {
			t.Errorf("check: %+v", p)
		}
	}
	if first == 0 || first == 12 {
		t.Errorf("the foreign slot came first %d of 12 times", first)
	}
	// If there is no other slot, the error says what is wrong.
	be := repotest.New(t)
	own := repotest.MustOpen(t, be)
	if err := be.Delete(ctx, repotest.KeysDir+currentKey(t, own).String()); err != nil {
		t.Fatal(err)
	}
	elsewhere := memory.New()
	other, err := repo.Create(ctx, elsewhere, repotest.Secret, repotest.SlotInfo, repotest.SmallPacks(99))
	if err != nil {
		t.Fatal(err)
	}
	name := repotest.KeysDir + currentKey(t, other).String()
	if err := be.Put(ctx, name, repotest.Content(t, elsewhere)[name]); err != nil {
		t.Fatal(err)
	}
	if _, err := repo.Open(ctx, be, repotest.Secret, repotest.SmallPacks(3)); !errors.Is(err, repo.ErrDamaged) || errors.Is(err, repo.ErrWrongPassword) {
		t.Errorf("a foreign slot alone: got %v", err)
	}
}

// A wrong password costs as much as a right one, so that guessing is expensive.
func TestWrongPasswordCostsADerivation(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := memory.New()
	opts := repotest.SmallPacks(1)
	opts.Cost = crypto.Cost{Time: 2, MemoryKiB: 32 << 10, Threads: 1}
	if _, err := repo.Create(ctx, be, repotest.Secret, repotest.SlotInfo, opts); err != nil {
		t.Fatal(err)
	}
	// The memory that Argon2id needs shows that it ran. Time would show it only on
	// an idle machine.
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := repo.Open(ctx, be, repotest.OtherSecret, opts)
	runtime.ReadMemStats(&after)
	if !errors.Is(err, repo.ErrWrongPassword) || after.TotalAlloc-before.TotalAlloc < uint64(opts.Cost.MemoryKiB)<<10 {
		t.Errorf("a wrong password took %d bytes of memory: %v", after.TotalAlloc-before.TotalAlloc, err)
	}
}

// The key slot that a secret opens comes from an exact copy, but none that was removed.
func TestFetchKey(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	whole := repotest.New(t, 1)
	second, err := repotest.MustOpen(t, whole).AddKey(ctx, repotest.OtherSecret, repotest.SlotInfo)
	if err != nil {
		t.Fatal(err)
	}
	first := repotest.KeysDir + currentKey(t, repotest.MustOpen(t, whole)).String()
	other := repotest.KeysDir + second.String()
	fetch := func(be backend.Backend, secret []byte, dryRun bool) (string, error) {
		return repo.FetchKey(ctx, be, whole, secret, repotest.SmallPacks(5), dryRun)
	}
	flip := func(be *memory.Backend, name string) {
		b := bytes.Clone(repotest.Content(t, be)[name])
		b[len(b)/2] ^= 1
		if err := be.Set(name, b); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		damage func(*memory.Backend)
		want   string
	}{
		"all are missing": {func(be *memory.Backend) { repotest.Remove(t, be, first, other) }, first},
		"all are damaged": {func(be *memory.Backend) { flip(be, first); flip(be, other) }, first},
		"it is damaged":   {func(be *memory.Backend) { flip(be, first) }, first},
		"no config, either": {func(be *memory.Backend) {
			repotest.Remove(t, be, first, other, "config")
			repotest.Remove(t, be, repotest.FilesIn(t, be, "configs/")...)
		}, first},
		"it was removed":               {func(be *memory.Backend) { repotest.Remove(t, be, first) }, ""},
		"it was removed beside damage": {func(be *memory.Backend) { repotest.Remove(t, be, first); flip(be, other) }, first}, // nobody knows
		"another one is damaged":       {func(be *memory.Backend) { flip(be, other) }, ""},
		"nothing is wrong":             {func(*memory.Backend) {}, ""},
	} {
		base := whole.Clone()
		c.damage(base)
		if got, err := fetch(base, repotest.Secret, true); err != nil || got != c.want {
			t.Errorf("%s: a dry run: %q, %v", name, got, err)
		}
		if c.want == "" {
			continue
		}
		judge := func(be *memory.Backend, runErr error) error {
			if runErr != nil {
				if _, err := fetch(be, repotest.Secret, false); err != nil {
					return err
				}
			}
			if ok, err := opens(be, repotest.Secret); !ok || err != nil {
				return fmt.Errorf("it does not open: %w", err)
			}
			return nil
		}
		do := func(be backend.Backend) error { _, err := fetch(be, repotest.Secret, false); return err }
		repotest.EveryFault(t, repotest.Run{Base: base, Do: do, Least: 1, Want: 6}, judge)
		repotest.EveryCrash(t, repotest.Run{Base: base, Do: do, Least: 1, Want: 4}, func(be *memory.Backend) error { return judge(be, errors.New("crashed")) })
	}
	none := whole.Clone()
	repotest.Remove(t, none, first, other)
	if _, err := fetch(none, []byte("wrong"), false); !errors.Is(err, repo.ErrWrongPassword) {
		t.Errorf("a wrong password: got %v", err)
	}
	foreign := memory.New()
	if _, err := repo.Create(ctx, foreign, repotest.Secret, repotest.SlotInfo, repotest.SmallPacks(77)); err != nil {
		t.Fatal(err)
	}
	if _, err := repo.FetchKey(ctx, none, foreign, repotest.Secret, repotest.SmallPacks(5), false); !errors.Is(err, repo.ErrOtherRepository) {
		t.Errorf("from another repository: got %v", err)
	}
	if len(repotest.FilesIn(t, none, repotest.KeysDir)) > 0 {
		t.Error("a key was stored")
	}
}
