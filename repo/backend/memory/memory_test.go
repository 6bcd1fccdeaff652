package memory_test

import (
	"context"
	"errors"
	"testing"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/backend/backendtest"
	"github.com/snap-backup/snap/repo/backend/memory"
)

func TestContract(t *testing.T) {
	backendtest.Run(t, func(*testing.T) backend.Backend { return memory.New() })
}

func TestContractOfClone(t *testing.T) {
	backendtest.Run(t, func(*testing.T) backend.Backend { return memory.New().Clone() })
}

func read(t *testing.T, b backend.Backend, name string) string {
	t.Helper()
	data, err := backend.ReadAll(context.Background(), b, name, 1000)
	if errors.Is(err, backend.ErrNotExist) {
		return "absent"
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestCloneIsIndependent(t *testing.T) {
	ctx := context.Background()
	one := memory.New()
	if err := one.Put(ctx, "a/common", []byte("common")); err != nil {
		t.Fatal(err)
	}
	two := one.Clone()
	if err := errors.Join(
		one.Put(ctx, "a/one", []byte("1")),
		two.Put(ctx, "a/two", []byte("2")),
		one.Delete(ctx, "a/common"),
	); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][2]string{
		"a/common": {"absent", "common"},
		"a/one":    {"1", "absent"},
		"a/two":    {"absent", "2"},
	} {
		if got := [2]string{read(t, one, name), read(t, two, name)}; got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if err := errors.Join(one.Delete(ctx, "a/one"), one.Put(ctx, "a", nil)); err != nil {
		t.Errorf("the name of a folder without files is taken: %v", err)
	}
	if err := two.Put(ctx, "a", nil); !errors.Is(err, backend.ErrExist) {
		t.Errorf("Put of a folder's name in the clone = %v, want ErrExist", err)
	}
}

func TestSet(t *testing.T) {
	b := memory.New()
	before := b.Clone()
	data := []byte("new")
	if err := errors.Join(b.Set("packs/a", []byte("old")), b.Set("packs/a", data)); err != nil {
		t.Fatal(err)
	}
	data[0] = 'X'
	if got := read(t, b, "packs/a"); got != "new" {
		t.Errorf("packs/a is %q", got)
	}
	if got := read(t, before, "packs/a"); got != "absent" {
		t.Errorf("packs/a in an older clone is %q", got)
	}
	if err := b.Set("../x", nil); !errors.Is(err, backend.ErrInvalidName) {
		t.Errorf("Set of an invalid name = %v", err)
	}
	if err := errors.Join(b.Delete(context.Background(), "packs/a"), b.Put(context.Background(), "packs", nil)); err != nil {
		t.Errorf("the folder of a file set twice and deleted once is not free: %v", err)
	}
}
