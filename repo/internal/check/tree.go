package check

import (
	"context"
	"errors"
	"fmt"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/record"
	"github.com/snap-backup/snap/repo/internal/store"
	"github.com/snap-backup/snap/repo/tree"
)

// checkSnapshots walks the trees of all snapshots. It remembers complete nodes, so many
// similar snapshots cost little more than one.
func (c *Checker) checkSnapshots(ctx context.Context) error {
	var missing []*record.Snapshot
	for _, err := range c.DamagedSnapshots {
		if m, ok := errors.AsType[*record.MissingError](err); ok {
			missing = append(missing, m.Snapshot)
			continue
		}
		c.damage(err, "`snap repair snapshots` stores it again if the ledger has a copy; otherwise "+fromCopy+"this snapshot is lost: remove its record with `snap repair snapshots --remove-damaged`")
	}
	for _, err := range c.damagedLedger {
		c.damageLedger(err)
	}
	if err := c.reportStrays(ctx); err != nil {
		return err
	}
	clean := map[chunk.ID]struct{}{}
	for _, s := range c.Snapshots {
		c.Report.Snapshots++
		found, err := c.checkTree(ctx, s, clean)
		if err != nil {
			return err
		}
		if err := c.reportMarked(ctx, s); err != nil {
			return err
		}
		if found.Files == 0 && !found.Tree {
			continue
		}
		// If a snapshot was forgotten after it was listed, its content may be gone.
		if _, err := c.Store.Backend.Stat(ctx, layout.SnapshotsDir+s.ID.String()); errors.Is(err, backend.ErrNotExist) {
			continue
		} else if err != nil {
			return err
		}
		c.Report.Affected = append(c.Report.Affected, found)
	}
	for _, s := range missing {
		if err := c.reportMissing(ctx, s, clean); err != nil {
			return err
		}
	}
	return nil
}

// reportMissing reports a snapshot whose record is missing, and whether its content is lost,
// too: then a repair without a copy cannot bring back all of it.
func (c *Checker) reportMissing(ctx context.Context, s *record.Snapshot, clean map[chunk.ID]struct{}) error {
	found, err := c.checkTree(ctx, s, clean)
	if err != nil {
		return err
	}
	m := &record.MissingError{Snapshot: s}
	hint := "nothing else is lost: " + m.Hint()
	if found.Files > 0 || found.Tree {
		c.Report.Affected = append(c.Report.Affected, found)
		hint = "content of it is lost, too: " + fromCopy + m.Hint()
	}
	c.Report.Problems = append(c.Report.Problems, Problem{File: layout.SnapshotsDir + s.ID.String(), Text: m.Text(), Hint: hint, Fatal: true})
	return nil
}

// checkTree finds out what of a snapshot is lost. clean has the nodes that are complete.
func (c *Checker) checkTree(ctx context.Context, s *record.Snapshot, clean map[chunk.ID]struct{}) (Affected, error) {
	t := TreeCheck{Checker: c, Clean: clean, Found: Affected{Snapshot: s.ID, Device: s.Device.Name, Time: s.Time, Names: []string{}}}
	_, err := t.checkNode(ctx, s.Root, -1)
	return t.Found, err
}

// TreeCheck checks one snapshot's tree.
type TreeCheck struct {
	Checker *Checker
	Clean   map[chunk.ID]struct{}
	Found   Affected

	seen map[chunk.ID]bool // nodes of this snapshot that are not complete, or not yet known to be
}

// checkNode reports whether everything at and below a node is complete.
func (t *TreeCheck) checkNode(ctx context.Context, id chunk.ID, above int) (bool, error) {
	if _, ok := t.Clean[id]; ok {
		return true, nil
	}
	if t.seen[id] {
		return false, nil // it was found incomplete before, in this snapshot
	}
	if t.seen == nil {
		t.seen = map[chunk.ID]bool{}
	}
	t.seen[id] = true
	n, err := tree.LoadBelow(ctx, t.Load, id, above)
	if err != nil {
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		if !errors.Is(err, store.ErrDamaged) && !errors.Is(err, tree.ErrDamaged) {
			return false, err
		}
		t.Found.Tree = true
		t.name(fmt.Sprintf("(a part of the file tree: %v)", err))
		return false, nil
	}
	ok := true
	for i := range n.Entries {
		good, err := t.Entry(ctx, &n.Entries[i])
		if err != nil {
			return false, err
		}
		ok = ok && good
	}
	for _, child := range n.Children {
		good, err := t.checkNode(ctx, child.ID, int(n.Level))
		if err != nil {
			return false, err
		}
		ok = ok && good
	}
	if ok {
		t.Clean[id] = struct{}{}
		delete(t.seen, id)
	}
	return ok, nil
}

var errLost = errors.New("content is lost")

// Entry reports whether the content of an entry is complete. If not, it adds the
// entry to Found.
func (t *TreeCheck) Entry(ctx context.Context, e *tree.Entry) (bool, error) {
	size, err := e.Content.Measure(ctx, t.Load, func(id chunk.ID) (int64, error) {
		n, known := t.Checker.Store.Index.Size(id)
		if !known || t.Checker.isBad(id) {
			t.Checker.unknown = t.Checker.unknown || !known
			return 0, errLost
		}
		return int64(n), nil
	})
	switch {
	case err == nil && size == e.Content.Size:
		return true, nil
	case ctx.Err() != nil:
		return false, ctx.Err()
	case err != nil && !errors.Is(err, errLost) && !errors.Is(err, store.ErrDamaged) && !errors.Is(err, tree.ErrDamaged):
		return false, err
	}
	t.Found.Files++
	t.NameEntry(e)
	return false, nil
}

// NameEntry adds the name of a lost file to Found.
func (t *TreeCheck) NameEntry(e *tree.Entry) {
	if e.Domain != "" {
		t.name(fmt.Sprintf("%s (%s/%s)", e.Path, e.Domain, e.Name))
	} else {
		t.name(e.Path)
	}
}

func (t *TreeCheck) name(s string) {
	if len(t.Found.Names) < maxNames {
		t.Found.Names = append(t.Found.Names, s)
	}
}

// Load is like Store.Chunk, but fails for chunks that the check has found bad.
func (t *TreeCheck) Load(ctx context.Context, id chunk.ID) ([]byte, error) {
	if t.Checker.isBad(id) {
		return nil, &store.DamageError{File: "", Err: fmt.Errorf("chunk %s is in a damaged pack", id.Short())}
	}
	if !t.Checker.Store.Index.Has(id) {
		t.Checker.unknown = true
	}
	return t.Checker.Store.Chunk(ctx, id)
}
