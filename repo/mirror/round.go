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

// round holds the state of one round. A round copies the files of one listing of the
// source.
type round struct {
	*mirrorer
	src, dst  listing // at the beginning
	notes     notes
	todo      [classes][]string // files to copy
	missing   map[string]error  // records that the source has lost, and why they count as lost
	excluded  map[string]bool   // new files of the source that do not open, or snapshots that are not whole
	better    map[string]bool   // snapshots that have left and are better on the target
	gone      map[string]string // describes what has left, for those who have the key
	forgotten map[string]Gone   // the snapshots among them
	// keepLedger says that files of the ledger stay on the target, since the source's ledger
	// lacks something that they know.
	keepLedger bool
	config     configState
}

// round runs one round. done is false if another round is needed because the source has
// changed. If last is set, changed records need no further round.
func (m *mirrorer) round(ctx context.Context, last bool) (done bool, err error) {
	r, err := m.newRound(ctx)
	if err != nil {
		return false, err
	}
	if err := r.judge(ctx); err != nil {
		return false, ignoreChange(err)
	}
	need := r.plan()
	if m.opts.DryRun {
		r.nameMissing()
		r.forecast(need)
		return true, r.outcome("all good files can be copied")
	}
	if err := r.checkSpace(ctx, need); err != nil {
		return false, err
	}
	if err := r.copy(ctx); err != nil {
		return false, ignoreChange(err)
	}
	if len(m.report.Damaged) > 0 {
		return false, r.endDamaged(ctx)
	}
	now, err := listClass(ctx, m.source, records)
	if err != nil {
		return false, fmt.Errorf("source: %w", err)
	}
	if !maps.Equal(now, r.src[records]) {
		// Remove nothing now. A new record may replace a record that settle
		// would remove. If the source has removed a record since the listing,
		// this round has copied that record, and settle might remove files
		// that it needs.
		if last {
			m.report.Kept = "files that the repository has removed stay on the target, since the repository changes all the time"
			r.reportKept()
		}
		return last, nil
	}
	if err := r.copyLedger(ctx); err != nil {
		return false, ignoreChange(err)
	}
	r.nameMissing()
	if len(m.report.Damaged) > 0 {
		return false, r.endDamaged(ctx)
	}
	if err := r.judgeWaiting(ctx); err != nil {
		return true, err
	}
	return true, r.settle(ctx)
}

// ignoreChange returns nil for a change of the source, which needs another round.
func ignoreChange(err error) error {
	if errors.Is(err, errChanged) {
		return nil
	}
	return err
}

// judge decides whether the target may follow the source, and which files to copy.
func (r *round) judge(ctx context.Context) error {
	r.report.Damaged, r.lacking = []Damage{}, map[string]bool{}
	if err := r.settleConfig(ctx); err != nil {
		return err
	}
	if r.opts.Judge != nil {
		if err := r.prove(ctx); err != nil {
			return err
		}
		if err := r.findMissing(ctx); err != nil {
			return err
		}
	}
	err := r.guard(ctx)
	if !errors.Is(err, ErrRefused) {
		return err
	}
	// Perhaps a prune has removed packs between two listings.
	if changed := r.unchanged(ctx); changed != nil {
		return changed
	}
	return err
}

// findMissing finds the records that the source has lost.
func (r *round) findMissing(ctx context.Context) error {
	missing, err := r.opts.Judge.Missing(ctx, viewOf(part{r.source, r.src[:]}))
	if err != nil {
		return fmt.Errorf("source: %w", err)
	}
	maps.Copy(r.missing, missing)
	if len(r.missing) == 0 {
		return nil
	}
	// Perhaps another process has removed them, or merged the ledger, between two listings.
	return r.unchanged(ctx)
}

// nameMissing reports the records that the source has lost as damaged, so nothing is removed.
// It comes after the ledger is copied: then the mirror, too, has a copy of each.
func (r *round) nameMissing() {
	for _, name := range slices.Sorted(maps.Keys(r.missing)) {
		r.damaged(name, r.missing[name])
	}
}

