package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/snap-backup/snap/repo"
	"github.com/snap-backup/snap/repo/backend"
	"github.com/snap-backup/snap/repo/parity"
)

// healFlags are the flags of repair.
type healFlags struct {
	from, passwordFile string
	snapshots, dryRun  bool
}

// healResult is the output of repair.
type healResult struct {
	From    string              `json:"from,omitempty"`
	Keys    []string            `json:"keys,omitempty"` // that came from the copy before anything else
	Parity  *parity.HealReport  `json:"parity,omitempty"`
	Mirror  *repo.HealReport    `json:"mirror,omitempty"`
	Content *repo.ContentReport `json:"content,omitempty"`
}

func (a *app) heal(ctx context.Context, o *healFlags) error {
	var from storage
	if o.from != "" {
		var err error
		if from, err = a.openFolder(ctx, o.from); err != nil {
			return openError(o.from, err)
		}
		defer from.Close()
	}
	out := healResult{From: o.from}
	if from != nil {
		a.rescue = func(ctx context.Context, be backend.Backend, secret []byte) (bool, error) {
			name, err := repo.FetchKey(ctx, be, from, secret, a.options, o.dryRun)
			if err == nil && name != "" {
				out.Keys = append(out.Keys, name)
			}
			return name != "" && !o.dryRun, err
		}
	}
	keys, err := a.healKeys(ctx, o.dryRun)
	if err != nil {
		return err
	}
	err = a.repairing(ctx, "snap repair", o.dryRun, func(r *repo.Repo, opts repo.RepairOptions) (err error) {
		status, err := r.ParityStatus(ctx)
		if err != nil {
			return err
		}
		if status.Groups > 0 {
			if out.Parity, err = r.HealFromParity(ctx, opts); err != nil {
				return err
			}
		} else if from == nil {
			return advised{usageError{errors.New("the repository has no parity, and --from is not given")}, `use --from FOLDER; without a copy see "snap help repair"`}
		}
		if from == nil {
			return nil
		}
		out.Mirror, err = r.HealFromMirror(ctx, from, repo.HealOptions{Options: opts, Snapshots: o.snapshots})
		if !errors.Is(err, repo.ErrOtherRepository) {
			return err
		}
		other, err := a.openOther(ctx, from, o)
		if err != nil {
			return err
		}
		out.Content, err = r.HealFromContent(ctx, other, opts)
		return err
	})
	switch {
	case err != nil && o.dryRun && len(keys)+len(out.Keys) > 0 && out.Parity == nil && errors.Is(err, repo.ErrDamaged):
		a.warn("%v; heal the keys first: only then can the rest be read", err)
		if len(keys) > 0 {
			out.Parity = &parity.HealReport{Files: len(keys), Healed: keys, Unhealed: []string{}, Skipped: []string{}}
		}
	case err != nil:
		for _, name := range out.Keys {
			a.remark("%s was fetched from the copy", name)
		}
		for _, name := range keys {
			a.remark("%s %shealed from parity", name, would(o.dryRun))
		}
		return err
	case out.Parity != nil && !o.dryRun:
		out.Parity.Healed = append(keys, out.Parity.Healed...)
	}
	if out.Parity != nil && out.Mirror != nil {
		// The copy may have files that parity could not heal.
		out.Parity.Unhealed = slices.DeleteFunc(out.Parity.Unhealed, func(name string) bool { return slices.Contains(out.Mirror.Fetched, name) })
	}
	content := out.Content
	left := out.Parity != nil && len(out.Parity.Unhealed) > 0 || out.Mirror != nil && len(out.Mirror.Unhealed)+out.Mirror.MissingChunks > 0 ||
		content != nil && (content.MissingLists > 0 || content.FoundChunks < content.MissingChunks)
	return a.repaired(out, o.dryRun, left, func(w io.Writer) { printHeal(w, &out, o) })
}

// healKeys heals key slots from parity, before they are needed to open the repository.
func (a *app) healKeys(ctx context.Context, dryRun bool) ([]string, error) {
	dir, err := a.location()
	if err != nil {
		return nil, err
	}
	be, err := a.openFolder(ctx, dir)
	if err != nil {
		return nil, openError(dir, err)
	}
	defer be.Close()
	return repo.HealKeys(ctx, be, dryRun)
}

