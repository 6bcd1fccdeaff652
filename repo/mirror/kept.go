package mirror

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/snap-backup/snap/internal/words"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/layout"
)

// What the source no longer has leaves the target later. Until then it stays in its
// place, so that the target can still give back everything that it could give back
// before. Time is measured in runs, since the clocks of hosts prove nothing: for each
// file, a note has the number of completed runs that did not find it in the source.
const (
	// keepRuns is how many later runs a file stays if none of them has the key.
	keepRuns = 14
	// maxCount is the highest count of a note.
	maxCount = 255
	// maxSlots is how many key slots a target may have without the key having judged
	// them. Programs bound the work of trying a password on slots, so counterfeits must
	// not crowd out the good ones.
	maxSlots = 32
	// staleAfter is the age at which a lock that cannot be read counts as left behind. A
	// process refreshes its lock every five minutes; package lock waits for half an hour.
	staleAfter = 30 * time.Minute
)

// left returns the files of some classes that only the target has, and that leave it
// sooner or later.
func (r *round) left(of ...class) map[string]int64 {
	out := map[string]int64{}
	for _, c := range of {
		maps.Copy(out, r.extra(&r.src, &r.dst, &r.notes, c))
	}
	return out
}

// counted reports whether an earlier run has already found that a file is gone from the
// source. A run with the key asks only for earlier runs with the key, since the others
// did not report the file by its name.
func (r *round) counted(name string) bool {
	hash, _ := hashOf(name)
	if r.opts.Judge != nil {
		return r.notes.named[hash]
	}
	return r.notes.kept[hash] > 0
}

// sinceLast returns the files of a class that have left the source since the last
// complete run.
func (r *round) sinceLast(c class) map[string]int64 {
	out := r.left(c)
	maps.DeleteFunc(out, func(name string, _ int64) bool { return r.counted(name) })
	return out
}

// newlyLeft is like sinceLast, but leaves out what an interrupted run has copied and no
// record of the target needs yet.
func (r *round) newlyLeft(c class) map[string]int64 {
	out := r.sinceLast(c)
	maps.DeleteFunc(out, func(name string, _ int64) bool { hash, _ := hashOf(name); return r.notes.removable[hash] })
	return out
}

// present returns the files of a class that the target has and that have not left the
// source at an earlier run.
func (r *round) present(c class) map[string]int64 {
	out := maps.Clone(r.dst[c])
	maps.DeleteFunc(out, func(name string, _ int64) bool { return r.counted(name) })
	return out
}

// goneFromSource returns all files that the source no longer has. A run with the key removes
// them from the target if an earlier run with the key has already reported that they are
// gone.
func (r *round) goneFromSource() map[string]int64 {
	out := r.left(packs, indexes, records)
	maps.Copy(out, r.oldSlots())
	return out
}

// oldSlots returns the key slots that only the target has.
func (r *round) oldSlots() map[string]int64 {
	return inFolder(onlyIn(r.dst[keys], r.src[keys]), layout.KeysDir)
}

// due returns the files that may leave the target in this run, if the judge agrees.
func (r *round) due() map[string]int64 {
	out := r.goneFromSource()
	maps.DeleteFunc(out, func(name string, _ int64) bool {
		hash, _ := hashOf(name)
		switch {
		case r.opts.Judge == nil:
			return r.notes.kept[hash] < keepRuns // key slots are never counted
		case len(r.better) > 0 && (strings.HasPrefix(name, layout.PacksDir) || strings.HasPrefix(name, layout.IndexDir)):
			return true // perhaps one of r.better needs it
		case r.keepLedger && isLedger(name):
			return true
		}
		return r.better[name] || !r.counted(name) && !r.opts.AcceptRemovals
	})
	return out
}

