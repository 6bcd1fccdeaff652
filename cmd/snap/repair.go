package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/snap-backup/snap/repo"
	"github.com/spf13/cobra"
)

func (a *app) repairCommand() *cobra.Command {
	var o healFlags
	cmd := &cobra.Command{
		Use:   "repair [--from OTHER]",
		Short: "Heal a damaged repository",
		Long: `Heals damaged or missing files without any loss: with parity, if the repository
has it ("snap help parity"), and from OTHER, the folder of another repository:

  A mirror (same keys): damaged files, and missing packs that a snapshot needs,
  are fetched by name and verified.

  Any other repository with backups of the same devices: missing content is
  copied from it. File trees cannot be healed in this way.

"snap check --read-data" shows what is damaged. Without a copy, run these
commands in this order:

    snap repair config       put a good copy of config in place; loses nothing
    snap repair index        rebuild the index from the packs; loses nothing
    snap repair packs        salvage the intact blocks of damaged packs
    snap repair snapshots    mark what cannot be healed

No other process may use the repository during a repair.`,
		Args: suggest,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.heal(cmd.Context(), &o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.from, "from", "", "heal from the repository in this `folder`")
	f.BoolVar(&o.snapshots, "missing-snapshots", false, "also fetch snapshots that only the mirror has: lost or forgotten ones")
	f.StringVar(&o.passwordFile, "from-password-file", "", "password `file` of the other repository (or $SNAP_FROM_PASSWORD)")
	f.BoolVarP(&o.dryRun, "dry-run", "n", false, "only show what would be done")
	cmd.AddCommand(a.repairConfigCommand(), a.repairIndexCommand(), a.repairPacksCommand(), a.repairSnapshotsCommand())
	return cmd
}

// repairing opens the repository, calls run and shows its progress. Except in a dry
// run, it locks the repository for this process alone.
func (a *app) repairing(ctx context.Context, what string, dryRun bool, run func(r *repo.Repo, opts repo.RepairOptions) error) (err error) {
	r, err := a.open(ctx)
	if err != nil {
		return err
	}
	if !dryRun {
		if err := a.mayReplace(); err != nil {
			return err
		}
		if err := a.takeLock(ctx, r, repo.LockExclusive, what); err != nil {
			return err
		}
		defer a.releaseLock()
	}
	var mu sync.Mutex
	now := meter{phase: "reading"}
	stop := a.showProgress(func() meter {
		mu.Lock()
		defer mu.Unlock()
		return now
	})
	defer stop()
	return run(r, repo.RepairOptions{DryRun: dryRun, Progress: func(phase string, done, total int64) {
		mu.Lock()
		defer mu.Unlock()
		now = meter{phase: phase}
		if total > 0 {
			now.percent = 100 * done / total
		}
	}})
}

// would returns the words before a passive verb in a report: "would be " in a dry
// run, otherwise "".
func would(dryRun bool) string {
	if dryRun {
		return "would be "
	}
	return ""
}

func (a *app) repairIndexCommand() *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "index",
		Short: "Rebuild the index from the packs",
		Long: `Reads the headers of all packs, and replaces index files that are damaged,
missing or wrong. Nothing is lost. If packs are missing, or some cannot be read,
it names them and exits with 13.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var rep *repo.IndexRepair
			err := a.repairing(cmd.Context(), "snap repair index", dryRun, func(r *repo.Repo, opts repo.RepairOptions) (err error) {
				rep, err = r.RepairIndex(cmd.Context(), opts)
				return err
			})
			if err != nil {
				return err
			}
			return a.repaired(rep, dryRun, lacksPacks(rep), func(w io.Writer) { printIndexRepair(w, rep, dryRun, true) })
		},
	}
	cmd.Flags().BoolVarP(&dryRun, "dry-run", "n", false, "only show what would be done")
	return cmd
}

// repaired prints what a repair has done or, in a dry run, would do. If something is lost
// or stays damaged, its error says no more than what was printed.
func (a *app) repaired(result any, dryRun, left bool, human func(w io.Writer)) error {
	err := a.conclude(result, dryRun || left, func(w io.Writer) {
		human(w)
		if dryRun {
			fmt.Fprintln(w, "nothing was changed")
		}
	})
	if err == nil && left {
		return silentError{repo.ErrDamaged}
	}
	return err
}

// lacksPacks reports whether packs are missing or cannot be read.
func lacksPacks(x *repo.IndexRepair) bool { return len(x.Dropped)+len(x.Unreadable) > 0 }

func printIndexRepair(w io.Writer, x *repo.IndexRepair, dryRun, always bool) {
	for _, f := range x.Damaged {
		fmt.Fprintf(w, "%s  %s\n", paint(w, bad, "DAMAGED"), f)
	}
	printAside(w, x.Aside)
	for _, id := range x.Unreadable {
		fmt.Fprintf(w, "UNKNOWN  pack %s: its header is damaged and no index file lists it; if \"snap check\" finds nothing lost, \"snap prune\" removes it\n", id)
	}
	for _, id := range x.Dropped {
		fmt.Fprintf(w, "%s  pack %s\n", paint(w, bad, "MISSING"), id)
	}
	switch {
	case x.Changed():
		fmt.Fprintf(w, "the index %srebuilt from %s: %s not listed, %d wrong, %d missing\n",
			map[bool]string{true: "would be ", false: "was "}[dryRun], plural(x.Packs, "pack"), plural(len(x.Added), "pack"), len(x.Corrected), len(x.Dropped))
	case always:
		fmt.Fprintf(w, "the index agrees with its %s; nothing to do\n", plural(x.Packs, "pack"))
	}
}

func (a *app) repairPacksCommand() *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "packs",
		Short: "Correct wrong bytes, and salvage intact blocks of damaged packs",
		Long: `Reads all packs. If only a few neighbouring bytes are wrong, such as one flipped
bit, it corrects them, and nothing is lost. Of other damaged packs it copies the
intact blocks to new packs. It removes these damaged packs from the index, and
the next "snap prune" removes their files. Lost content is stored again when a
backup has it ("snap import --rescan"). If something is lost, or a pack stays
damaged, the exit code is 13.

Try "snap repair --from COPY" first: it loses nothing.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var rep *repo.PackRepair
			err := a.repairing(cmd.Context(), "snap repair packs", dryRun, func(r *repo.Repo, opts repo.RepairOptions) (err error) {
				rep, err = r.RepairPacks(cmd.Context(), opts)
				return err
			})
			if err != nil {
				return err
			}
			left := rep.LostChunks() > 0 || len(rep.Denied) > 0 || lacksPacks(rep.Index)
			return a.repaired(rep, dryRun, left, func(w io.Writer) { printPackRepair(w, rep, dryRun) })
		},
	}
	cmd.Flags().BoolVarP(&dryRun, "dry-run", "n", false, "only show what would be done")
	return cmd
}

