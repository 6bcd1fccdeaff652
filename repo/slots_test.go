package repo_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/repotest"
)

// goldenSecrets open the golden repository, which has two slots of version 1: a password
// and a recovery key.
func goldenSecrets(t *testing.T) (password, recovery []byte) {
	t.Helper()
	text, err := crypto.NewRecoveryKey(bytes.NewReader([]byte(goldenRecovery)))
	if err != nil {
		t.Fatal(err)
	}
	return []byte(goldenPassword), []byte(text)
}

// slotJSON is a slot file whose members a test exchanges.
type slotJSON struct {
	Version   int    `json:"version"`
	KDF       string `json:"kdf"`
	Time      uint32 `json:"time"`
	MemoryKiB uint32 `json:"memory_kib"`
	Threads   uint8  `json:"threads"`
	Salt      []byte `json:"salt"`
	Master    []byte `json:"master"`
	Info      []byte `json:"info"`
}

func parseSlot(t *testing.T, be backend.Backend, name string) (s slotJSON) {
	t.Helper()
	if err := json.Unmarshal(repotest.Content(t, be)[name], &s); err != nil {
		t.Fatal(err)
	}
	return s
}

func putSlot(t *testing.T, be backend.Backend, s slotJSON) repo.FileID {
	t.Helper()
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return repotest.PutNamed(t, be, repotest.KeysDir, append(b, '\n'))
}

// exchangeLabels exchanges the descriptions of the two slots of a repository.
func exchangeLabels(t *testing.T, be *memory.Backend) {
	t.Helper()
	names := repotest.FilesIn(t, be, repotest.KeysDir)
	if len(names) != 2 {
		t.Fatal(names)
	}
	a, b := parseSlot(t, be, names[0]), parseSlot(t, be, names[1])
	repotest.Remove(t, be, names...)
	a.Info, b.Info = b.Info, a.Info
	putSlot(t, be, a)
	putSlot(t, be, b)
}

func TestRenewKey(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	password, recovery := goldenSecrets(t)
	renew := func(be backend.Backend) error {
		r, err := repo.Open(ctx, be, password, repotest.SmallPacks(3))
		if err == nil {
			_, err = r.RenewKey(ctx)
		}
		return err
	}
	judge := func(be *memory.Backend, _ error) error {
		for _, secret := range [][]byte{password, recovery} {
			if ok, err := opens(be, secret); !ok {
				return fmt.Errorf("%q no longer opens: %w", secret, err)
			}
		}
		if n := len(repotest.FilesIn(t, be, repotest.KeysDir)); n > 3 {
			return fmt.Errorf("%d slots", n)
		}
		for range 2 { // the first may open the new slot, and the second the old one
			if err := renew(be); err != nil {
				return fmt.Errorf("the next time: %w", err)
			}
		}
		r, err := repo.Open(ctx, be, password, repotest.SmallPacks(3))
		if err != nil {
			return err
		}
		keys, err := r.Keys(ctx)
		if err != nil {
			return err
		}
		current := keys[slices.IndexFunc(keys, func(k repo.KeyInfo) bool { return k.Current })]
		if !current.Bound || current.Label != "golden" || current.Kind != crypto.PasswordSlot {
			return fmt.Errorf("the slot is %+v", current)
		}
		if ok, err := opens(be, recovery); !ok {
			return fmt.Errorf("the other slot no longer opens: %w", err)
		}
		return nil
	}
	base := loadGolden(t)
	repotest.EveryFault(t, repotest.Run{Base: base, Do: renew, Least: 3, Want: 12}, judge)
	repotest.EveryCrash(t, repotest.Run{Base: base, Do: renew, Least: 2, Want: 12}, func(be *memory.Backend) error { return judge(be, nil) })

	// Two programs that have opened the old slot store the same new one.
	be := base.Clone()
	a, b := repotest.MustOpenWith(t, be, password, repotest.SmallPacks(4)), repotest.MustOpenWith(t, be, password, repotest.SmallPacks(5))
	first, err := a.RenewKey(ctx)
	if err != nil || first == nil {
		t.Fatal(first, err)
	}
	if second, err := b.RenewKey(ctx); err != nil || second == nil || second.New != first.New {
		t.Errorf("%+v, %v; the first was %+v", second, err, first)
	}
	if again, err := a.RenewKey(ctx); again != nil || err != nil {
		t.Errorf("renewed twice: %+v, %v", again, err)
	}
	if n := len(repotest.FilesIn(t, be, repotest.KeysDir)); n != 2 {
		t.Errorf("%d slots", n)
	}
	// A store in which nothing can be deleted keeps both; both open.
	kept := base.Clone()
	r := repotest.MustOpenWith(t, noDelete{kept}, password, repotest.SmallPacks(4))
	if k, err := r.RenewKey(ctx); k != nil || !errors.Is(err, errKept) || len(repotest.FilesIn(t, kept, repotest.KeysDir)) != 3 {
		t.Errorf("%+v, %v", k, err)
	}
}