// settle ends a complete run. It counts the run for the files that have left the source,
// and removes those that are due, in the opposite order of copying.
func (r *round) settle(ctx context.Context) (ended error) {
	due := r.due()
	if err := r.countRun(ctx); err != nil {
		return fmt.Errorf("target: %w", err)
	}
	if len(due) > 0 {
		why, err := r.inUse(ctx)
		if err != nil {
			return fmt.Errorf("target: %w", err)
		}
		if why == "" && r.opts.Judge != nil {
			if err := r.proveRemoval(ctx, due); err != nil {
				return err
			}
			var release func() error
			if release, why, err = r.lockTarget(ctx); err != nil {
				return fmt.Errorf("target: %w", err)
			}
			defer func() {
				if failed := release(); ended == nil && failed != nil {
					ended = fmt.Errorf("target: all is done, but the lock of this run stays for half an hour: %w", failed)
				}
			}()
		}
		if why != "" {
			r.report.Kept = fmt.Sprintf("%s that could be removed stay on the target, since %s", words.Plural(len(due), "file"), why)
			due = nil
		}
	}
	for _, c := range []class{records, indexes, packs, keys} {
		for _, name := range slices.Sorted(maps.Keys(r.dst[c])) {
			if _, ok := due[name]; !ok {
				continue
			}
			if err := r.target.Delete(ctx, name); err != nil && !errors.Is(err, backend.ErrNotExist) {
				return fmt.Errorf("target: %w", err)
			}
			r.report.RemovedFiles++
			r.removed(name)
			r.report.RemovedBytes += r.dst[c][name]
			delete(r.dst[c], name)
		}
	}
	if err := r.putKept(ctx); err != nil {
		return fmt.Errorf("target: %w", err)
	}
	r.reportKept()
	return r.removeNotes(ctx)
}

// inUse says which process may be restoring from the target, or writing to it, and how to
// go on; "" if there is none. Like a prune, it removes locks that were left behind, so that
// a process that is taken for dead and still runs notices that files are gone.
func (r *round) inUse(ctx context.Context) (string, error) {
	locks, err := r.locks(ctx)
	if err != nil {
		return "", err
	}
	for _, l := range locks {
		switch {
		case !l.Gone && r.opts.Judge == nil:
			return "there is a lock on it, and only a run with the password can tell whether its process still runs. If no snap uses the target, \"snap -r TARGET unlock\" lists its locks and removes those that were left behind", nil
		case !l.Gone:
			return l.inUse(), nil
		}
	}
	for _, l := range locks {
		for _, name := range l.Files {
			if err := r.target.Delete(ctx, name); err != nil && !errors.Is(err, backend.ErrNotExist) {
				return "", err
			}
		}
	}
	return "", nil
}

// lockTarget excludes every other process from the target, if there is a key. A process
// that begins to read while files are being removed would otherwise find that packs are
// missing. It returns why the target cannot be locked, if another process uses it. Without
// room for a lock, files are removed all the same, since that makes room.
func (r *round) lockTarget(ctx context.Context) (release func() error, why string, err error) {
	unlocked := func() error { return nil }
	release, other, err := r.opts.Judge.Lock(ctx, r.target)
	switch {
	case backend.IsNoSpace(err):
		return unlocked, "", nil
	case err != nil:
		return unlocked, "", err
	case other != nil:
		return unlocked, other.inUse(), nil
	}
	return release, "", nil
}

// inUse says that another process may use the target, and how to go on.
func (l *Lock) inUse() string {
	if l.Unsure {
		return fmt.Sprintf("another process may use it: %s. If no snap uses the target, \"snap -r TARGET unlock %s\" removes this lock", l.Holder, l.ID)
	}
	return fmt.Sprintf("another process uses it: %s. Once it has ended, the next run removes them; \"snap -r TARGET unlock\" lists all locks", l.Holder)
}

// locks lists the locks of the target. Without the key they cannot be read. In that case,
// a lock counts as left behind if it is much older than the note that this run has just
// stored, both by the clock of the target.
func (r *round) locks(ctx context.Context) ([]Lock, error) {
	if r.opts.Judge != nil {
		return r.opts.Judge.Locks(ctx, r.target)
	}
	var now time.Time
	for _, name := range r.notes.keptFiles {
		info, err := r.target.Stat(ctx, name)
		if err != nil && !errors.Is(err, backend.ErrNotExist) {
			return nil, err
		}
		if info.Modified.After(now) {
			now = info.Modified
		}
	}
	var locks []Lock
	err := r.target.List(ctx, layout.LocksDir, func(f backend.Info) error {
		if layout.IsFile(f.Name) {
			gone := !now.IsZero() && !f.Modified.IsZero() && now.Sub(f.Modified) > staleAfter
			locks = append(locks, Lock{Files: []string{f.Name}, Gone: gone})
		}
		return nil
	})
	return locks, err
}