func printPackRepair(w io.Writer, rep *repo.PackRepair, dryRun bool) {
	printIndexRepair(w, rep.Index, dryRun, false)
	for _, d := range rep.Damaged {
		fmt.Fprintf(w, "%s  pack %s: %s\n", paint(w, bad, "DAMAGED"), d.Pack, clean(d.Text))
		fmt.Fprintf(w, "         %d of %s %ssalvaged", d.Saved, plural(d.Blocks, "block"), would(dryRun))
		if d.LostChunks > 0 {
			fmt.Fprintf(w, "; lost: %s, %s", plural(d.LostChunks, "chunk"), bytesText(d.LostBytes))
		}
		fmt.Fprintln(w)
	}
	for _, id := range rep.Corrected {
		fmt.Fprintf(w, "%s  pack %s: a few of its bytes were wrong; nothing is lost\n", map[bool]string{true: "DAMAGED", false: "CORRECTED"}[dryRun], id)
	}
	for _, id := range rep.Denied {
		fmt.Fprintf(w, "DENIED   pack %s: permission denied; it stays as it is, since its owner may be able to read it\n", id)
	}
	fmt.Fprintf(w, "%s read, %s; damaged: %d\n", plural(rep.Packs, "pack"), bytesText(rep.Bytes), len(rep.Damaged))
	if rep.LostChunks() > 0 {
		fmt.Fprintln(w, `"snap check" shows which files are lost; run "snap import --rescan" with the backups that you still have, then "snap repair snapshots"`)
	}
}

