package mirror

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/layout"
)

// round holds the state of one round. A round copies the files of one listing of the
// source.
type round struct {
	*mirrorer
	src, dst listing // at the beginning
	notes    notes
	todo     [classes][]string // files to copy
}

// round runs one round. done is false if another round is needed because the source has
// changed. If last is set, changed records need no other round.
func (m *mirrorer) round(ctx context.Context, last bool) (done bool, err error) {
	r, err := m.begin(ctx)
	if err != nil {
		return false, err
	}
	if err := m.guard(ctx, &r.src, &r.dst, r.notes); err != nil {
		return false, err
	}
	need := r.plan()
	if m.opts.DryRun {
		r.forecast(need)
		return true, nil
	}
	if err := m.checkSpace(ctx, need); err != nil {
		return false, err
	}
	err = r.copy(ctx)
	if errors.Is(err, errChanged) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if len(m.report.Damaged) > 0 {
		if err := m.removeNotes(ctx, r.notes, true); err != nil {
			return false, err
		}
		return false, fmt.Errorf("%w in the source: %s; all other files were copied, and nothing was removed", ErrDamaged, damageText(m.report.Damaged))
	}
	now, err := listClass(ctx, m.source, records)
	if err != nil {
		return false, fmt.Errorf("source: %w", err)
	}
	if !maps.Equal(now, r.src[records]) {
		// Remove nothing now. A new record may replace a record that removeAll
		// would remove. If the source has removed a record since the listing,
		// this round has copied that record, and removeAll might remove files
		// that it needs.
		if last {
			m.report.Kept = "files that the repository has removed stay on the target, since the repository changes all the time"
		}
		return last, nil
	}
	return true, r.removeAll(ctx)
}

// begin lists both stores and reads the target's notes.
func (m *mirrorer) begin(ctx context.Context) (r *round, err error) {
	r = &round{mirrorer: m}
	if r.src, err = list(ctx, m.source); err != nil {
		return nil, fmt.Errorf("source: %w", err)
	}
	if r.dst, err = list(ctx, m.target); err != nil {
		return nil, fmt.Errorf("target: %w", err)
	}
	if r.notes, err = readNotes(ctx, m.target); err != nil {
		return nil, fmt.Errorf("target: %w", err)
	}
	return r, nil
}

// plan chooses the files to copy and returns their total length.
func (r *round) plan() (need int64) {
	r.report.Files, r.report.Bytes = r.src.total()
	r.report.Snapshots = int64(len(under(r.src[records], layout.SnapshotsDir)))
	r.progress.TotalFiles, r.progress.TotalBytes = r.progress.Files, r.progress.Bytes
	for c := range classes {
		for _, name := range slices.Sorted(maps.Keys(r.src[c])) {
			if size, exists := r.dst[c][name]; !exists || size != r.src[c][name] {
				r.todo[c] = append(r.todo[c], name)
				need += r.src[c][name]
			}
		}
		r.progress.TotalFiles += int64(len(r.todo[c]))
	}
	r.progress.TotalBytes += need
	return need
}

// forecast reports what the round would do.
func (r *round) forecast(need int64) {
	r.report.CopiedFiles, r.report.CopiedBytes = r.progress.TotalFiles, need
	for c := range classes {
		extra := without(r.dst[c], r.src[c])
		r.report.RemovedFiles += int64(len(extra))
		r.report.RemovedBytes += sum(extra)
	}
}

// checkSpace fails early if the target has too little space for all new files. No file
// is removed before all of them are copied.
func (m *mirrorer) checkSpace(ctx context.Context, need int64) error {
	f, ok := m.target.(backend.Freer)
	if !ok || need == 0 {
		return nil
	}
	free, err := f.Free(ctx)
	if err != nil || free >= need {
		return ctx.Err() // unknown free space is no obstacle
	}
	return fmt.Errorf("the copy needs %d more bytes and the target has %d free: %w", need, free, backend.ErrNoSpace)
}

