package parity

import (
	"maps"
	"slices"
)

// fullParity is the number of parity shards in each stripe of a group of several
// files.
const fullParity = 2

// groupSize returns the maximum number of files of a new group.
func groupSize(percent int) int { return min(max(fullParity*100_00/max(percent, 1), 2), maxFiles) }

// stripeParity returns the number of parity shards in each stripe of a group of n
// files. A single file gets one, which is as good as a copy. A second shard would
// help only if both the file and the first shard were lost.
func stripeParity(n int) int { return min(max(n, 1), fullParity) }

// planner chooses which groups of one kind to keep, and which files the new groups
// protect.
type planner struct {
	percent int
	lost    func(name string) bool // may be nil
	keep    map[*group]bool
	stored  map[string]file // files of this kind that no kept group protects
	claims  map[string]int  // number of groups that have a file, by its name
}

// plan chooses the groups to keep, adds them to kept, and returns the files of each new
// group.
func (s *Set) plan(kind byte, percent int, all []file, lost func(string) bool, kept map[*group]bool) [][]file {
	p := &planner{percent: percent, lost: lost, keep: kept, stored: map[string]file{}, claims: map[string]int{}}
	for _, f := range all {
		if f.kind == kind {
			p.stored[f.name()] = f
		}
	}
	for _, g := range s.groups {
		for i := range g.files {
			p.claims[g.files[i].name()]++
		}
	}
	var partial []*group
	for _, g := range s.groups {
		if len(g.files) == 0 || g.files[0].kind != kind {
			continue
		}
		if p.mayHeal(g) {
			kept[g] = true // its other files get a new group as well
		}
		switch {
		case !p.isCurrent(g):
		case len(g.files) == groupSize(percent):
			p.claim(g)
		default:
			partial = append(partial, g)
		}
	}
	// A group with fewer files is kept if no other file needs a group. Otherwise it is
	// made again.
	for _, g := range partial {
		if len(g.files) == len(p.stored) && p.isComplete(g) {
			p.claim(g)
		}
	}
	return p.newGroups()
}

// mayHeal reports whether a file of a group is lost or has another length: the
// group may be able to heal it.
func (p *planner) mayHeal(g *group) bool {
	return p.lost != nil && slices.ContainsFunc(g.files, func(f file) bool {
		stored, ok := p.stored[f.name()]
		return !ok && p.lost(f.name()) || ok && stored.size != f.size
	})
}

// isCurrent reports whether a group protects its files as well as a new group would.
//
// If two groups have the same file, one of them is forged or was left by an
// interrupted run. Neither is trusted: both are removed once a new group is
// stored.
func (p *planner) isCurrent(g *group) bool {
	return g.percent == p.percent && g.parity >= stripeParity(len(g.files)) && p.isComplete(g) &&
		!slices.ContainsFunc(g.files, func(f file) bool { return p.claims[f.name()] > 1 })
}

// isComplete reports whether all files of a group are stored, and none of them is
// protected by a kept group.
func (p *planner) isComplete(g *group) bool {
	return !slices.ContainsFunc(g.files, func(f file) bool {
		stored, ok := p.stored[f.name()]
		return !ok || stored.size != f.size
	})
}

// claim keeps a group. The files of the group then need no other group.
func (p *planner) claim(g *group) {
	p.keep[g] = true
	for i := range g.files {
		delete(p.stored, g.files[i].name())
	}
}

// newGroups divides the remaining files into groups. It groups files of similar
// length, since the longest file decides how much parity a group has.
func (p *planner) newGroups() [][]file {
	rest := slices.SortedFunc(maps.Values(p.stored), func(a, b file) int {
		if a.size != b.size {
			return int(b.size - a.size)
		}
		return slices.Compare(a.id[:], b.id[:])
	})
	return slices.Collect(slices.Chunk(rest, groupSize(p.percent)))
}
