package mirror_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/snap-backup/snap/crypto"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/mirror"
	"github.com/snap-backup/snap/repo/repotest"
)

// judgedMirror returns a repository, its mirror, made with the key, and a function that
// mirrors again.
func judgedMirror(t testing.TB, days ...int) (source, target *memory.Backend, run func(withKey, accept bool) (*mirror.Report, error)) {
	t.Helper()
	source, target = repotest.New(t, days...), memory.New()
	run = func(withKey, accept bool) (*mirror.Report, error) {
		opts := keyOptions(t, source, withKey)
		opts.AcceptRemovals = accept
		return mirror.Run(context.Background(), source, target, opts)
	}
	if _, err := run(true, false); err != nil {
		t.Fatal(err)
	}
	return source, target, run
}

// A run without the key can name nothing. So it takes no guard away from the next run that
// has the key.
func TestOnlyRunsWithTheKeyNameRemovals(t *testing.T) {
	t.Parallel()
	source, target, run := judgedMirror(t, 1, 2, 3, 4, 5)
	without := func() {
		t.Helper()
		if _, err := run(false, false); err != nil {
			t.Fatal(err)
		}
	}
	forgetDays(t, source, 2)
	without()
	for n, want := range []bool{false, true} {
		without()
		rep, err := run(true, false)
		if err != nil || len(rep.Leaving) != 1-n || len(rep.Removed) != n || (rep.RemovedFiles > 0) != want {
			t.Fatalf("run %d: %+v, %v", n, rep, err)
		}
	}
	forgetDays(t, source, 5)
	for range 3 {
		without()
		if _, err := run(true, false); !errors.Is(err, mirror.ErrRefused) || !strings.Contains(err.Error(), "newest") {
			t.Fatal(err)
		}
	}
	if err := repotest.Verify(target, 1, 3, 4, 5); err != nil {
		t.Fatal(err)
	}
	forgetDays(t, source, 1, 3)
	_, err := run(true, false)
	for _, day := range []string{"2026-01-01", "2026-01-03", "2026-01-05"} {
		if !errors.Is(err, mirror.ErrRefused) || !strings.Contains(err.Error(), day) {
			t.Errorf("the error does not say that the snapshot of %s leaves: %v", day, err)
		}
	}
	rep, err := run(true, true)
	if err != nil || len(rep.Removed) != 3 || len(rep.Leaving) > 0 {
		t.Errorf("%+v, %v", rep, err)
	}
	if err := errors.Join(sameRepository(t, source, target), repotest.Verify(target, 4)); err != nil {
		t.Error(err)
	}
}

