package repotest

import (
	"errors"
	"testing"

	"github.com/snap-backup/snap/internal/faultpoint"
	"github.com/snap-backup/snap/pack"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/crash"
	"github.com/snap-backup/snap/repo/backend/fault"
	"github.com/snap-backup/snap/repo/backend/memory"
)

func TestVerify(t *testing.T) {
	t.Parallel()
	be := New(t, 1, 2)
	if err := Verify(be, 1, 2); err != nil {
		t.Fatal(err)
	}
	if err := Verify(be, 1, 2, 3); err == nil {
		t.Error("Verify accepts a repository that lacks a day")
	}
	Flip(t, be, FilesIn(t, be, PacksDir)[0], 20)
	if err := Verify(be, 1, 2); err == nil {
		t.Error("Verify does not find damage")
	}
	if bad := DamagedFiles(t, be); len(bad) != 1 {
		t.Errorf("DamagedFiles = %v, want the damaged file", bad)
	}
	if err := Verify(New(t, 1, 2), 1, 2); err != nil {
		t.Errorf("one test damaged the repository of another: %v", err)
	}
}

func TestHandmade(t *testing.T) {
	t.Parallel()
	be := New(t, 1)
	r := MustOpen(t, be)
	plain := Noise(7, 900)
	PutPack(t, r, be, pack.Content, Raw(plain), Delta(r, Noise(8, 900), plain))
	ReplaceIndex(t, be, nil)
	r = MustOpen(t, be)
	for _, b := range [][]byte{plain, Noise(8, 900)} {
		if got, err := r.Chunk(t.Context(), r.NewHasher().ID(b)); err != nil || string(got) != string(b) {
			t.Errorf("a chunk of a pack made by hand: %v", err)
		}
	}
	if err := Verify(be, 1); err != nil {
		t.Error(err)
	}
}

// EveryFault, EveryCrash and EveryTear let every step fail in every way, each time on a
// fresh copy of the repository.
func TestEveryFaultAndCrash(t *testing.T) {
	t.Setenv("SNAP_TEST_ALL", "1")
	if !faultpoint.All() {
		t.Fatal("SNAP_TEST_ALL has no effect")
	}
	do := func(be backend.Backend) error {
		for _, name := range []string{"a", "b", "c"} {
			if err := be.Put(t.Context(), name, []byte(name)); err != nil {
				return err
			}
		}
		return nil
	}
	run := Run{Base: memory.New(), Do: do, Least: 3, Want: 1}
	failed := map[int]int{} // number of failures, by the number of files stored by then
	EveryFault(t, run, func(be *memory.Backend, err error) error {
		if !errors.Is(err, fault.ErrInjected) {
			t.Errorf("error %v", err)
		}
		failed[len(FilesIn(t, be, ""))]++
		return nil
	})
	if failed[0] != 2 || failed[1] != 3 || failed[2] != 3 || failed[3] != 1 {
		t.Errorf("failures, by the number of files stored by then: %v", failed)
	}
	died := 0
	EveryCrash(t, run, func(*memory.Backend) error { died++; return nil })
	EveryTear(t, run, func(*memory.Backend) error { died++; return nil })
	if died != 3*4+3*8 {
		t.Errorf("%d processes died", died)
	}
	if _, err := PutSizes(memory.New(), do); err != nil || errors.Is(err, crash.ErrCrashed) {
		t.Error(err)
	}
}

func TestJobs(t *testing.T) {
	t.Parallel()
	for _, j := range Jobs(t) {
		if j.Name == "prune" || j.Name == "continue" {
			j.Survives(t, 1)
		}
	}
}
