package mirror

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/snap-backup/snap/internal/words"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/layout"
)

// RefusedError says why a copy would do harm and what to do. It matches ErrRefused.
type RefusedError struct{ Why, Do string }

// Hint says what to do.
func (e *RefusedError) Hint() string { return e.Do }

func (e *RefusedError) Error() string { return fmt.Sprintf("%v: %s", ErrRefused, e.Why) }

// Is makes errors.Is(err, ErrRefused) true.
func (e *RefusedError) Is(target error) bool { return target == ErrRefused }

const (
	hintLost     = "nothing was changed; run \"snap check\" on the source, and if it has lost files, get them back with \"snap repair --from TARGET\""
	hintPassword = "nothing was changed. Give the password: then snap can tell whether the source has lost anything (\"snap mirror --ask-password TARGET\"). If it has, \"snap repair --from TARGET\" gets it back from the target"
	hintKeys     = "nothing was changed. If you have not removed these keys, the target still opens with them; copy their files from TARGET/keys back to the folder keys of the repository. Only if you have removed every one of them yourself, \"snap mirror --accept-removals TARGET\" removes them from the target, too, together with everything else that the repository has removed"
	hintForget   = "nothing was changed; if the source has lost these snapshots, get them back with \"snap repair --from TARGET --missing-snapshots\"; only if you have forgotten every one of those listed yourself, \"snap mirror --accept-removals TARGET\" removes them from the target, too"
)

// guard returns a *RefusedError if the target is not a copy of the source, or if the
// source seems to have lost files. It compares which files there are, not how many:
// somebody who replaces files by as many others has removed them. Without a key, guard
// knows only names. With the key, the judge has excluded new files that do not open.
func (r *round) guard(ctx context.Context) error {
	snaps := inFolder(r.src[records], layout.SnapshotsDir)
	slots := inFolder(r.src[keys], layout.KeysDir)
	switch {
	case len(slots) == 0:
		return &RefusedError{"the source has no key slot, so its copy could not be opened", hintLost}
	case len(r.src[packs]) > 0 && len(r.src[indexes]) == 0:
		return &RefusedError{fmt.Sprintf("the source has %s and no index file", words.Plural(len(r.src[packs]), "pack")), hintLost}
	case len(snaps) > 0 && len(r.src[packs]) == 0:
		return &RefusedError{fmt.Sprintf("the source has %s and no packs", words.Plural(len(snaps), "snapshot")), hintLost}
	}
	if n := len(slots) + len(r.oldSlots()); n > maxSlots && r.opts.Judge == nil {
		return &RefusedError{fmt.Sprintf("the target would have %d key slots, of which some may be counterfeits", n), hintPassword}
	}
	left := inFolder(r.newlyLeft(records), layout.SnapshotsDir)
	if err := r.guardForeign(left); err != nil {
		return err
	}
	if r.opts.Judge != nil {
		return r.guardWithKey(ctx)
	}
	if r.opts.AcceptRemovals {
		return nil
	}
	if n, total := len(left), len(inFolder(r.present(records), layout.SnapshotsDir)); tooMany(n, total, 1) {
		return &RefusedError{fmt.Sprintf("%d of %d snapshots of the target are gone from the source, or other files have replaced them", n, total), hintPassword}
	}
	return r.guardPacks()
}

// tooMany reports whether more than a third of some files have left, and more than a few.
// All of them are always too many.
func tooMany(left, total, few int) bool {
	return left > few && 3*left > total || left > 0 && left == total
}

// guardForeign refuses to follow the source if the target has snapshots that did not come
// from there.
func (r *round) guardForeign(left map[string]int64) error {
	foreign := 0
	for name := range left {
		if hash, _ := hashOf(name); !r.notes.copied[hash] {
			foreign++
		}
	}
	if foreign == 0 || r.opts.AcceptRemovals {
		return nil
	}
	if n := r.notes.unread; len(n) > 0 {
		return fmt.Errorf("target: a note that says what was copied cannot be read (if that happens again, remove %s and run the mirror with the password): %w", n[0], r.notes.unreadErr)
	}
	return &RefusedError{fmt.Sprintf("the target has %s that the source does not have and that no mirror run has copied: another program stored into the mirror, or the mirror was not made by this command", words.Plural(foreign, "snapshot")),
		"nothing was changed. \"snap repair --from TARGET --missing-snapshots\" gets these snapshots into the source; then the mirror goes on. Or use the target as a separate repository and make another mirror. \"snap mirror --accept-removals TARGET\" removes from the target what was stored there"}
}