// More than half of the snapshots may leave slowly without the key, a third at a time. The
// first run with the key sees all of it.
func TestMirrorCountsWhatRunsWithoutTheKeyMissed(t *testing.T) {
	t.Parallel()
	source, target, run := judgedMirror(t, 1, 2, 3, 4, 5)
	for _, day := range []int{1, 2, 3} {
		forgetDays(t, source, day)
		if _, err := run(false, false); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := run(true, false); !errors.Is(err, mirror.ErrRefused) || !strings.Contains(err.Error(), "3 of 5") {
		t.Error(err)
	}
	if err := repotest.Verify(target, 1, 2, 3, 4, 5); err != nil {
		t.Error(err)
	}
}

// A policy that keeps few snapshots exchanges all of them each night, and the mirror
// follows. Nobody can use that to remove more snapshots than have come.
func TestMirrorOfAPolicyThatKeepsOne(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for _, withKey := range [][]bool{{true}, {false, false, true}} {
		source, target, run := judgedMirror(t, 1)
		for day := 2; day < 10; day++ {
			if _, err := repotest.StoreDay(ctx, source, day); err != nil {
				t.Fatal(err)
			}
			if _, err := repotest.Prune(ctx, source, repotest.NoWaste, day-1); err != nil {
				t.Fatal(err)
			}
			if rep, err := run(withKey[day%len(withKey)], !withKey[day%len(withKey)]); err != nil {
				t.Fatalf("day %d: %+v, %v", day, rep, err)
			}
		}
		if !slices.Contains(daysOf(t, target), 9) {
			t.Error(daysOf(t, target))
		}
	}
	source, _, run := judgedMirror(t, 1, 2, 3, 4, 5)
	if _, err := repotest.StoreDay(ctx, source, 6); err != nil {
		t.Fatal(err)
	}
	forgetDays(t, source, 1, 2, 3, 4)
	if _, err := run(true, false); !errors.Is(err, mirror.ErrRefused) || !strings.Contains(err.Error(), "more than half") {
		t.Error(err)
	}
}

// Who accepts removals keeps what the source has lost, with all packs that it needs.
func TestAcceptRemovalsKeepsWhatIsBetter(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	source, target, run := judgedMirror(t, 1, 2, 3, 4)
	removeFiles(t, source, repotest.PacksDir, 1)
	if err := repotest.RepairAll(source); err != nil {
		t.Fatal(err)
	}
	if _, err := repotest.Prune(ctx, source, repotest.NoWaste); err != nil {
		t.Fatal(err)
	}
	for n, accept := range []bool{true, false, true, true} {
		rep, err := run(n%2 == 0, accept)
		if n%2 == 0 && len(rep.Better) == 0 {
			t.Errorf("run %d: %+v, %v", n, rep, err)
		}
		if rep.RemovedFiles > 0 {
			t.Errorf("run %d: %+v, %v", n, rep, err)
		}
	}
	// What the target has gives the source everything back.
	for name, b := range repotest.Content(t, target) {
		if strings.HasPrefix(name, repotest.PacksDir) {
			source.Set(name, b)
		}
	}
	err := repotest.Repair(ctx, source, 94, repairIndex)
	if err := errors.Join(err, repotest.RepairSnapshots(source), repotest.Verify(source, 1, 2, 3, 4)); err != nil {
		t.Error(err)
	}
}

// Who accepts removals, and has the key, lets go at once all that has left, whatever earlier
// runs have kept. Without the key, nothing leaves sooner than otherwise, and no key slot ever.
func TestAcceptRemovalsOfWhatWasKept(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	source, target, run := judgedMirror(t, 1, 2, 3, 4, 5, 6)
	r := repotest.MustOpen(t, source)
	key, err := r.AddKey(ctx, []byte("of the laptop"), repotest.SlotInfo)
	if err != nil {
		t.Fatal(err)
	}
	do := func(withKey, accept bool) *mirror.Report {
		t.Helper()
		rep, err := run(withKey, accept)
		if err != nil {
			t.Fatalf("key %v, accept %v: %+v, %v", withKey, accept, rep, err)
		}
		return rep
	}
	do(true, false)
	forgetDays(t, source, 1) // seen by a run without the key
	do(false, false)
	forgetDays(t, source, 2) // named by a run with the key
	do(true, false)
	forgetDays(t, source, 3) // not seen yet
	if _, err := repotest.Prune(ctx, source, repotest.NoWaste); err != nil {
		t.Fatal(err)
	}
	if _, err := r.RemoveKey(ctx, key.String()); err != nil {
		t.Fatal(err)
	}
	before := target.Clone()
	for n := range 3 {
		if rep := do(false, true); rep.RemovedFiles > 0 || rep.OldKeys != 1 {
			t.Errorf("run %d without the key: %+v", n, rep)
		}
	}
	if err := repotest.Verify(target, 1, 2, 3, 4, 5, 6); err != nil {
		t.Error(err)
	}
	if rep := do(true, true); rep.KeptFiles > 0 || rep.OldKeys > 0 || len(rep.Removed) != 4 {
		t.Errorf("with the key: %+v", rep)
	}
	if err := errors.Join(sameRepository(t, source, target), repotest.Verify(target, 4, 5, 6)); err != nil {
		t.Error(err)
	}
	if rep := do(true, false); rep.RemovedFiles+rep.CopiedFiles > 0 {
		t.Errorf("again: %+v", rep)
	}
	// Without the key, the files leave after as many runs as ever, the slot does not.
	for range 16 {
		rep, err := mirror.Run(ctx, source, before, mirror.Options{Workers: 1, AcceptRemovals: true})
		if err != nil || rep.OldKeys != 1 {
			t.Fatalf("%+v, %v", rep, err)
		}
	}
	if opened, err := repotest.Open(ctx, before, []byte("of the laptop"), repotest.SmallPacks(6)); err != nil || opened == nil {
		t.Error(err)
	}
	if err := repotest.Verify(before, 4, 5, 6); err != nil {
		t.Error(err)
	}
}

func repairIndex(r *repo.Repo) error {
	_, err := r.RepairIndex(context.Background(), repo.RepairOptions{})
	return err
}

// A run with the key names the keys and the backup passwords that leave, and waits for one
// more such run. It stops if it would shut others out.
func TestMirrorNamesKeysAndPasswords(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	source, target, run := judgedMirror(t, 1)
	r := repotest.MustOpen(t, source)
	add := func(label string, kind crypto.SlotKind) string {
		t.Helper()
		id, err := r.AddKey(ctx, []byte("secret of "+label), crypto.SlotInfo{Kind: kind, Label: label})
		if err != nil {
			t.Fatal(err)
		}
		return repotest.KeysDir + id.String()
	}
	var slots []string
	for _, label := range []string{"laptop", "server", "desk"} {
		slots = append(slots, add(label, crypto.PasswordSlot))
	}
	recovery := add("safe", crypto.RecoverySlot)
	l, err := r.Lock(ctx, repo.LockWrite, "keep")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(r.KeepDevicePassword(ctx, repotest.JobUDID, []byte("backup password")), l.Release()); err != nil {
		t.Fatal(err)
	}
	if _, err := run(true, false); err != nil {
		t.Fatal(err)
	}
	full := source.Clone()
	repotest.Remove(t, source, slots[0], repotest.FilesIn(t, source, "secrets/")[0])
	for n := range 2 {
		if _, err := run(false, false); err != nil {
			t.Fatal(err)
		}
		rep, err := run(true, false)
		texts := strings.Join(rep.LeavingOther, "\n")
		if n == 1 {
			texts = strings.Join(rep.Removed, "\n")
		}
		if err != nil || (rep.RemovedFiles > 0) != (n == 1) || !strings.Contains(texts, "laptop") || !strings.Contains(texts, "backup password") {
			t.Fatalf("run %d: %+v, %v", n, rep, err)
		}
	}
	for _, gone := range [][]string{{recovery}, slots[1:]} {
		repotest.Remove(t, source, gone...)
		if _, err := run(true, false); !errors.Is(err, mirror.ErrRefused) || !strings.Contains(err.Error(), "key") {
			t.Errorf("%s: %v", gone, err)
		}
		for _, name := range gone {
			source.Set(name, repotest.Content(t, full)[name])
		}
	}
	// A secret that was changed has a new slot.
	repotest.Remove(t, source, recovery)
	add("new safe", crypto.RecoverySlot)
	for range 2 {
		if _, err := run(true, false); err != nil {
			t.Error(err)
		}
	}
	if err := sameRepository(t, source, target); err != nil {
		t.Error(err)
	}
}
