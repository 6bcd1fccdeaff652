package repo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/repo/tree"
)

// maxLostNodes bounds the lost parts of a file list that a record names.
const maxLostNodes = 4096

// Lost is what a snapshot had once and cannot give back any more, as
// RepairSnapshots has marked it. Should the content come back, from a copy of
// the repository or with another backup, the next repair puts the files into
// their places again.
type Lost struct {
	Time time.Time `json:"time"` // when it was marked
	// Complete says whether the snapshot was complete before.
	Complete bool  `json:"complete"`
	Files    int64 `json:"files"`
	Bytes    int64 `json:"bytes"` // of their content
	// Tree is the root of a tree of the lost files: their entries as they were,
	// with chunks of which at least one is missing. Nil if there are none.
	Tree *chunk.ID `json:"tree,omitempty"`
	// Nodes are nodes of the snapshot's tree that could not be read. What was
	// below them, and how much, nobody knows.
	Nodes []LostNode `json:"nodes,omitempty"`
	// MoreNodes counts those that found no room here.
	MoreNodes int `json:"more_nodes,omitempty"`
}

// LostNode is a lost part of a list of files.
type LostNode struct {
	ID    chunk.ID `json:"id"`
	Level int      `json:"level"` // of the node that named it; -1 for a root
}

// entries returns the entries of lost files whose list can be read, in order,
// and the nodes that still cannot be read.
func (l *Lost) entries(ctx context.Context, load tree.Load) (list []tree.Entry, nodes []LostNode, err error) {
	if l == nil {
		return nil, nil, nil
	}
	w := nodeWalk{load: load, entry: func(e *tree.Entry) error { list = append(list, *e); return nil }}
	w.lost = func(n LostNode, _ error) error { nodes = append(nodes, n); return nil }
	if l.Tree != nil {
		if err := w.node(ctx, *l.Tree, -1); err != nil {
			return nil, nil, err
		}
	}
	for _, n := range l.Nodes {
		if err := w.node(ctx, n.ID, n.Level); err != nil {
			return nil, nil, err
		}
	}
	slices.SortStableFunc(list, func(a, b tree.Entry) int { return a.Key().Compare(b.Key()) })
	list = slices.CompactFunc(list, func(a, b tree.Entry) bool { return a.Key() == b.Key() })
	return list, nodes, nil
}

// nodeWalk walks a tree in order and goes on behind nodes that are lost.
type nodeWalk struct {
	load  tree.Load
	entry func(*tree.Entry) error
	lost  func(LostNode, error) error
	// seen, if not nil, are nodes that need not be looked at again.
	seen map[chunk.ID]bool
}

func (w *nodeWalk) node(ctx context.Context, id chunk.ID, above int) error {
	if w.seen[id] {
		return nil
	}
	if w.seen != nil {
		w.seen[id] = true
	}
	n, err := tree.LoadBelow(ctx, w.load, id, above)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, ErrDamaged), errors.Is(err, tree.ErrDamaged):
		return w.lost(LostNode{id, above}, err)
	case err != nil:
		return err
	}
	for i := range n.Entries {
		if err := w.entry(&n.Entries[i]); err != nil {
			return err
		}
	}
	for _, child := range n.Children {
		if err := w.node(ctx, child.ID, int(n.Level)); err != nil {
			return err
		}
	}
	return nil
}

// lost marks what is left of lost files, so that it is there should the rest
// come back. What is missing is no error here.
func (u *usage) lost(ctx context.Context, l *Lost) error {
	if l == nil {
		return nil
	}
	load := func(ctx context.Context, id chunk.ID) ([]byte, error) {
		u.used.Add(id)
		return u.r.Chunk(ctx, id)
	}
	mark := func(id chunk.ID) error { u.used.Add(id); return nil }
	entries, _, err := l.entries(ctx, load)
	if err != nil {
		return err
	}
	for i := range entries {
		err := entries[i].Content.All(ctx, u.r.Chunk, mark, mark)
		if err != nil && !errors.Is(err, ErrDamaged) && !errors.Is(err, tree.ErrDamaged) {
			return err
		}
	}
	return nil
}

// marked notes what a snapshot's record says that it has lost.
func (c *checker) marked(ctx context.Context, s *Snapshot) error {
	l := s.Lost
	if l == nil {
		return nil
	}
	m := Suffering{Snapshot: s.ID, Device: s.Device.Name, Time: s.Time, Files: l.Files, Tree: len(l.Nodes)+l.MoreNodes > 0, Names: []string{}}
	t := treeCheck{c: c, s: m}
	w := nodeWalk{load: t.load, entry: func(e *tree.Entry) error { t.nameEntry(e); return nil }}
	w.lost = func(_ LostNode, err error) error {
		c.report.Problems = append(c.report.Problems, Problem{
			File: snapshotsDir + s.ID.String(), Text: fmt.Sprintf("the list of files that it has lost cannot be read whole: %v", err),
			Hint: "what it can give back does not suffer; `snap repair snapshots` makes a new list",
		})
		return nil
	}
	if l.Tree != nil {
		unknown := c.unknown
		if err := w.node(ctx, *l.Tree, -1); err != nil {
			return err
		}
		c.unknown = unknown // what is known to be lost says nothing about the index
	}
	c.report.Marked = append(c.report.Marked, t.s)
	return nil
}