// guardPacks judges packs and index files that have left the source by what a prune does:
// before it removes a pack, it replaces the index files that list the pack.
func (r *round) guardPacks() error {
	if n := len(r.sinceLast(packs)); n > 0 && len(r.sinceLast(indexes)) == 0 && len(r.notes.removable) > 0 && !r.notes.pruned(&r.src) {
		return unlistedLoss(n)
	}
	lostPacks, lostIndexes := r.newlyLeft(packs), r.newlyLeft(indexes)
	total := len(r.present(packs))
	switch {
	case len(lostPacks) > 0 && len(lostIndexes) == 0 && len(r.dst[indexes]) > 0:
		return unlistedLoss(len(lostPacks))
	case len(lostPacks) > 3 && 2*len(lostPacks) > total || len(lostPacks) > 0 && len(lostPacks) == total:
		return &RefusedError{fmt.Sprintf("%d of %d packs of the target are gone from the source, or other files have replaced them", len(lostPacks), total), hintPassword}
	case len(lostIndexes) > 0 && len(lostPacks) == 0 && len(onlyIn(r.src[indexes], r.dst[indexes])) == 0:
		return &RefusedError{fmt.Sprintf("%d index files are gone from the source, and nothing replaced them; a prune does not do that", len(lostIndexes)), hintPassword}
	case len(lostPacks) == 0 && tooMany(len(lostIndexes), len(r.present(indexes)), 1):
		return &RefusedError{fmt.Sprintf("%d index files of the target are gone from the source, or other files have replaced them, and all packs still exist; a prune does not do that", len(lostIndexes)), hintPassword}
	}
	return nil
}

// unlistedLoss is the error for a source that lacks packs but no index files.
// Before a prune removes a pack, it replaces the index files that list the pack.
// Packs that an interrupted process has left are an exception: no index file
// lists them.
func unlistedLoss(packs int) error {
	return &RefusedError{fmt.Sprintf("the source has lost %s, but all index files that could list them still exist; a prune does not do that", words.Plural(packs, "pack")),
		hintPassword}
}

// pruned reports whether an index file that an interrupted run noted is gone from the
// source: a prune has replaced it.
func (n *notes) pruned(src *listing) bool {
	present := map[id]bool{}
	for name := range src[indexes] {
		hash, _ := hashOf(name)
		present[hash] = true
	}
	for hash := range n.indexes {
		if !present[hash] {
			return true
		}
	}
	return false
}

// guardWithKey judges and names all that would leave the target.
func (r *round) guardWithKey(ctx context.Context) error {
	var stop *RefusedError
	for _, look := range []func(context.Context) error{r.guardJudged, r.guardKeys, r.namePasswords} {
		var also *RefusedError
		err := look(ctx)
		switch {
		case err == nil:
		case !errors.As(err, &also):
			return err
		case stop == nil:
			stop = also
		default:
			stop = &RefusedError{stop.Why + "; " + also.Why, stop.Do + ". For the keys: " + also.Do}
		}
	}
	if stop == nil {
		return nil
	}
	stop.Why += r.allGone()
	return stop
}

