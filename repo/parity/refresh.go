package parity

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/replace"
)

// RefreshOptions are the options of Refresh.
type RefreshOptions struct {
	// Percent, if not 0, is the new amount of parity, in hundredths of a percent.
	Percent int
	// Without, if not nil, reports whether a file is about to be removed. Refresh
	// treats such a file as if it did not exist.
	Without func(name string) bool
	// Lost, if not nil, reports whether a file that does not exist should exist. The
	// groups of such a file are kept, since they may restore it.
	Lost func(name string) bool
	// Progress, if not nil, is called with the number of groups made so far and the
	// number to make.
	Progress func(done, total int)
}

// RefreshReport says what Refresh has done.
type RefreshReport struct {
	Made    int   `json:"made_groups"`
	Kept    int   `json:"kept_groups"`
	Removed int   `json:"removed_groups"`
	Written int64 `json:"written_bytes"`
	// Damaged are files that do not have the hash of their name. Heal them first.
	Damaged []string `json:"damaged"`
	// Aside are the new names of folders, links and other things that had the names of parity
	// files.
	Aside []string `json:"aside,omitempty"`
}

// Refresh makes parity for files without parity, and new parity for groups that are no
// longer complete. It does nothing if the repository has no parity and opts.Percent is
// 0. It removes old groups after all new ones are durable. Other processes may write at
// the same time. If storing fails, Refresh returns the report so far with the error.
func Refresh(ctx context.Context, be backend.Backend, opts RefreshOptions) (*RefreshReport, error) {
	s, err := Load(ctx, be)
	if err != nil {
		return nil, err
	}
	r := &refresher{
		Set: s, percent: cmp.Or(opts.Percent, s.Percent()),
		keep: map[*group]bool{}, stored: map[string]bool{}, report: &RefreshReport{Damaged: []string{}},
	}
	if r.percent == 0 {
		return r.report, nil
	}
	all, err := s.list(ctx)
	if err != nil {
		return nil, err
	}
	if opts.Without != nil {
		all = slices.DeleteFunc(all, func(f file) bool { return opts.Without(f.name()) })
	}
	var todo [][]file
	for kind := range kinds {
		todo = append(todo, s.plan(byte(kind), r.percent, all, opts.Lost, r.keep)...)
	}
	for i, files := range todo {
		if opts.Progress != nil {
			opts.Progress(i, len(todo))
		}
		b, bad, err := s.build(ctx, r.percent, files)
		if err != nil {
			return nil, err
		}
		r.noteDamage(bad)
		if b == nil {
			continue
		}
		if err := r.put(ctx, b); err != nil {
			return r.report, err
		}
		r.report.Made++
	}
	if err := r.keepPercent(ctx); err != nil {
		return nil, err
	}
	if err := r.removeOld(ctx); err != nil {
		return nil, err
	}
	r.report.Aside = s.aside
	return r.report, nil
}

// refresher holds the state of one call of Refresh.
type refresher struct {
	*Set
	percent int
	keep    map[*group]bool
	stored  map[string]bool // names of stored parity files
	report  *RefreshReport
}

// noteDamage reports damaged files and keeps all their groups, since any of these
// may be able to heal them.
func (r *refresher) noteDamage(names []string) {
	for _, name := range names {
		r.report.Damaged = append(r.report.Damaged, name)
		for _, g := range r.groups {
			if slices.ContainsFunc(g.files, func(f file) bool { return f.name() == name }) {
				r.keep[g] = true
			}
		}
	}
}

// keepPercent stores a group without files if there is no other group, so that the
// percentage is not lost.
func (r *refresher) keepPercent(ctx context.Context) error {
	if r.report.Made > 0 || len(r.keep) > 0 {
		return nil
	}
	for _, g := range r.groups {
		if g.percent == r.percent && len(g.files) == 0 {
			r.keep[g] = true
		}
	}
	if len(r.keep) > 0 {
		return nil
	}
	return r.put(ctx, (&Header{percent: r.percent, shard: shardSize}).encode(nil))
}

// removeOld removes all parity files that are neither kept nor new.
func (r *refresher) removeOld(ctx context.Context) error {
	var old []string
	for _, g := range r.groups {
		if r.keep[g] || r.stored[g.name] {
			r.report.Kept++
		} else {
			old = append(old, g.name)
		}
	}
	for _, name := range r.damaged {
		if !r.stored[name] {
			old = append(old, name)
		}
	}
	for _, name := range old {
		if err := r.remove(ctx, name); err != nil {
			return err
		}
		r.report.Removed++
	}
	return nil
}

// put stores a parity file.
func (r *refresher) put(ctx context.Context, b []byte) error {
	hash := hashOf(b)
	name := Dir + hex.EncodeToString(hash[:])
	damaged := slices.Contains(r.damaged, name) // it had the same bytes before
	if damaged {
		aside, err := replace.MoveAside(ctx, r.be, name)
		if err != nil {
			return fmt.Errorf("store parity: %w", err)
		}
		if aside != "" {
			r.aside = append(r.aside, aside)
		}
	}
	err := r.be.Put(ctx, name, b)
	if errors.Is(err, backend.ErrExist) && damaged {
		err = replace.Put(ctx, r.be, name, b)
	}
	if err != nil && !errors.Is(err, backend.ErrExist) {
		return fmt.Errorf("store parity: %w", err)
	}
	r.stored[name] = true
	r.report.Written += int64(len(b))
	return nil
}

// Remove removes all parity. It returns the number of files.
func Remove(ctx context.Context, be backend.Backend) (int, error) {
	s, err := Load(ctx, be)
	if err != nil {
		return 0, err
	}
	names := slices.Clone(s.damaged)
	for _, g := range s.groups {
		names = append(names, g.name)
	}
	for _, name := range names {
		if err := s.remove(ctx, name); err != nil {
			return 0, err
		}
	}
	return len(names), nil
}

func (s *Set) remove(ctx context.Context, name string) error {
	aside, err := replace.Clear(ctx, s.be, name)
	if aside != "" {
		s.aside = append(s.aside, aside)
	}
	if err != nil {
		return fmt.Errorf("remove parity: %w", err)
	}
	return nil
}