// copy copies all files of the round, records last. It returns errChanged if files of
// the source that are not records change during the copy.
func (r *round) copy(ctx context.Context) error {
	// The source may prune the new packs and index files again before a record
	// that needs them is copied. So they are noted as removable. Files that the
	// target already has are not noted, since its records may need them.
	added := slices.DeleteFunc(slices.Concat(r.todo[packs], r.todo[indexes]), r.dst.has)
	if err := r.markRemovable(ctx, slices.Values(added)); err != nil {
		return fmt.Errorf("target: %w", err)
	}
	for c := keys; c < records; c++ {
		if c == indexes {
			if err := r.checkIndexes(ctx); err != nil {
				return err
			}
		}
		if err := r.copyAll(ctx, r.todo[c], r.src[c], r.dst[c]); err != nil {
			return err
		}
	}
	// If no file was replaced, the listing had all files that its records need, and all
	// of them are now on the target.
	for c := keys; c < records; c++ {
		now, err := listClass(ctx, r.source, c)
		if err != nil {
			return fmt.Errorf("source: %w", err)
		}
		if !maps.Equal(now, r.src[c]) {
			return errChanged
		}
	}
	if err := r.noteSnapshots(ctx); err != nil {
		return fmt.Errorf("target: %w", err)
	}
	if err := r.unmarkRemovable(ctx); err != nil {
		return fmt.Errorf("target: %w", err)
	}
	return r.copyAll(ctx, r.todo[records], r.src[records], r.dst[records])
}

// checkIndexes reads the index files to copy. Either all or none are copied, since
// some of them may list chunks that cannot be decoded without the others.
func (r *round) checkIndexes(ctx context.Context) error {
	if err := r.readAll(ctx, r.todo[indexes], r.src[indexes], r.dst[indexes]); err != nil {
		return err
	}
	if r.lacking > 0 {
		// It is unknown which snapshots need these files.
		return fmt.Errorf("%w in the source: %s; good packs were copied, new snapshots were not, and nothing was removed", ErrDamaged, damageText(r.report.Damaged))
	}
	return nil
}

// removeAll removes from the target all files that the source does not have, in the
// opposite order of copying.
func (r *round) removeAll(ctx context.Context) error {
	extra := map[string]int64{}
	for c := range classes {
		maps.Copy(extra, without(r.dst[c], r.src[c]))
	}
	if len(extra) == 0 {
		return r.removeNotes(ctx, r.notes, true)
	}
	// Another process may be restoring from the target, or writing to it.
	locked := false
	err := r.target.List(ctx, layout.LocksDir, func(backend.Info) error { locked = true; return nil })
	if err != nil {
		return fmt.Errorf("target: %w", err)
	}
	if locked && !r.opts.AcceptRemovals {
		r.report.Kept = fmt.Sprintf("%d files that the repository has removed stay on the target, since another process uses it (it has locks)", len(extra))
		return r.removeNotes(ctx, r.notes, false)
	}
	if err := r.markRemovable(ctx, maps.Keys(extra)); err != nil {
		return fmt.Errorf("target: %w", err)
	}
	for _, c := range []class{records, indexes, packs, keys} {
		for _, name := range slices.Sorted(maps.Keys(without(r.dst[c], r.src[c]))) {
			if err := r.target.Delete(ctx, name); err != nil && !errors.Is(err, backend.ErrNotExist) {
				return fmt.Errorf("target: %w", err)
			}
			r.report.RemovedFiles++
			r.report.RemovedBytes += r.dst[c][name]
		}
	}
	return r.removeNotes(ctx, r.notes, true)
}

func damageText(list []Damage) string {
	text := fmt.Sprintf("%s: %s", list[0].File, list[0].Text)
	if n := len(list) - 1; n > 0 {
		text += fmt.Sprintf(" (and %d more)", n)
	}
	return text
}
