package mirror

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
)

// Judge opens files with the key of the source, which this package does not have. The
// stores that it is given may be compositions of files of the source and the target. Only
// Locks and Lock store anything, and these get the target itself.
type Judge interface {
	// Files judges files of a store. Snapshots are judged together with everything
	// that they need in this store, others alone.
	Files(ctx context.Context, be backend.Backend, names []string) (Verdict, error)
	// Leaving says what a mirror would lose with snapshots that are on the target and
	// not in the source. known are the snapshots that the target had when it was judged
	// last. The ledgers of both are evidence.
	Leaving(ctx context.Context, source, target backend.Backend, snapshots, known []string) (Departure, error)
	// Missing names the records of a store that are gone although nobody has removed them,
	// and says why. The ledger of the store knows that.
	Missing(ctx context.Context, be backend.Backend) (map[string]error, error)
	// Slots describes the key slots of a store.
	Slots(ctx context.Context, be backend.Backend) (map[string]Slot, error)
	// Locks says who uses a store, and which locks were left behind. It may store a file
	// for a moment, to learn what time it is there.
	Locks(ctx context.Context, be backend.Backend) ([]Lock, error)
	// Lock excludes every other process from a store until release is called. If one
	// uses the store, Lock returns its lock instead, and release is nil.
	Lock(ctx context.Context, be backend.Backend) (release func() error, other *Lock, err error)
	// Passwords says to which devices the named kept backup passwords of a store belong.
	Passwords(ctx context.Context, be backend.Backend, names []string) (map[string]string, error)
}

// Verdict has the files that are not as they should be, and why.
type Verdict struct {
	Closed map[string]error // do not open with the key: damaged, or counterfeits
	Broken map[string]error // snapshots that open, but need something that is missing
	// LostIndex says that an index file is missing: snapshots need packs that no index
	// file lists. It is nil if none is missing.
	LostIndex error
	// LostPacks are packs that an index file lists and that are missing or have another
	// size. It is only filled if snapshots were judged.
	LostPacks map[string]error
}

// Departure describes snapshots that only the target has.
type Departure struct {
	Better    map[string]string // the target's record is newer, or has lost fewer files, or the source has lost the record
	Worse     map[string]error  // records of the source that would hide those of Better, and why not to copy them
	Lost      map[string]error  // records that the target's ledger has and whose removal the source's ledger does not know; the error is for those that the source lacks
	Newest    map[string]bool   // newer than all snapshots of its device in the source
	Forgotten map[string]Gone   // snapshots of which the source has no record, including those in Newest
	Arrived   map[string]int    // by UDID, how many snapshots of the source are not known
}

// Gone describes a snapshot that the source no longer has.
type Gone struct{ ID, UDID, Device, Time string }

func (g Gone) String() string { return fmt.Sprintf("%s of %s, %s", g.ID, g.Device, g.Time) }

// Slot describes a key slot.
type Slot struct {
	Text     string // what people call it
	Kind     string
	Damaged  bool // so nobody knows whether it opens anything
	Recovery bool
}

// Lock is a lock of a store.
type Lock struct {
	Files  []string
	Holder string // what people call its process
	Gone   bool   // its process has ended, or counts as ended
	// Unsure says that nobody knows whether the process runs. Then ID names the lock.
	Unsure bool
	ID     string
}

// view is a store that consists of files of other stores. It can only be read.
type view struct {
	files map[string]viewed

	mu   sync.Mutex
	gone error // of a store that no longer answers
}

type viewed struct {
	be   backend.Backend
	size int64
}

// viewOf returns a view of the files that any of the listings has. If several have a
// file, the first one counts.
func viewOf(parts ...part) *view {
	v := &view{files: map[string]viewed{}}
	for _, p := range parts {
		for _, files := range p.files {
			for name, size := range files {
				if _, known := v.files[name]; !known {
					v.files[name] = viewed{p.be, size}
				}
			}
		}
	}
	return v
}

// part has some files of a store.
type part struct {
	be    backend.Backend
	files []map[string]int64
}

// state returns an error if the view cannot be read any more.
func (v *view) state(ctx context.Context) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return errors.Join(ctx.Err(), v.gone)
}

func (v *view) get(ctx context.Context, name string) (viewed, error) {
	if err := v.state(ctx); err != nil {
		return viewed{}, err
	}
	f, ok := v.files[name]
	if !ok {
		return f, fmt.Errorf("%s: %w", name, backend.ErrNotExist)
	}
	return f, nil
}

func (v *view) ReadAt(ctx context.Context, name string, p []byte, off int64) (int, error) {
	f, err := v.get(ctx, name)
	if err != nil {
		return 0, err
	}
	n, err := f.be.ReadAt(ctx, name, p, off)
	if err != nil && ctx.Err() == nil && !errors.Is(err, backend.ErrNotExist) && !backend.Unreadable(ctx, f.be, err) {
		// The rest of the view would answer, so nobody could tell that a store is gone.
		v.mu.Lock()
		v.gone = err
		v.mu.Unlock()
	}
	return n, err
}

func (v *view) Stat(ctx context.Context, name string) (backend.Info, error) {
	f, err := v.get(ctx, name)
	return backend.Info{Name: name, Size: f.size}, err
}