func (a *app) repairSnapshotsCommand() *cobra.Command {
	var opts repo.SnapshotRepairOptions
	cmd := &cobra.Command{
		Use:   "snapshots",
		Short: "Mark what snapshots have lost",
		Long: `Reads everything. Each snapshot that has lost files is replaced with one that
lacks them and lists them in its record. The rest can then be restored, and
prune works again. Lost files whose content exists again are added back.

A snapshot whose record cannot be read is kept unless --remove-damaged is given.
Certificates, kept backup passwords, prune lists and records of unfinished
backups are removed if they are damaged, since no snapshot needs them.

If a snapshot lacks files now, a record stays damaged, or a file stays since
this user may not read it, the exit code is 13. If a folder, a link or anything
else has the name of a file that would be removed, it is moved aside.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var rep *repo.SnapshotRepair
			err := a.repairing(cmd.Context(), "snap repair snapshots", opts.DryRun, func(r *repo.Repo, o repo.RepairOptions) (err error) {
				opts.Options = o
				rep, err = r.RepairSnapshots(cmd.Context(), opts)
				return err
			})
			if err != nil {
				return err
			}
			return a.repaired(rep, opts.DryRun, rep.Lost(), func(w io.Writer) { printSnapshotRepair(w, rep, &opts) })
		},
	}
	cmd.Flags().BoolVarP(&opts.DryRun, "dry-run", "n", false, "only show what would be done")
	cmd.Flags().BoolVar(&opts.RemoveDamaged, "remove-damaged", false, "remove snapshot records that cannot be read")
	return cmd
}

func printSnapshotRepair(w io.Writer, rep *repo.SnapshotRepair, opts *repo.SnapshotRepairOptions) {
	removed := "REMOVED "
	if opts.DryRun {
		removed = "DAMAGED "
	}
	for _, s := range rep.Repaired {
		fmt.Fprintf(w, "%s (%s, %s)", s.Snapshot.Short(), clean(s.Device), timeText(s.Time))
		if s.New != nil {
			fmt.Fprintf(w, " is now %s", s.New.Short())
		}
		if s.Regained > 0 {
			fmt.Fprintf(w, "; %sregained: %s", would(opts.DryRun), plural(s.Regained, "file"))
		}
		if s.Files > 0 {
			fmt.Fprintf(w, "; lost: %s, %s", plural(s.Files, "file"), bytesText(s.Bytes))
		}
		if s.Tree {
			fmt.Fprint(w, "; a part of the file tree is lost")
		}
		fmt.Fprintln(w)
		for _, n := range s.Names {
			fmt.Fprintf(verbatim(w), "           %s\n", clean(n))
		}
		if more := s.Files - int64(len(s.Names)); more > 0 {
			fmt.Fprintf(w, "           and %s more\n", count(more))
		}
	}
	for _, name := range rep.Damaged {
		if opts.RemoveDamaged && (opts.DryRun || slices.Contains(rep.Gone, name)) {
			fmt.Fprintf(w, "%s %s: it cannot be read%s\n", removed, name, wouldRemove(opts.DryRun))
		} else {
			fmt.Fprintf(w, "DAMAGED  %s: it cannot be read; fetch it from a copy, or remove it with --remove-damaged\n", name)
		}
	}
	for _, id := range rep.Healed {
		fmt.Fprintf(w, "%s snapshots/%s: from the ledger\n", map[bool]string{true: "WOULD HEAL", false: "HEALED  "}[opts.DryRun], id)
	}
	printRemovedLedger(w, rep.Ledger, rep.Aside, opts.DryRun)
	for _, name := range rep.Denied {
		fmt.Fprintf(w, "DENIED   %s: permission denied; it stays as it is, since its owner may be able to read it; until this user may read it, %s\n", name, whileDenied(name))
	}
	for _, name := range rep.Certificates {
		fmt.Fprintf(w, "%s %s: this certificate is damaged%s\n", removed, name, wouldRemove(opts.DryRun))
	}
	for _, name := range rep.Records {
		fmt.Fprintf(w, "%s %s: this record is damaged, and no snapshot needs it%s\n", removed, name, wouldRemove(opts.DryRun))
	}
	fmt.Fprintf(w, "%s; %srepaired: %d\n", plural(rep.Snapshots, "snapshot"), would(opts.DryRun), len(rep.Repaired))
}

// printRemovedLedger prints the damaged files of the ledger that a repair removes, and what it
// has moved aside.
func printRemovedLedger(w io.Writer, names, aside []string, dryRun bool) {
	removed := "REMOVED "
	if dryRun {
		removed = "DAMAGED "
	}
	for _, name := range names {
		fmt.Fprintf(w, "%s %s: this file of the ledger is damaged%s\n", removed, name, wouldRemove(dryRun))
	}
	printAside(w, aside)
}

// printAside prints the new names of what was no file of the repository.
func printAside(w io.Writer, names []string) {
	for _, name := range names {
		fmt.Fprintf(w, "MOVED    a folder, a link or something else had the name of a file in %s: it is now %s, and snap does not need it\n", name[:strings.LastIndexByte(name, '/')+1], name)
	}
}

// whileDenied says what follows as long as a file may not be read.
func whileDenied(name string) string {
	folder, _, _ := strings.Cut(name, "/")
	switch folder {
	case "certificates":
		return "what it certifies does not count"
	case "secrets":
		return "no command can use the backup password in it"
	case "prunes":
		return "the packs that it names count as packs like any other"
	case "runs":
		return "no backup continues from it, and \"snap prune\" removes nothing"
	case "snapshots":
		return "its snapshot cannot be used, and \"snap prune\" removes nothing"
	default:
		return "\"snap prune\" removes nothing"
	}
}

// wouldRemove ends a line about a damaged file in a dry run.
func wouldRemove(dryRun bool) string {
	if dryRun {
		return "; it would be removed"
	}
	return ""
}
