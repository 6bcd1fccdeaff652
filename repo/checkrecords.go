package repo

import (
	"context"
	"errors"
	"fmt"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/parity"
	"github.com/snap-backup/snap/repo/tree"
)

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

// unfinished looks at the records of unfinished runs. Without a damaged one
// every snapshot still comes back.
func (c *checker) unfinished(ctx context.Context) error {
	const hint = "the device sends the files again in its next backup; this file can be removed"
	for _, err := range c.damagedRuns {
		var d *DamageError
		if errors.As(err, &d) {
			c.report.Problems = append(c.report.Problems, Problem{File: d.File, Text: d.Err.Error(), Hint: hint})
		}
	}
	for _, u := range c.runs {
		lost := 0
		t := treeCheck{c: c, clean: map[chunk.ID]struct{}{}}
		for _, root := range u.Parts {
			good, err := t.node(ctx, root, -1)
			if err != nil {
				return err
			}
			if !good {
				lost++
			}
		}
		if lost > 0 {
			c.report.Problems = append(c.report.Problems, Problem{
				File: runsDir + u.ID.String(), Hint: hint,
				Text: fmt.Sprintf("an interrupted backup of %s has lost content that was received", u.UDID),
			})
		}
	}
	return nil
}

// secrets looks at every kept password. Without a damaged one every snapshot
// still comes back, so that is no loss of content.
func (c *checker) secrets(ctx context.Context) error {
	err := c.r.be.List(ctx, secretsDir, func(f backend.Info) error {
		p, err := c.r.readSecret(ctx, f.Name)
		clear(p.Password)
		var d *DamageError
		if !errors.As(err, &d) {
			return err
		}
		c.report.Problems = append(c.report.Problems, Problem{
			File: d.File, Text: d.Err.Error(),
			Hint: "the backup password of a device is lost: set it again with `snap device password set`, and remove this file",
		})
		return nil
	})
	if err != nil {
		return fmt.Errorf("read device passwords: %w", err)
	}
	return nil
}

// parity looks at what is guarded, and, if all data is read, at parity itself.
func (c *checker) parity(ctx context.Context) error {
	s, err := parity.Load(ctx, c.r.be)
	if err != nil {
		return err
	}
	st, err := s.Status(ctx)
	if err != nil {
		return err
	}
	if c.opts.ReadData >= 1 {
		if st.Damaged, err = s.Verify(ctx); err != nil {
			return err
		}
	}
	if st.Groups > 0 || len(st.Damaged) > 0 {
		c.report.Parity = st
	}
	for _, name := range st.Damaged {
		c.report.Problems = append(c.report.Problems, Problem{
			File: name, Text: "is damaged: what it guards is not guarded, or less", Hint: "`snap repair` or `snap parity` makes it anew",
		})
	}
	return nil
}

func (c *checker) keys(ctx context.Context) error {
	f, err := readConfig(ctx, c.r.be)
	if err == nil {
		if _, err = f.open(c.r.master); err != nil {
			err = &DamageError{configName, err}
		}
	}
	switch {
	case errors.Is(err, ErrDamaged), errors.Is(err, ErrNotFound), errors.Is(err, ErrUnsupported):
		c.damage(&DamageError{configName, err}, "it was sound when this program opened it: restore it from a copy of the repository")
	case err != nil:
		return err
	}
	keys, err := c.r.Keys(ctx)
	if err != nil {
		return err
	}
	sound := 0
	for _, k := range keys {
		if k.Damaged == "" {
			sound++
			continue
		}
		c.damage(&DamageError{keysDir + k.ID.String(), errors.New(k.Damaged)}, "this key no longer opens the repository: remove it with `snap key remove` and add a new one")
	}
	if sound == 0 {
		c.damage(&DamageError{keysDir, errors.New("there is no key slot that works")}, "nobody can open the repository any more: restore a key slot from a copy of the repository")
	}
	return nil
}

// records reads the records of snapshots and unfinished runs. It comes before
// the index is loaded, which then has what they need, however many are stored
// meanwhile.
func (c *checker) records(ctx context.Context) (err error) {
	all, err := c.r.readRecords(ctx)
	if err != nil {
		return err
	}
	c.list, c.superseded, c.damagedList = all.current, all.superseded, all.damaged
	for _, s := range all.superseded {
		c.report.Leftovers = append(c.report.Leftovers, snapshotsDir+s.ID.String())
	}
	c.runs, c.damagedRuns, err = c.r.allUnfinished(ctx)
	return err
}

// strays notes files in the folders of snapshots and index files that are not
// named as such.
func (c *checker) strays(ctx context.Context) error {
	for _, dir := range []string{snapshotsDir, indexDir, keysDir, runsDir, checksDir, parityDir} {
		err := c.r.be.List(ctx, dir, func(f backend.Info) error {
			if id, err := fileID(f.Name); err != nil || dir+id.String() != f.Name {
				c.report.Leftovers = append(c.report.Leftovers, f.Name)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return c.r.be.List(ctx, healingDir, func(f backend.Info) error {
		c.damage(&DamageError{f.Name, errors.New("a repair was cut off before this file came to its place")}, "run `snap repair` again")
		return nil
	})
}