// proveRemoval judges the target as it will be without the files that are due. It returns
// ErrDamaged if a file that is also in the source does not open, or if a snapshot would
// not be whole.
func (r *round) proveRemoval(ctx context.Context, due map[string]int64) error {
	now, err := list(ctx, r.target)
	if err != nil {
		return fmt.Errorf("target: %w", err)
	}
	will := viewOf(part{r.target, now[:]})
	for name := range due {
		delete(will.files, name)
	}
	var names []string
	for name := range will.files {
		if !strings.HasPrefix(name, layout.PacksDir) && (r.src.has(name) || strings.HasPrefix(name, layout.SnapshotsDir)) {
			names = append(names, name)
		}
	}
	v, err := r.opts.Judge.Files(ctx, will, names)
	if err != nil {
		return fmt.Errorf("target: %w", err)
	}
	maps.DeleteFunc(v.Closed, func(name string, _ error) bool { return !r.src.has(name) })
	if len(v.Closed)+len(v.Broken) == 0 {
		return nil
	}
	for name, why := range v.Closed {
		r.damaged(name, fmt.Errorf("the repository's key does not open it, neither in the source nor on the target: %w", why))
	}
	for name, why := range v.Broken {
		r.damaged(name, fmt.Errorf("on the target %w", why))
	}
	r.reportKept()
	return damagedFiles(r.report.Damaged, "on the target: %s; %s", "all good files were copied, and nothing was removed")
}

// countRun counts this run for the files that have left the source, and stores the note
// that says so. From then on, no run takes their absence for a loss.
func (r *round) countRun(ctx context.Context) error {
	count, named := map[id]int{}, map[id]bool{}
	for name := range r.left(packs, indexes, records) {
		hash, _ := hashOf(name)
		count[hash] = min(r.notes.kept[hash]+1, maxCount)
	}
	for name := range r.goneFromSource() {
		if hash, _ := hashOf(name); r.notes.named[hash] || r.opts.Judge != nil && !r.better[name] {
			named[hash] = true
		}
	}
	r.notes.kept, r.notes.named = count, named
	return r.putKept(ctx)
}

// putKept stores the notes of the files that have left the source and are still on the
// target, and removes earlier ones.
func (r *round) putKept(ctx context.Context) error {
	here := map[id]bool{}
	for name := range r.left(packs, indexes, records) {
		hash, _ := hashOf(name)
		here[hash] = true
	}
	maps.DeleteFunc(r.notes.kept, func(hash id, _ int) bool { return !here[hash] })
	for name := range r.oldSlots() {
		hash, _ := hashOf(name)
		here[hash] = true
	}
	maps.DeleteFunc(r.notes.named, func(hash id, _ bool) bool { return !here[hash] })
	var names []string
	put := func(n int, note []byte) error {
		if n == 0 {
			return nil
		}
		name, err := putNote(ctx, r.target, note)
		names = append(names, name)
		return err
	}
	if err := errors.Join(put(len(r.notes.kept), keptNote(r.notes.kept)), put(len(r.notes.named), listNote(namedMagic, r.notes.named))); err != nil {
		return err
	}
	for _, old := range r.notes.keptFiles {
		if slices.Contains(names, old) {
			continue
		}
		if err := r.target.Delete(ctx, old); err != nil && !errors.Is(err, backend.ErrNotExist) {
			return err
		}
	}
	r.notes.keptFiles = names
	return nil
}

// reportKept reports what the target has beyond the source.
func (r *round) reportKept() {
	kept := r.left(packs, indexes, records)
	r.report.KeptFiles, r.report.KeptBytes = int64(len(kept)), sum(kept)
	r.report.OldKeys = int64(len(r.oldSlots()))
	for name := range kept {
		hash, _ := hashOf(name)
		runs := max(1, keepRuns+1-r.notes.kept[hash])
		if r.report.KeptRuns == 0 || runs < r.report.KeptRuns {
			r.report.KeptRuns = runs
		}
	}
}
