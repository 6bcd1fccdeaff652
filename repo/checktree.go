package repo

import (
	"context"
	"errors"
	"fmt"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/tree"
)

// snapshots walks the trees of all snapshots. Nodes below which all is well
// are remembered, so many snapshots of alike trees cost little more than one.
func (c *checker) snapshots(ctx context.Context) error {
	for _, err := range c.damagedList {
		c.damage(err, "this snapshot is lost unless a copy of the repository has its record: see `snap help repair`")
	}
	if err := c.strays(ctx); err != nil {
		return err
	}
	clean := map[chunk.ID]struct{}{}
	for _, s := range c.list {
		c.report.Snapshots++
		t := treeCheck{c: c, clean: clean, s: Suffering{Snapshot: s.ID, Device: s.Device.Name, Time: s.Time, Names: []string{}}}
		if _, err := t.node(ctx, s.Root, -1); err != nil {
			return err
		}
		if err := c.marked(ctx, s); err != nil {
			return err
		}
		if t.s.Files == 0 && !t.s.Tree {
			continue
		}
		// What was forgotten since it was listed may have been removed.
		if _, err := c.r.be.Stat(ctx, snapshotsDir+s.ID.String()); errors.Is(err, backend.ErrNotExist) {
			continue
		} else if err != nil {
			return err
		}
		c.report.Suffering = append(c.report.Suffering, t.s)
	}
	return nil
}

// treeCheck walks one snapshot's tree.
type treeCheck struct {
	c     *checker
	clean map[chunk.ID]struct{}
	s     Suffering
}

// node reports whether all is well at and below a node.
func (t *treeCheck) node(ctx context.Context, id chunk.ID, above int) (bool, error) {
	if _, ok := t.clean[id]; ok {
		return true, nil
	}
	n, err := tree.LoadBelow(ctx, t.load, id, above)
	if err != nil {
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		if !errors.Is(err, ErrDamaged) && !errors.Is(err, tree.ErrDamaged) {
			return false, err
		}
		t.s.Tree = true
		t.name(fmt.Sprintf("(part of the list of files: %v)", err))
		return false, nil
	}
	ok := true
	for i := range n.Entries {
		good, err := t.entry(ctx, &n.Entries[i])
		if err != nil {
			return false, err
		}
		ok = ok && good
	}
	for _, child := range n.Children {
		good, err := t.node(ctx, child.ID, int(n.Level))
		if err != nil {
			return false, err
		}
		ok = ok && good
	}
	if ok {
		t.clean[id] = struct{}{}
	}
	return ok, nil
}

var errLost = errors.New("content is lost")

func (t *treeCheck) entry(ctx context.Context, e *tree.Entry) (bool, error) {
	size := int64(0)
	err := e.Content.Chunks(ctx, t.load, func(id chunk.ID) error {
		n, known := t.c.r.index.Size(id)
		if !known || t.c.isBad(id) {
			t.c.unknown = t.c.unknown || !known
			return errLost
		}
		if size += int64(n); size > e.Content.Size {
			return errLost // before lists that repeat themselves take for ever
		}
		return nil
	})
	switch {
	case err == nil && size == e.Content.Size:
		return true, nil
	case ctx.Err() != nil:
		return false, ctx.Err()
	case err != nil && !errors.Is(err, errLost) && !errors.Is(err, ErrDamaged) && !errors.Is(err, tree.ErrDamaged):
		return false, err
	}
	t.s.Files++
	t.nameEntry(e)
	return false, nil
}

func (t *treeCheck) nameEntry(e *tree.Entry) {
	if e.Domain != "" {
		t.name(fmt.Sprintf("%s (%s/%s)", e.Path, e.Domain, e.Name))
	} else {
		t.name(e.Path)
	}
}

func (t *treeCheck) name(s string) {
	if len(t.s.Names) < maxNames {
		t.s.Names = append(t.s.Names, s)
	}
}

// load is Repo.Chunk, but knows what reading the packs has found.
func (t *treeCheck) load(ctx context.Context, id chunk.ID) ([]byte, error) {
	if t.c.isBad(id) {
		return nil, &DamageError{"", fmt.Errorf("chunk %s lies in a damaged pack", id.Short())}
	}
	if !t.c.r.index.Has(id) {
		t.c.unknown = true
	}
	return t.c.r.Chunk(ctx, id)
}
