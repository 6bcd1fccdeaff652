package record_test

import (
	"testing"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/ledger"
	"github.com/snap-backup/snap/repo/internal/record"
	"github.com/snap-backup/snap/repo/internal/store"
	"github.com/snap-backup/snap/repo/repotest"
)

// A copy of a record in the ledger counts only if it is a copy: whoever has the key and may only
// add files can enter any text under any ID.
func TestForgedLedgerCopies(t *testing.T) {
	t.Parallel()
	be := repotest.New(t, 1, 2)
	opts := store.Options{Distant: true}
	open := func() *store.Store {
		return store.New(be, opts.WithDefaults(), store.Config{}, repotest.MasterKey(t, be, repotest.Secret))
	}
	r := open()
	want, _, err := record.List(t.Context(), r)
	if err != nil || len(want) != 2 {
		t.Fatal(want, err)
	}
	other, err := backend.ReadAll(t.Context(), be, layout.SnapshotsDir+want[1].ID.String(), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	forged, err := ledger.NewEntry(r, other)
	if err != nil {
		t.Fatal(err)
	}
	forged.ID = want[0].ID
	l, err := ledger.Read(t.Context(), r)
	if err == nil {
		err = l.Remove(t.Context(), r, []layout.FileID{want[0].ID})
	}
	if err == nil {
		err = l.Renew(t.Context(), r, forged)
	}
	if err != nil {
		t.Fatal(err)
	}
	if l, err = ledger.Read(t.Context(), open()); err != nil || string(l.Get(want[0].ID).JSON) != string(forged.JSON) {
		t.Fatalf("the ledger has no forged copy, so this test proves nothing: %v", err)
	}
	got, damaged, err := record.List(t.Context(), open())
	if err != nil || len(damaged) > 0 || len(got) != 2 || got[0].Root != want[0].Root || got[1].Root != want[1].Root {
		t.Errorf("got %v, %v, %v", got, damaged, err)
	}
}
