package repair_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/memory"
	"github.com/snap-backup/snap/repo/replace"
	"github.com/snap-backup/snap/repo/repotest"
)

const configsDir = "configs/"

// configDamages are the ways in which config and its copy can be wrong, and what can be
// told without a key. None of them loses anything.
func configDamages(t *testing.T) map[string]struct {
	spoil func(be *memory.Backend)
	state any
} {
	t.Helper()
	other := repotest.Content(t, repotest.NewOther(t))
	copyOf := func(be *memory.Backend) string { return repotest.FilesIn(t, be, configsDir)[0] }
	plant := func(be *memory.Backend) { repotest.PutNamed(t, be, configsDir, other[repotest.ConfigName]) }
	junk := func(be *memory.Backend) { // more than anybody reads
		repotest.Remove(t, be, copyOf(be))
		for i := range 70 {
			repotest.PutNamed(t, be, configsDir, fmt.Appendf(nil, "junk %d", i))
		}
	}
	set := func(be *memory.Backend, name string, b []byte) {
		if err := be.Set(name, b); err != nil {
			t.Fatal(err)
		}
	}
	return map[string]struct {
		spoil func(be *memory.Backend)
		state any
	}{
		"nothing":                   {func(*memory.Backend) {}, repo.ConfigGood},
		"config missing":            {func(be *memory.Backend) { repotest.Remove(t, be, repotest.ConfigName) }, repo.ConfigDamaged},
		"config empty":              {func(be *memory.Backend) { set(be, repotest.ConfigName, nil) }, repo.ConfigDamaged},
		"config cut":                {func(be *memory.Backend) { set(be, repotest.ConfigName, other[repotest.ConfigName][:40]) }, repo.ConfigDamaged},
		"config too long":           {func(be *memory.Backend) { set(be, repotest.ConfigName, make([]byte, 1<<20)) }, repo.ConfigDamaged},
		"config of the future":      {func(be *memory.Backend) { set(be, repotest.ConfigName, []byte(`{"format":9}`)) }, repo.ConfigDamaged},
		"config of another":         {func(be *memory.Backend) { set(be, repotest.ConfigName, other[repotest.ConfigName]) }, repo.ConfigUnknown},
		"copy missing":              {func(be *memory.Backend) { repotest.Remove(t, be, copyOf(be)) }, repo.ConfigUnknown},
		"copy damaged":              {func(be *memory.Backend) { repotest.Flip(t, be, copyOf(be), 9) }, repo.ConfigUnknown},
		"copy too long":             {func(be *memory.Backend) { set(be, copyOf(be), make([]byte, 1<<20)) }, repo.ConfigUnknown},
		"copy planted":              {plant, repo.ConfigUnknown},
		"config lost, copy planted": {func(be *memory.Backend) { plant(be); repotest.Remove(t, be, repotest.ConfigName) }, repo.ConfigUnknown},
		"config exchanged, planted": {func(be *memory.Backend) { plant(be); set(be, repotest.ConfigName, other[repotest.ConfigName]) }, repo.ConfigUnknown},
		"copy exchanged":            {func(be *memory.Backend) { repotest.Remove(t, be, copyOf(be)); plant(be) }, repo.ConfigUnknown},
		"junk planted":              {func(be *memory.Backend) { repotest.PutNamed(t, be, configsDir, []byte("junk")) }, repo.ConfigGood},
		"much junk planted":         {junk, repo.ConfigUnknown},
		"a replacement planted":     {func(be *memory.Backend) { set(be, replace.Dir+repotest.ConfigName, other[repotest.ConfigName]) }, repo.ConfigGood},
		"lost, a replacement planted": {func(be *memory.Backend) {
			set(be, replace.Dir+repotest.ConfigName, other[repotest.ConfigName])
			repotest.Remove(t, be, repotest.ConfigName)
		}, repo.ConfigDamaged},
	}
}

func repairConfig(be backend.Backend) error {
	return repairing(be, func(ctx context.Context, r *repo.Repo) error {
		_, err := r.RepairConfig(ctx, repo.RepairOptions{})
		return err
	})
}

// repairing opens a repository, locks it exclusively and calls do.
func repairing(be backend.Backend, do func(ctx context.Context, r *repo.Repo) error) error {
	ctx := context.Background()
	if m, ok := be.(*memory.Backend); ok {
		repotest.RemoveAllLocks(m) // those of runs that failed
	}
	r, err := repo.Open(ctx, be, repotest.Secret, repotest.SmallPacks(9))
	if err != nil {
		return err
	}
	l, err := r.Lock(ctx, repo.LockExclusive, "repair")
	if err != nil {
		return err
	}
	return errors.Join(do(ctx, r), l.Release())
}

func TestRepairConfig(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	base := repotest.New(t, 1, 2)
	want := repotest.Content(t, base)
	damages := configDamages(t)
	for _, name := range slices.Sorted(maps.Keys(damages)) {
		d := damages[name]
		be := base.Clone()
		d.spoil(be)
		if j, err := repo.JudgeConfig(ctx, be); err != nil || any(j.State) != d.state || (j.Bytes != nil) != (d.state != repo.ConfigUnknown) {
			t.Errorf("%s: judged %+v, %v", name, j, err)
		}
		if _, err := repo.Create(ctx, be, repotest.Secret, repotest.SlotInfo, repotest.SmallPacks(4)); !errors.Is(err, repo.ErrExists) {
			t.Errorf("%s: init: %v", name, err)
		}
		// Everything can be read before the repair.
		if err := restoreDay(ctx, be, 2); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		repotest.EveryRepair(t, be, 1, repairConfig, func(be *memory.Backend) error {
			got := repotest.Content(t, be)
			for file := range got {
				if _, exists := want[file]; !exists && repotest.Folder(file) != "locks" {
					return errors.New(file + " is left")
				}
			}
			for file, b := range want {
				if !bytes.Equal(got[file], b) {
					return errors.New(file + " differs")
				}
			}
			return repotest.Verify(be, 1, 2)
		})
	}
}

// restoreDay restores the snapshot of a day.
func restoreDay(ctx context.Context, be backend.Backend, day int) error {
	r, err := repotest.Open(ctx, be, repotest.Secret, repotest.SmallPacks(5))
	if err != nil {
		return err
	}
	s, err := repotest.FindDay(ctx, r, day)
	if err != nil {
		return err
	}
	got, err := repotest.Restore(ctx, r, s)
	if err != nil {
		return err
	}
	return got.Same(repotest.Day(day))
}

// A process that stores gives an older repository the copy. It is no error if that is
// impossible.
func TestOlderRepositoriesGetACopy(t *testing.T) {
	t.Parallel()
	be := repotest.New(t, 1)
	want := repotest.Content(t, be)
	copied := repotest.FilesIn(t, be, configsDir)[0]
	for name, spoil := range map[string]func(){
		"missing": func() { repotest.Remove(t, be, copied) },
		"damaged": func() { repotest.Flip(t, be, copied, 3) },
	} {
		spoil()
		r := repotest.MustOpen(t, be)
		l, err := r.Lock(t.Context(), repo.LockRead, "read")
		if err != nil || bytes.Equal(repotest.Content(t, be)[copied], want[copied]) {
			t.Fatalf("%s: a reader changed the repository, or %v", name, err)
		}
		if err := l.Release(); err != nil {
			t.Fatal(err)
		}
		if l, err = r.Lock(t.Context(), repo.LockWrite, "write"); err != nil {
			t.Fatal(err)
		}
		if err := l.Release(); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(repotest.Content(t, be)[copied], want[copied]) {
			t.Errorf("%s: there is no copy", name)
		}
	}
}
