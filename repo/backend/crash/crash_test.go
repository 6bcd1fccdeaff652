package crash_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/backendtest"
	"github.com/snap-backup/snap/repo/backend/crash"
	"github.com/snap-backup/snap/repo/backend/memory"
)

var ctx = context.Background()

func TestContractWithoutCrash(t *testing.T) {
	t.Parallel()
	backendtest.Run(t, func(*testing.T) backend.Backend {
		return crash.New(memory.New(), crash.Plan{})
	})
}

func TestContractAfterReboot(t *testing.T) {
	t.Parallel()
	backendtest.Run(t, func(t *testing.T) backend.Backend {
		b := crash.New(memory.New(), crash.Plan{At: 2, Seed: 1})
		if err := b.Put(ctx, "config", nil); err != nil {
			t.Fatal(err)
		}
		if err := b.Delete(ctx, "config"); !errors.Is(err, crash.ErrCrashed) {
			t.Fatal(err)
		}
		after := b.Reboot()
		if err := after.Delete(ctx, "config"); err != nil && !errors.Is(err, backend.ErrNotExist) {
			t.Fatal(err)
		}
		return after
	})
}

var content = bytes.Repeat([]byte("content "), 10)

// crashOutcome lets a process die in a Put of "new" or a Delete of "old", and
// describes the file afterwards.
func crashOutcome(t *testing.T, plan crash.Plan, remove bool) string {
	t.Helper()
	store := memory.New()
	if err := store.Put(ctx, "old", content); err != nil {
		t.Fatal(err)
	}
	b := crash.New(store, plan)
	name, err := "new", error(nil)
	if remove {
		name = "old"
		err = b.Delete(ctx, name)
	} else {
		err = b.Put(ctx, name, content)
	}
	seed := fmt.Sprintf("seed %d", plan.Seed)
	if !errors.Is(err, crash.ErrCrashed) || !strings.Contains(err.Error(), seed) || !strings.Contains(err.Error(), name) {
		t.Fatalf("the operation at which the process dies = %v", err)
	}
	if !b.Crashed() || b.Changes() != 1 || !strings.Contains(b.Outcome(), seed) {
		t.Fatalf("crashed %v after %d changes: %q", b.Crashed(), b.Changes(), b.Outcome())
	}
	got, err := backend.ReadAll(ctx, b.Reboot(), name, 1000)
	switch {
	case errors.Is(err, backend.ErrNotExist):
		return "absent"
	case err != nil:
		t.Fatal(err)
	case bytes.Equal(got, content):
		return "complete"
	case len(got) == len(content):
		return "end lost"
	case len(got) == 0:
		return "empty"
	case bytes.HasPrefix(content, got):
		return "short"
	}
	return "something else"
}

func TestOutcomes(t *testing.T) {
	t.Parallel()
	tests := []struct {
		remove, torn bool
		want         []string
	}{
		{false, false, []string{"absent", "complete"}},
		{true, false, []string{"absent", "complete"}},
		{true, true, []string{"absent", "complete"}},
		{false, true, []string{"absent", "complete", "empty", "short", "end lost"}},
	}
	for _, tt := range tests {
		seen := make(map[string]int)
		for seed := range uint64(200) {
			plan := crash.Plan{At: 1, Seed: seed, Torn: tt.torn}
			what := crashOutcome(t, plan, tt.remove)
			if again := crashOutcome(t, plan, tt.remove); again != what {
				t.Errorf("seed %d has the outcomes %q and %q", seed, what, again)
			}
			seen[what]++
		}
		if len(seen) != len(tt.want) {
			t.Errorf("remove %v, torn %v: outcomes %v, want %q", tt.remove, tt.torn, seen, tt.want)
		}
		for _, what := range tt.want {
			if seen[what] < 5 {
				t.Errorf("remove %v, torn %v: %q occurred %d times in 200", tt.remove, tt.torn, what, seen[what])
			}
		}
	}
}

func TestDeadProcess(t *testing.T) {
	t.Parallel()
	store := memory.New()
	other := crash.New(store, crash.Plan{}) // another process, which does not die
	b := crash.New(store, crash.Plan{At: 2, Seed: 42})
	if err := b.Put(ctx, "one", content); err != nil {
		t.Fatal(err)
	}
	// Operations that were refused do not count.
	if err := b.Put(ctx, "../x", nil); !errors.Is(err, backend.ErrInvalidName) {
		t.Errorf("Put of an invalid name = %v", err)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if err := b.Put(cancelled, "two", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Put with a cancelled context = %v", err)
	}
	// A process can also die while it lists.
	err := b.List(ctx, "", func(backend.Info) error {
		if err := b.Put(ctx, "two", content); !errors.Is(err, crash.ErrCrashed) {
			t.Errorf("second Put = %v, want ErrCrashed", err)
		}
		return nil
	})
	if err != nil {
		t.Errorf("List with one file = %v", err)
	}
	_, errStat := b.Stat(ctx, "one")
	_, errRead := b.ReadAt(ctx, "one", make([]byte, 1), 0)
	for method, err := range map[string]error{
		"Put": b.Put(ctx, "three", nil), "Delete": b.Delete(ctx, "one"), "Stat": errStat, "ReadAt": errRead,
		"List": b.List(ctx, "", func(backend.Info) error { t.Error("List shows something"); return nil }),
	} {
		if !errors.Is(err, crash.ErrCrashed) || !strings.Contains(err.Error(), "seed 42") {
			t.Errorf("%s of a dead process = %v", method, err)
		}
	}
	if err := other.Put(ctx, "three", content); err != nil {
		t.Errorf("Put of another process = %v", err)
	}
	after := b.Reboot()
	if err := after.Delete(ctx, "one"); err != nil {
		t.Errorf("deleting a file put before the crash: %v", err)
	}
	if _, err := store.Stat(ctx, "one"); err != nil {
		t.Errorf("a change after the restart reached the old store: %v", err)
	}
}

func TestRebootKills(t *testing.T) {
	t.Parallel()
	b := crash.New(memory.New(), crash.Plan{Seed: 3})
	b.Reboot()
	if err := b.Put(ctx, "one", nil); !errors.Is(err, crash.ErrCrashed) || !strings.Contains(err.Error(), "seed 3") {
		t.Errorf("Put after Reboot = %v", err)
	}
}

// After the restart, the effects of all operations that returned nil exist, and no
// others.
func TestRebootKeepsWhatWasDone(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		plan := crash.Plan{At: rapid.IntRange(0, 20).Draw(t, "at"), Seed: rapid.Uint64().Draw(t, "seed")}
		b := crash.New(memory.New(), plan)
		want := make(map[string]bool)
		interrupted := ""
		for range 20 {
			name := rapid.SampledFrom([]string{"a", "b", "c/d", "c/e"}).Draw(t, "name")
			remove := rapid.Bool().Draw(t, "remove")
			var err error
			if remove {
				err = b.Delete(ctx, name)
			} else {
				err = b.Put(ctx, name, []byte(name))
			}
			if errors.Is(err, crash.ErrCrashed) {
				interrupted = name
				break
			}
			want[name] = !remove
		}
		after := b.Reboot()
		for name, exists := range want {
			got, err := backend.ReadAll(ctx, after, name, 100)
			if name != interrupted && (err == nil) != exists || err == nil && string(got) != name {
				t.Errorf("%s exists: %v, want %v, content %q (%s)", name, err == nil, exists, got, b.Outcome())
			}
		}
	})
}
