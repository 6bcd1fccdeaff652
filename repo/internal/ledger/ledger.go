// Package ledger keeps the ledger of a repository: which snapshot records were stored, a
// copy of each, and which of them were removed on purpose. So a record that was lost is
// told from one that was forgotten, and can be stored again.
//
// The ledger is the union of the files in ledger/. Each says something about some records,
// and of all that they say about a record, the greatest turn counts. So it does not matter
// in which order processes write these files, nor whether two of them say the same. A record
// is stored before its entry, and its removal is entered before it is removed: as long as
// nothing is lost, every record that the ledger knows exists.
//
// The package knows nothing of what is in a record.
package ledger

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/store"
	"golang.org/x/sync/errgroup"
)

const (
	// manyFiles is the number of files that are merged.
	manyFiles = 16
	// fullFile is the length of the plain form, in bytes, from which a file gets no more
	// entries. Files that are together longer are not merged.
	fullFile = 16 << 20
	// maxRemoved is how many removals a merge keeps. It does not count the removal of a
	// record of which a file of the ledger still has a copy: all of these are kept.
	maxRemoved = 4096
	// maxReads bounds how often the ledger is read again because others change it.
	maxReads = 20
)

// Ledger is the ledger as it was when it was read.
type Ledger struct {
	// Damaged has an error for each file that cannot be used, and Unlisted if it is not nil.
	Damaged []error
	// Unlisted is not nil if nobody knows which files there are: something else has the name
	// of their folder, or this process may not list it. Then nothing is known, and nothing can
	// be entered.
	Unlisted *store.DamageError

	entries map[layout.FileID]*Entry
	files   map[string]*file // by name
}

// file is one file of the ledger that can be used.
type file struct {
	entries []*Entry
	size    int // of its plain form, in bytes
}

// Read reads the ledger. A file that cannot be used is passed over. So is the folder: no one
// needs the ledger to read a snapshot.
func Read(ctx context.Context, r *store.Store) (*Ledger, error) {
	l := &Ledger{files: map[string]*file{}}
	for range maxReads {
		names, err := r.NamesIn(ctx, layout.LedgerDir)
		if err != nil {
			return unlisted(ctx, r, err)
		}
		if err := l.load(ctx, r, names); err != nil {
			return nil, fmt.Errorf("read the ledger: %w", err)
		}
		// Another process may have merged files meanwhile, so that neither the old ones nor
		// the new one was listed.
		after, err := r.NamesIn(ctx, layout.LedgerDir)
		if err != nil {
			return unlisted(ctx, r, err)
		}
		if slices.Equal(names, after) {
			r.LedgerListed.Store(true)
			l.unite()
			return l, nil
		}
	}
	return nil, errors.New("the ledger changes faster than it can be read; try again")
}

// Peek is like Read, but lists the files only once. So it may miss entries that another
// process moves to another file meanwhile. It is for callers to which this does no harm:
// those that look for entries which they then confirm with Read, and those that add entries.
// An entry that is added twice counts once.
func Peek(ctx context.Context, r *store.Store) (*Ledger, error) {
	l := &Ledger{files: map[string]*file{}}
	names, err := r.NamesIn(ctx, layout.LedgerDir)
	if err != nil {
		return unlisted(ctx, r, err)
	}
	if err := l.load(ctx, r, names); err != nil {
		return nil, fmt.Errorf("read the ledger: %w", err)
	}
	r.LedgerListed.Store(true)
	l.unite()
	return l, nil
}

// unlisted returns the ledger whose files could not be listed, or an error if the store is out
// of reach.
func unlisted(ctx context.Context, r *store.Store, err error) (*Ledger, error) {
	err = store.Judge(ctx, r.Backend, layout.LedgerDir, err)
	d, ok := errors.AsType[*store.DamageError](err)
	if !ok {
		return nil, err
	}
	return &Ledger{Damaged: []error{d}, Unlisted: d}, nil
}

// MustList returns an error if nothing can be entered, since the files cannot be listed. It
// does not ask the store if this process has listed them before.
func MustList(ctx context.Context, r *store.Store) error {
	if r.LedgerListed.Load() {
		return nil
	}
	_, err := r.NamesIn(ctx, layout.LedgerDir)
	if err == nil {
		return nil
	}
	l, err := unlisted(ctx, r, err)
	if err != nil {
		return err
	}
	return l.write(ctx, r, nil)
}

