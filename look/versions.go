package look

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/tree"
	"golang.org/x/sync/errgroup"
)

// Change says how a file differs from the snapshot before.
type Change string

// The changes.
const (
	Added   Change = "added"   // it was not there in the snapshot before, or there is none before
	Changed Change = "changed" // it has other content
	Same    Change = "same"
	Gone    Change = "gone" // it was there in the snapshot before
	Back    Change = "back" // it was gone before
)

// Version is what consecutive snapshots of a device hold of one file: the same content, or
// that it is gone.
type Version struct {
	Change      Change
	Size        int64
	ModTime     time.Time        // in First
	First, Last *repo.Snapshot   // the first and the last of the snapshots
	Snapshots   []*repo.Snapshot // all of them

	content [sha256.Size]byte
	at      int // the number of First among all snapshots
}

// Versions are the versions of one file of a device, oldest first.
type Versions struct {
	Domain, Name, Path string
	List               []Version
}

// FullName returns DOMAIN/NAME or, without a domain, the path in the backup folder.
func (v *Versions) FullName() string { return fullName(v.Domain, v.Name, v.Path) }

// last returns the last version.
func (v *Versions) last() *Version { return &v.List[len(v.List)-1] }

// Finder finds versions of files over the snapshots of one device. It reads what
// snapshots have in common only once.
type Finder struct {
	r        *repo.Repo
	patterns *Patterns
	from, to time.Time  // bounds of the time of a file; zero for none
	mu       sync.Mutex // guards parts
	parts    map[chunk.ID]*part
	files    map[[2]string]*Versions // by domain and name
	leaves   []*leaf                 // of the snapshot that was added last
	all      []*repo.Snapshot        // that were added
}

// NewFinder returns a finder of the files that match. from and to, unless zero, limit
// the versions to those of files with times from from on and before to.
func NewFinder(r *repo.Repo, p *Patterns, from, to time.Time) *Finder {
	return &Finder{r: r, patterns: p, from: from, to: to, parts: map[chunk.ID]*part{}, files: map[[2]string]*Versions{}}
}

// part is what matches in a node and below.
type part struct {
	leaves      []*leaf
	lost        []error
	first, last tree.Key // of the nodes with matches
	below       []*part
	used        int // the number of the last snapshot that has the node
}

// leaf has the matching entries of a leaf of a tree, or of a snapshot that was stored
// locked. Trees that have the same leaf have the same *leaf.
type leaf struct{ found []found }

// found is one file of a snapshot.
type found struct {
	domain, name, path string
	size, modTime      int64 // modTime in Unix seconds
	content            [sha256.Size]byte
}

// newFound returns a file as a Finder keeps it. There can be hundreds of thousands.
func newFound(domain, name, path string, size int64, modTime time.Time, c *tree.Content) found {
	x := found{domain, name, path, size, modTime.Unix(), [sha256.Size]byte{}}
	if c.Level == 0 && len(c.IDs) == 1 {
		x.content = c.IDs[0]
		return x
	}
	h := sha256.New()
	h.Write([]byte{c.Level})
	for _, id := range c.IDs {
		h.Write(id[:])
	}
	h.Sum(x.content[:0])
	return x
}

// Add adds the next snapshot of the device, which must not be older than those added
// before. lost is called for each part of the file list that the repository has lost;
// files of such a snapshot do not count as gone. The error is ErrLocked if the snapshot was
// stored locked and is not unlocked; then it is left out.
func (f *Finder) Add(ctx context.Context, v *Reader, lost func(error)) error {
	var p *part
	var err error
	if Locked(v.Snapshot) {
		p, err = f.locked(ctx, v)
	} else {
		p, err = f.part(ctx, v.Snapshot.Root, -1, nil)
	}
	if err != nil {
		return fmt.Errorf("snapshot %s: %w", v.Snapshot.ID.Short(), err)
	}
	for _, err := range p.lost {
		lost(fmt.Errorf("snapshot %s: %w", v.Snapshot.ID.Short(), err))
	}
	f.advance(v.Snapshot, p)
	// Hardly any node comes back after a snapshot without it.
	f.mark(p)
	maps.DeleteFunc(f.parts, func(_ chunk.ID, p *part) bool { return p.used < len(f.all) })
	return nil
}