// unchanged returns errChanged if the source has other files than at the beginning.
func (r *round) unchanged(ctx context.Context) error {
	now, err := list(ctx, r.source)
	if err != nil {
		return fmt.Errorf("source: %w", err)
	}
	for c := range classes {
		if !maps.Equal(now[c], r.src[c]) {
			return errChanged
		}
	}
	return nil
}

// outcome returns ErrDamaged if files of the source are damaged.
func (r *round) outcome(state string) error {
	if len(r.report.Damaged) == 0 {
		return nil
	}
	return damagedFiles(r.report.Damaged, "in the source: %s; %s", state)
}

// newRound lists both stores and reads the target's notes.
func (m *mirrorer) newRound(ctx context.Context) (r *round, err error) {
	r = &round{mirrorer: m, excluded: map[string]bool{}, better: map[string]bool{}, missing: map[string]error{}, gone: map[string]string{}}
	m.report.Better, m.report.Leaving, m.report.LeavingOther, m.report.Removed = nil, nil, nil, nil
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
	r.report.Snapshots = int64(len(inFolder(r.src[records], layout.SnapshotsDir)))
	r.progress.TotalFiles, r.progress.TotalBytes = r.progress.Files, r.progress.Bytes
	if r.config.put || r.config.replace {
		need += int64(len(r.config.good))
		r.progress.TotalFiles++
	}
	for c := range classes {
		if c == config {
			continue // see copyConfig
		}
		for _, name := range slices.Sorted(maps.Keys(r.src[c])) {
			if r.isNew(c, name) && !r.excluded[name] {
				r.todo[c] = append(r.todo[c], name)
				need += r.src[c][name]
			}
		}
		r.progress.TotalFiles += int64(len(r.todo[c]))
	}
	r.progress.TotalBytes += need
	return need
}

// isNew reports whether the target lacks a file of the source, or has an incomplete one.
func (r *round) isNew(c class, name string) bool {
	if c == config {
		return r.config.put || r.config.replace
	}
	size, exists := r.dst[c][name]
	return (!exists || size != r.src[c][name]) && (c != copies || r.wantsCopy(name))
}

// forecast reports what the round would do.
func (r *round) forecast(need int64) {
	r.report.CopiedFiles, r.report.CopiedBytes = r.progress.TotalFiles, need
	due := r.due()
	r.report.RemovedFiles, r.report.RemovedBytes = int64(len(due)), sum(due)
	for _, name := range slices.Sorted(maps.Keys(due)) {
		r.removed(name)
		for c := range classes {
			delete(r.dst[c], name)
		}
	}
	r.reportKept()
}

// checkSpace fails early if the target has too little space for all new files. No file
// is removed before all of them are copied.
func (r *round) checkSpace(ctx context.Context, need int64) error {
	f, ok := r.target.(backend.Freer)
	if !ok || need == 0 {
		return nil
	}
	free, err := f.Free(ctx)
	if err != nil || free >= need {
		return ctx.Err() // unknown free space is no obstacle
	}
	kept := ""
	if n := sum(r.left(packs, indexes, records)); n > 0 {
		kept = fmt.Sprintf(" (%s are of files that the source has removed; a run with the password removes them as soon as it can)", words.Bytes(n))
	}
	return fmt.Errorf("the copy needs %s more, and the target has only %s free%s: %w", words.Bytes(need), words.Bytes(free), kept, backend.ErrNoSpace)
}

