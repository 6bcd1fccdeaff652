package main

import (
	"fmt"
	"io"

	"github.com/snap-backup/snap/repo"
	"github.com/spf13/cobra"
)

func (a *app) statsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "stats",
		Short: "Show what the repository holds and what that costs",
		Args:  args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			r, err := a.openIndexed(cmd, repo.LockRead)
			if err != nil {
				return err
			}
			st, damaged, err := r.Stats(ctx)
			if err != nil {
				return err
			}
			for _, err := range damaged {
				a.warn("%v", err)
			}
			return a.print(st, func(w io.Writer) {
				var rows []string
				for _, d := range st.Devices {
					rows = append(rows, fmt.Sprintf("%s\t%d\t%s\t%s\t%s\t%s", clean(d.Name), d.Snapshots, timeText(d.Last),
						bytesText(d.NewestBytes), bytesText(d.LogicalBytes), bytesText(d.StoredBytes)))
				}
				if len(rows) > 0 {
					table(w, "DEVICE\t>SNAPSHOTS\tNEWEST\t>ITS SIZE\t>ALL SIZES\t>ADDED", rows)
					fmt.Fprintln(w)
				}
				fmt.Fprintf(w, "%s, %s in all, stored in %s", plural(st.Snapshots, "snapshot"), bytesText(st.LogicalBytes), bytesText(st.StoredBytes))
				if st.Snapshots > 0 {
					fmt.Fprintf(w, " (%.1f to 1)", st.Ratio)
				}
				fmt.Fprintf(w, "\n%s content, %s lists of files, %s index, %s other; %s in %s\n", bytesText(st.ContentBytes),
					bytesText(st.MetaBytes), bytesText(st.IndexBytes), bytesText(st.OtherBytes), plural(st.Chunks, "chunk"), plural(st.Packs, "pack"))
			})
		},
	}
}