// guardJudged reads, with the key, the records that have left. A policy never removes the
// newest snapshot of a device, so a source without it was rolled back or has lost it.
func (r *round) guardJudged(ctx context.Context) error {
	left := inFolder(r.left(records), layout.SnapshotsDir)
	if len(left)+len(inFolder(r.left(records), layout.LedgerDir)) == 0 {
		return nil
	}
	known := r.known()
	d, err := r.opts.Judge.Leaving(ctx, viewOf(part{r.source, r.src[:]}), r.target, slices.Sorted(maps.Keys(left)), slices.Sorted(maps.Keys(known)))
	if err != nil {
		return err
	}
	if err := r.keepLost(ctx, &d); err != nil {
		return err
	}
	for name, text := range d.Better {
		r.better[name] = true
		r.report.Better = append(r.report.Better, text)
	}
	slices.Sort(r.report.Better)
	for name, why := range d.Worse {
		if r.isNew(records, name) {
			r.exclude(name, why)
		}
	}
	for name, g := range d.Forgotten {
		r.gone[name], r.forgotten = "snapshot "+g.String(), d.Forgotten
		if !r.counted(name) && !r.opts.AcceptRemovals {
			r.report.Leaving = append(r.report.Leaving, g.String())
		}
	}
	slices.Sort(r.report.Leaving)
	if r.opts.AcceptRemovals {
		return nil
	}
	return r.guardForgotten(&d, known)
}

// keepLost keeps the snapshots that came from the source and that nobody has removed there on
// purpose, as the ledgers of both stores say. It also keeps all files of the target's ledger as
// long as the source's ledger knows less: they are the evidence.
func (r *round) keepLost(ctx context.Context, d *Departure) error {
	lost := false
	for name, why := range d.Lost {
		if hash, _ := hashOf(name); !r.notes.copied[hash] {
			continue // stored into the target
		}
		r.keepLedger = true
		g, gone := d.Forgotten[name]
		if !gone {
			continue
		}
		lost = true
		delete(d.Forgotten, name)
		delete(d.Newest, name)
		d.Better[name] = g.String() + ": the source has lost its record, with the files of the ledger that knew it"
		r.missing[name] = why
	}
	if !lost {
		return nil
	}
	// Perhaps another process has removed them, or merged the ledger, between two listings.
	return r.unchanged(ctx)
}

// guardKeys names the key slots that leave, and stops a run that could shut people out:
// the thief of one secret may have removed the slots of all others. A slot that has made
// room for a new one of its kind does not count, since secrets are changed.
func (r *round) guardKeys(ctx context.Context) error {
	old := r.oldSlots()
	if len(old) == 0 {
		return nil
	}
	theirs, err := r.opts.Judge.Slots(ctx, r.target)
	if err != nil {
		return fmt.Errorf("target: %w", err)
	}
	ours, err := r.opts.Judge.Slots(ctx, r.source)
	if err != nil {
		return fmt.Errorf("source: %w", err)
	}
	lost, recovery, stay := map[string]int{}, map[string]bool{}, 0
	for name, s := range ours {
		if s.Damaged {
			continue
		}
		stay++
		if _, known := theirs[name]; !known {
			lost[s.Kind]--
		}
	}
	for name := range old {
		s, ok := theirs[name]
		if !ok {
			continue
		}
		r.noteLeaving(name, s.Text)
		if !s.Damaged && !r.counted(name) {
			lost[s.Kind]++
			recovery[s.Kind] = s.Recovery
		}
	}
	n, recoveries := 0, false
	for kind, gone := range lost {
		n += max(0, gone)
		recoveries = recoveries || gone > 0 && recovery[kind]
	}
	if r.opts.AcceptRemovals || n == 0 || n == 1 && !recoveries && stay > 1 {
		return nil
	}
	why := fmt.Sprintf("%d keys of the target are gone from the source", n)
	switch {
	case recoveries:
		why = "a recovery key of the target is gone from the source"
	case n == 1:
		why = "the source has a single key left, and the target has another one"
	}
	return &RefusedError{why, hintKeys}
}

// namePasswords names the kept backup passwords that leave.
func (r *round) namePasswords(ctx context.Context) error {
	left := inFolder(r.left(records), layout.SecretsDir)
	if len(left) == 0 {
		return nil
	}
	texts, err := r.opts.Judge.Passwords(ctx, r.target, slices.Sorted(maps.Keys(left)))
	if err != nil {
		return fmt.Errorf("target: %w", err)
	}
	for name, text := range texts {
		r.noteLeaving(name, text)
	}
	return nil
}