// load reads the named files, and forgets all others. It keeps what was read before.
func (l *Ledger) load(ctx context.Context, r *store.Store, names []string) error {
	l.Damaged = nil
	maps.DeleteFunc(l.files, func(name string, _ *file) bool { return !slices.Contains(names, name) })
	unread := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return l.files[name] != nil })
	var mu sync.Mutex // for l
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for _, name := range unread {
		g.Go(func() error {
			f, err := readFile(gctx, r, name)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				l.files[name] = f
			case errors.Is(err, backend.ErrNotExist): // merged since it was listed
			case errors.Is(err, store.ErrDamaged), errors.Is(err, store.ErrUnsupported):
				l.Damaged = append(l.Damaged, err)
			default:
				return err
			}
			return nil
		})
	}
	err := g.Wait()
	slices.SortFunc(l.Damaged, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return err
}

// Check returns an error if a file of the ledger, given its name, cannot be used.
func Check(ctx context.Context, r *store.Store, name string) error {
	_, err := readFile(ctx, r, name)
	return err
}

func readFile(ctx context.Context, r *store.Store, name string) (*file, error) {
	if f, ok := r.Parsed.Load(name); ok {
		return f.(*file), nil
	}
	b, err := r.ReadNamed(ctx, name, maxFile)
	if err != nil {
		return nil, err
	}
	f := &file{}
	f.entries, err = open(b, r.LedgerSealer)
	if errors.Is(err, store.ErrUnsupported) {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if err != nil {
		return nil, &store.DamageError{File: name, Err: err}
	}
	for _, e := range f.entries {
		f.size += e.size()
	}
	r.Parsed.Store(name, f)
	return f, nil
}

// unite finds out what counts of all that the files say.
func (l *Ledger) unite() {
	l.entries = map[layout.FileID]*Entry{}
	for _, f := range l.files {
		for _, e := range f.entries {
			l.count(e)
		}
	}
}

// count makes an entry the one of its record, unless a later one is known. Of equal turns,
// the time decides, so that the order of the files does not matter.
func (l *Ledger) count(e *Entry) {
	old := l.entries[e.ID]
	if old == nil || e.Turn > old.Turn || e.Turn == old.Turn && e.Removed > old.Removed {
		l.entries[e.ID] = e
	}
}

// Get returns the entry of a record, or nil if there is none.
func (l *Ledger) Get(id layout.FileID) *Entry { return l.entries[id] }

// Existing returns the entries of all records that were stored and not removed since, in the
// order of their IDs.
func (l *Ledger) Existing() []*Entry {
	var out []*Entry
	for _, e := range l.entries {
		if e.Exists() {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, func(a, b *Entry) int { return slices.Compare(a.ID[:], b.ID[:]) })
	return out
}

// Lacks returns the entries of records that exist according to another ledger of the same
// repository, such as that of its mirror, and of which this one says nothing, or less. They
// are in the order of their IDs.
func (l *Ledger) Lacks(other *Ledger) []*Entry {
	return slices.DeleteFunc(other.Existing(), func(e *Entry) bool {
		own := l.entries[e.ID]
		return own != nil && (own.Exists() || own.Turn > e.Turn)
	})
}

// Dropped reports whether a merge may have dropped the removal of a record that was stored
// at a time, in seconds since 1970: there are as many removals as a merge keeps, and all of
// them are later.
func (l *Ledger) Dropped(stored int64) bool {
	n := 0
	for _, e := range l.entries {
		if e.Exists() {
			continue
		}
		if n++; int64(e.Removed) < stored { //nolint:gosec // a time
			return false
		}
	}
	return n >= maxRemoved
}

// Add stores the entries of records that the ledger does not know.
func (l *Ledger) Add(ctx context.Context, r *store.Store, records ...*Entry) error {
	return l.write(ctx, r, l.unknown(records))
}

// Renew stores the entries of records that exist, also of those that were removed before and
// are there again. Nobody else may remove records meanwhile.
func (l *Ledger) Renew(ctx context.Context, r *store.Store, records ...*Entry) error {
	add := l.unknown(records)
	for _, e := range records {
		if old := l.entries[e.ID]; old != nil && !old.Exists() {
			again := *e
			again.Turn = old.Turn + 1
			add = append(add, &again)
		}
	}
	return l.write(ctx, r, add)
}

// unknown returns the entries of those records about which the ledger says nothing yet.
func (l *Ledger) unknown(records []*Entry) (out []*Entry) {
	for _, e := range records {
		if l.entries[e.ID] == nil {
			out = append(out, e)
		}
	}
	return out
}

// Remove stores that records are removed on purpose, and adds others in the same step. The
// caller then removes the records.
func (l *Ledger) Remove(ctx context.Context, r *store.Store, removed []layout.FileID, entered ...*Entry) error {
	var add []*Entry
	now := uint64(max(0, r.Options.Now().Unix()))
	for _, id := range removed {
		e := &Entry{ID: id, Turn: 1, Removed: now}
		if old := l.entries[id]; old != nil {
			if !old.Exists() {
				continue
			}
			e.Turn = old.Turn + 1
		}
		add = append(add, e)
	}
	return l.write(ctx, r, append(add, l.unknown(entered)...))
}

// write stores entries. If there are many files, it merges them into the new one.
func (l *Ledger) write(ctx context.Context, r *store.Store, add []*Entry) error {
	if l.Unlisted != nil {
		return fmt.Errorf("nothing can be entered in the ledger: %w", l.Unlisted)
	}
	if len(add) == 0 {
		return nil
	}
	for _, e := range add {
		l.count(e)
	}
	merged := l.mergeable()
	// Where files cannot be removed, old ones would stay beside the one that has copies of all.
	if len(merged) < manyFiles || backend.IsAppendOnly(r.Backend) {
		return l.put(ctx, r, add)
	}
	err := l.put(ctx, r, l.union(merged, add))
	if backend.IsNoSpace(err) {
		return l.put(ctx, r, add)
	}
	if err != nil {
		return err
	}
	for _, name := range merged {
		err := r.Backend.Delete(ctx, name)
		if errors.Is(err, backend.ErrAppendOnly) {
			return nil // the store has not said so before; the others stay, too
		}
		if err != nil && !errors.Is(err, backend.ErrNotExist) {
			return fmt.Errorf("remove a merged file of the ledger: %w", err)
		}
		delete(l.files, name)
		r.Parsed.Delete(name)
	}
	return nil
}

// mergeable returns the names of files that fit into one, the smallest first.
func (l *Ledger) mergeable() []string {
	names := slices.SortedFunc(maps.Keys(l.files), func(a, b string) int {
		if d := l.files[a].size - l.files[b].size; d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	total := 0
	for i, name := range names {
		if total += l.files[name].size; total > fullFile {
			return names[:i]
		}
	}
	return names
}

// union returns what counts about all records that are in the named files or among the
// entries to add. Of removals, it leaves out the oldest if there are too many. But as long as
// a file has the record, its removal stays: otherwise the record would seem lost.
func (l *Ledger) union(names []string, add []*Entry) []*Entry {
	var out, removed []*Entry
	has := map[layout.FileID]bool{} // records of which a file has a copy
	for _, f := range l.files {
		for _, e := range f.entries {
			if e.Exists() {
				has[e.ID] = true
			}
		}
	}
	seen := map[layout.FileID]bool{}
	take := func(id layout.FileID) {
		if seen[id] {
			return
		}
		seen[id] = true
		if e := l.entries[id]; e.Exists() || has[id] {
			out = append(out, e)
		} else {
			removed = append(removed, e)
		}
	}
	for _, e := range add {
		take(e.ID)
	}
	for _, name := range names {
		for _, e := range l.files[name].entries {
			take(e.ID)
		}
	}
	slices.SortFunc(removed, func(a, b *Entry) int {
		if a.Removed != b.Removed && a.Removed < b.Removed {
			return -1
		} else if a.Removed != b.Removed {
			return 1
		}
		return slices.Compare(a.ID[:], b.ID[:])
	})
	return append(out, removed[max(0, len(removed)-maxRemoved):]...)
}

// put stores entries in as many files as they need.
func (l *Ledger) put(ctx context.Context, r *store.Store, entries []*Entry) error {
	for len(entries) > 0 {
		n, size := 0, 0
		for n < len(entries) && size < fullFile {
			size += entries[n].size()
			n++
		}
		b, err := seal(slices.Clone(entries[:n]), r.LedgerSealer)
		if err != nil {
			return err
		}
		if _, err := r.PutNamed(ctx, layout.LedgerDir, b); err != nil {
			return fmt.Errorf("store a file of the ledger: %w", err)
		}
		entries = entries[n:]
	}
	return nil
}