// openOther opens the repository to heal from.
func (a *app) openOther(ctx context.Context, be storage, o *healFlags) (*repo.Repo, error) {
	r, err := a.unlock(ctx, be, opening{dir: o.from, ways: otherPassword, given: func(context.Context) (s secrets, err error) {
		var pw *typed
		if o.passwordFile != "" {
			pw, err = a.readPasswordFile(o.passwordFile)
		} else {
			pw, err = fromVariable("SNAP_FROM_PASSWORD")
		}
		if err != nil || pw == nil {
			return s, err
		}
		defer pw.clear()
		return pw.secrets()
	}})
	if err != nil {
		return nil, err
	}
	return r, r.LoadIndex(ctx)
}

func printHeal(w io.Writer, h *healResult, o *healFlags) {
	healed, fetched := "HEALED  ", "FETCHED "
	if o.dryRun {
		healed, fetched = "WOULD HEAL", "WOULD FETCH"
	}
	for _, f := range h.Keys {
		fmt.Fprintf(w, "%s %s\n", fetched, f)
	}
	if p := h.Parity; p != nil {
		for _, f := range p.Healed {
			fmt.Fprintf(w, "%s %s\n", healed, f)
		}
		for _, f := range p.Unhealed {
			fmt.Fprintf(w, "UNHEALED %s: too much of its parity group is damaged\n", f)
		}
		printAside(w, p.Aside)
		for _, f := range p.Skipped {
			fmt.Fprintf(w, "SKIPPED  %s: its header is invalid; remove it and run \"snap parity\"\n", f)
		}
		fmt.Fprintf(w, "parity: %s read; %shealed: %d, %sremade: %d, unhealed: %d\n", plural(p.Files, "file"),
			would(o.dryRun), len(p.Healed), would(o.dryRun), p.Remade, len(p.Unhealed))
	}
	if m := h.Mirror; m != nil {
		for _, f := range m.Damaged {
			fmt.Fprintf(w, "DAMAGED  %s\n", f)
		}
		for _, f := range m.Healed {
			fmt.Fprintf(w, "%s %s\n", healed, f)
		}
		for _, f := range m.Fetched {
			fmt.Fprintf(w, "%s %s\n", fetched, f)
		}
		for _, f := range m.FromLedger {
			fmt.Fprintf(w, "%s %s: from the ledger\n", healed, f)
		}
		printRemovedLedger(w, m.Ledger, m.Aside, o.dryRun)
		printFromMirror(w, m, o)
	}
	if c := h.Content; c != nil {
		printPackRepair(w, c.Packs, o.dryRun)
		fmt.Fprintf(w, "missing: %s; %sfound in %s of the other repository: %d, %s\n", plural(c.MissingChunks, "chunk"), would(o.dryRun), plural(c.Snapshots, "snapshot"), c.FoundChunks, bytesText(c.FoundBytes))
		if c.MissingLists > 0 {
			fmt.Fprintf(w, "parts of file trees that only a mirror can restore: %d\n", c.MissingLists)
		}
	}
	switch {
	case h.Parity != nil && len(h.Parity.Unhealed) > 0 && h.Mirror == nil && h.Content == nil:
		fmt.Fprintln(w, `a copy may have what parity could not heal: "snap repair --from COPY"; without one see "snap help repair"`)
	case !o.dryRun:
		fmt.Fprintln(w, `"snap check --read-data" shows whether the repository is intact now`)
	}
}

// printFromMirror prints the rest of what a mirror could heal.
func printFromMirror(w io.Writer, m *repo.HealReport, o *healFlags) {
	for _, f := range m.Unhealed {
		fmt.Fprintf(w, "UNHEALED %s: the copy lacks it, too\n", f)
	}
	index := *m.Index
	index.Dropped = slices.DeleteFunc(slices.Clone(index.Dropped), func(id repo.FileID) bool {
		return slices.ContainsFunc(m.Fetched, func(name string) bool { return strings.HasSuffix(name, "/"+id.String()) })
	}) // fetched packs are no longer missing
	printIndexRepair(w, &index, o.dryRun, false)
	if n := len(m.Elsewhere); n > 0 && !o.snapshots {
		fmt.Fprintf(w, "the copy has %s that this repository lacks; --missing-snapshots fetches them\n", plural(n, "snapshot"))
	}
	if m.MissingChunks > 0 {
		fmt.Fprintf(w, "%s in use are in neither repository; \"snap check\" shows which files are lost\n", plural(m.MissingChunks, "chunk"))
	}
	fmt.Fprintf(w, "%s read; damaged: %d; ", plural(m.Read, "file"), len(m.Damaged))
	if n := len(m.Healed); n > 0 {
		fmt.Fprintf(w, "%shealed here: %d; ", would(o.dryRun), n)
	}
	fmt.Fprintf(w, "%sfetched: %d, %s\n", would(o.dryRun), len(m.Fetched), bytesText(m.FetchedBytes))
}
