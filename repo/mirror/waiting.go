package mirror

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/layout"
)

// noteUnjudged notes what a run without the key is about to copy, so that the next run
// with the key judges these files. If the target has nothing yet, it also notes that no
// run had the key; it notes the same if a note was damaged, before the damaged note is
// removed.
func (r *round) noteUnjudged(ctx context.Context) (err error) {
	first := r.opts.Judge == nil && len(r.dst[records])+len(r.dst[indexes]) == 0
	if r.notes.unjudged == "" && (first || r.notes.damaged) {
		if r.notes.unjudged, err = putNote(ctx, r.target, []byte(unjudgedMagic)); err != nil {
			return err
		}
	}
	if r.opts.Judge != nil {
		return nil
	}
	var names []string
	for _, c := range []class{keys, copies, indexes, records} {
		names = append(names, r.todo[c]...)
	}
	return r.noteWaiting(ctx, names)
}

// noteWaiting adds files to the note of those that wait for a run with the key.
func (r *round) noteWaiting(ctx context.Context, names []string) error {
	added := false
	for _, name := range names {
		if hash, ok := hashOf(name); ok && !r.notes.waiting[hash] {
			r.notes.waiting[hash], added = true, true
		}
	}
	if !added && len(r.notes.waits) < 2 {
		return nil
	}
	name, err := putNote(ctx, r.target, listNote(waitingMagic, r.notes.waiting))
	if err != nil {
		return err
	}
	return r.dropWaits(ctx, name)
}

// holdBack decides, without the key, whether new snapshots are not copied because other
// files are lacking. It is unknown which snapshots need these files. A damaged index file
// holds back all new snapshots. A damaged pack holds them back for one run, which notes the
// pack: perhaps somebody repairs it before the next run. From then on the pack holds nothing
// back: it may be junk that nothing needs, and must not stop the mirror for ever.
func (r *round) holdBack(ctx context.Context) error {
	var fresh []string
	state := ""
	for name := range r.lacking {
		hash, _ := hashOf(name)
		switch {
		case strings.HasPrefix(name, layout.IndexDir):
			state = "good packs were copied, new snapshots were not, and nothing was removed"
		case strings.HasPrefix(name, layout.PacksDir) && !r.notes.waiting[hash]:
			fresh = append(fresh, name)
		}
	}
	if err := r.noteWaiting(ctx, fresh); err != nil {
		return fmt.Errorf("target: %w", err)
	}
	if state == "" && len(fresh) > 0 {
		state = "good packs were copied, new snapshots were not (the next run copies them, with or without this pack), and nothing was removed"
	}
	if state == "" {
		return nil
	}
	return r.outcome(state)
}

// dropWaits removes the notes of waiting files, except one.
func (r *round) dropWaits(ctx context.Context, except string) error {
	for _, name := range r.notes.waits {
		if name == except {
			continue
		}
		if err := r.target.Delete(ctx, name); err != nil && !errors.Is(err, backend.ErrNotExist) {
			return err
		}
	}
	r.notes.waits = nil
	if except != "" {
		r.notes.waits = []string{except}
	}
	return nil
}

// judgeWaiting judges the files that runs without the key have copied. If none is damaged,
// the target was judged completely.
func (r *round) judgeWaiting(ctx context.Context) error {
	if r.opts.Judge == nil {
		r.report.Unjudged = r.notes.unjudged != ""
		return nil
	}
	if r.notes.unjudged == "" && len(r.notes.waits) == 0 {
		return nil
	}
	now, err := list(ctx, r.target)
	if err != nil {
		return fmt.Errorf("target: %w", err)
	}
	names := slices.DeleteFunc(now.judgeable(), func(name string) bool {
		hash, ok := hashOf(name)
		return r.notes.unjudged == "" && (!ok || !r.notes.waiting[hash])
	})
	v, err := r.opts.Judge.Files(ctx, viewOf(part{r.target, now[:]}), names)
	if err != nil {
		return fmt.Errorf("target: %w", err)
	}
	// What has left the source leaves the target, too.
	maps.DeleteFunc(v.Closed, func(name string, _ error) bool { return !r.src.has(name) })
	maps.DeleteFunc(v.Broken, func(name string, _ error) bool { return !r.src.has(name) })
	for name, why := range v.Closed {
		r.damaged(name, fmt.Errorf("on the target, copied without the password: the repository's key does not open it: %w", why))
	}
	for name, why := range v.Broken {
		r.damaged(name, fmt.Errorf("on the target, copied without the password: %w", why))
	}
	if len(r.report.Damaged) > 0 {
		r.reportKept()
		return damagedFiles(r.report.Damaged, "%s; %s", "all good files were copied, and nothing was removed")
	}
	if r.notes.unjudged != "" {
		r.notes.waits = append(r.notes.waits, r.notes.unjudged)
	}
	if err := r.dropWaits(ctx, ""); err != nil {
		return fmt.Errorf("target: %w", err)
	}
	return nil
}
