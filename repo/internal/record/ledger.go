package record

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/ledger"
	"github.com/snap-backup/snap/repo/internal/store"
	"github.com/snap-backup/snap/repo/replace"
	"golang.org/x/sync/errgroup"
)

// enterAtOnce is how many bytes of records are held in memory to enter them.
const enterAtOnce = 16 << 20

// EnterOthers enters the records that the ledger does not know: those of older programs, and
// those of processes that were killed before they could do it. It returns the ledger, for
// Enter.
func EnterOthers(ctx context.Context, r *store.Store) (*ledger.Ledger, error) {
	l, err := ledger.Peek(ctx, r)
	if err != nil {
		return nil, err
	}
	return l, enter(ctx, r, func(id layout.FileID) bool { return l.Get(id) == nil }, l.Add)
}

// Enter enters a new record, given the bytes of its file, which is durable. The ledger may
// have been read before others changed it.
func Enter(ctx context.Context, r *store.Store, l *ledger.Ledger, file []byte) error {
	e, err := ledger.NewEntry(r, file)
	if err != nil {
		return err
	}
	return l.Add(ctx, r, e)
}

// enter calls add with the entries of all good records that are wanted, in parts.
func enter(ctx context.Context, r *store.Store, wanted func(layout.FileID) bool, add func(context.Context, *store.Store, ...*ledger.Entry) error) error {
	names, err := r.NamesIn(ctx, layout.SnapshotsDir)
	if err != nil {
		return err
	}
	var entries []*ledger.Entry
	size := 0
	for _, name := range names {
		id, err := layout.ParseFileID(name)
		if err != nil || !wanted(id) {
			continue
		}
		b, err := r.ReadNamed(ctx, name, maxSnapshotSize)
		if errors.Is(err, store.ErrDamaged) || errors.Is(err, backend.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("enter snapshots in the ledger: %w", err)
		}
		e, err := ledger.NewEntry(r, b)
		if err != nil {
			continue // a counterfeit; it counts as damaged
		}
		entries = append(entries, e)
		if size += len(b); size >= enterAtOnce {
			if err := add(ctx, r, entries...); err != nil {
				return err
			}
			entries, size = nil, 0
		}
	}
	return add(ctx, r, entries...)
}

// enterReplaced enters a new record, given the bytes of its file, and the removal of the
// record old, which it replaces.
func enterReplaced(ctx context.Context, r *store.Store, old layout.FileID, file []byte) error {
	l, err := ledger.Read(ctx, r)
	if err != nil {
		return err
	}
	e, err := ledger.NewEntry(r, file)
	if err != nil {
		return err
	}
	return l.Remove(ctx, r, []layout.FileID{old}, e)
}

// Delete enters in the ledger that records are removed on purpose, then removes them. In
// this order an interruption leaves records that are removed according to the ledger: they
// count as long as they are there. The error is backend.ErrNotExist if one of them was gone
// already; the others are removed all the same.
func Delete(ctx context.Context, r *store.Store, ids ...layout.FileID) error {
	l, err := ledger.Read(ctx, r)
	if err == nil {
		err = l.Remove(ctx, r, ids)
	}
	if err != nil {
		return err
	}
	return deleteFiles(ctx, r, ids...)
}

// deletes is how many records are removed at the same time, so that a store far away is not
// asked for one after another.
const deletes = 4

func deleteFiles(ctx context.Context, r *store.Store, ids ...layout.FileID) error {
	gone := make([]error, len(ids))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(deletes)
	for i, id := range ids {
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			err := replace.Delete(ctx, r.Backend, layout.SnapshotsDir+id.String())
			if errors.Is(err, backend.ErrNotExist) {
				gone[i], err = err, nil
			}
			return err
		})
	}
	return cmp.Or(g.Wait(), errors.Join(gone...))
}

// Withdraw removes a record that this process has just stored and that must not stay. It
// does all that it can, even if ctx is done.
func Withdraw(ctx context.Context, r *store.Store, id layout.FileID) {
	ctx = context.WithoutCancel(ctx)
	if err := Delete(ctx, r, id); err != nil {
		_ = deleteFiles(ctx, r, id)
	}
}

// MissingError says that a record is gone although nobody has removed it. It is the cause
// in a *store.DamageError, which names the file.
type MissingError struct{ Snapshot *Snapshot }

// Hint says what to do.
func (e *MissingError) Hint() string {
	return "`snap repair snapshots` stores it again, from the ledger; " + e.ForgetHint()
}

// ForgetHint says how to forget it. A pin is in the record, so only a record that is there can
// lose it.
func (e *MissingError) ForgetHint() string {
	id := e.Snapshot.ID
	if e.Snapshot.Pin != nil {
		return fmt.Sprintf("it is pinned, so to forget it, store it again first; then `snap unpin %s` and `snap forget %s`", id, id)
	}
	return fmt.Sprintf("`snap forget %s` forgets it", id)
}

// Text says what happened.
func (e *MissingError) Text() string {
	s := e.Snapshot
	return fmt.Sprintf("it is missing: the snapshot of %q of %s was stored, and no command that keeps the ledger has removed it",
		s.Device.Name, s.Time.Local().Format("2006-01-02 15:04"))
}

func (e *MissingError) Error() string { return e.Text() + "; " + e.Hint() }