// A program may wait for a lock between opening the repository and renewing its key. If
// the key was removed meanwhile, it does not come back.
func TestRenewRemovedKey(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	password, recovery := goldenSecrets(t)
	be := loadGolden(t)
	waits := repotest.MustOpenWith(t, be, password, repotest.SmallPacks(3))
	gone := currentKey(t, waits)
	owner := repotest.MustOpenWith(t, be, recovery, repotest.SmallPacks(4))
	if _, err := owner.RenewKey(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := owner.RemoveKey(ctx, gone.String()); err != nil {
		t.Fatal(err)
	}
	if k, err := waits.RenewKey(ctx); k != nil || !errors.Is(err, repo.ErrNoKey) {
		t.Errorf("%+v, %v", k, err)
	}
	if ok, _ := opens(be, password); ok {
		t.Error("the removed key opens the repository again")
	}
}

// The copy of a key slot that an interrupted repair has left does not bring the slot back
// after the key was removed.
func TestRemoveKeyAfterAnInterruptedRepair(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := repotest.New(t, 1)
	r := repotest.MustOpen(t, be)
	id, err := r.AddKey(ctx, repotest.OtherSecret, repotest.SlotInfo)
	if err != nil {
		t.Fatal(err)
	}
	name := repotest.KeysDir + id.String()
	if err := be.Put(ctx, "healing/"+name, repotest.Content(t, be)[name]); err != nil {
		t.Fatal(err)
	}
	if _, err := r.RemoveKey(ctx, id.String()); err != nil {
		t.Fatal(err)
	}
	if err := repotest.RepairIndex(be); err != nil {
		t.Fatal(err)
	}
	if ok, _ := opens(be, repotest.OtherSecret); ok {
		t.Error("the removed key opens the repository again")
	}
}

var errKept = errors.New("this store keeps everything")

// noDelete is a store in which nothing can be deleted.
type noDelete struct{ *memory.Backend }

func (noDelete) Delete(context.Context, string) error { return errKept }

// Whoever can write to the store can exchange the labels of old slots, and no program can
// tell. With the labels of new slots, everybody can.
func TestExchangedLabels(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	password, recovery := goldenSecrets(t)
	be := loadGolden(t)
	exchangeLabels(t, be)
	r := repotest.MustOpenWith(t, be, password, repotest.SmallPacks(3))
	if _, err := r.RenewKey(ctx); err != nil {
		t.Fatal(err)
	}
	keys, err := r.Keys(ctx)
	if err != nil || len(keys) != 2 {
		t.Fatal(keys, err)
	}
	for _, k := range keys {
		if k.Bound != k.Current || k.Current != (k.Kind == crypto.RecoverySlot) {
			t.Errorf("%+v", k)
		}
		if !k.Current { // it seems to be the password, and is the recovery key
			gone, err := r.RemoveKey(ctx, k.ID.String())
			if err != nil || len(gone.Doubts) == 0 {
				t.Errorf("removed without a doubt: %+v, %v", gone, err)
			}
		}
	}
	if ok, _ := opens(be, recovery); ok {
		t.Error("the removed key opens")
	}

	be = repotest.New(t, 1)
	info := repotest.SlotInfo
	info.Label = "laptop"
	if _, err := repotest.MustOpen(t, be).AddKey(ctx, repotest.OtherSecret, info); err != nil {
		t.Fatal(err)
	}
	exchangeLabels(t, be)
	r = repotest.MustOpen(t, be)
	keys, err = r.Keys(ctx)
	if err != nil || len(keys) != 2 || !keys[0].Exchanged || !keys[1].Exchanged || keys[0].Label+keys[1].Label != "" {
		t.Errorf("%+v, %v", keys, err)
	}
	report, err := r.Check(ctx, repo.CheckOptions{})
	if err != nil || report.Clean() || len(report.Problems) != 2 {
		t.Errorf("check: %+v, %v", report, err)
	}
	for _, secret := range [][]byte{repotest.Secret, repotest.OtherSecret} {
		if err := repotest.VerifyWith(be, secret, 1); err == nil || !strings.Contains(err.Error(), "exchanged") {
			t.Errorf("%q: %v", secret, err)
		}
	}
	// Changing the password makes a good slot; the other is known to be the other one.
	if _, err := r.ChangePassword(ctx, []byte("new"), crypto.PasswordSlot); err != nil {
		t.Error(err)
	}
	if _, err := repotest.MustOpenWith(t, be, []byte("new"), repotest.SmallPacks(8)).RemoveKey(ctx, otherKey(t, be, r).String()); err != nil {
		t.Error(err)
	}
	if err := repotest.VerifyWith(be, []byte("new"), 1); err != nil {
		t.Error(err)
	}
	if ok, _ := opens(be, repotest.OtherSecret); ok {
		t.Error("the removed key opens")
	}
}

// otherKey returns the only key that has not opened the repository.
func otherKey(t *testing.T, be backend.Backend, r *repo.Repo) repo.FileID {
	t.Helper()
	keys, err := r.Keys(t.Context())
	if err != nil || len(keys) != 2 {
		t.Fatal(keys, err)
	}
	if keys[0].Current {
		return keys[1].ID
	}
	return keys[0].ID
}

// A copy of a slot under another name, or an older version of it, is removed with it.
func TestRemoveKeyRemovesCopies(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	password, recovery := goldenSecrets(t)
	for _, ofCurrent := range []bool{false, true} {
		be := loadGolden(t)
		before := repotest.Content(t, be)
		r := repotest.MustOpenWith(t, be, password, repotest.SmallPacks(3))
		other := otherKey(t, be, r)
		if _, err := r.RenewKey(ctx); err != nil {
			t.Fatal(err)
		}
		gone, secret := other, recovery
		if ofCurrent {
			// An old version of the renewed slot returns, such as from a mirror.
			for name, b := range before {
				if err := be.Put(ctx, name, b); err != nil && !errors.Is(err, backend.ErrExist) {
					t.Fatal(err)
				}
			}
			if _, err := repotest.MustOpenWith(t, be, recovery, repotest.SmallPacks(4)).RenewKey(ctx); err != nil {
				t.Fatal(err)
			}
			gone, secret = currentKey(t, r), password
		} else {
			// The other slot has a second spelling, with the label of the first.
			s := parseSlot(t, be, repotest.KeysDir+other.String())
			s.Info = slices.Clone(s.Info)
			b, err := json.MarshalIndent(s, "", " ")
			if err != nil {
				t.Fatal(err)
			}
			repotest.PutNamed(t, be, repotest.KeysDir, b)
		}
		removed, err := r.RemoveKey(ctx, gone.String())
		if err != nil || len(removed.Copies) != 1 || (len(removed.Doubts) == 0) != ofCurrent {
			t.Errorf("%+v, %v", removed, err)
		}
		if ok, err := opens(be, secret); ok || err != nil {
			t.Errorf("%q: %v, %v", secret, ok, err)
		}
		if n := len(repotest.FilesIn(t, be, repotest.KeysDir)); n != 1 {
			t.Errorf("%d slots are left", n)
		}
	}
}

// A slot that somebody has made with the salt of another one does not take that one
// along.
func TestRemoveCounterfeitSlot(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := repotest.New(t, 1)
	r := repotest.MustOpen(t, be)
	mine := currentKey(t, r)
	if _, err := r.AddKey(ctx, repotest.OtherSecret, repotest.SlotInfo); err != nil {
		t.Fatal(err)
	}
	for _, version := range []int{1, 2} {
		for _, junk := range []bool{true, false} {
			s := parseSlot(t, be, repotest.KeysDir+mine.String())
			s.Version = version
			if junk {
				s.Master = bytes.Repeat([]byte{7}, len(s.Master))
			} else {
				s.Info = []byte("junk")
			}
			gone, err := r.RemoveKey(ctx, putSlot(t, be, s).String())
			if err != nil || len(gone.Copies) != 0 || len(gone.Doubts) == 0 {
				t.Errorf("version %d: %+v, %v", version, gone, err)
			}
		}
	}
	for _, secret := range [][]byte{repotest.Secret, repotest.OtherSecret} {
		if err := repotest.VerifyWith(be, secret, 1); err != nil {
			t.Error(err)
		}
	}
}

// The last key that is known to open the repository is not removed.
func TestKeysThatAreNotProvenDoNotCount(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	password, recovery := goldenSecrets(t)
	be := loadGolden(t)
	r := repotest.MustOpenWith(t, be, password, repotest.SmallPacks(3))
	if _, err := r.RenewKey(ctx); err != nil {
		t.Fatal(err)
	}
	mine := currentKey(t, r)
	if _, err := r.RemoveKey(ctx, mine.String()); !errors.Is(err, repo.ErrUnprovenKeys) {
		t.Errorf("got %v", err)
	}
	// The other key itself may remove this one.
	other := repotest.MustOpenWith(t, be, recovery, repotest.SmallPacks(4))
	if gone, err := other.RemoveKey(ctx, mine.String()); err != nil || len(gone.Doubts) > 0 {
		t.Errorf("%+v, %v", gone, err)
	}
	if _, err := other.RemoveKey(ctx, currentKey(t, other).String()); !errors.Is(err, repo.ErrLastKey) {
		t.Errorf("the last key: %v", err)
	}
}

// However many slots somebody adds, and at whatever cost, trying a password ends soon, and
// the right one opens at once.
func TestManySlotsCostLittle(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := repotest.New(t, 1)
	mine := currentKey(t, repotest.MustOpen(t, be))
	s := parseSlot(t, be, repotest.KeysDir+mine.String())
	for i := range 64 {
		s.Version, s.Time, s.MemoryKiB, s.Threads = 1, 128, 1<<20, 4
		s.Master[0] = byte(i)
		putSlot(t, be, s)
	}
	start := time.Now()
	if ok, err := opens(be, repotest.Secret); !ok || err != nil {
		t.Error(ok, err)
	}
	_, err := repo.Open(ctx, be, []byte("wrong"), repotest.SmallPacks(3))
	if !errors.Is(err, repo.ErrWrongPassword) || !strings.Contains(err.Error(), "64 key slots were not tried") || !strings.Contains(err.Error(), "--key-hint") {
		t.Errorf("got %v", err)
	}
	r := repotest.MustOpen(t, be)
	if _, err := r.AddKey(ctx, repotest.OtherSecret, repotest.SlotInfo); err != nil {
		t.Error(err)
	}
	// Cheap ones in any number.
	for i := range 1200 {
		s.Time, s.MemoryKiB, s.Threads = 1, 8, 1
		s.Master[0], s.Master[1] = byte(i), byte(i>>8)
		putSlot(t, be, s)
	}
	// One of those that are not read may open with the secret.
	if _, err := r.AddKey(ctx, []byte("third"), repotest.SlotInfo); err == nil || !strings.Contains(err.Error(), "key slots were not tried") {
		t.Errorf("add a key: got %v", err)
	}
	if _, err := r.ChangePassword(ctx, []byte("third"), crypto.PasswordSlot); err == nil || !strings.Contains(err.Error(), "nothing was changed") {
		t.Errorf("change the password: got %v", err)
	}
	if ok, _ := opens(be, []byte("third")); ok {
		t.Error("a key was added")
	}
	opts := repotest.SmallPacks(4)
	opts.KeyHint = mine.String()[:20]
	if _, err := repo.Open(ctx, be, repotest.Secret, opts); err != nil {
		t.Error("with a hint:", err)
	}
	if _, err := repo.Open(ctx, be, []byte("wrong"), opts); !errors.Is(err, repo.ErrWrongPassword) {
		t.Error("a wrong password with a hint:", err)
	}
	opts.KeyHint = "xyz"
	if _, err := repo.Open(ctx, be, repotest.Secret, opts); !errors.Is(err, repo.ErrNoKey) {
		t.Error("a hint of no key:", err)
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
}

// If config and its copy are lost, the copy in a key slot is used. It is the same file.
func TestConfigFromAKeySlot(t *testing.T) {
	t.Parallel()
	be := repotest.New(t, 1, 2)
	want := repotest.Content(t, be)
	lost := append(repotest.FilesIn(t, be, "configs/"), repotest.ConfigName)
	repotest.Remove(t, be, lost...)
	r := repotest.MustOpen(t, be)
	if r.ConfigDamage() == nil {
		t.Error("the damage is not told")
	}
	rep, err := repairConfig(t, r)
	if err != nil || rep.Made || !rep.Stored || rep.Damage == "" {
		t.Errorf("%+v, %v", rep, err)
	}
	if got := repotest.Content(t, be); !maps.EqualFunc(got, want, bytes.Equal) {
		t.Error("the files differ")
	}
	if err := repotest.Verify(be, 1, 2); err != nil {
		t.Error(err)
	}
}

func repairConfig(t *testing.T, r *repo.Repo) (*repo.ConfigRepair, error) {
	t.Helper()
	l, err := r.Lock(t.Context(), repo.LockExclusive, "repair")
	if err != nil {
		return nil, err
	}
	rep, err := r.RepairConfig(t.Context(), repo.RepairOptions{})
	return rep, errors.Join(err, l.Release())
}

// Slots of older programs have no copy of config. With a new one, everything can be read.
func TestMakeConfig(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	password, _ := goldenSecrets(t)
	base := loadGolden(t)
	repotest.Remove(t, base, repotest.ConfigName)
	if _, err := repo.Open(ctx, base, password, repotest.SmallPacks(3)); !errors.Is(err, repo.ErrDamaged) {
		t.Fatalf("got %v", err)
	}
	seed := byte(0)
	repair := func(be backend.Backend) error {
		if m, ok := be.(*memory.Backend); ok {
			repotest.RemoveAllLocks(m) // those of runs that failed
		}
		seed++
		opts := repotest.SmallPacks(100 + seed)
		opts.MakeConfig = true
		r, err := repo.Open(ctx, be, password, opts)
		if err != nil {
			return err
		}
		rep, err := repairConfig(t, r)
		if err == nil && rep.Made != (rep.Damage != "" && rep.Stored) {
			err = fmt.Errorf("%+v", rep)
		}
		return err
	}
	repotest.EveryRepair(t, base, 3, repair, func(be *memory.Backend) error {
		r, err := repotest.Open(ctx, be, password, repotest.SmallPacks(5))
		if err != nil {
			return err
		}
		if r.ConfigDamage() != nil {
			return r.ConfigDamage()
		}
		report, err := r.Check(ctx, repo.CheckOptions{ReadData: 1})
		if err != nil || !report.Clean() || report.Snapshots != 2 {
			return fmt.Errorf("check: %+v, %w", report, err)
		}
		_, err = repotest.Store(ctx, r, repotest.Day(3), 3)
		return err
	})
	// The key of another repository makes none.
	other := repotest.New(t, 1)
	repotest.Remove(t, other, append(repotest.FilesIn(t, other, "configs/"), append(repotest.FilesIn(t, other, repotest.KeysDir), repotest.ConfigName)...)...)
	for _, name := range repotest.FilesIn(t, base, repotest.KeysDir) {
		if err := other.Put(ctx, name, repotest.Content(t, base)[name]); err != nil {
			t.Fatal(err)
		}
	}
	opts := repotest.SmallPacks(6)
	opts.MakeConfig = true
	if _, err := repo.Open(ctx, other, password, opts); !errors.Is(err, repo.ErrDamaged) {
		t.Errorf("got %v", err)
	}
}

// Anybody who can write to the store can add any number of slots. What is said about them
// when a key is removed stays short.
func TestDoubtsAboutManySlotsAreShort(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	be := repotest.New(t, 1)
	r := repotest.MustOpen(t, be)
	key, err := r.AddKey(ctx, []byte("second"), repotest.SlotInfo)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 30 {
		repotest.PutNamed(t, be, "keys/", fmt.Appendf(nil, "junk %d", i))
	}
	gone, err := r.RemoveKey(ctx, key.String())
	if err != nil || len(gone.Doubts) != 1 || !strings.Contains(gone.Doubts[0], "25 more") {
		t.Errorf("%q, %v", gone.Doubts, err)
	}
}