// noteLeaving keeps text, which is what people call a file that has left the source, and
// reports it the first time.
func (r *round) noteLeaving(name, text string) {
	r.gone[name] = text
	if !r.counted(name) && !r.opts.AcceptRemovals {
		r.report.LeavingOther = append(r.report.LeavingOther, text)
		slices.Sort(r.report.LeavingOther)
	}
}

// known returns the snapshots of the target that a run with the key has judged, and that
// no earlier run with the key found gone from the source. Until a run has had the key, it
// returns all snapshots that count as present.
func (r *round) known() map[string]int64 {
	out := inFolder(r.present(records), layout.SnapshotsDir)
	maps.DeleteFunc(out, func(name string, _ int64) bool {
		hash, _ := hashOf(name)
		return r.notes.unjudged == "" && r.notes.waiting[hash]
	})
	return out
}

// guardForgotten stops a run that would lose the newest snapshot of a device, or more than
// half of those that are known. A snapshot that has made room for a new one of its device
// does not count: a policy that keeps few snapshots exchanges all of them each night. If
// one of the new ones is not whole, the run removes nothing (prove).
func (r *round) guardForgotten(d *Departure, known map[string]int64) error {
	n := 0
	lost, newest := map[string]int{}, []string{}
	for name, g := range d.Forgotten {
		if d.Newest[name] && !r.counted(name) {
			newest = append(newest, g.String())
		}
		if _, ok := known[name]; ok {
			lost[g.UDID]++
		}
	}
	for udid, gone := range lost {
		n += max(0, gone-d.Arrived[udid])
	}
	switch {
	case len(newest) > 0:
		slices.Sort(newest)
		return &RefusedError{"the source lacks the newest snapshot of a device, which no policy forgets: " + strings.Join(newest, "; "), hintForget}
	case 2*n > len(known):
		return &RefusedError{fmt.Sprintf("%d of %d snapshots of the target are gone from the source: more than half", n, len(known)), hintForget}
	}
	return nil
}

// allGone lists all that would leave the target, snapshots by device. Whoever accepts the
// removal of one accepts all of them.
func (r *round) allGone() string {
	times := map[string][]string{}
	for _, g := range r.forgotten {
		times[g.Device] = append(times[g.Device], g.Time)
	}
	var list []string
	for _, name := range slices.Sorted(maps.Keys(times)) {
		slices.Sort(times[name])
		list = append(list, fmt.Sprintf("%s of %s (%s)", snapshots(len(times[name])), name, strings.Join(times[name], ", ")))
	}
	for _, name := range slices.Sorted(maps.Keys(r.gone)) {
		if _, ok := r.forgotten[name]; !ok {
			list = append(list, r.gone[name])
		}
	}
	text := ". These would leave the target: " + strings.Join(list, "; ")
	for _, name := range slices.Sorted(maps.Keys(r.missing)) {
		text += fmt.Sprintf(". %s: %v", name, r.missing[name])
	}
	return text
}

func snapshots(n int) string {
	return words.Plural(n, "snapshot")
}

// removed reports something that leaves the target, if somebody could miss it.
func (r *round) removed(name string) {
	if text := r.gone[name]; text != "" {
		r.report.Removed = append(r.report.Removed, text)
	}
}

// Shares reports whether a target without config has a file of the source, or a note
// that lists one. Run stores such a note before it copies the first pack. Callers use
// it to check a folder before they write to it.
func Shares(ctx context.Context, source, target backend.Backend) (bool, error) {
	src, err := list(ctx, source)
	if err != nil {
		return false, err
	}
	dst, err := list(ctx, target)
	if err != nil {
		return false, err
	}
	n, err := readNotes(ctx, target)
	if err != nil {
		return false, err
	}
	for c := range classes {
		for name := range dst[c] {
			if src.has(name) {
				return true, nil
			}
		}
		for name := range src[c] {
			if hash, ok := hashOf(name); ok && (n.removable[hash] || n.indexes[hash]) {
				return true, nil
			}
		}
	}
	return false, nil
}