// mark marks a part, and those below, as used by the last snapshot.
func (f *Finder) mark(p *part) {
	if p.used == len(f.all) {
		return
	}
	p.used = len(f.all)
	for _, below := range p.below {
		f.mark(below)
	}
}

// part returns what matches below a node, from memory if it is known.
func (f *Finder) part(ctx context.Context, id chunk.ID, above int, next *tree.Key) (*part, error) {
	f.mu.Lock()
	known := f.parts[id]
	f.mu.Unlock()
	if known != nil {
		return known, nil
	}
	p := &part{}
	n, err := loadNode(ctx, f.r.Chunk, id, above)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.Is(err, repo.ErrDamaged):
		p.lost = append(p.lost, err)
	case err != nil:
		return nil, err
	case n.Level == 0:
		f.match(p, n)
	default:
		if err := f.children(ctx, p, n, above, next); err != nil {
			return nil, err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.parts[id] = p
	return p, nil
}

// children fills the part of an inner node. Those of a root are read by several goroutines.
func (f *Finder) children(ctx context.Context, p *part, n *tree.Node, above int, next *tree.Key) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(1)
	if above < 0 {
		g.SetLimit(runtime.GOMAXPROCS(0))
	}
	parts := make([]*part, len(n.Children))
	err := eachChild(n, f.patterns, next, func(i int, next *tree.Key) error {
		g.Go(func() (err error) {
			parts[i], err = f.part(gctx, n.Children[i].ID, int(n.Level), next)
			return err
		})
		return nil
	})
	if err := errors.Join(err, g.Wait()); err != nil {
		return err
	}
	for i, below := range parts {
		if below != nil {
			p.below = append(p.below, below)
			p.add(n.Children[i].ID, below)
		}
	}
	return nil
}

// maxLost bounds how many lost parts of one file list are named.
const maxLost = 100

// add appends what a child has. Leaves come in order, so no tree is endless.
func (p *part) add(id chunk.ID, below *part) {
	p.lost = append(p.lost, below.lost[:min(len(below.lost), maxLost-min(maxLost, len(p.lost)))]...)
	if len(below.leaves) == 0 {
		return
	}
	if len(p.leaves) > 0 && p.last.Compare(below.first) >= 0 {
		p.lost = append(p.lost, disorder(id, below.first, p.last))
		return
	}
	if len(p.leaves) == 0 {
		p.first = below.first
	}
	p.last = below.last
	p.leaves = append(p.leaves, below.leaves...)
}

// match fills the part of a leaf.
func (f *Finder) match(p *part, n *tree.Node) {
	l := &leaf{}
	for i := range n.Entries {
		e := &n.Entries[i]
		if e.Kind != tree.File || !f.patterns.Match(e.Domain, e.Name, e.Path) {
			continue
		}
		l.found = append(l.found, newFound(e.Domain, e.Name, e.Path, e.Content.Size, modTime(e), &e.Content))
		// Most neighbours have the same domain, as another copy of the text.
		if n := len(l.found); n > 1 && l.found[n-2].domain == e.Domain {
			l.found[n-1].domain = l.found[n-2].domain
		}
	}
	if len(l.found) > 0 {
		p.leaves = []*leaf{l}
		p.first, p.last = n.Entries[0].Key(), n.Entries[len(n.Entries)-1].Key()
	}
}

func (f *Finder) timely(t time.Time) bool {
	return (f.from.IsZero() || !t.Before(f.from)) && (f.to.IsZero() || t.Before(f.to))
}

// locked returns what matches in a snapshot that was stored locked.
func (f *Finder) locked(ctx context.Context, v *Reader) (*part, error) {
	p, l := &part{}, &leaf{}
	for file, err := range v.Files(ctx, f.patterns) {
		switch {
		case errors.Is(err, repo.ErrDamaged):
			p.lost = append(p.lost, err)
		case err != nil:
			return nil, err
		default:
			l.found = append(l.found, newFound(file.Domain, file.Name, file.Path, file.Size, file.ModTime, &file.Entry.Content))
		}
	}
	if len(l.found) > 0 {
		p.leaves = []*leaf{l}
	}
	return p, nil
}