// copy copies all files of the round, records last. It returns errChanged if files of
// the source that are not records change during the copy.
func (r *round) copy(ctx context.Context) error {
	// A prune of the source may remove new packs and index files before a record
	// that needs them is copied. So these files are noted as removable. Files that
	// the target already has are not noted, since its records may need them.
	// The index files among them are also listed in a note of their own. If one of them
	// is gone from the source in the next run, a prune has replaced it, so the packs were
	// removed and not lost.
	newPacks, newIndexes := slices.DeleteFunc(slices.Clone(r.todo[packs]), r.dst.has), slices.DeleteFunc(slices.Clone(r.todo[indexes]), r.dst.has)
	if err := r.noteFiles(ctx, indexMagic, slices.Values(newIndexes)); err != nil {
		return fmt.Errorf("target: %w", err)
	}
	if err := r.markRemovable(ctx, slices.Values(slices.Concat(newPacks, newIndexes))); err != nil {
		return fmt.Errorf("target: %w", err)
	}
	if err := r.noteUnjudged(ctx); err != nil {
		return fmt.Errorf("target: %w", err)
	}
	for c := keys; c < records; c++ {
		if c == indexes {
			if err := r.checkIndexes(ctx); err != nil {
				return err
			}
		}
		if c == config {
			if err := r.copyConfig(ctx); err != nil {
				return err
			}
			continue
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
	if err := r.noteCopied(ctx); err != nil {
		return fmt.Errorf("target: %w", err)
	}
	if err := r.unmarkRemovable(ctx); err != nil {
		return fmt.Errorf("target: %w", err)
	}
	return r.copyAll(ctx, slices.DeleteFunc(slices.Clone(r.todo[records]), isLedger), r.src[records], r.dst[records])
}

func isLedger(name string) bool { return strings.HasPrefix(name, layout.LedgerDir) }

// copyLedger copies the files of the ledger when the target has all records that they may
// know. It copies the newest first: the file that says that a record was removed is newer
// than the file that has a copy of the record. If only the older one were copied before an
// interruption, the record would seem lost. For the same reason copyLedger ends with the
// first damaged file.
func (r *round) copyLedger(ctx context.Context) error {
	names := slices.DeleteFunc(slices.Clone(r.todo[records]), func(name string) bool { return !isLedger(name) })
	put := map[string]time.Time{}
	for _, name := range names {
		f, err := r.source.Stat(ctx, name)
		if errors.Is(err, backend.ErrNotExist) {
			return errChanged
		}
		if err != nil {
			return fmt.Errorf("source: %w", err)
		}
		put[name] = f.Modified
	}
	slices.SortStableFunc(names, func(a, b string) int { return put[b].Compare(put[a]) })
	for _, name := range names {
		if err := r.copyAll(ctx, []string{name}, r.src[records], r.dst[records]); err != nil || len(r.report.Damaged) > 0 {
			return err
		}
	}
	return nil
}

// endDamaged ends a run that has found damaged files.
func (r *round) endDamaged(ctx context.Context) error {
	r.nameMissing()
	if err := r.removeNotes(ctx); err != nil {
		return err
	}
	r.reportKept()
	return r.outcome("all other files were copied, and nothing was removed")
}

// checkIndexes reads the index files to copy. Without a key, either all or none are
// copied, since some of them may list chunks that cannot be decoded without the others.
// A damaged pack then holds back new snapshots for one run.
// With the key, the snapshots are judged again if files are lacking.
func (r *round) checkIndexes(ctx context.Context) error {
	if err := r.readAll(ctx, r.todo[indexes], r.src[indexes], r.dst[indexes]); err != nil {
		return err
	}
	if len(r.lacking) == 0 {
		return nil
	}
	if r.opts.Judge == nil {
		return r.holdBack(ctx)
	}
	var snapshots []string
	for _, name := range r.todo[records] {
		if strings.HasPrefix(name, layout.SnapshotsDir) {
			snapshots = append(snapshots, name)
		}
	}
	if err := r.proveSnapshots(ctx, snapshots); err != nil {
		return err
	}
	for c := range r.todo {
		r.todo[c] = slices.DeleteFunc(r.todo[c], func(name string) bool { return r.excluded[name] || c == int(indexes) && r.lacking[name] })
	}
	return nil
}

func damageText(list []Damage) string {
	text := fmt.Sprintf("%s: %s", list[0].File, list[0].Text)
	if n := len(list) - 1; n > 0 {
		text += fmt.Sprintf(" (and %d more)", n)
	}
	return text
}
