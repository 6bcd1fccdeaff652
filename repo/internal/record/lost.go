package record

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/repo/tree"
)

// MaxLostNodes bounds how many lost nodes a record names.
const MaxLostNodes = 4096

// Lost lists files of a snapshot that the repository has lost. A repair writes it. If
// the content of the files returns, by healing or with another backup, the next
// repair puts the files back.
type Lost struct {
	Time time.Time `json:"time"` // of the repair
	// WasComplete says whether the snapshot was complete before it lost files.
	WasComplete bool  `json:"complete"`
	Files       int64 `json:"files"`
	Bytes       int64 `json:"bytes"` // of their content
	// Tree is the root of a tree of the lost files, or nil if Files is 0. The entries
	// of the files are unchanged; at least one chunk of each file is missing.
	Tree *chunk.ID `json:"tree,omitempty"`
	// Nodes are nodes of the snapshot's tree that could not be read. Which files
	// were below them is unknown.
	Nodes []LostNode `json:"nodes,omitempty"`
	// MoreNodes is the number of lost nodes that Nodes leaves out, since there are
	// more than MaxLostNodes.
	MoreNodes int `json:"more_nodes,omitempty"`
}

// LostNode is a lost node of a tree.
type LostNode struct {
	ID    chunk.ID `json:"id"`
	Level int      `json:"level"` // of the node that refers to it; -1 for a root
}

// lostNote is the prefix of the problems that repairs write.
const lostNote = "lost by the repository: "

// LostNote returns the problem that says that a snapshot has lost something.
func LostNote(what string) string { return lostNote + what }

// WithoutLostNotes returns problems without those that repairs wrote.
func WithoutLostNotes(problems []string) []string {
	return slices.DeleteFunc(slices.Clone(problems), func(p string) bool { return strings.HasPrefix(p, lostNote) })
}

// Entries returns the entries of lost files in order, as far as they can be read,
// and the nodes that cannot be read.
func (l *Lost) Entries(ctx context.Context, load tree.Load) (list []tree.Entry, nodes []LostNode, err error) {
	if l == nil {
		return nil, nil, nil
	}
	w := NodeWalk{Load: load, OnEntry: func(e *tree.Entry) error { list = append(list, *e); return nil }}
	w.OnLost = func(n LostNode, _ error) error { nodes = append(nodes, n); return nil }
	if l.Tree != nil {
		if err := w.Node(ctx, *l.Tree, -1); err != nil {
			return nil, nil, err
		}
	}
	for _, n := range l.Nodes {
		if err := w.Node(ctx, n.ID, n.Level); err != nil {
			return nil, nil, err
		}
	}
	slices.SortStableFunc(list, func(a, b tree.Entry) int { return a.Key().Compare(b.Key()) })
	list = slices.CompactFunc(list, func(a, b tree.Entry) bool { return a.Key() == b.Key() })
	return list, nodes, nil
}
