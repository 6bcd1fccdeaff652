package parity

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"slices"

	"github.com/klauspost/reedsolomon"
	"github.com/snap-backup/snap/crypto/blake"
	"github.com/snap-backup/snap/repo/backend"
)

const (
	// usualParity is how many segments guard a row of a group of several files.
	usualParity = 2
	// stripBytes is about how much of all files of a group is read at once.
	stripBytes = 32 << 20
)

// size is how many files a whole group has.
func size(percent int) int { return min(max(usualParity*100_00/max(percent, 1), 2), MaxMembers) }

// rowParity is how many segments guard a row of a group of n files. A file that
// is alone has what amounts to a copy; two of these would guard against the loss
// of both only.
func rowParity(n int) int { return min(max(n, 1), usualParity) }

// RefreshOptions say what Refresh is to do.
type RefreshOptions struct {
	// Percent changes how much parity there is, in hundredths of a percent, or
	// begins with it; 0 leaves it as it is.
	Percent int
	// Without are files that are about to be removed.
	Without func(name string) bool
	// Lost says whether a file that is not there should be: its group is kept,
	// since it may bring the file back. Nil for never.
	Lost func(name string) bool
	// Progress, if not nil, is told how many groups of how many are made.
	Progress func(done, total int)
}

// RefreshReport says what Refresh has done.
type RefreshReport struct {
	Made    int   `json:"made_groups"`
	Kept    int   `json:"kept_groups"`
	Removed int   `json:"removed_groups"`
	Written int64 `json:"written_bytes"`
	// Damaged are files that are not what their names say: heal them first.
	Damaged []string `json:"damaged"`
}

// Refresh makes parity for files that have none, and anew for groups that are
// not whole any more. Without parity in the repository it does nothing, unless a
// percentage is given. What it replaces is removed when everything new is
// durable. It may run beside writers. If storing fails, the report is given with
// the error, as far as it goes.
func Refresh(ctx context.Context, be backend.Backend, opts RefreshOptions) (*RefreshReport, error) {
	s, err := Load(ctx, be)
	if err != nil {
		return nil, err
	}
	rep := &RefreshReport{Damaged: []string{}}
	percent := opts.Percent
	if percent == 0 {
		percent = s.Percent()
	}
	if percent == 0 {
		return rep, nil
	}
	all, err := s.list(ctx)
	if err != nil {
		return nil, err
	}
	if opts.Without != nil {
		all = slices.DeleteFunc(all, func(m member) bool { return opts.Without(m.name()) })
	}
	keep := map[*group]bool{}
	var todo [][]member
	for kind := range kinds {
		todo = append(todo, s.plan(byte(kind), percent, all, opts.Lost, keep)...)
	}
	for i, members := range todo {
		if opts.Progress != nil {
			opts.Progress(i, len(todo))
		}
		b, bad, err := s.build(ctx, percent, members)
		if err != nil {
			return nil, err
		}
		for _, name := range bad {
			rep.Damaged = append(rep.Damaged, name)
			for _, g := range s.groups {
				if slices.ContainsFunc(g.members, func(m member) bool { return m.name() == name }) {
					keep[g] = true // any of them may be the one that heals it
				}
			}
		}
		if b == nil {
			continue
		}
		if err := s.put(ctx, b); err != nil {
			return rep, err // with what was found damaged
		}
		rep.Made++
		rep.Written += int64(len(b))
	}
	if rep.Made == 0 && len(keep) == 0 {
		// What remembers that there is to be parity.
		b := (&Header{percent: percent, segment: SegmentSize}).encode(nil)
		for _, g := range s.groups {
			if g.percent == percent && len(g.members) == 0 {
				keep[g] = true
			}
		}
		if len(keep) == 0 {
			if err := s.put(ctx, b); err != nil {
				return nil, err
			}
			rep.Written += int64(len(b))
			hash := hashOf(b)
			keep[&group{name: Dir + hex.EncodeToString(hash[:])}] = true
		}
	}
	made := map[string]bool{}
	for _, name := range s.fresh {
		made[name] = true
	}
	for _, g := range s.groups {
		if keep[g] || made[g.name] {
			rep.Kept++
			continue
		}
		if err := s.remove(ctx, g.name); err != nil {
			return nil, err
		}
		rep.Removed++
	}
	for _, name := range s.damaged {
		if made[name] {
			continue
		}
		if err := s.remove(ctx, name); err != nil {
			return nil, err
		}
		rep.Removed++
	}
	return rep, nil
}

// Remove removes all parity.
func Remove(ctx context.Context, be backend.Backend) (int, error) {
	s, err := Load(ctx, be)
	if err != nil {
		return 0, err
	}
	for _, g := range s.groups {
		s.damaged = append(s.damaged, g.name)
	}
	for _, name := range s.damaged {
		if err := s.remove(ctx, name); err != nil {
			return 0, err
		}
	}
	return len(s.damaged), nil
}

func (s *Set) put(ctx context.Context, b []byte) error {
	hash := hashOf(b)
	name := Dir + hex.EncodeToString(hash[:])
	if err := s.be.Put(ctx, name, b); err != nil && !errors.Is(err, backend.ErrExist) {
		return fmt.Errorf("store parity: %w", err)
	}
	s.fresh = append(s.fresh, name)
	return nil
}

func (s *Set) remove(ctx context.Context, name string) error {
	if err := s.be.Delete(ctx, name); err != nil && !errors.Is(err, backend.ErrNotExist) {
		return fmt.Errorf("remove parity: %w", err)
	}
	return nil
}

