package check

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/snap-backup/snap/chunk"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/internal/access"
	"github.com/snap-backup/snap/repo/internal/certificate"
	"github.com/snap-backup/snap/repo/internal/layout"
	"github.com/snap-backup/snap/repo/internal/record"
	"github.com/snap-backup/snap/repo/internal/store"
	"github.com/snap-backup/snap/repo/parity"
	"github.com/snap-backup/snap/repo/tree"
	"golang.org/x/sync/errgroup"
)

// reportMarked reports what a snapshot's record lists as lost.
func (c *Checker) reportMarked(ctx context.Context, s *record.Snapshot) error {
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

// checkUnfinished checks the records of unfinished backups. Damage to them is not
// fatal, since no snapshot needs them.
func (c *Checker) checkUnfinished(ctx context.Context) error {
	const again = "nothing else is lost: the device sends the files again in its next backup"
	for _, err := range c.damagedRuns {
		var d *store.DamageError
		if errors.As(err, &d) {
			c.note(Problem{File: d.File, Text: d.Err.Error(), Hint: again + "; " + fromCopy + "remove this record with `snap repair snapshots`"}, err)
		}
	}
	for _, u := range c.runs {
		lost := 0
		t := TreeCheck{Checker: c, Clean: map[chunk.ID]struct{}{}}
		for _, root := range u.Parts {
			good, err := t.checkNode(ctx, root, -1)
			if err != nil {
				return err
			}
			if !good {
				lost++
			}
		}
		if lost > 0 {
			c.Report.Problems = append(c.Report.Problems, Problem{
				File: layout.RunsDir + u.ID.String(), Hint: again,
				Text: fmt.Sprintf("an interrupted backup of %s has lost content that was received", u.UDID),
			})
		}
	}
	return nil
}

// checkPasswords checks the kept passwords. Damage to them is not fatal, since no
// snapshot needs them to be restored.
func (c *Checker) checkPasswords(ctx context.Context) error {
	err := store.List(ctx, c.Store.Backend, layout.SecretsDir, func(f backend.Info) error {
		p, err := record.ReadDevicePassword(ctx, c.Store, f.Name)
		clear(p.Password)
		var d *store.DamageError
		if !errors.As(err, &d) {
			return err
		}
		c.note(Problem{
			File: d.File, Text: d.Err.Error(),
			Hint: fromCopy + "the backup password of a device is lost: remove this record with `snap repair snapshots`, and store the password again with `snap device password set DEVICE`",
		}, err)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read device passwords: %w", err)
	}
	return nil
}

// checkCertificates checks the certificates. Damage to them is not fatal, since no snapshot
// needs them.
func (c *Checker) checkCertificates(ctx context.Context) error {
	_, damaged, err := certificate.List(ctx, c.Store)
	if err != nil {
		return err
	}
	for _, err := range damaged {
		if d, ok := errors.AsType[*store.DamageError](err); ok && d.File == layout.CertificatesDir {
			return err
		}
		p := Problem{File: layout.CertificatesDir, Text: err.Error(), Hint: "use a newer snap, which can read it"}
		if d := (*store.DamageError)(nil); errors.As(err, &d) {
			p = Problem{
				File: d.File, Text: fmt.Sprintf("%v; a snapshot may have lost the proof that it was verified, but no content", d.Err),
				Hint: fromCopy + "remove it with `snap repair snapshots`",
			}
		}
		c.note(p, err)
	}
	orphans, err := certificate.Orphans(ctx, c.Store)
	for _, o := range orphans {
		c.Report.Unreferenced = append(c.Report.Unreferenced, layout.CertificatesDir+o.ID.String())
	}
	return err
}

// checkPruneLists checks the lists of packs to be removed. Damage to them is not fatal:
// these packs stay until another prune finds that nothing needs them.
func (c *Checker) checkPruneLists(ctx context.Context) error {
	names, err := c.Store.NamesIn(ctx, layout.PrunesDir)
	if err != nil {
		return err
	}
	for _, name := range names {
		_, err := c.Store.ReadPruneList(ctx, name)
		var d *store.DamageError
		switch {
		case errors.Is(err, backend.ErrNotExist):
		case errors.As(err, &d):
			c.note(Problem{
				File: name, Text: d.Err.Error(), Hint: "nothing is lost: remove this list with `snap repair snapshots`; the next prune makes a new one",
			}, err)
		case err != nil:
			return err
		}
	}
	return nil
}

// checkLocks reports locks that cannot be read. Other damaged locks are left by crashes,
// and count as stale after some time.
func (c *Checker) checkLocks(ctx context.Context) error {
	names, err := c.Store.NamesIn(ctx, layout.LocksDir)
	if err != nil {
		return err
	}
	for _, name := range names {
		_, err := c.Store.ReadNamed(ctx, name, layout.MaxFileSize)
		var d *store.DamageError
		switch {
		case errors.Is(err, store.ErrUnreadable) && errors.As(err, &d):
			id, _ := layout.ParseFileID(name)
			c.note(Problem{
				File: name, Text: d.Err.Error(),
				Hint: "nothing is lost; if no other snap uses the repository, `snap unlock " + id.Short() + "` removes this lock",
			}, err)
		case err != nil && !errors.Is(err, store.ErrDamaged):
			return err
		}
	}
	return nil
}

// damageLedger reports a file of the ledger that cannot be used.
func (c *Checker) damageLedger(err error) {
	if errors.Is(err, store.ErrUnsupported) {
		c.Report.Problems = append(c.Report.Problems, Problem{File: layout.LedgerDir, Text: err.Error(), Hint: "use a newer snap, which can read it"})
		return
	}
	if isUnlistedLedger(err) {
		c.damage(err, "every snapshot can be read without it; but nothing can be stored and no space can be freed until `ledger` is a folder again: put back the one that you have, or the one of a copy; only without any, make an empty folder of that name")
		return
	}
	c.damage(err, "no snapshot that is listed needs it; but if other snapshots were lost, it may have copies of their records: "+fromCopy+"`snap repair snapshots` removes it, and enters all snapshots that are there")
}

// isUnlistedLedger reports whether an error says that the files of the ledger cannot be listed.
func isUnlistedLedger(err error) bool {
	d, ok := errors.AsType[*store.DamageError](err)
	return ok && d.File == layout.LedgerDir
}

// checkParity reports what is protected and, if all data is read, verifies parity.
func (c *Checker) checkParity(ctx context.Context) error {
	s, err := parity.Load(ctx, c.Store.Backend)
	if err != nil {
		return err
	}
	st, err := s.Status(ctx)
	if err != nil {
		return err
	}
	headless := len(st.Damaged) // the first ones: repair cannot tell what they protect
	if c.opts.ReadData >= 1 {
		if st.Damaged, err = s.Verify(ctx); err != nil {
			return err
		}
	}
	if st.Groups > 0 || len(st.Damaged) > 0 {
		c.Report.Parity = st
	}
	for i, name := range st.Damaged {
		hint := "`snap repair` makes it again"
		if i < headless && st.Groups > 0 {
			hint = "`snap parity` puts new parity in its place"
		} else if i < headless {
			hint = "no parity is left: `snap parity 5%` makes it again, `snap parity off` removes it"
		}
		_, err := c.Store.ReadNamed(ctx, name, layout.MaxFileSize)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		c.note(Problem{
			File: name, Text: "is damaged, so the files that it protects have less protection or none", Hint: hint,
		}, err)
	}
	return nil
}

func (c *Checker) checkKeys(ctx context.Context) error {
	wrong, err := access.CheckConfig(ctx, c.Store)
	if err != nil {
		return err
	}
	for _, p := range wrong {
		c.damage(&store.DamageError{File: p.File, Err: p.Err}, "nothing is lost: `snap repair config` puts the good config and its copy in place")
	}
	keys, err := access.Keys(ctx, c.Store)
	if err != nil {
		return err
	}
	sound := 0
	for _, k := range keys {
		if k.Damaged == "" || k.Exchanged && k.Current {
			sound++
		}
		switch {
		case k.Newer:
			c.Report.Problems = append(c.Report.Problems, Problem{File: layout.KeysDir + k.ID.String(), Text: "a newer snap made this key, so this one cannot tell whether it is good", Hint: "use the newer snap"})
			continue
		case k.Damaged == "":
			continue
		case k.Exchanged:
			c.damage(k.Damage(), "whoever has the secret of this key can still open the repository: try the keys that you know with `snap key list`, change the one that is exchanged with `snap key passwd`, and remove a key that nobody knows with `snap key remove`")
			continue
		}
		c.damage(k.Damage(), "this key does not open the repository: "+fromCopy+"remove it with `snap key remove "+k.ID.Short()+"`, and add a new one with `snap key add`")
	}
	if sound == 0 {
		c.damage(&store.DamageError{File: layout.KeysDir, Err: errors.New("no key slot works")}, "nobody can open the repository any more: fetch a key from a copy with `snap repair --from COPY`")
	}
	return nil
}

// readRecords reads the records of snapshots and unfinished backups. Call it before
// loading the index: then the index has the chunks that these records need, even if
// more records are stored meanwhile.
func (c *Checker) readRecords(ctx context.Context) (err error) {
	all, err := record.ReadAll(ctx, c.Store)
	if err != nil {
		return err
	}
	c.Snapshots, c.Superseded, c.DamagedSnapshots = all.Current, all.Superseded, all.Damaged
	c.damagedLedger = all.LedgerDamage
	for _, s := range all.Superseded {
		c.Report.Unreferenced = append(c.Report.Unreferenced, layout.SnapshotsDir+s.ID.String())
	}
	c.runs, c.damagedRuns, err = record.AllUnfinished(ctx, c.Store)
	return c.passOver(ctx, layout.RunsDir, err)
}

// passOver reports that the files of a folder that no snapshot needs cannot be listed, given
// the error of trying it. The check goes on. It returns any other error.
func (c *Checker) passOver(ctx context.Context, dir string, err error) error {
	if err = store.Judge(ctx, c.Store.Backend, dir, err); err == nil {
		return nil
	}
	d, ok := errors.AsType[*store.DamageError](err)
	if !ok {
		return err
	}
	if !c.unlistable[dir] {
		c.unlistable[dir] = true
		c.note(Problem{File: dir, Text: d.Err.Error(), Hint: "every snapshot can be read without it: put the folder back, or make an empty one of that name"}, err)
	}
	return nil
}

// neededDirs are the folders of records without which snapshots cannot be read, or may be lost.
var neededDirs = []string{layout.SnapshotsDir, layout.IndexDir, layout.KeysDir, layout.ConfigsDir, layout.LedgerDir}

// listings is how many folders are listed at the same time, so that a store far away is not
// asked for one after another.
const listings = 4

// reportStrays reports files whose names do not belong in their folders.
func (c *Checker) reportStrays(ctx context.Context) error {
	dirs := append(slices.Clone(neededDirs), layout.RunsDir, layout.ChecksDir, layout.ParityDir, layout.CertificatesDir, layout.SecretsDir, layout.PrunesDir, layout.LocksDir)
	strays, errs := make([][]string, len(dirs)), make([]error, len(dirs))
	var g errgroup.Group
	g.SetLimit(listings)
	for i, dir := range dirs {
		g.Go(func() error {
			errs[i] = c.Store.Backend.List(ctx, dir, func(f backend.Info) error {
				if _, err := layout.ParseFileID(f.Name); err != nil {
					strays[i] = append(strays[i], f.Name)
				}
				return nil
			})
			return nil
		})
	}
	_ = g.Wait() // errors are judged one after another
	for i, dir := range dirs {
		err := errs[i]
		c.Report.Unreferenced = append(c.Report.Unreferenced, strays[i]...)
		if err != nil && dir == layout.LedgerDir && slices.ContainsFunc(c.damagedLedger, isUnlistedLedger) {
			continue // it is reported
		}
		if !slices.Contains(neededDirs, dir) {
			err = c.passOver(ctx, dir, err)
		}
		if err != nil {
			return err
		}
	}
	return c.passOver(ctx, layout.HealingDir, c.Store.Backend.List(ctx, layout.HealingDir, func(f backend.Info) error {
		if !layout.IsFile(strings.TrimPrefix(f.Name, layout.HealingDir)) {
			c.Report.Unreferenced = append(c.Report.Unreferenced, f.Name)
			return nil
		}
		c.damage(&store.DamageError{File: f.Name, Err: errors.New("a repair was interrupted before it put this file in place")}, "nothing is lost: `snap repair index` puts it in place")
		return nil
	}))
}