// advance compares a snapshot with the one before. It looks only at leaves that one of
// them does not have.
func (f *Finder) advance(s *repo.Snapshot, p *part) {
	f.all = append(f.all, s)
	before, now := unshared(f.leaves, p.leaves), unshared(p.leaves, f.leaves)
	stay := &leaf{}
	for len(before)+len(now) > 0 {
		order := 0
		switch {
		case len(before) == 0:
			order = 1
		case len(now) == 0:
			order = -1
		default:
			order = before[0].compare(now[0])
		}
		switch {
		case order < 0 && len(p.lost) > 0:
			// What is in the lost parts is not known; it stays as it was.
			stay.found = append(stay.found, *before[0])
		case order < 0:
			f.vanish(before[0].id(), s)
		case order > 0 || before[0].content != now[0].content:
			f.see(now[0], s)
		}
		if order <= 0 {
			before = before[1:]
		}
		if order >= 0 {
			now = now[1:]
		}
	}
	f.leaves = p.leaves
	if len(stay.found) > 0 {
		f.leaves = append(slices.Clone(p.leaves), stay)
	}
}

// unshared returns the files of the leaves that are not among others, in order.
func unshared(leaves, others []*leaf) []*found {
	shared := make(map[*leaf]bool, len(others))
	for _, l := range others {
		shared[l] = true
	}
	var list []*found
	for _, l := range leaves {
		if shared[l] {
			continue
		}
		for i := range l.found {
			list = append(list, &l.found[i])
		}
	}
	if !slices.IsSortedFunc(list, (*found).compare) {
		slices.SortStableFunc(list, (*found).compare)
	}
	return slices.CompactFunc(list, func(a, b *found) bool { return a.compare(b) == 0 })
}

// id names a file of a device.
func (x *found) id() [2]string {
	if x.domain == "" {
		return [2]string{"", x.path}
	}
	return [2]string{x.domain, x.name}
}

// compare orders files by their ids.
func (x *found) compare(y *found) int {
	a, b := x.id(), y.id()
	return cmp.Or(strings.Compare(a[0], b[0]), strings.Compare(a[1], b[1]))
}

// see notes that a snapshot has a file that is not the same in the one before.
func (f *Finder) see(x *found, s *repo.Snapshot) {
	id := x.id()
	v := f.files[id]
	next := Version{Change: Added, Size: x.size, ModTime: time.Unix(x.modTime, 0), First: s}
	switch {
	case v == nil:
		v = &Versions{Domain: x.domain, Name: x.name, Path: x.path}
		f.files[id] = v
	case v.last().Change == Gone:
		next.Change = Back
	case v.last().content == x.content:
		return
	default:
		next.Change = Changed
	}
	next.content, next.at = x.content, len(f.all)-1
	v.List = append(v.List, next)
}

func (f *Finder) vanish(id [2]string, s *repo.Snapshot) {
	if v := f.files[id]; v != nil && v.last().Change != Gone {
		v.List = append(v.List, Version{Change: Gone, First: s, at: len(f.all) - 1})
	}
}

// Versions returns the versions of the files that were found, in the order of their names.
// A version that says that a file is gone goes with the one before it.
func (f *Finder) Versions() []*Versions {
	list := slices.SortedFunc(maps.Values(f.files), func(a, b *Versions) int {
		return cmp.Or(cmp.Compare(a.Domain, b.Domain), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Path, b.Path))
	})
	for _, v := range list {
		for i := range v.List {
			end := len(f.all)
			if i+1 < len(v.List) {
				end = v.List[i+1].at
			}
			one := &v.List[i]
			one.Snapshots = f.all[one.at:end]
			one.Last = f.all[end-1]
		}
	}
	if f.from.IsZero() && f.to.IsZero() {
		return list
	}
	// Only now: a file whose time has left the range is not gone.
	var timely []*Versions
	for _, v := range list {
		if chosen := f.choose(v.List); len(chosen) > 0 {
			timely = append(timely, &Versions{v.Domain, v.Name, v.Path, chosen})
		}
	}
	return timely
}

// choose returns the versions with times in the range.
func (f *Finder) choose(list []Version) []Version {
	var chosen []Version
	keep := false
	for _, one := range list {
		if one.Change != Gone {
			keep = f.timely(one.ModTime)
		}
		if keep {
			chosen = append(chosen, one)
		}
	}
	return chosen
}
