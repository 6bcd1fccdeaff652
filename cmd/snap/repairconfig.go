package main

import (
	"fmt"
	"io"

	"github.com/snap-backup/snap/repo"
	"github.com/spf13/cobra"
)

func (a *app) repairConfigCommand() *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Put a good copy of config in place",
		Long: `Replaces a damaged or missing config by its copy in configs/, and a damaged or
missing copy by config. The password tells which one is right: the one that the
master key opens. What is damaged is removed only after the good one was stored
and read back. Nothing is lost.

Keys hold a copy of config, too, unless an older program made them. If there is
no copy at all, a new config is made. Everything can be read with it. But
content of new backups is cut in other places, so it is stored once more;
mirrors must be made anew; and "snap copy" copies everything again. If you have
a mirror, copy its file config here instead.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var rep *repo.ConfigRepair
			a.options.MakeConfig = true
			err := a.repairing(cmd.Context(), "snap repair config", dryRun, func(r *repo.Repo, opts repo.RepairOptions) (err error) {
				rep, err = r.RepairConfig(cmd.Context(), opts)
				return err
			})
			if err != nil {
				return err
			}
			return a.repaired(rep, dryRun, false, func(w io.Writer) { printConfigRepair(w, rep, dryRun) })
		},
	}
	cmd.Flags().BoolVarP(&dryRun, "dry-run", "n", false, "only show what would be done")
	return cmd
}

func printConfigRepair(w io.Writer, x *repo.ConfigRepair, dryRun bool) {
	if x.Made {
		fmt.Fprintf(w, "LOST     config and all its copies: a new one %smade\n", map[bool]string{true: "would be ", false: "was "}[dryRun])
	} else if x.Damage != "" {
		fmt.Fprintf(w, "DAMAGED  config: it %sreplaced by its good copy\n", map[bool]string{true: "would be ", false: "was "}[dryRun])
	}
	if x.Aside != "" {
		fmt.Fprintf(w, "MOVED    a folder, a link or something else had the name config: it is now %s, and snap does not need it\n", x.Aside)
	}
	if x.Stored && !x.Made {
		fmt.Fprintf(w, "MISSING  %s: this copy of config %sstored\n", x.Copy, map[bool]string{true: "would be ", false: "was "}[dryRun])
	}
	for _, name := range x.Removed {
		fmt.Fprintf(w, "%s  %s: it is no copy of this repository's config%s\n", map[bool]string{true: "FOREIGN", false: "REMOVED"}[dryRun], name, wouldRemove(dryRun))
	}
	if !x.Changed() {
		fmt.Fprintln(w, "config and its copy are good; nothing to do")
	}
}