func (v *view) List(ctx context.Context, prefix string, fn func(backend.Info) error) error {
	for _, name := range slices.Sorted(maps.Keys(v.files)) {
		if err := v.state(ctx); err != nil {
			return err
		}
		if !strings.HasPrefix(name, prefix) {
			continue
		}
		if err := fn(backend.Info{Name: name, Size: v.files[name].size}); err != nil {
			return err
		}
	}
	return v.state(ctx)
}

func (*view) Put(context.Context, string, []byte) error { return errReadOnly }
func (*view) Delete(context.Context, string) error      { return errReadOnly }

var errReadOnly = errors.New("a judge only reads")

// prove judges the new files of the source before any is copied. It opens each of them,
// and finds out which of the new snapshots the target could list: those for which the
// target will have everything that they need. It returns errChanged if the source changes
// meanwhile.
func (r *round) prove(ctx context.Context) error {
	var names, snapshots []string // new files, and the snapshots among them
	for _, c := range []class{keys, copies, indexes, records} {
		for name := range r.src[c] {
			if r.isNew(c, name) {
				names = append(names, name)
			}
		}
	}
	for _, name := range names {
		if strings.HasPrefix(name, layout.SnapshotsDir) {
			snapshots = append(snapshots, name)
		}
	}
	// If packs or index files have left, the source may have lost them. Then its other
	// snapshots may need them, too.
	if len(r.newlyLeft(packs))+len(r.newlyLeft(indexes)) > 0 {
		names = append(names, slices.Collect(maps.Keys(inFolder(r.src[records], layout.SnapshotsDir)))...)
	}
	if len(names) == 0 {
		return nil
	}
	v, err := r.opts.Judge.Files(ctx, viewOf(part{r.source, r.src[:]}), names)
	if err != nil {
		return fmt.Errorf("source: %w", err)
	}
	// A prune replaces the index files that list a pack before it removes the pack.
	left := r.newlyLeft(packs)
	maps.DeleteFunc(v.LostPacks, func(name string, _ error) bool { _, ok := left[name]; return !ok })
	if len(v.Closed)+len(v.Broken)+len(v.LostPacks) == 0 && v.LostIndex == nil {
		return nil
	}
	if err := r.unchanged(ctx); err != nil {
		return err
	}
	if v.LostIndex != nil {
		r.damaged(layout.IndexDir, v.LostIndex)
	}
	for name, why := range v.Closed {
		r.exclude(name, fmt.Errorf("the repository's key does not open it: %w%s", why, remedy(name)))
	}
	if err := r.proveSnapshots(ctx, snapshots); err != nil {
		return err
	}
	for name, why := range v.LostPacks {
		r.damaged(name, fmt.Errorf("%w, but an index file lists it, so no prune has removed it; `snap repair --from TARGET` fetches it if a snapshot needs it, and corrects the index", why))
	}
	for name, why := range v.Broken {
		r.damaged(name, fmt.Errorf("%w; the target keeps what it has of it", why)) // unless it was excluded
	}
	return nil
}

// proveSnapshots excludes those of the source's new snapshots that would not be whole on
// the target.
func (r *round) proveSnapshots(ctx context.Context, snapshots []string) error {
	snapshots = slices.DeleteFunc(slices.Clone(snapshots), func(name string) bool { return r.excluded[name] })
	if len(snapshots) == 0 {
		return nil
	}
	will := r.future()
	for _, name := range snapshots {
		will.files[name] = viewed{r.source, r.src[records][name]}
	}
	v, err := r.opts.Judge.Files(ctx, will, snapshots)
	if err != nil {
		return fmt.Errorf("source and target: %w", err)
	}
	for name, why := range v.Broken {
		r.exclude(name, fmt.Errorf("not copied: %w", why))
	}
	return nil
}

// future returns the packs and index files that the target will have after copying,
// wherever they are now.
func (r *round) future() *view {
	newer := part{r.source, []map[string]int64{{}}}
	for _, c := range []class{packs, indexes} {
		for name, size := range r.src[c] {
			if r.isNew(c, name) && !r.excluded[name] && !r.lacking[name] {
				newer.files[0][name] = size
			}
		}
	}
	v := viewOf(newer, part{r.target, []map[string]int64{r.dst[packs], r.dst[indexes]}})
	for name := range r.lacking {
		delete(v.files, name)
	}
	return v
}

// exclude reports a file of the source that must not be copied.
func (r *round) exclude(name string, why error) {
	r.excluded[name] = true
	r.damaged(name, why)
}

// damaged reports a damaged file of the source, once.
func (m *mirrorer) damaged(name string, why error) {
	if !slices.ContainsFunc(m.report.Damaged, func(d Damage) bool { return d.File == name }) {
		m.report.Damaged = append(m.report.Damaged, damage(name, why))
	}
}

// damageError says which files are damaged. It matches ErrDamaged and the causes.
type damageError struct {
	list []Damage
	text string // where they are, and in which state things are
}

func damagedFiles(list []Damage, format, state string) error {
	return &damageError{list, fmt.Sprintf(format, damageText(list), state)}
}

func (e *damageError) Error() string { return fmt.Sprintf("%v %s", ErrDamaged, e.text) }

func (e *damageError) Unwrap() []error {
	all := []error{ErrDamaged}
	for _, d := range e.list {
		all = append(all, d.err)
	}
	return all
}