// plan chooses which groups of one kind stay, and what the new ones guard: files
// of like length together, since the longest decides how much parity there is.
func (s *Set) plan(kind byte, percent int, all []member, lost func(string) bool, keep map[*group]bool) [][]member {
	open := map[string]member{}
	for _, m := range all {
		if m.kind == kind {
			open[m.name()] = m
		}
	}
	whole := func(g *group) bool {
		for i := range g.members {
			m, there := open[g.members[i].name()]
			if !there || m.size != g.members[i].size {
				return false
			}
		}
		return true
	}
	take := func(g *group) {
		keep[g] = true
		for i := range g.members {
			delete(open, g.members[i].name())
		}
	}
	// Two groups of the same file: one may be forged, or what a run that was cut
	// off left. Nobody knows which, so neither is believed before a new one is made.
	claims := map[string]int{}
	for _, g := range s.groups {
		for i := range g.members {
			claims[g.members[i].name()]++
		}
	}
	shared := func(g *group) bool {
		return slices.ContainsFunc(g.members, func(m member) bool { return claims[m.name()] > 1 })
	}
	var partial []*group
	for _, g := range s.groups {
		if len(g.members) == 0 || g.members[0].kind != kind {
			continue
		}
		for i := range g.members {
			name := g.members[i].name()
			if m, there := open[name]; lost != nil && (!there && lost(name) || there && m.size != g.members[i].size) {
				keep[g] = true // it may bring it back; the others get a new group beside it
			}
		}
		if g.percent != percent || g.parity < rowParity(len(g.members)) || !whole(g) || shared(g) {
			continue
		}
		if len(g.members) == size(percent) {
			take(g)
		} else {
			partial = append(partial, g)
		}
	}
	// The last group, which is not full yet, grows with what has come.
	for _, g := range partial {
		if len(g.members) == len(open) && whole(g) {
			take(g)
		}
	}
	rest := make([]member, 0, len(open))
	for _, m := range open {
		rest = append(rest, m)
	}
	slices.SortFunc(rest, func(a, b member) int {
		if a.size != b.size {
			return int(b.size - a.size)
		}
		return slices.Compare(a.id[:], b.id[:])
	})
	var out [][]member
	for len(rest) > 0 {
		n := min(len(rest), size(percent))
		out = append(out, rest[:n])
		rest = rest[n:]
	}
	return out
}

// build makes the file of a group. Members that are not what their names say are
// left out and returned; without any other the file is nil.
func (s *Set) build(ctx context.Context, percent int, members []member) (file []byte, bad []string, err error) {
	for len(members) > 0 {
		h := &Header{percent: percent, segment: SegmentSize, parity: rowParity(len(members)), members: slices.Clone(members)}
		data, wrong, err := s.compute(ctx, h)
		if err != nil {
			return nil, nil, err
		}
		if len(wrong) == 0 {
			return h.encode(data), bad, nil
		}
		bad = append(bad, wrong...)
		members = slices.DeleteFunc(slices.Clone(members), func(m member) bool { return slices.Contains(wrong, m.name()) })
	}
	return nil, bad, nil
}

// compute reads the members and fills in all hashes. It returns the parity, and
// which members are not what their names say.
func (s *Set) compute(ctx context.Context, h *Header) (data []byte, bad []string, err error) {
	if len(h.members) == 0 {
		h.sums = nil
		return nil, nil, nil // it only remembers that there is to be parity
	}
	code, err := reedsolomon.New(len(h.members), h.parity, reedsolomon.WithCauchyMatrix())
	if err != nil {
		return nil, nil, err
	}
	total := h.length()
	data = make([]byte, 0, int64(h.parity)*total)
	h.sums = nil
	hashes := make([]hash.Hash, len(h.members))
	for i := range hashes {
		hashes[i] = blake.NewStream()
		h.members[i].sums = nil
	}
	step := int64(h.segment) * max(1, stripBytes/int64(h.segment*len(h.members)))
	strips := make([][]byte, len(h.members))
	for i := range strips {
		strips[i] = make([]byte, min(step, total))
	}
	short := map[string]bool{}
	for off := int64(0); off < total; off += step {
		for i := range h.members {
			m := &h.members[i]
			clear(strips[i])
			n := min(max(m.size-off, 0), step)
			if n == 0 {
				continue
			}
			got, err := s.read(ctx, m.name(), strips[i][:n], off)
			if err != nil {
				return nil, nil, err
			}
			if int64(got) < n {
				short[m.name()] = true
			}
			_, _ = hashes[i].Write(strips[i][:n]) // it never fails
		}
		for at := off; at < min(off+step, total); at += int64(h.segment) {
			width := int(min(int64(h.segment), total-at))
			shards := make([][]byte, len(h.members)+h.parity)
			for i := range h.members {
				shards[i] = strips[i][at-off:][:width]
				if n := min(h.members[i].size-at, int64(width)); n > 0 {
					h.members[i].sums = append(h.members[i].sums, sumOf(shards[i][:n]))
				}
			}
			for i := range h.parity {
				data = data[:len(data)+width]
				shards[len(h.members)+i] = data[len(data)-width:]
			}
			if err := code.Encode(shards); err != nil {
				return nil, nil, err
			}
			for _, p := range shards[len(h.members):] {
				h.sums = append(h.sums, sumOf(p))
			}
		}
	}
	for i := range h.members {
		m := &h.members[i]
		if short[m.name()] || [32]byte(hashes[i].Sum(nil)) != m.id {
			bad = append(bad, m.name())
		}
	}
	return data, bad, nil
}
