package check

import (
	"context"
	"errors"
	"fmt"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/access"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/record"
	"github.com/snap-backup/snap/repo/internal/store"
	"github.com/snap-backup/snap/repo/parity"
	"github.com/snap-backup/snap/repo/tree"
)

// marked reports what a snapshot's record lists as lost.
func (c *Checker) marked(ctx context.Context, s *record.Snapshot) error {
	l := s.Lost
	if l == nil {
		return nil
	}
	m := Affected{Snapshot: s.ID, Device: s.Device.Name, Time: s.Time, Files: l.Files, Tree: len(l.Nodes)+l.MoreNodes > 0, Names: []string{}}
	t := TreeCheck{Checker: c, Found: m}
	w := record.NodeWalk{Load: t.Load, OnEntry: func(e *tree.Entry) error { t.NameEntry(e); return nil }}
	w.OnLost = func(_ record.LostNode, err error) error {
		c.Report.Problems = append(c.Report.Problems, Problem{
			File: layout.SnapshotsDir + s.ID.String(), Text: fmt.Sprintf("the list of its lost files cannot be read completely: %v", err),
			Hint: "its other files can be restored; `snap repair snapshots` makes a new list",
		})
		return nil
	}
	if l.Tree != nil {
		unknown := c.unknown
		if err := w.Node(ctx, *l.Tree, -1); err != nil {
			return err
		}
		c.unknown = unknown // known losses say nothing about the index
	}
	c.Report.Marked = append(c.Report.Marked, t.Found)
	return nil
}

// unfinished checks the records of unfinished backups. Damage to them is not fatal,
// since no snapshot needs them.
func (c *Checker) unfinished(ctx context.Context) error {
	const hint = "the device sends the files again in its next backup; this file can be removed"
	for _, err := range c.damagedRuns {
		var d *store.DamageError
		if errors.As(err, &d) {
			c.Report.Problems = append(c.Report.Problems, Problem{File: d.File, Text: d.Err.Error(), Hint: hint})
		}
	}
	for _, u := range c.runs {
		lost := 0
		t := TreeCheck{Checker: c, Clean: map[chunk.ID]struct{}{}}
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
			c.Report.Problems = append(c.Report.Problems, Problem{
				File: layout.RunsDir + u.ID.String(), Hint: hint,
				Text: fmt.Sprintf("an interrupted backup of %s has lost content that was received", u.UDID),
			})
		}
	}
	return nil
}

// secrets checks the kept passwords. Damage to them is not fatal, since no snapshot
// needs them to be restored.
func (c *Checker) secrets(ctx context.Context) error {
	err := c.Store.Backend.List(ctx, layout.SecretsDir, func(f backend.Info) error {
		p, err := record.ReadDevicePassword(ctx, c.Store, f.Name)
		clear(p.Password)
		var d *store.DamageError
		if !errors.As(err, &d) {
			return err
		}
		c.Report.Problems = append(c.Report.Problems, Problem{
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

// parity reports what is protected and, if all data is read, verifies parity.
func (c *Checker) parity(ctx context.Context) error {
	s, err := parity.Load(ctx, c.Store.Backend)
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
		c.Report.Parity = st
	}
	for _, name := range st.Damaged {
		c.Report.Problems = append(c.Report.Problems, Problem{
			File: name, Text: "is damaged, so its files have less protection or none", Hint: "`snap repair` or `snap parity` makes it again",
		})
	}
	return nil
}

func (c *Checker) keys(ctx context.Context) error {
	f, err := store.ReadConfig(ctx, c.Store.Backend)
	if err == nil {
		if _, err = f.Open(c.Store.MasterKey); err != nil {
			err = &store.DamageError{File: layout.ConfigName, Err: err}
		}
	}
	switch {
	case errors.Is(err, store.ErrDamaged), errors.Is(err, store.ErrNotFound), errors.Is(err, store.ErrUnsupported):
		c.damage(&store.DamageError{File: layout.ConfigName, Err: err}, "it was good when this program started: restore it from a copy of the repository")
	case err != nil:
		return err
	}
	keys, err := access.Keys(ctx, c.Store)
	if err != nil {
		return err
	}
	sound := 0
	for _, k := range keys {
		if k.Damaged == "" {
			sound++
			continue
		}
		c.damage(&store.DamageError{File: layout.KeysDir + k.ID.String(), Err: errors.New(k.Damaged)}, "this key no longer opens the repository: remove it with `snap key remove` and add a new one")
	}
	if sound == 0 {
		c.damage(&store.DamageError{File: layout.KeysDir, Err: errors.New("no key slot works")}, "nobody can open the repository any more: restore a key slot from a copy of the repository")
	}
	return nil
}

// records reads the records of snapshots and unfinished backups. Call it before
// loading the index: then the index has the chunks that these records need, even if
// more records are stored meanwhile.
func (c *Checker) records(ctx context.Context) (err error) {
	all, err := record.ReadAll(ctx, c.Store)
	if err != nil {
		return err
	}
	c.Snapshots, c.Superseded, c.DamagedSnapshots = all.Current, all.Superseded, all.Damaged
	for _, s := range all.Superseded {
		c.Report.Unreferenced = append(c.Report.Unreferenced, layout.SnapshotsDir+s.ID.String())
	}
	c.runs, c.damagedRuns, err = record.AllUnfinished(ctx, c.Store)
	return err
}

// strays reports files whose names do not belong in their folders.
func (c *Checker) strays(ctx context.Context) error {
	for _, dir := range []string{layout.SnapshotsDir, layout.IndexDir, layout.KeysDir, layout.RunsDir, layout.ChecksDir, layout.ParityDir} {
		err := c.Store.Backend.List(ctx, dir, func(f backend.Info) error {
			if id, err := layout.ParseFileID(f.Name); err != nil || dir+id.String() != f.Name {
				c.Report.Unreferenced = append(c.Report.Unreferenced, f.Name)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return c.Store.Backend.List(ctx, layout.HealingDir, func(f backend.Info) error {
		c.damage(&store.DamageError{File: f.Name, Err: errors.New("a repair was interrupted before it put this file in place")}, "run `snap repair` again")
		return nil
	})
}