// findMissing returns the missing records: they are neither in list nor in damaged nor in
// the store, but the ledger has them, both as it was before the records were read and as it
// is now. A record is not missing but replaced if a newer one of the same snapshot is there:
// a program that does not know the ledger has done that.
func findMissing(ctx context.Context, r *store.Store, before *ledger.Ledger, list []*Snapshot, damaged map[layout.FileID]bool) (missing, replaced []*Snapshot, err error) {
	there := map[layout.FileID]bool{}
	byFirst := map[layout.FileID][]*Snapshot{}
	for _, s := range list {
		there[s.ID] = true
		byFirst[s.FirstID()] = append(byFirst[s.FirstID()], s)
	}
	for _, e := range before.Existing() {
		if there[e.ID] || damaged[e.ID] {
			continue
		}
		s, err := parseSnapshot(e.JSON)
		if err != nil {
			continue // whoever has the key may enter anything
		}
		s.ID = e.ID
		if slices.ContainsFunc(byFirst[s.FirstID()], func(o *Snapshot) bool { return o.isNewer(s) }) {
			replaced = append(replaced, s)
			continue
		}
		if _, err := r.Backend.Stat(ctx, layout.SnapshotsDir+s.ID.String()); !errors.Is(err, backend.ErrNotExist) {
			if err != nil {
				return nil, nil, err
			}
			continue // List may omit what others store or remove meanwhile
		}
		missing = append(missing, s)
	}
	if len(missing) == 0 {
		return nil, replaced, nil
	}
	// A record that was there until it was removed on purpose is not missing.
	after, err := ledger.Read(ctx, r)
	if err == nil && after.Unlisted != nil {
		err = after.Unlisted
	}
	if err != nil {
		return nil, nil, err
	}
	missing = slices.DeleteFunc(missing, func(s *Snapshot) bool { e := after.Get(s.ID); return e == nil || !e.Exists() })
	slices.SortFunc(missing, Compare)
	return missing, replaced, nil
}

// Unexplained returns the snapshots that exist according to another ledger of the same
// repository, such as that of its mirror, while the ledger l does not even know that they
// were removed: whoever removed them has also removed files of the ledger.
func Unexplained(l, other *ledger.Ledger) []*Snapshot {
	var out []*Snapshot
	for _, e := range l.Lacks(other) {
		s, err := parseSnapshot(e.JSON)
		if err != nil || l.Get(e.ID) == nil && l.Dropped(s.StoredAt.Unix()) {
			continue
		}
		s.ID = e.ID
		out = append(out, s)
	}
	return out
}

// Healed says what Heal did or, in a dry run, would do.
type Healed struct {
	Records       []layout.FileID // that were stored again
	store.Cleared                 // damaged files of the ledger
}

// Heal makes records and ledger agree, as far as they can be healed: it stores again the
// records that are missing or damaged and of which the ledger has a copy, enters those that
// the ledger lacks, and removes damaged files of the ledger. A dry run changes nothing.
// Nobody else may write meanwhile. What it returns says what was done before an error.
func Heal(ctx context.Context, r *store.Store, dryRun bool) (healed Healed, err error) {
	l, err := ledger.Read(ctx, r)
	if err == nil && l.Unlisted != nil {
		err = l.Unlisted // a person should say what is to become of it
	}
	if err != nil {
		return healed, err
	}
	// The folder of records may be lost.
	if f, ok := r.Backend.(backend.Folders); ok && !dryRun && len(l.Existing()) > 0 {
		if err := f.MakeFolder(ctx, layout.SnapshotsDir); err != nil {
			return healed, err
		}
	}
	all, err := ReadAll(ctx, r)
	if err != nil {
		return healed, err
	}
	var back []*ledger.Entry
	for _, s := range all.Missing {
		back = append(back, l.Get(s.ID))
	}
	for _, err := range all.Damaged {
		var d *store.DamageError
		if !errors.As(err, &d) {
			continue
		}
		id, err := layout.ParseFileID(d.File)
		if e := l.Get(id); err == nil && e != nil && e.Exists() && !slices.Contains(back, e) &&
			store.Hopeless(ctx, func() error { _, err := load(ctx, r, id); return err }) {
			back = append(back, e)
		}
	}
	for _, e := range back {
		b, err := e.File(r)
		if err != nil {
			return healed, err
		}
		if !dryRun {
			if err := replace.Put(ctx, r.Backend, layout.SnapshotsDir+e.ID.String(), b); err != nil {
				return healed, fmt.Errorf("store a snapshot record again: %w", err)
			}
		}
		healed.Records = append(healed.Records, e.ID)
	}
	// A record that was to be removed and is still there, or is there again, counts. So it
	// must not be lost unnoticed.
	wanted := func(id layout.FileID) bool {
		e := l.Get(id)
		return e == nil || !e.Exists() && slices.ContainsFunc(all.Current, func(s *Snapshot) bool { return s.ID == id })
	}
	if !dryRun {
		if err := enter(ctx, r, wanted, l.Renew); err != nil {
			return healed, err
		}
	}
	return healed, healed.removeDamaged(ctx, r, l, dryRun)
}

// removeDamaged removes damaged files of the ledger, and moves aside what is no file.
func (h *Healed) removeDamaged(ctx context.Context, r *store.Store, l *ledger.Ledger, dryRun bool) error {
	for _, err := range l.Damaged {
		d, ok := errors.AsType[*store.DamageError](err)
		if !ok {
			continue // written by a newer program
		}
		if err := h.Clear(ctx, r.Backend, d.File, dryRun, func() error { return ledger.Check(ctx, r, d.File) }); err != nil {
			return err
		}
	}
	return ctx.Err()
}
